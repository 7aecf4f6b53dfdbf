#!/bin/sh
# Runs every test on a fresh Debian 12: installs what is missing (as root; else it says
# what), builds, tests. Details are in files below $BUILD_DIR/test-logs (BUILD_DIR: build/).
# The last line is "N passed, N failed, N skipped"; exit status 0 only if nothing failed.
#
# A new step is one line further down:   step NAME COMMAND [ARGUMENT]...
# Its results are the lines that count.awk knows; without any, the step is one test itself.
# Steps that leave a core idle go side by side:   begin NAME COMMAND..., and later end NAME
set -u
export LC_ALL=C
case ${1-} in
-h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
esac
[ $# = 0 ] || { echo "usage: sh tests/run.sh (no arguments; --help says what it does)" >&2; exit 2; }
cd "$(dirname "$0")/.." || exit 2
TOP=$PWD
BUILD=${BUILD_DIR:-$TOP/build}
mkdir -p "$BUILD/test-logs" || exit 2
BUILD=$(cd "$BUILD" && pwd)
unset BUILD_DIR # each step is told its own
LOGS=$BUILD/test-logs
JOBS=$(nproc)
export CK_FORK=yes PYTHONDONTWRITEBYTECODE=1

PACKAGES="autoconf automake libtool pkg-config gcc make libc6-dev libevent-dev libcbor-dev
	uuid-dev libconfuse-dev libmd-dev libjansson-dev libhttp-parser-dev check python3 python3-redis
	python3-cbor2 redis-tools mandoc valgrind util-linux xz-utils systemd
	dbus spin prometheus fish clang libclang-rt-14-dev"

# Reasons for which a test may be skipped; every other skip is a failure.
allowed_skip()
{
	case $1 in
	*": no IPv6 on this machine") ;;
	*": no cgroup can be made here: "*) ;;
	"systemd: systemd: "*" by root only" | "systemd: systemd: no namespaces may be made here") ;;
	"systemd: systemd: "*"cgroup v2"*) ;;
	*": no memory controller of cgroup v1 here") ;;
	*": needs root, to be another user") ;;
	*": no network namespace can be made here") ;;
	*": needs root and mount namespaces"*) ;;
	*": needs root with CAP_SYS_PTRACE") ;;
	*": this kernel has no MSG_OOB for unix sockets") ;;
	*": no fish here") ;;
	*) return 1 ;;
	esac
}

# A package's service (prometheus has one) is not started by its installation: policy-rc.d, as
# invoke-rc.d(8) and deb-systemd-invoke(1) ask it.
install_quietly() # PACKAGE...
{
	policy=/usr/sbin/policy-rc.d
	if [ -e $policy ]; then policy=; else
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
	fi
	apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
	code=$?
	[ -z "$policy" ] || rm -f "$policy"
	return $code
}

packages()
{
	command -v dpkg-query >/dev/null || return 0 # not Debian: configure will say what it lacks
	missing=
	for p in $PACKAGES; do
		case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null) in
		*"ok installed") ;;
		*) missing="$missing $p" ;;
		esac
	done
	[ -z "$missing" ] && return 0
	if [ "$(id -u)" != 0 ]; then
		echo "run.sh: packages are missing. As root:"
		echo "    apt-get install --no-install-recommends$missing"
		exit 2
	fi
	echo "installing$missing"
	install_quietly $missing >"$LOGS/packages.log" 2>&1 </dev/null && return 0
	tail -n 20 "$LOGS/packages.log"
	echo "run.sh: the packages could not be installed:$missing"
	exit 2
}

# --- what the steps do ---

autogen()
{
	[ -f configure ] && [ -f Makefile.in ] &&
		[ -z "$(find configure.ac Makefile.am src examples tests man \
			\( -name 'local.mk' -o -name 'Makefile.am' -o -name configure.ac \) \
			-newer Makefile.in)" ] || ./autogen.sh
}

build() # DIRECTORY [OPTION OF CONFIGURE]...
{
	mkdir -p "$1" && cd "$1" && shift || return
	[ -f Makefile ] || "$TOP/configure" --enable-werror "$@" || return
	make -j"$JOBS"
}

# Each program of `make check` with the tests in it.
check() # DIRECTORY
{
	cd "$1" && find . -name '*.trs' -delete || return
	code=0
	make -j"$JOBS" check VERBOSE=1 || code=$?
	find . -name '*.trs' | sort | while read -r trs; do
		awk -v program="$(basename "$trs" .trs)" \
			-v result="$(sed -n 's/^:global-test-result: *//p' "$trs")" \
			-f "$TOP/tests/checklog.awk" "${trs%.trs}.log"
	done
	return $code
}

