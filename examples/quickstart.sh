#!/bin/sh
# See it work: replaces the binary of a key-value store under load again and again, refuses a
# bad one, and kills the supervisor at every moment of a handoff. Half a minute after the
# build. Everything lives in one temporary directory; Ctrl-C at any moment leaves nothing.
#
#   sh examples/quickstart.sh          BUILD_DIR: where it is built (build/)
set -u
export LC_ALL=C
case ${1-} in
-h | --help) exec sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
esac
[ $# = 0 ] || { echo "usage: sh examples/quickstart.sh (no arguments; --help says what it does)" >&2; exit 2; }
cd "$(dirname "$0")/.." || exit 1
. examples/quickstart.lib

UPGRADES=${QUICKSTART_UPGRADES:-6}   # plain ones, to version 2 and back
HELD=400                             # ms for which a phase is held open, to be hit for sure

# --- the story ---

begin()
{
	say "A store, its supervisor, and load"
	choose_port
	install 1
	start_supervisor || fail_hard "handoffd did not come up"
	tell "kvd 1.0, a store with a write-ahead log, serves on 127.0.0.1:$port. It runs below" \
		"handoffd, which owns the listening socket. On it are from here on:" \
		"  kvload           1000 requests a second over 50 connections that stay, and 100" \
		"                   fresh connections a second; it remembers every acknowledged" \
		"                   write and checks every read" \
		"  redis-benchmark  as fast as what is left of the machine allows"
	start_load
	wait_replies 2000
}

upgrades()
{
	say "Upgrades, to version 2 and back"
	tell "The new kvd first reads the data while the old one serves (warm). Then the old one" \
		"finishes what it has read (drain) and gives up the data (seal); the new one checks" \
		"what it opened (ready) and serves (take). Clients wait in the socket's queue, which" \
		"never closes: the pause."
	n=0
	while [ "$n" -lt "$UPGRADES" ]; do
		n=$((n + 1))
		install $((n % 2 + 1))
		handoffctl_upgrade
		expect 0 "the upgrade to $version.0" && note_pause
		check_clients
		wait_replies 1500
	done
}

bad_binary()
{
	say "A binary that never gets ready"
	tell "Somebody deploys a program that starts and then does nothing. Nobody waits for it:" \
		"it never gets as far as asking the old one to stop. After start-timeout (3 s here)" \
		"it is ended, and the upgrade has failed; that is all."
	printf '#!/bin/sh\nexec sleep 1000\n' >"$dir/never-ready"
	chmod +x "$dir/never-ready"
	handoffctl_upgrade --binary "$dir/never-ready"
	expect 1 "the upgrade to a bad binary"
	check_clients
	tell "And one that reads the data wrongly: it is found out before it serves anybody, and" \
		"the old one takes its data back."
	install 2 --fault ready:badfp
	handoffctl_upgrade
	expect 1 "the upgrade to a binary that reads wrongly"
	check_clients
}

kills()
{
	say "kill -9 for the supervisor"
	tell "The daemon needs no supervisor to serve. One that is started again adopts it, and" \
		"finishes the handoff that was under way, or takes it back: never two that write," \
		"never nobody. To hit each phase for sure, a fault in kvd holds it open for $HELD ms;" \
		"in drain and seal, clients and adoption wait for that, in exit the adoption does." \
		"Adoption: from the start of handoffd until it knows and watches the daemon again."
	printf '    %-8s %7s %6s %10s %10s   %s\n' \
		"killed" failed lost "stall" "adoption" "that handoff"
	kill_idle
	kill_in warm new warmup
	kill_in ready new begin
	kill_in take new take
	kill_in drain old drain
	kill_in seal old seal
	kill_in exit old exit
	prepare # the next incumbent has no fault
	tell "And after all that, an ordinary upgrade:"
	install 1
	handoffctl_upgrade
	expect 0 "the upgrade after the kills" && note_pause
	check_clients
}

kill_idle()
{
	mark_clients
	kill_supervisor
	wait_replies 1500 # nobody supervises now, and nobody notices
	adopt
	killed_row idle "none was under way"
}

# kill_in PHASE WHO POINT: kills the supervisor in this phase of a handoff, which the new or
# the old daemon holds open at a point of its own.
kill_in()
{
	hold="--fault $3:delay=$HELD"
	if [ "$2" = old ]; then
		prepare $hold
		hold=
	fi
	install 2 $hold
	mark_clients
	hit=
	held=$(times_held "$3")
	handoffctl --json upgrade kvd >"$dir/events" 2>&1 &
	ctl=$!
	while read -r line; do
		case $hit$line in
		'{"event": "phase", "phase": "'"$1"'"'*)
			hit=yes:
			await_held "$3" "$held"
			kill_supervisor
			adopt
			;;
		*'"event": "result"'*) outcome=$(field outcome "$line") ;;
		esac
	done <"$dir/events"
	wait "$ctl"
	[ -n "$hit" ] || problem "the phase $1 was never seen"
	wait_replies 500
	killed_row "$1" "$outcome, $(serving) serves"
}

# prepare [ARGUMENT]...: the next incumbent, with its fault. Its pause is not counted: the
# one that leaves may hold a phase open.
prepare()
{
	install 1 "$@"
	if handoffctl upgrade kvd >"$dir/out" 2>&1; then
		upgrades=$((upgrades + 1))
	else
		cat "$dir/out"
		problem "an upgrade did not commit"
	fi
	wait_replies 500
}

the_end()
{
	say "What is on the disk?"
	stop_load
	stop_supervisor
	tell "All is stopped. kvd is started again, and every key that was acknowledged is read" \
		"back:"
	install 2
	start_supervisor || fail_hard "handoffd did not come up"
	"$LOAD" verify --state "$dir/load.state" --target "127.0.0.1:$port" >"$dir/out" 2>&1 ||
		problem "kvload verify found something"
	sed 's/^/    /' "$dir/out"
	stop_supervisor
	[ -z "$(ours)" ] || problem "processes are left: $(ours)"
	table
}

table()
{
	say "In short"
	row "upgrades" "$upgrades committed, $aborted taken back, as they should be"
	row "requests" "$(field requests "$result") by kvload"
	row "failed requests" "$(field failed "$result")"
	row "acknowledged writes lost" "$(field lost_writes "$result")" \
		"of $(field acked_writes "$result")"
	row "connections lost" "$(connections_lost)" "of 50 that stay, over all of it"
	row "wrong values read" "$(field wrong_values "$result")"
	row "pause of a handoff" "median $(pause_median), longest $(pause_max)"
	row "longest stall" "$(ms "$stall_upgrades") in an ordinary upgrade," \
		"$(ms "$stall_kills") in a kill (up to $HELD ms of it ours)"
	row "adoption" "longest $adoption_max ms"
	row "redis-benchmark" "$(bench_runs) runs to the end, $(bench_cut) cut short," \
		"$(bench_errors) refused or wrong"
	[ "$problems" = 0 ] && echo "Nothing failed." && return
	echo "$problems PROBLEMS: see above."
}

prepare_machine
begin
upgrades
bad_binary
kills
the_end
[ "$problems" = 0 ]
