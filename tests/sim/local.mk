check_PROGRAMS += tests/sim/sim
tests_sim_sim_SOURCES = \
	tests/sim/sim.h tests/sim/cover.def \
	tests/sim/kernel.c tests/sim/super.c tests/sim/daemon.c tests/sim/fault.c \
	tests/sim/check.c tests/sim/cover.c tests/sim/mutant.c tests/sim/world.c tests/sim/main.c
tests_sim_sim_LDADD = libproto.la
