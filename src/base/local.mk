noinst_LTLIBRARIES += libbase.la
libbase_la_SOURCES = \
	src/base/sys.c src/base/sys.h \
	src/base/chan.c src/base/chan.h \
	src/base/slots.c src/base/slots.h \
	src/base/ring.c src/base/ring.h \
	src/base/queue.c src/base/queue.h \
	src/base/proc.c src/base/proc.h \
	src/base/lockfile.c src/base/lockfile.h
