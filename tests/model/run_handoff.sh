#!/bin/sh
# Exhaustive runs of the final rules (DFS, no partial order reduction, no bitstate).
. "$(dirname "$0")/lib.sh"
D="-O2 -DSAFETY -DCOLLAPSE -DNOREDUCE"; M="-m2000000"
D1="-DDURABLE_ACK -DKILL_O"; H="$D1 -DPDEATHSIG -DHANG"
echo "## safety + convergence in every quiescent state"
verify "1 handoff, 2 crashes"                              handoff.pml "-DNHAND=1 -DNCRASH=2" "$D" "$M" holds
verify "1 handoff, 4 crashes"                              handoff.pml "-DNHAND=1 -DNCRASH=4" "$D" "$M" holds
verify "2 handoffs, 2 crashes"                             handoff.pml "-DNHAND=2 -DNCRASH=2" "$D" "$M" holds
verify "2 handoffs, 2 crashes, S kills O on T_oexit"       handoff.pml "-DNHAND=2 -DNCRASH=2 -DKILL_O" "$D" "$M" holds
verify "2 handoffs, 3 crashes, 3 writes"                   handoff.pml "-DNHAND=2 -DNCRASH=3 -DNWRITE=3" "$D" "$M" holds
verify "3 handoffs, 2 crashes"                             handoff.pml "-DNHAND=3 -DNCRASH=2" "$D" "$M" holds
verify "2 handoffs, 2 crashes, D1, S kills the silent"     handoff.pml "-DNHAND=2 -DNCRASH=2 $D1" "$D" "$M" holds
verify "2 handoffs, 3 crashes, D1, S kills the silent"     handoff.pml "-DNHAND=2 -DNCRASH=3 $D1" "$D" "$M" holds
verify "2 handoffs, 2 crashes or hangs, D1, PDEATHSIG"     handoff.pml "-DNHAND=2 -DNCRASH=2 $H" "$D" "$M" holds
verify "2 handoffs, 3 crashes or hangs, D1, PDEATHSIG"     handoff.pml "-DNHAND=2 -DNCRASH=3 $H" "$D" "$M" holds
verify "2 handoffs, S hangs for good: clients served"      handoff.pml "-DNHAND=2 -DHANG_S -DNOCR_S -DNOCR_D" "$D" "$M" holds
echo "## channels that end, writes that fail"
verify "1 handoff, 3 faults, channels end, writes fail"    handoff.pml "-DNHAND=1 -DNCRASH=3 -DBREAK -DJFAULT $H" "$D" "$M" holds
verify "2 handoffs, 2 faults, channels end"                handoff.pml "-DNHAND=2 -DNCRASH=2 -DBREAK $D1" "$D" "$M" holds
verify "2 handoffs, 2 faults, channels end, EOF first"     handoff.pml "-DNHAND=2 -DNCRASH=2 -DBREAK -DSLOWDEATH $D1" "$D" "$M" holds
verify "2 handoffs, 3 faults, writes fail"                 handoff.pml "-DNHAND=2 -DNCRASH=3 -DJFAULT" "$D" "$M" holds
verify "2 handoffs, 3 faults, the journal may be lost"     handoff.pml "-DNHAND=2 -DNCRASH=3 -DJLOST -DPDEATHSIG $D1" "$D" "$M" holds
verify "S closes O's channel in the warm-up: must commit"  handoff.pml "-DNHAND=2 -DNCRASH=3 -DONLY_O -DBREAK" "$D" "$M" holds
echo "## S goes on as another binary, whenever it is idle"
verify "1 handoff, 3 crashes, twice"                       handoff.pml "-DNHAND=1 -DNCRASH=3 -DREEXEC=2" "$D" "$M" holds
verify "1 handoff, 2 faults of every kind"                 handoff.pml "-DNHAND=1 -DNCRASH=2 -DREEXEC=1 -DBREAK -DJFAULT $H" "$D" "$M" holds
verify "2 handoffs, 2 crashes"                             handoff.pml "-DNHAND=2 -DNCRASH=2 -DREEXEC=1" "$D" "$M" holds
verify "2 handoffs, 1 fault, channels end"                 handoff.pml "-DNHAND=2 -DNCRASH=1 -DREEXEC=1 -DBREAK $D1" "$D" "$M" holds
verify "2 handoffs, 2 crashes in the first, must commit"   handoff.pml "-DNHAND=2 -DNCRASH=2 -DREEXEC=1 -DCLEAN_LAST" "$D" "$M" holds
verify "2 handoffs, only O dies, must commit"              handoff.pml "-DNHAND=2 -DNCRASH=2 -DREEXEC=1 -DONLY_O -DBREAK" "$D" "$M" holds
echo "## a stop or a restart of the daemon, asked for at any moment"
verify "1 handoff, 1 crash"                                handoff.pml "-DNHAND=1 -DNCRASH=1 -DASK=1" "$D" "$M" holds
verify "1 handoff, 1 fault, channels end, D1"              handoff.pml "-DNHAND=1 -DNCRASH=1 -DASK=1 -DBREAK $D1" "$D" "$M" holds
verify "no handoff, the journal may be lost"               handoff.pml "-DNHAND=0 -DNCRASH=2 -DNWRITE=0 -DASK=1 -DJLOST $D1" "$D" "$M" holds
echo "## O dies unsealed: S goes on with N"
verify "1 handoff, only O dies: must commit"               handoff.pml "-DNHAND=1 -DNCRASH=3 -DONLY_O" "$D" "$M" holds
verify "2 handoffs, only O dies: must commit"              handoff.pml "-DNHAND=2 -DNCRASH=3 -DONLY_O" "$D" "$M" holds
verify "the same, EOF before verified death"               handoff.pml "-DNHAND=2 -DNCRASH=3 -DONLY_O -DSLOWDEATH" "$D" "$M" holds
verify "the same, a helper of O keeps the flock"           handoff.pml "-DNHAND=2 -DNCRASH=3 -DONLY_O -DHELPER" "$D" "$M" holds
verify "2 handoffs, 2 crashes, EOF before verified death"  handoff.pml "-DNHAND=2 -DNCRASH=2 -DSLOWDEATH" "$D" "$M" holds
verify "2 handoffs, 2 crashes, helpers keep the flock"     handoff.pml "-DNHAND=2 -DNCRASH=2 -DHELPER" "$D" "$M" holds
verify "2 handoffs, 2 crashes, N may open a stale state"   handoff.pml "-DNHAND=2 -DNCRASH=2 -DBADOPEN" "$D" "$M" holds
verify "1 handoff, 3 faults, channels end, N may be stale" handoff.pml "-DNHAND=1 -DNCRASH=3 -DBADOPEN -DBREAK $D1" "$D" "$M" holds
verify "2 handoffs, 2 crashes, the new binaries are bad"   handoff.pml "-DNHAND=2 -DNCRASH=2 -DBADNEW" "$D" "$M" holds
verify "2 handoffs, 2 crashes, S aborts (the older rule)"  handoff.pml "-DNHAND=2 -DNCRASH=2 -DO_DEAD_ABORTS" "$D" "$M" holds
echo "## no residue: after a faulty handoff the next, fault-free one must commit"
verify "2 handoffs, 3 crashes in the first"                handoff.pml "-DNHAND=2 -DNCRASH=3 -DCLEAN_LAST" "$D" "$M" holds
verify "2 handoffs, 3 crashes/hangs in the first, D1"      handoff.pml "-DNHAND=2 -DNCRASH=3 -DCLEAN_LAST $H" "$D" "$M" holds
echo "## no infinite execution (no cycle at all: NP, pan -l)"
N="-O2 -DNP -DCOLLAPSE -DNOREDUCE"
verify "2 handoffs, 2 crashes"                             handoff.pml "-DNHAND=2 -DNCRASH=2" "$N" "-l $M" holds
verify "2 handoffs, 3 crashes, D1, S kills the silent"     handoff.pml "-DNHAND=2 -DNCRASH=3 $D1" "$N" "-l $M" holds
verify "2 handoffs, 3 crashes or hangs, D1, PDEATHSIG"     handoff.pml "-DNHAND=2 -DNCRASH=3 $H" "$N" "-l $M" holds
verify "2 handoffs, S hangs for good"                      handoff.pml "-DNHAND=2 -DHANG_S -DNOCR_S -DNOCR_D" "$N" "-l $M" holds
verify "1 handoff, 3 faults, channels end, writes fail"    handoff.pml "-DNHAND=1 -DNCRASH=3 -DBREAK -DJFAULT $H" "$N" "-l $M" holds
verify "1 handoff, 2 crashes, the new binary is bad"        handoff.pml "-DNHAND=1 -DNCRASH=2 -DBADNEW" "$N" "-l $M" holds
verify "1 handoff, 2 crashes, helpers keep the flock"       handoff.pml "-DNHAND=1 -DNCRASH=2 -DHELPER" "$N" "-l $M" holds
verify "1 handoff, 1 crash, a stop or a restart"            handoff.pml "-DNHAND=1 -DNCRASH=1 -DASK=1" "$N" "-l $M" holds
