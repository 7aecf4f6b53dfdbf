# Whole processes, each system call and each allocation of which fails in turn: `make check-fault`
# (FAULT="-s 120", "--slice 1/20", "SCENARIO", "CASE", ...).
EXTRA_DIST += tests/fault/fault.py tests/fault/shim.c
CLEANFILES += tests/fault/shim.so
check_DATA += tests/fault/shim.so

# By hand, as that of the crash matrix: it defines what FORTIFY would redefine, and no sanitizer
# wants to be loaded by a library.
tests/fault/shim.so: $(top_srcdir)/tests/fault/shim.c
	@$(MKDIR_P) tests/fault
	$(AM_V_CC)$(CC) -D_GNU_SOURCE -std=gnu11 -fvisibility=hidden $(WARN_CFLAGS) -O2 \
		-U_FORTIFY_SOURCE -fPIC -shared -o $@ $(top_srcdir)/tests/fault/shim.c -ldl

.PHONY: check-fault
check-fault: all tests/fault/shim.so
	BUILD_DIR=. /usr/bin/python3 $(top_srcdir)/tests/fault/fault.py $(FAULT)
