# The crash matrix, with real processes: `make check-crash` (CRASH_ARGS="--quick", "--slice 1/20",
# "SCENARIO", "CASE", ...), and `make soak-chaos` (SECONDS=3600). Both with times x CRASH_SCALE.
EXTRA_DIST += tests/crash/README.md tests/crash/shim.c tests/crash/place.py tests/crash/cases.py tests/crash/checks.py \
	tests/crash/run.py tests/crash/soak.py tests/crash/test_crash.py
CLEANFILES += tests/crash/shim.so
check_DATA = tests/crash/shim.so

# By hand: libtool would build a library for a --disable-shared too, and sanitizers want to be first.
tests/crash/shim.so: $(top_srcdir)/tests/crash/shim.c $(top_srcdir)/src/proto/msg.def
	@$(MKDIR_P) tests/crash
	$(AM_V_CC)$(CC) -D_GNU_SOURCE -std=gnu11 -I$(top_srcdir)/src $(WARN_CFLAGS) -O1 -fPIC -shared \
		-o $@ $(top_srcdir)/tests/crash/shim.c -ldl

CRASH_NEEDS = handoffd handoffctl examples/kvd/kvd-v1 examples/kvd/kvd-v2 examples/kvload/kvload \
	tests/crash/shim.so
SECONDS = 3600

.PHONY: check-crash soak-chaos
check-crash: $(CRASH_NEEDS)
	BUILD_DIR=. /usr/bin/python3 $(top_srcdir)/tests/crash/run.py $(CRASH_ARGS)
soak-chaos: $(CRASH_NEEDS)
	BUILD_DIR=. /usr/bin/python3 $(top_srcdir)/tests/crash/soak.py --seconds $(SECONDS) $(CRASH_ARGS)
