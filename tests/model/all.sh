#!/bin/sh
# make model: everything that is proved about the protocol, and the kernel's facts that it
# rests on. "N hold, N violated, N failed": violated are rules broken on purpose and probes;
# failed is whatever did not come out as expected.
# usage: all.sh [run_handoff.sh ...]
cd "$(dirname "$0")" || exit 2
PROVED=$(mktemp) || exit 2
export PROVED
trap 'rm -f "$PROVED"' EXIT
[ $# -gt 0 ] || set -- kernel_facts.py run_handoff.sh run_mutants.sh run_timers.sh probe.sh run_connections.sh
for part; do
	case $part in
	*.py) "${PYTHON:-/usr/bin/python3}" "./$part" && echo holds >>"$PROVED" || echo wrong >>"$PROVED" ;;
	*) sh "./$part" ;;
	esac
done
count() { grep -c "$1" "$PROVED"; }
failed=$(count 'wrong')
echo "$(count '^holds$') hold, $(count '^VIOLATED$') violated, $failed failed"
[ "$failed" -eq 0 ] && [ -s "$PROVED" ]