LIBRARY_TESTS="tests/lib/test_stress tests/lib/test_limits tests/lib/test_moves tests/unit/test_lib"

# The library's thread and its neighbours.
threads() # DIRECTORY
{
	mkdir -p "$1" && cd "$1" || return
	[ -f Makefile ] || "$TOP/configure" --enable-werror --enable-sanitizers=thread || return
	make -j"$JOBS" tests/lib/puppet $LIBRARY_TESTS && library_tests
}

# A shared daemon would be libtool's script; valgrind is told of the library by a static one.
memory() # DIRECTORY
{
	(build "$1" --disable-shared) && cd "$1" &&
		make -j"$JOBS" tests/lib/puppet $LIBRARY_TESTS || return
	printf '#!/bin/sh\nexec valgrind -q --vgdb=no --error-exitcode=9 --leak-check=full %s "$@"\n' \
		"$PWD/tests/lib/puppet" >puppet.valgrind && chmod +x puppet.valgrind || return
	PUPPET=$PWD/puppet.valgrind library_tests
}

library_tests()
{
	code=0
	for t in $LIBRARY_TESTS; do
		"./$t" >"$t.out" 2>&1 || code=1
		cat "$t.out"
		sed -n "s|^100%: Checks: \([0-9]*\),.*|checks \1 $t|p" "$t.out"
	done
	return $code
}

e2e() # DIRECTORY [NAME OF TEST]...
{
	dir=$1
	shift
	BUILD_DIR=$dir /usr/bin/python3 tests/e2e/run.py -j "$JOBS" "$@"
}

# Not the tools of the tests, nor the quickstart, which builds for itself, nor messages, whose shim is in
# nobody's allocations but libc's, nor security, which bounds memory, nor, for their time,
# deploy, endings, kept, metrics, the rest of exporter and moving, and resources.
SANITIZED="test_exporter.Web test_exporter.Traces test_bad_binaries test_bad_config test_bad_frames test_bad_peers test_bad_state
	test_ctl_fake test_exit_codes test_fdstore test_httpd test_kvd_alone test_leftovers test_mend test_minimal test_reexec
	test_redis_clients test_rules test_lying_daemon test_daemon_user
	test_supervisor_dies test_moving.InTheMiddle test_moving.SomebodyFails test_upgrade test_history test_explain test_disruption test_watch test_log
	test_pin test_plan test_sdnotify test_json test_asked test_hung"

# compare.py finds a table whose guards are others.
guard_mutants() # DIRECTORY
{
	for mutant in guard-untouched guard-away guard-served; do
		"$1/tests/sim/sim" --mutant $mutant --rows >"$1/mutant.rows" &&
			/usr/bin/python3 tests/model/compare.py "$1/model.relation" "$1/mutant.rows" |
			grep ', known: ' || return 1
	done
}

# The model: two lines of it, its steps beside the rows of the tables, traces of the simulator.
model() # DIRECTORY
{
	dir=$1
	sh tests/model/quick.sh &&
		sh tests/model/relation.sh "$dir/model.relation" &&
		"$dir/tests/sim/sim" --rows >"$dir/model.rows" &&
		/usr/bin/python3 tests/model/compare.py "$dir/model.relation" "$dir/model.rows" &&
		guard_mutants "$dir" &&
		"$dir/tests/sim/sim" --trace --runs 10000 >"$dir/model.trace" &&
		/usr/bin/python3 tests/model/replay.py "$dir/model.relation" "$dir/model.trace" &&
		rm "$dir/model.trace"
}

# The crash matrix: first its own checks, which must find what is wrong; then a choice of cases.
crash() # DIRECTORY
{
	code=0
	TEST_DIR=tests/crash e2e "$1" test_crash || code=1
	BUILD_DIR=$1 /usr/bin/python3 tests/crash/run.py --quick --seed 1 --jobs $((JOBS * 2)) || code=1
	return $code
}

# Whole processes, calls of which fail: first that what is wrong is found; then all looks at a daemon
# that no journal names, none of which may make a stranger of it, and each accept(2) while one comes
# back in a handoff, none of which may end it; then a choice of cases, the same each time, as far as
# there is time for them.
faults() # DIRECTORY
{
	code=0
	BUILD_DIR=$1 /usr/bin/python3 tests/fault/fault.py --sabotage || code=1
	BUILD_DIR=$1 /usr/bin/python3 tests/fault/fault.py lost:S:open lost:S:read lost:S:getsockopt \
		middle:S:accept4 || code=1
	BUILD_DIR=$1 /usr/bin/python3 tests/fault/fault.py -n 300 -s 60 --seed 1 || code=1
	return $code
}

