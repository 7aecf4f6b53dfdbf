#!/bin/sh
# Nothing holds because it cannot happen: every outcome is reached.
. "$(dirname "$0")/lib.sh"
reached() # NAME CONDITION: without blanks, and quoted since spin gives it to a shell
{
	verify "reached: $1" handoff.pml "-DNHAND=1 -DNCRASH=2 -DREACH='$2'" "-DSAFETY -DBFS -DNOREDUCE" "" VIOLATED
}
reached "committed, N serves" "jout[1]==O_COMMITTED&&ver[who]==1&&nserv[1]"
reached "aborted, O serves" "jout[1]==O_ABORTED&&who==0"
reached "aborted although N had read Commit (never served)" "jout[1]==O_ABORTED&&ncomm[1]"
reached "rolled back after N served" "jout[1]==O_ROLLEDBACK&&nserv[1]&&who==0"
reached "rolled back, N never served (S crash)" "jout[1]==O_ROLLEDBACK&&!nserv[1]"
reached "committed by cold start of the new binary" "jout[1]==O_COMMITTED&&!nserv[1]"
reached "aborted by cold start of the old binary" "jout[1]==O_ABORTED&&who!=0"
