#!/bin/sh
# Each rule of live connections that is broken on purpose must be noticed, in the run that moves.h
# names (RUNS=400000: look for one anew). They are the rules that connections.pml can break, and
# those of the machines' own.
moves=${MOVES:-./tests/sim/moves}
model=${srcdir:-.}/tests/model/run_connections.sh
own='FIRST_FORGOTTEN
KEPT_SHIFTED
OUT_OF_ORDER'
passed=0 failed=0

said() # RESULT TEXT
{
	if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && printf 'NOT '; fi
	printf '%s\n' "$2"
}

mutants=$("$moves" --list-mutants | cut -d' ' -f1 | LC_ALL=C sort)
theirs=$(grep -o -- '-DM_[A-Z_]*' "$model" | sed 's/-DM_//')
[ "$(printf '%s\n' "$theirs" "$own" | LC_ALL=C sort -u)" = "$mutants" ]
said $? "the rules that $model breaks are broken here, too"
for m in $mutants; do
	found=$("$moves" --mutant "$m" ${RUNS:+--seed 1 --runs "$RUNS"} | sed -n 's/^VIOLATION in run [0-9]*, //p')
	[ -n "$found" ]
	said $? "caught $m: $found"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
