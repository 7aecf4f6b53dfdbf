# lib.sh: verify NAME MODEL "spin options" "gcc options" "pan options" EXPECTED
# One line a run. It "holds" only if pan says errors: 0 and has completed the search; it
# is VIOLATED if pan left a trail; anything else is FAILED. TRACE=1: counterexamples too.
# A result that is not the EXPECTED one ends the line with "***", and counts as failed.
cd "$(dirname "$0")" || exit 2
PROVED=${PROVED:-/dev/null} # each result is a line there
verify()
{
	dir=$(mktemp -d) || exit 2
	cp "$2" "$dir" && (
		cd "$dir" || exit
		result=FAILED
		if spin $3 -a "$2" >spin.out 2>&1 &&
			gcc -w -DVECTORSZ=2048 $4 -o pan pan.c >gcc.out 2>&1; then
			./pan $5 >out 2>&1
			if ls ./*.trail >/dev/null 2>&1; then result=VIOLATED
			elif grep -q 'errors: 0' out &&
				! grep -qE 'Search not completed|max search depth|out of memory' out; then
				result=holds
			fi
		fi
		states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' out)
		depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' out)
		seconds=$(sed -n 's/.*elapsed time \([0-9.e+-]*\) .*/\1/p' out)
		wrong=
		[ "$result" = "$6" ] || wrong=' ***'
		printf '%-8s %-62s %9s states  depth %5s %7s s%s\n' "$result" "$1" "$states" "$depth" \
			"$seconds" "$wrong"
		echo "$result${wrong:+ wrong}" >>"$PROVED"
		if [ "$result" = VIOLATED ]; then
			grep -m1 -oE '(assertion violated|non-progress cycle|invalid end state).*' out |
				sed 's/^/         /'
			[ -z "$TRACE" ] || ./pan -r -n 2>/dev/null | sed -nE \
				'/^ *([SNOD][0-9]?|[01]|---|\*\*\*|<<<)[: ]|START OF CYCLE/{s/^ */           /;p}'
		elif [ "$result" = FAILED ]; then
			tail -5 spin.out gcc.out out 2>/dev/null
		fi
	)
	rm -rf "$dir"
}
