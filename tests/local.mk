# The tests of `make check`. Each area has its section; what needs root, namespaces or
# minutes is run by tests/run.sh.
check_LTLIBRARIES =

# ---- the wire: codec, golden vectors, and that table, CDDL and manual agree
EXTRA_DIST += tests/wire/vectors.txt tests/wire/msgdef.py \
	tests/wire/check_vectors.py tests/wire/check_wire.py
TESTS += tests/wire/check_vectors.py tests/wire/check_wire.py
if HAVE_CHECK
check_LTLIBRARIES += tests/wire/libmsgtools.la
tests_wire_libmsgtools_la_SOURCES = tests/wire/msgtools.c tests/wire/msgtools.h

WIRE_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/tests/wire
WIRE_LIBS = tests/wire/libmsgtools.la libproto.la $(CBOR_LIBS) $(CHECK_LIBS)
WIRE_TESTS = tests/wire/test_vectors tests/unit/test_frame tests/unit/test_scbor \
	tests/unit/test_msg tests/unit/test_timers
check_PROGRAMS += $(WIRE_TESTS)
TESTS += $(WIRE_TESTS)
tests_wire_test_vectors_CFLAGS = $(WIRE_CFLAGS)
tests_wire_test_vectors_LDADD = $(WIRE_LIBS)
tests_unit_test_frame_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_frame_LDADD = $(WIRE_LIBS)
tests_unit_test_scbor_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_scbor_LDADD = $(WIRE_LIBS)
tests_unit_test_msg_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_msg_LDADD = $(WIRE_LIBS)
tests_unit_test_timers_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_timers_LDADD = $(WIRE_LIBS)
endif
