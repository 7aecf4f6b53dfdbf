# examples

# kvload: a load generator that remembers what was acknowledged
noinst_PROGRAMS += examples/kvload/kvload
examples_kvload_kvload_SOURCES = \
	examples/kvload/main.c \
	examples/kvload/load.c examples/kvload/load.h \
	examples/kvload/request.c examples/kvload/request.h \
	examples/kvload/conn.c examples/kvload/conn.h \
	examples/kvload/target.c examples/kvload/target.h \
	examples/kvload/stats.c examples/kvload/stats.h \
	examples/kvload/keys.c examples/kvload/keys.h \
	examples/kvload/resp.c examples/kvload/resp.h \
	examples/kvload/hist.c examples/kvload/hist.h
examples_kvload_kvload_CFLAGS = $(PIE_CFLAGS)
examples_kvload_kvload_LDFLAGS = $(PIE_LDFLAGS)
examples_kvload_kvload_LDADD = $(EVENT_LIBS) -lm
