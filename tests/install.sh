#!/bin/sh
# install.sh BUILD: make install into a directory of its own; a daemon is then built from
# what is there alone, as its author would: shared and static, by handoff.pc.
set -eu
build=$1 top=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
check() # NAME COMMAND...
{
	name=$1
	shift
	if "$@" >"$dir/out" 2>&1; then echo "ok - $name"; else
		failed=1
		echo "not ok - $name"
		sed 's/^/# /' "$dir/out"
	fi
}
runs() # PROGRAM: alone, without a listener it ends with 1 after it has taken its lock
{
	mkdir -p "$dir/data"
	code=0
	"$1" "$dir/data" || code=$?
	[ "$code" = 1 ] && [ -f "$dir/data/.handoff.lock" ] && rm "$dir/data/.handoff.lock"
}
is_static() { ! ldd "$1" | grep -q libhandoff; }
found_by_man() # FUNCTION: its page, or one that sends man(1) there
{
	page=$(sed -n 's/^\.so //p' "$root/share/man/man3/$1.3") &&
		grep -qw "^\.Nm $1" "$root/share/man/${page:-man3/$1.3}"
}

check "make install" make -C "$build" install DESTDIR="$dir"
root=$(find "$dir" -name handoff.pc)
root=${root%/lib/*}
export PKG_CONFIG_PATH="$root/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir" LD_LIBRARY_PATH="$root/lib"
for f in bin/handoffctl sbin/handoffd sbin/handoff-exporter include/handoff.h lib/libhandoff.so lib/libhandoff.a \
	share/man/man1/handoffctl.1 share/man/man3/libhandoff.3 share/man/man5/handoff.conf.5 \
	share/man/man7/handoff.7 share/man/man7/handoff-protocol.7 share/man/man7/handoff-messages.7 share/man/man8/handoffd.8 share/man/man8/handoff-exporter.8 \
	lib/systemd/system/handoff@.service lib/systemd/system/handoff-guard@.service \
	lib/systemd/system/handoff-exporter.service \
	share/bash-completion/completions/handoffctl share/fish/vendor_completions.d/handoffctl.fish; do
	check "installed: $f" test -e "$root/$f"
done
for f in $(sed -n 's/^\t\(handoff_[a-z_]*\);$/\1/p' "$top/src/lib/libhandoff.map"); do
	check "man $f" found_by_man "$f"
done
sanitizers=$(sed -n 's/^SAN_CFLAGS = *//p' "$build/Makefile")
check "a daemon, shared" cc -Wall -Werror $sanitizers "$top/examples/minimal.c" -o "$dir/shared" \
	$(pkg-config --cflags --libs handoff)
check "it runs" runs "$dir/shared"
check "a daemon, static" cc -Wall -Werror $sanitizers "$top/examples/minimal.c" -o "$dir/static" \
	$(pkg-config --cflags handoff) "$root/lib/libhandoff.a" -lcbor -pthread
check "it needs no libhandoff.so" is_static "$dir/static"
check "it runs, too" runs "$dir/static"
check "bash takes the completions" bash -uec '. "$1" && complete -p handoffctl' - \
	"$root/share/bash-completion/completions/handoffctl"
check "handoffctl --version" "$root/bin/handoffctl" --version
check "handoffd --version" "$root/sbin/handoffd" --version
check "handoff-exporter --version" "$root/sbin/handoff-exporter" --version
check "make uninstall" make -C "$build" uninstall DESTDIR="$dir"
check "nothing is left" test -z "$(find "$dir" -type f -path "$root/*")"
exit $failed
