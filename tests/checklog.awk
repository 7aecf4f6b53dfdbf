# Turns the log of one program of `make check` into lines for count.awk.
# Variables: program, its name; result, automake's word for it (PASS, FAIL, SKIP, ...).
# A program of the Check framework counts as its tests, one that prints TAP too, any
# other as one test.

/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
	gsub(/[,:]/, " ")
	print "checks " $3 - $5 - $7 " " program
	bad += $5 + $7
	known = 1
}
/^[^ :]+:[0-9]+:[FE]:/ {
	print "not ok - " program ": " $0
	named++
}
/^(not )?ok( |$)/ {
	tap_failed += /^not/
	known = 1
	if (!sub(/ - /, " - " program ": "))
		$0 = $0 " - " program
	print
}
NF { last = $0 }
END {
	for (i = named; i < bad; i++)
		print "not ok - " program ": a test that it does not name"
	if (result == "SKIP")
		print "ok - " program " # SKIP " last
	else if (result != "PASS" && result != "XFAIL" && !bad && !named && !tap_failed)
		print "not ok - " program " (" result ")"
	else if (!known && !named)
		print "ok - " program
}
