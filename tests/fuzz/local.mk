# ---- fuzzing: with clang (tests/fuzz/run.sh, make fuzz) it finds inputs; with any compiler make
# check replays what was found, and the golden vectors
EXTRA_DIST += tests/fuzz/run.sh tests/fuzz/replay.sh tests/fuzz/seeds.py tests/fuzz/corpus
if HAVE_CHECK
FUZZ_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/tests/wire -Dmain=handoffd_main -Wno-missing-prototypes $(FUZZ_CPPFLAGS)
FUZZ_WRAPS = -Wl,--wrap=sys_now_us,--wrap=sys_now_ms,--wrap=sys_poll,--wrap=sys_open,--wrap=sys_read_file \
	-Wl,--wrap=sys_close,--wrap=sys_closep,--wrap=sys_connect,--wrap=sys_getsockopt \
	-Wl,--wrap=spawn_daemon,--wrap=proc_start_time,--wrap=proc_open,--wrap=proc_children \
	-Wl,--wrap=proc_all,--wrap=sys_pidfd_signal,--wrap=sys_wait_any,--wrap=sys_fork
check_PROGRAMS += tests/fuzz/fuzz
tests_fuzz_fuzz_SOURCES = tests/fuzz/fuzz.h tests/fuzz/fuzz.c tests/fuzz/world.c tests/fuzz/wire.c \
	tests/fuzz/super.c tests/fuzz/daemon.c tests/fuzz/conf.c tests/fuzz/record.c \
	tests/fuzz/proc.c tests/fuzz/systemd.c tests/fuzz/ctl.c tests/fuzz/library.c \
	tests/fuzz/handoffd.c tests/fuzz/exporter.c src/exporter/span.c src/exporter/span.h $(handoffd_SOURCES) $(libhandoff_la_SOURCES)
tests_fuzz_fuzz_CFLAGS = $(FUZZ_CFLAGS)
tests_fuzz_fuzz_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS) $(FUZZ_WRAPS)
tests_fuzz_fuzz_LDADD = tests/wire/libmsgtools.la libhandoffctl.la libhandoffd.la libbase.la libproto.la \
	$(EVENT_LIBS) $(CBOR_LIBS) $(UUID_LIBS) $(JANSSON_LIBS) $(CONFUSE_LIBS) $(MD_LIBS) $(CHECK_LIBS) -lpthread
TESTS += tests/fuzz/replay.sh
endif
.PHONY: fuzz
fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} sh $(srcdir)/tests/fuzz/run.sh "$(abs_builddir)"
