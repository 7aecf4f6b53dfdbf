lib_LTLIBRARIES += libhandoff.la
libhandoff_la_SOURCES = include/handoff.h src/lib/internal.h \
	src/lib/open.c src/lib/api.c src/lib/run.c src/lib/wire.c src/lib/helper.c \
	src/lib/give.c src/lib/receive.c
libhandoff_la_LIBADD = libbase.la libproto.la $(CBOR_LIBS) -lpthread
libhandoff_la_LDFLAGS = $(AM_LDFLAGS) -version-info $(HANDOFF_LT_VERSION) -no-undefined \
	-Wl,--version-script=$(top_srcdir)/src/lib/libhandoff.map
EXTRA_libhandoff_la_DEPENDENCIES = src/lib/libhandoff.map
EXTRA_DIST += src/lib/libhandoff.map
# Hidden names are still global names in an archive, and would be a daemon's own as well: so
# the static library is made one object, in which only the exported ones are left global.
all-local: src/lib/static.stamp
src/lib/static.stamp: libhandoff.la
	$(AM_V_GEN)lib=.libs/libhandoff.a; if test -f $$lib; then \
		$(CC) $(CFLAGS) -r -nostdlib -o src/lib/static.o \
			-Wl,--whole-archive $$lib -Wl,--no-whole-archive && \
		$(OBJCOPY) --localize-hidden src/lib/static.o && rm -f $$lib.new && \
		$(AR) crs $$lib.new src/lib/static.o && mv -f $$lib.new $$lib && \
		rm -f src/lib/static.o; fi && touch $@
CLEANFILES += src/lib/static.stamp
pkgconfigdir = $(libdir)/pkgconfig
pkgconfig_DATA = src/lib/handoff.pc
