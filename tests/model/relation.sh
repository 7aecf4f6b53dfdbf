#!/bin/sh
# The model's transition relation, from exhaustive searches: each step that any run takes,
# once. A line is
#     @ROLE FROM TO ACTIONS FACTS RULE: EVENT...; RULE: EVENT...
# in the numbers of handoff.pml; compare.py reads it. usage: relation.sh FILE
. "$(dirname "$0")/lib.sh"
case $1 in /*) file=$1 ;; *) file=$OLDPWD/$1 ;; esac
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
cp handoff.pml "$dir" && cd "$dir" || exit 2
steps() # OPTIONS: appended to the file "steps"
{
	spin -a -DRELATION -DQUIET -DDURABLE_ACK -DKILL_O $1 handoff.pml >spin.out 2>&1 &&
		gcc -w -DVECTORSZ=2048 -DSAFETY -DCOLLAPSE -DNOREDUCE -DPRINTF -o pan pan.c &&
		./pan -m2000000 >out || { cat spin.out; exit 1; }
	grep -q 'errors: 0' out || { grep error out; exit 1; }
	LC_ALL=C awk '/^ *@/ && !seen[$0]++ { sub(/^ */, ""); print }' out >>steps
}
steps "-DNHAND=1 -DNCRASH=2 -DBREAK -DBADOPEN -DJFAULT -DJLOST -DHANG -DPDEATHSIG -DREEXEC=1"
# what is asked for, in a handoff and where the journal was lost
steps "-DNHAND=1 -DNCRASH=1 -DBREAK -DASK=1"
steps "-DNHAND=0 -DNCRASH=2 -DNWRITE=0 -DJLOST -DASK=1"
LC_ALL=C sort -u steps >"$file"