soak_chaos() # DIRECTORY
{
	BUILD_DIR=$1 /usr/bin/python3 tests/crash/soak.py --seconds 60 --seed 1
}

# As root would, nobody notices a write into the source tree: so not as root.
distcheck()
{
	dir=$(mktemp -d) || return
	trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
	{ git -c safe.directory='*' ls-files -z 2>/dev/null ||
		find . -path ./.git -prune -o -path './build*' -prune -o -type f -print0; } |
		tar -c --null -T - | tar -x -C "$dir" --no-same-owner
	set -- sh -ec 'cd "$1" && ./autogen.sh && mkdir out && cd out && ../configure &&
		make -j"$2" distcheck DISTCHECK_CONFIGURE_FLAGS=--enable-werror' - "$dir" "$JOBS"
	if [ "$(id -u)" = 0 ]; then
		chown -R nobody "$dir"
		set -- setpriv --reuid="$(id -u nobody)" --regid="$(id -g nobody)" --clear-groups \
			env HOME="$dir" TMPDIR="$dir" "$@"
	fi
	"$@"
}

# --- steps and their results ---

PASSED=0 FAILED=0 SKIPPED=0
FAILURES= SKIPS=
NL='
'

failure() # NAME LOG
{
	FAILED=$((FAILED + 1))
	FAILURES="$FAILURES    $1  ($2)$NL"
}

skip() # "NAME: REASON" LOG
{
	if allowed_skip "$1"; then
		SKIPPED=$((SKIPPED + 1))
		SKIPS="$SKIPS    $1$NL"
	else
		failure "skipped, and that reason is not allowed: $1" "$2"
	fi
}

# Counts what the log says; a command that failed without saying what is one failure.
count() # NAME LOG CODE
{
	before=$FAILED:$PASSED:$SKIPPED
	while read -r word rest; do
		case $word in
		pass) PASSED=$((PASSED + rest)) ;;
		fail) failure "$1: $rest" "$2" ;;
		skip) skip "$1: $rest" "$2" ;;
		esac
	done <<-END
	$(awk -f "$TOP/tests/count.awk" "$2")
	END
	if [ "$3" != 0 ] && [ "$FAILED" = "${before%%:*}" ]; then
		failure "$1 (exit status $3)" "$2"
	elif [ "$before" = "$FAILED:$PASSED:$SKIPPED" ]; then
		PASSED=$((PASSED + 1))
	fi
}

step() # NAME COMMAND [ARGUMENT]...
{
	begin "$@"
	end "$1"
}

begin() # NAME COMMAND [ARGUMENT]...
{
	name=$1
	shift
	rm -f "$LOGS/$name.end"
	(
		began=$(date +%s)
		("$@") >"$LOGS/$name.log" 2>&1 </dev/null
		echo $? $(($(date +%s) - began)) >"$LOGS/$name.end"
	) &
}

end() # NAME; waits for all that has begun
{
	printf '%-16s ' "$1"
	wait
	log=$LOGS/$1.log
	passed=$PASSED failed=$FAILED code=1 took=0
	read -r code took <"$LOGS/$1.end"
	count "$1" "$log" "$code"
	printf '%4d s  %d passed' "$took" $((PASSED - passed))
	if [ "$FAILED" = "$failed" ]; then
		echo
		return 0
	fi
	printf ', %d FAILED; the end of %s:\n' $((FAILED - failed)) "$log"
	tail -n 100 "$log" | sed 's/^/    | /'
	return 1
}

finish()
{
	[ -z "$SKIPS" ] || printf 'skipped:\n%s' "$SKIPS"
	[ -z "$FAILURES" ] || printf 'failed:\n%s' "$FAILURES"
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
	[ "$FAILED" = 0 ]
	exit
}

trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT
trap 'kill $(jobs -p) 2>/dev/null; exit 143' TERM
packages
step autogen autogen || finish
step build build "$BUILD" || finish
step check check "$BUILD"
step model model "$BUILD"
step install sh tests/install.sh "$BUILD"
begin memory memory "$BUILD/static"
begin threads threads "$BUILD/tsan"
end memory
end threads
step fuzz sh tests/fuzz/run.sh "$BUILD"
step e2e e2e "$BUILD"
step systemd sh tests/systemd/run.sh "$BUILD"
begin crash crash "$BUILD"
begin soak-chaos soak_chaos "$BUILD"
end crash
end soak-chaos
step fault faults "$BUILD"
step asan-build build "$BUILD/asan" --enable-sanitizers=address,undefined &&
	step asan-check check "$BUILD/asan" &&
	step asan-e2e e2e "$BUILD/asan" $SANITIZED
step distcheck distcheck
finish
