# Whole processes, each system call and each allocation of which fails in turn.
EXTRA_DIST += tests/fault/fault.py
check_LTLIBRARIES += tests/fault/libfaultshim.la
tests_fault_libfaultshim_la_SOURCES = tests/fault/shim.c
# it defines what FORTIFY would redefine, and no sanitizer wants to be loaded by a library
tests_fault_libfaultshim_la_CFLAGS = -std=gnu11 -fvisibility=hidden $(WARN_CFLAGS) \
	-U_FORTIFY_SOURCE
# -rpath: what is only checked is else not shared
tests_fault_libfaultshim_la_LDFLAGS = -module -avoid-version -shared -rpath $(abs_builddir)

# make check-fault: all of them, 10 minutes; FAULT="-s 120", FAULT="upgrade", ... choose
.PHONY: check-fault
check-fault: all tests/fault/libfaultshim.la
	BUILD_DIR=$(abs_builddir) /usr/bin/python3 $(srcdir)/tests/fault/fault.py $(FAULT)
