#!/bin/sh
# Looks for inputs that do harm: libFuzzer with every target, from the seeds and the kept corpus.
# usage: tests/fuzz/run.sh BUILD_DIR
# FUZZ_SECONDS: so long for all targets together, from another beginning each time; without it
# each makes a fixed number of runs with a fixed seed. FUZZ_TARGETS: only these.
# What is found lies in BUILD_DIR/fuzz/found: once mended, keep it in tests/fuzz/corpus/TARGET.
TOP=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1/fuzz/found" && cd "$1/fuzz" || exit 2
failed=0 ran=0

# so many runs take a second or two each below the sanitizers
runs()
{
	case $1 in
	msg | cbor) echo 60000 ;;
	super | daemon) echo 40000 ;;
	handoffd) echo 150 ;;
	library) echo 1500 ;;
	*) echo 2500 ;;
	esac
}

[ -f Makefile ] || "$TOP/configure" --enable-fuzzing --disable-shared CC="${CLANG:-clang}" \
	CFLAGS=-O1 >configure.log 2>&1 || { tail -n 5 configure.log; exit 1; }
make -j"$(nproc)" tests/fuzz/fuzz >make.log 2>&1 || { tail -n 20 make.log; exit 1; }
rm -rf seeds && /usr/bin/python3 "$TOP/tests/fuzz/seeds.py" seeds || exit 1
targets=${FUZZ_TARGETS:-$(ls seeds)}
seconds=$((${FUZZ_SECONDS:-0} / $(echo $targets | wc -w)))
for target in $targets; do
	if [ "$seconds" -gt 0 ]; then
		set -- "-max_total_time=$seconds"
	else
		set -- -seed=1 "-runs=$(runs "$target")"
	fi
	kept=$TOP/tests/fuzz/corpus/$target
	[ -d "$kept" ] || kept=
	mkdir -p "corpus/$target"
	[ "$seconds" -gt 0 ] || rm -f "corpus/$target/"*
	if FUZZ_TARGET=$target tests/fuzz/fuzz "$@" -close_fd_mask=3 -timeout=60 -rss_limit_mb=4096 \
		-max_len=4096 "-artifact_prefix=found/$target-" \
		"corpus/$target" "seeds/$target" $kept >"$target.log" 2>&1; then
		n=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$target.log")
		echo "ok - $target: ${n:-0} runs"
		ran=$((ran + ${n:-0}))
	else
		grep -a -v '^#\|NEW_FUNC' "$target.log" | tail -n 40
		echo "not ok - $target: found/$target-*"
		failed=1
	fi
done
echo "$ran runs"
exit $failed
