# Measurements: `make bench`, `make soak` (BENCH_ARGS="--quick", ...). Built by `make check`, so
# that they do not rot, but run only when asked for.
BENCH_COMMON = tests/bench/keeper.c tests/bench/keeper.h tests/bench/service.c tests/bench/service.h \
	tests/bench/stat.c tests/bench/stat.h tests/bench/kvd.c tests/bench/kvd.h
BENCH_LIBS = libbase.la libproto.la $(CBOR_LIBS) -lpthread
BENCH_NEEDS = handoffd examples/kvd/kvd-v1 examples/kvd/kvd-v2 examples/kvload/kvload

check_PROGRAMS += tests/bench/bench tests/bench/soak tests/bench/nothing
tests_bench_bench_SOURCES = tests/bench/bench.c tests/bench/bench.h tests/bench/bench_nothing.c \
	tests/bench/bench_kvd.c tests/bench/bench_moves.c tests/bench/bench_trace.c tests/bench/table.c tests/bench/table.h \
	tests/bench/client.c tests/bench/client.h $(BENCH_COMMON)
tests_bench_bench_LDADD = $(BENCH_LIBS)
tests_bench_soak_SOURCES = tests/bench/soak.c $(BENCH_COMMON)
tests_bench_soak_LDADD = $(BENCH_LIBS)
# no script of libtool's before it: an exec of it is what is measured
tests_bench_nothing_SOURCES = tests/bench/nothing.c
tests_bench_nothing_CFLAGS = $(PIE_C)
tests_bench_nothing_LDFLAGS = $(PIE_LD) -no-install
tests_bench_nothing_LDADD = libhandoff.la

EXTRA_DIST += tests/bench/peers.py
.PHONY: bench bench-httpd bench-peers soak
bench: $(BENCH_NEEDS) tests/bench/bench tests/bench/nothing
	tests/bench/bench --build . $(BENCH_ARGS)
soak: $(BENCH_NEEDS) tests/bench/soak tests/bench/nothing
	tests/bench/soak --build . $(BENCH_ARGS)
PEERS_NEEDS = handoffd handoffctl examples/httpd/httpd examples/httpd/httpd-v2 examples/kvload/kvload
bench-httpd: $(PEERS_NEEDS)
	BUILD_DIR=. /usr/bin/python3 $(srcdir)/tests/bench/peers.py --calm 7 $(BENCH_ARGS)
bench-peers: $(PEERS_NEEDS)
	BUILD_DIR=. /usr/bin/python3 $(srcdir)/tests/bench/peers.py $(BENCH_ARGS)
