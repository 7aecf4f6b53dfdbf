#!/bin/sh
# The two lines of the model that every test run proves, in seconds.
. "$(dirname "$0")/lib.sh"
PROVED=$(mktemp) || exit 2
trap 'rm -f "$PROVED"' EXIT
D1="-DDURABLE_ACK -DKILL_O -DPDEATHSIG -DHANG"
verify "1 handoff, 2 faults of every kind" handoff.pml "-DNHAND=1 -DNCRASH=2 -DBREAK -DJFAULT $D1" \
	"-DSAFETY -DCOLLAPSE -DNOREDUCE" "-m2000000" holds
verify "Ready believed, O's socket unread" handoff.pml "-DM_READY_FIRST -DM_NO_EPOCH -DBADOPEN" \
	"-DSAFETY -DBFS -DNOREDUCE" "" VIOLATED
! grep -q wrong "$PROVED" && [ "$(wc -l <"$PROVED")" = 2 ]
