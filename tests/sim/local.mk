# ---- the protocol's machines: simulated by the hundred thousand, and rule by rule
check_PROGRAMS += tests/sim/sim
tests_sim_sim_SOURCES = \
	tests/sim/sim.h tests/sim/cover.def tests/sim/rules.def tests/sim/rows.def \
	tests/sim/kernel.c tests/sim/super.c tests/sim/daemon.c tests/sim/fault.c \
	tests/sim/check.c tests/sim/cover.c tests/sim/facts.c tests/sim/mutant.c tests/sim/rules.c tests/sim/world.c tests/sim/main.c
tests_sim_sim_LDADD = libproto.la $(CBOR_LIBS)
# live connections on their way, as in tests/model/connections.pml
check_PROGRAMS += tests/sim/moves
tests_sim_moves_SOURCES = tests/sim/moves.h tests/sim/moves.c tests/sim/moves_conn.c \
	tests/sim/moves_old.c tests/sim/moves_new.c tests/sim/moves_check.c
tests_sim_moves_LDADD = libproto.la $(CBOR_LIBS)
TESTS += tests/sim/sim tests/sim/mutants.sh tests/sim/moves tests/sim/moves.sh
EXTRA_DIST += tests/sim/mutants.sh tests/sim/moves.sh
if HAVE_CHECK
MACHINE_TESTS = tests/unit/test_super tests/unit/test_daemon
check_PROGRAMS += $(MACHINE_TESTS)
TESTS += $(MACHINE_TESTS)
tests_unit_test_super_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_super_LDADD = libproto.la $(CBOR_LIBS) $(CHECK_LIBS)
tests_unit_test_daemon_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_daemon_LDADD = libproto.la $(CBOR_LIBS) $(CHECK_LIBS)
endif
