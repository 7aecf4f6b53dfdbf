#!/bin/sh
# run.sh BUILD [NAME OF TEST]...: the tests of this folder below a real systemd, one boot for
# all of them, with what `make install` installs; prints TAP. WS_V=1, WS_CMD and TEST_LIMIT in
# seconds, HANDOFF_TEST_KEEP=1 and STOP_RACES=N are passed on.
set -eu
build=$(cd "$1" && pwd) && shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$dir/none"
code=0
sh "$here/with-systemd.sh" "$dir/none" true 2>"$dir/err" || code=$?
if [ "$code" = 77 ]; then
	echo "ok 1 - systemd # SKIP $(tail -n 1 "$dir/err")"
	exit 0
fi
make -s -C "$build" install DESTDIR="$dir/root" >"$dir/install" 2>&1 || { cat "$dir/install"; exit 1; }
units=$(find "$dir/root" -name 'handoff@.service')
chmod 755 "$dir" # daemons run as other users, too
WS_USR=$dir/root/usr BUILD_DIR=$build TEST_DIR=$here sh "$here/with-systemd.sh" "${units%/*}" \
	/usr/bin/python3 "$here/../e2e/run.py" "$@"
