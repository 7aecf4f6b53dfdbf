#!/bin/sh
# Every target with the golden vectors and with what fuzzing has found: no input may do harm
# twice. Runs in the build directory.
srcdir=${srcdir:-..}
seeds=$(mktemp -d) || exit 1
trap 'rm -rf "$seeds"' EXIT
failed=0
/usr/bin/python3 "$srcdir/tests/fuzz/seeds.py" "$seeds" || exit 1
for dir in "$seeds"/*; do
	target=${dir##*/}
	files=$(find "$dir" "$srcdir/tests/fuzz/corpus/$target" -type f 2>/dev/null | sort)
	if FUZZ_TARGET=$target timeout 300 tests/fuzz/fuzz $files; then
		echo "ok - $target: $(echo "$files" | wc -l) inputs"
	else
		echo "not ok - $target"
		failed=1
	fi
done
exit $failed
