# src/exporter: asks as handoffctl does, answers over HTTP
sbin_PROGRAMS += handoff-exporter
handoff_exporter_SOURCES = src/exporter/main.c \
	src/exporter/query.c src/exporter/query.h \
	src/exporter/everybody.c src/exporter/everybody.h \
	src/exporter/web.c src/exporter/web.h \
	src/exporter/span.c src/exporter/span.h \
	src/exporter/traces.c src/exporter/traces.h
handoff_exporter_CFLAGS = $(PIE_C) $(EXTRA_EVENT_CFLAGS)
handoff_exporter_LDFLAGS = $(PIE_LD)
handoff_exporter_LDADD = $(HANDOFFCTL_LIBS) $(EXTRA_EVENT_LIBS) $(EVENT_LIBS)
