#!/bin/sh
# How much of the code the tests execute. Builds with counters, runs make check and the
# end-to-end tests, prints a table; exit status 1 if an aim is missed. A test that fails here is
# said; whether it may is the business of tests/run.sh, whose programs are not slowed down so. Those
# that count descriptors may fail, and those that stop a process: counters are written into files,
# which are open for a moment and locked meanwhile.
# usage: tests/coverage/run.sh BUILD_DIR        takes half an hour
# COVERAGE_FILES=1: figures of each file; COVERAGE_LINES=1: what was not executed.
TOP=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1/coverage" && cd "$1/coverage" || exit 2
failed=0

figures()
{
	/usr/bin/python3 "$TOP/tests/coverage/figures.py" . "$@" || failed=1
}

[ -f Makefile ] || "$TOP/configure" --enable-coverage >configure.log 2>&1 ||
	{ tail -n 5 configure.log; exit 2; }
make -j"$(nproc)" >make.log 2>&1 || { tail -n 20 make.log; exit 2; }
find . -name '*.gcda' -delete
find . -type d -exec chmod a+rwx {} +
make -j"$(nproc)" check >check.log 2>&1 ||
	{ grep -a '^\(FAIL\|ERROR\):' check.log; echo "make check failed: $PWD/check.log"; }
echo "units and simulator:"
figures src/proto 95 95
BUILD_DIR=$PWD /usr/bin/python3 "$TOP/tests/e2e/run.py" -j "$(nproc)" >e2e.log 2>&1 ||
	{ grep -a '^not ok' e2e.log; echo "end-to-end tests failed: $PWD/e2e.log"; }
echo "and end to end:"
figures src/base 85 85 src/lib 85 85 src/handoffd 85 85 src/handoffctl 85 85 src/exporter 85 85
exit $failed
