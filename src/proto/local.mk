noinst_LTLIBRARIES += libproto.la
libproto_la_SOURCES = \
	src/proto/frame.c src/proto/frame.h \
	src/proto/scbor.c src/proto/scbor.h \
	src/proto/msg.c src/proto/msg.h src/proto/msg.def \
	src/proto/timers.c src/proto/timers.h \
	src/proto/super.c src/proto/super.h \
	src/proto/cause.c src/proto/cause.h \
	src/proto/daemon.c src/proto/daemon.h \
	src/proto/move.c src/proto/move.h \
	src/proto/slot.c src/proto/slot.h
libproto_la_LIBADD = $(CBOR_LIBS)
EXTRA_DIST += src/proto/wire.cddl
