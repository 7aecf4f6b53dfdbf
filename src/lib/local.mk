lib_LTLIBRARIES += libhandoff.la
libhandoff_la_SOURCES = include/handoff.h src/lib/internal.h \
	src/lib/open.c src/lib/api.c src/lib/run.c src/lib/wire.c src/lib/helper.c
libhandoff_la_LIBADD = libbase.la libproto.la $(CBOR_LIBS) -lpthread
libhandoff_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(HANDOFF_LT_VERSION) -no-undefined \
	-Wl,--version-script=$(top_srcdir)/src/lib/libhandoff.map
EXTRA_libhandoff_la_DEPENDENCIES = src/lib/libhandoff.map
EXTRA_DIST += src/lib/libhandoff.map
pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = src/lib/handoff.pc
