#!/bin/sh
# Proves that the simulator can fail: every rule that is broken on purpose must be
# caught within a bounded number of runs, and so must the loss of each rule of the tables.
# usage: tests/sim/mutants.sh [NAME...]     SIM: the program, RUNS: how many at most
sim=${SIM:-./tests/sim/sim}
runs=${RUNS:-20000}
passed=0 failed=0

if [ ! -x "$sim" ]; then
	echo "$sim is not there: run make check, or set SIM" >&2
	exit 2
fi
rules=
[ $# -gt 0 ] || rules=yes
[ $# -gt 0 ] || set -- $("$sim" --list-mutants | cut -d' ' -f1)
if [ $# -eq 0 ]; then
	echo "$sim lists no mutants" >&2
	exit 1
fi
for mutant; do
	said=$("$sim" --mutant "$mutant" --runs "$runs")
	status=$?
	found=$(printf '%s\n' "$said" | sed -n 's/^VIOLATION in run [0-9]*, seed \([0-9]*\): /\1 /p')
	if [ "$status" -eq 1 ] && [ -n "$found" ]; then
		passed=$((passed + 1))
		printf 'caught      %-30s seed %6s: %s\n' "$mutant" "${found%% *}" "${found#* }"
	else
		failed=$((failed + 1))
		printf 'NOT CAUGHT  %-30s (exit %d) %s\n' "$mutant" "$status" "$said"
	fi
done
# and the law itself is not broken: the same runs without a mutant
if "$sim" --runs "$runs" >/dev/null; then
	passed=$((passed + 1))
else
	failed=$((failed + 1))
	echo "VIOLATED    without any mutant: run $sim --runs $runs"
fi
if [ "$rules" ]; then
	if "$sim" --each-rule; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
