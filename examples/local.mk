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

# kvd: a key-value store whose binary can be replaced; versions 1 and 2 are one source
noinst_PROGRAMS += kvd kvd-v1 kvd-v2
KVD_STORE = \
	examples/kvd/util.c examples/kvd/util.h examples/kvd/hash.c examples/kvd/hash.h \
	examples/kvd/db.c examples/kvd/db.h examples/kvd/record.c examples/kvd/record.h \
	examples/kvd/manifest.c examples/kvd/manifest.h examples/kvd/shard.h \
	examples/kvd/shard_read.c examples/kvd/shard_write.c \
	examples/kvd/store.c examples/kvd/store.h examples/kvd/store_turn.c \
	examples/kvd/job.c examples/kvd/job.h examples/kvd/compact.c examples/kvd/compact.h
KVD_RESP = examples/kvd/resp.c examples/kvd/resp.h
KVD_SOURCES = $(KVD_STORE) $(KVD_RESP) \
	examples/kvd/main.c examples/kvd/server.c examples/kvd/server.h examples/kvd/life.c \
	examples/kvd/net.c examples/kvd/bind.c examples/kvd/options.c examples/kvd/options.h \
	examples/kvd/cmd.c examples/kvd/cmd.h examples/kvd/cmd_keys.c examples/kvd/cmd_server.c \
	examples/kvd/fault.c examples/kvd/fault.h examples/kvd/verify.c examples/kvd/verify.h
KVD_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
KVD_LIBS = libhandoff.la $(EVENT_LIBS) -lpthread

kvd_SOURCES = $(KVD_SOURCES)
kvd_CPPFLAGS = $(KVD_CPPFLAGS) -DKVD_VERSION='"1.0"'
kvd_CFLAGS = $(PIE_CFLAGS)
kvd_LDFLAGS = $(PIE_LDFLAGS)
kvd_LDADD = $(KVD_LIBS)
kvd_v1_SOURCES = $(KVD_SOURCES)
kvd_v1_CPPFLAGS = $(kvd_CPPFLAGS)
kvd_v1_CFLAGS = $(PIE_CFLAGS)
kvd_v1_LDFLAGS = $(PIE_LDFLAGS)
kvd_v1_LDADD = $(KVD_LIBS)
kvd_v2_SOURCES = $(KVD_SOURCES)
kvd_v2_CPPFLAGS = $(KVD_CPPFLAGS) -DKVD_VERSION='"2.0"'
kvd_v2_CFLAGS = $(PIE_CFLAGS)
kvd_v2_LDFLAGS = $(PIE_LDFLAGS)
kvd_v2_LDADD = $(KVD_LIBS)
