# Counts the results in a step's output. Understood are, at the start of a line:
#   ok N - NAME                a test that passed (TAP)
#   ok N - NAME # SKIP REASON  one that was skipped
#   not ok N - NAME            one that failed
#   Bail out! REASON           all that would have followed (TAP)
#   checks N NAME              N that passed and have no line of their own
# Prints "pass N", "fail NAME" and "skip NAME: REASON".

function name(line)
{
	sub(/^(not )?ok *[0-9]* *(- *)?/, "", line)
	return line
}

/^ok( |$)/ {
	at = match($0, / # [Ss][Kk][Ii][Pp]/)
	if (at == 0) {
		passed++
		next
	}
	reason = substr($0, at + RLENGTH)
	sub(/^[Pp]?[Ee]?[Dd]?:? */, "", reason)
	print "skip " name(substr($0, 1, at - 1)) ": " (reason == "" ? "no reason" : reason)
}
/^Bail out!/ { print "fail " $0 }
/^not ok( |$)/ { print "fail " name($0) }
/^checks [0-9]+( |$)/ { passed += $2 }
END { print "pass " passed + 0 }
