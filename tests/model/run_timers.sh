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
# the gate and PDEATHSIG back each other up: no N that hangs is unknown to the next S
verify "hang: without PDEATHSIG" handoff.pml "$D1 -DKILL_O -DHANG" "$B" "" holds
verify "hang: without PDEATHSIG and gate" handoff.pml "$D1 -DKILL_O -DHANG -DM_NO_GATE" "$B" "" VIOLATED
# N gives up, or O registers, where S would not
verify "channels end: without T_AWAIT" handoff.pml "$H -DBREAK -DNT_AWAIT" "$B" "" holds
echo "## S hangs for good (no watchdog); clients must still be served"
verify "S hangs: with every timer" handoff.pml "$S" "$B" "" holds
# its own cannot help then: the daemons' have to
for t in WARM DRAIN SEAL READY TAKE; do
	verify "S hangs: without T_$t" handoff.pml "$S -DNT_$t" "$B" "" holds
done
for t in NBEGIN NCOMMIT ODRAINED OSEALED; do
	verify "S hangs: without T_$t" handoff.pml "$S -DNT_$t" "$B" "" VIOLATED
done
