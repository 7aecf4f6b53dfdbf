#!/bin/sh
# handover CONF OLD NEW [SMOKE TEST...]: on a machine of the CI, before a release: does NEW take
# over from OLD, which is what runs out there, and does OLD take its data back? Both ways count:
# a release that cannot be rolled back is found out here, and not at night.
#
#   handover kvd.conf released/kvd build/kvd redis-cli -p 7380 ping
#
# CONF is a handoff.conf(5) whose command is "${BINARY}", with its data below "${DIR}/data".
# Exit status: 0 all went well; else that of the step that did not, with the log before it.
set -eu
[ $# -ge 3 ] || { echo "usage: handover CONF OLD NEW [SMOKE TEST...]" >&2; exit 2; }
conf=$1 old=$2 new=$(realpath "$3")
shift 3
BINARY=$(realpath "$old")
DIR=$(mktemp -d)
export BINARY DIR HANDOFF_RUNTIME_DIR="$DIR/run" HANDOFF_STATE_DIR="$DIR/state"
mkdir -m 700 "$DIR/data" "$DIR/run" "$DIR/state"
name=$(sed -n 's/^service \([^ ]*\) {.*/\1/p' "$conf")
supervisor=

end()
{
	code=$?
	set +e   # all of this, whatever has gone by then
	[ -z "$supervisor" ] || { kill "$supervisor" 2>/dev/null; wait "$supervisor" || true; }
	[ "$code" = 0 ] || cat "$DIR/log" >&2
	rm -rf "$DIR"
	exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

wait_idle() # a minute at most; if handoffd ends so does this, with its log
{
	n=0
	until handoffctl --json status "$name" 2>/dev/null | grep -q '"state": *"idle"'; do
		kill -0 "$supervisor" && [ $((n += 1)) -lt 600 ] || { echo "handover: $BINARY does not serve" >&2; exit 1; }
		sleep 0.1
	done
}

step()
{
	echo "handover: $*" >&2
	"$@" >&2
}

handoffd -c "$conf" --check
handoffd -c "$conf" >"$DIR/log" 2>&1 &
supervisor=$!
wait_idle
[ $# = 0 ] || step "$@"
step handoffctl plan "$name" --binary "$new"
step handoffctl upgrade "$name" --binary "$new"
[ $# = 0 ] || step "$@"
step handoffctl rollback "$name"
[ $# = 0 ] || step "$@"
step handoffctl upgrade "$name" --binary "$new"
[ $# = 0 ] || step "$@"
echo "handover: $new takes over from $old, and gives it back" >&2
