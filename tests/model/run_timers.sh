#!/bin/sh
# Which timers does convergence need? Each is removed in turn; VIOLATED = stuck without it.
. "$(dirname "$0")/lib.sh"
B="-DSAFETY -DBFS -DNOREDUCE"
D1="-DDURABLE_ACK -DNHAND=1 -DNCRASH=2"
H="$D1 -DKILL_O -DPDEATHSIG -DHANG"
S="-DHANG_S -DNOCR_S -DNOCR_D"
echo "## a daemon may hang (and S is restarted after its crashes)"
verify "hang: with every timer" handoff.pml "$H" "$B" "" holds
for t in WARM DRAIN SEAL READY TAKE RESUME REG; do
	verify "hang: without T_$t" handoff.pml "$H -DNT_$t" "$B" "" VIOLATED
done
# the daemons' own are for a supervisor that hangs
for t in NBEGIN NCOMMIT ODRAINED OSEALED; do
	verify "hang: without T_$t" handoff.pml "$H -DNT_$t" "$B" "" holds
done
verify "hang: without T_OEXIT" handoff.pml "$D1 -DPDEATHSIG -DHANG" "$B" "" VIOLATED
verify "hang: without PDEATHSIG" handoff.pml "$D1 -DKILL_O -DHANG" "$B" "" VIOLATED
verify "channels end: without T_AWAIT" handoff.pml "$H -DBREAK -DNT_AWAIT" "$B" "" VIOLATED
echo "## S hangs for good (no watchdog); clients must still be served"
verify "S hangs: with every timer" handoff.pml "$S" "$B" "" holds
for t in WARM DRAIN SEAL READY TAKE NBEGIN NCOMMIT ODRAINED OSEALED; do
	verify "S hangs: without T_$t" handoff.pml "$S -DNT_$t" "$B" "" VIOLATED
done
