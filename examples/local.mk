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
	examples/kvload/hist.c examples/kvload/hist.h examples/kvload/http.h
examples_kvload_kvload_CPPFLAGS = $(AM_CPPFLAGS)
examples_kvload_kvload_CFLAGS = $(PIE_C)
examples_kvload_kvload_LDFLAGS = $(PIE_LD)
examples_kvload_kvload_LDADD = $(EVENT_LIBS) -lm
if HAVE_HTTP_PARSER
examples_kvload_kvload_SOURCES += examples/kvload/http.c
examples_kvload_kvload_CPPFLAGS += -DKVLOAD_HTTP
examples_kvload_kvload_LDADD += -lhttp_parser
endif

# kvd: a key-value store whose binary can be replaced; versions 1 and 2 are one source
noinst_LTLIBRARIES += libkvd.la
libkvd_la_SOURCES = \
	examples/kvd/util.c examples/kvd/util.h examples/kvd/hash.c examples/kvd/hash.h \
	examples/kvd/db.c examples/kvd/db.h examples/kvd/record.c examples/kvd/record.h \
	examples/kvd/manifest.c examples/kvd/manifest.h examples/kvd/shard.h \
	examples/kvd/shard_read.c examples/kvd/shard_write.c \
	examples/kvd/store.c examples/kvd/store.h examples/kvd/store_turn.c \
	examples/kvd/job.c examples/kvd/job.h examples/kvd/compact.c examples/kvd/compact.h \
	examples/kvd/resp.c examples/kvd/resp.h \
	examples/kvd/server.c examples/kvd/server.h examples/kvd/life.c \
	examples/kvd/net.c examples/kvd/move.c examples/kvd/bind.c examples/kvd/options.c examples/kvd/options.h \
	examples/kvd/cmd.c examples/kvd/cmd.h examples/kvd/cmd_keys.c examples/kvd/cmd_server.c \
	examples/kvd/fault.c examples/kvd/fault.h examples/kvd/verify.c examples/kvd/verify.h
libkvd_la_CPPFLAGS = $(AM_CPPFLAGS) -D_GNU_SOURCE
libkvd_la_LIBADD = $(EVENT_LIBS) -lpthread

noinst_PROGRAMS += examples/kvd/kvd examples/kvd/kvd-v1 examples/kvd/kvd-v2
KVD_MAIN = examples/kvd/main.c examples/kvd/version.c
KVD_CPP = $(AM_CPPFLAGS) -D_GNU_SOURCE
KVD_LIBS = libkvd.la libhandoff.la $(EVENT_LIBS) -lpthread
examples_kvd_kvd_SOURCES = $(KVD_MAIN)
examples_kvd_kvd_CPPFLAGS = $(KVD_CPP)
examples_kvd_kvd_CFLAGS = $(PIE_C)
examples_kvd_kvd_LDFLAGS = $(PIE_LD)
examples_kvd_kvd_LDADD = $(KVD_LIBS)
examples_kvd_kvd_v1_SOURCES = $(KVD_MAIN)
examples_kvd_kvd_v1_CPPFLAGS = $(KVD_CPP) -DKVD_VERSION='"1.0"'
examples_kvd_kvd_v1_CFLAGS = $(PIE_C)
examples_kvd_kvd_v1_LDFLAGS = $(PIE_LD)
examples_kvd_kvd_v1_LDADD = $(KVD_LIBS)
examples_kvd_kvd_v2_SOURCES = $(KVD_MAIN)
examples_kvd_kvd_v2_CPPFLAGS = $(KVD_CPP) -DKVD_VERSION='"2.0"'
examples_kvd_kvd_v2_CFLAGS = $(PIE_C)
examples_kvd_kvd_v2_LDFLAGS = $(PIE_LD)
examples_kvd_kvd_v2_LDADD = $(KVD_LIBS)

if HAVE_CHECK
KVD_TESTS = tests/unit/test_kvd_store tests/unit/test_kvd_resp
check_PROGRAMS += $(KVD_TESTS)
TESTS += $(KVD_TESTS)
KVD_TEST_CPP = $(AM_CPPFLAGS) -D_GNU_SOURCE -I$(top_srcdir)/examples/kvd
KVD_TEST_LIBS = libkvd.la libhandoff.la $(EVENT_LIBS) $(CHECK_LIBS) -lpthread
tests_unit_test_kvd_store_CPPFLAGS = $(KVD_TEST_CPP)
tests_unit_test_kvd_store_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_kvd_store_SOURCES = tests/unit/test_kvd_store.c examples/kvd/version.c
tests_unit_test_kvd_store_LDADD = $(KVD_TEST_LIBS)
tests_unit_test_kvd_resp_CPPFLAGS = $(KVD_TEST_CPP)
tests_unit_test_kvd_resp_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_kvd_resp_SOURCES = tests/unit/test_kvd_resp.c examples/kvd/version.c
tests_unit_test_kvd_resp_LDADD = $(KVD_TEST_LIBS)
endif

# httpd: an HTTP server, which has no data; versions 1 and 2 are one source
EXTRA_DIST += examples/httpd/httpd.conf
if HAVE_HTTP_PARSER
noinst_LTLIBRARIES += libhttpd.la
libhttpd_la_SOURCES = examples/httpd/httpd.h examples/httpd/life.c examples/httpd/move.c \
	examples/httpd/http.c examples/httpd/net.c examples/httpd/reply.c
libhttpd_la_LIBADD = $(EVENT_LIBS) -lhttp_parser

noinst_PROGRAMS += examples/httpd/httpd examples/httpd/httpd-v2
HTTPD_LIBS = libhttpd.la libhandoff.la $(EVENT_LIBS)
examples_httpd_httpd_SOURCES = examples/httpd/main.c
examples_httpd_httpd_CFLAGS = $(PIE_C)
examples_httpd_httpd_LDFLAGS = $(PIE_LD)
examples_httpd_httpd_LDADD = $(HTTPD_LIBS)
examples_httpd_httpd_v2_SOURCES = examples/httpd/main.c
examples_httpd_httpd_v2_CPPFLAGS = $(AM_CPPFLAGS) -DHTTPD_VERSION='"2.0"'
examples_httpd_httpd_v2_CFLAGS = $(PIE_C)
examples_httpd_httpd_v2_LDFLAGS = $(PIE_LD)
examples_httpd_httpd_v2_LDADD = $(HTTPD_LIBS)

if HAVE_CHECK
check_PROGRAMS += tests/unit/test_httpd
TESTS += tests/unit/test_httpd
tests_unit_test_httpd_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/examples/httpd
tests_unit_test_httpd_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_httpd_LDADD = libhttpd.la libhandoff.la $(EVENT_LIBS) $(CHECK_LIBS)
endif
endif

# minimal: what a reader copies from
noinst_PROGRAMS += examples/minimal
examples_minimal_SOURCES = examples/minimal.c
examples_minimal_CFLAGS = $(PIE_C)
examples_minimal_LDFLAGS = $(PIE_LD)
examples_minimal_LDADD = libhandoff.la

# quickstart: all of it, seen in a minute
EXTRA_DIST += examples/quickstart.sh examples/quickstart.lib

# recipes for deployments, each run by tests/e2e/test_deploy.py
EXTRA_DIST += examples/deploy/README.md examples/deploy/deploy.sh examples/deploy/rolling.sh \
	examples/deploy/handover.sh examples/deploy/handover.conf examples/deploy/gitlab-ci.yml \
	examples/deploy/handoff@kvd.conf examples/deploy/debian/kvd.postinst examples/deploy/debian/kvd.prerm
