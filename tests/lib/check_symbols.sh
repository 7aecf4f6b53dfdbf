#!/bin/sh
# check_symbols.sh [BUILD]: the names that libhandoff exports are those of its map, of its
# header and of its manual, in the shared and in the static library; the header compiles as
# strict C90 and as C++. One line a check, as the test runner reads them.
set -u
export LC_ALL=C
top=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-.}
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0 checks=0

same() # WHAT FILE: its names are those of the map
{
	checks=$((checks + 1))
	if ! [ -s "$2" ]; then
		echo "not ok - $1: no names found" && failed=1
	elif diff "$dir/map" "$2" >"$dir/diff"; then
		echo "ok - $1"
	else
		echo "not ok - $1: other names than libhandoff.map (< map, > $1)"
		grep '^[<>]' "$dir/diff"
		failed=1
	fi
}

compiles() # WHAT COMMAND...
{
	checks=$((checks + 1))
	what=$1
	shift
	if "$@" >"$dir/out" 2>&1; then
		echo "ok - $what"
	else
		echo "not ok - $what" && cat "$dir/out"
		failed=1
	fi
}

sed -n 's/^\t\(handoff_[a-z_]*\);$/\1/p' "$top/src/lib/libhandoff.map" | sort >"$dir/map"
awk '/\/\*/ { c = 1 } !c { print } /\*\// { c = 0 }' "$top/include/handoff.h" |
	sed -n 's/^[a-z].*[ *]\(handoff_[a-z_]*\)(.*/\1/p' | sort >"$dir/header"
sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/s/^\.F[no] \(handoff_[a-z_]*\).*/\1/p' \
	"$top"/man/*.3 | sort >"$dir/manual"
same "handoff.h" "$dir/header"
same "the manual" "$dir/manual"

# what a sanitizer adds is not ours
names() { awk '$2 ~ /^[A-Z]$/ && $2 !~ /U/ { print $3 }' | grep -v -e '^__[ou]' -e '^HANDOFF_0$' | sort; }
shared=$build/.libs/libhandoff.so static=$build/.libs/libhandoff.a
[ -e "$shared" ] || [ -e "$static" ] || { echo "not ok - no library in $build"; exit 1; }
if [ -e "$shared" ]; then
	nm -D --defined-only "$shared" >"$dir/nm"
	sed -n 's/@@HANDOFF_0$//p' "$dir/nm" | names >"$dir/shared"
	same "libhandoff.so, all with version HANDOFF_0" "$dir/shared"
	sed 's/@.*//' "$dir/nm" | names >"$dir/all"
	same "libhandoff.so" "$dir/all"
fi
if [ -e "$static" ]; then
	nm -g --defined-only "$static" 2>/dev/null | awk 'NF == 3' | names >"$dir/static"
	same "libhandoff.a" "$dir/static"
fi

cd "$dir" || exit 2
printf '#include <handoff.h>\nint f(handoff *h);\nint f(handoff *h) { return handoff_fd(h); }\n' >h.c
cp h.c h.cc
compiles "the header is C90" ${CC:-cc} -std=c90 -pedantic -Wall -Wextra -Werror \
	-I"$top/include" -c h.c
if command -v "${CXX:-c++}" >/dev/null; then
	compiles "the header is C++" ${CXX:-c++} -std=c++98 -Wall -Wextra -Werror -I"$top/include" -c h.cc
	compiles "a C++ program finds its functions" sh -c 'nm h.o | grep -q "U handoff_fd$"'
else
	echo "skipped: the header is C++: no C++ compiler on this machine"
fi
[ $checks -gt 4 ] || failed=1
exit $failed
