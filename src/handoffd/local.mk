# src/handoffd: all but main() is a library, so that tests can link it
noinst_LTLIBRARIES += libhandoffd.la
libhandoffd_la_SOURCES = \
	src/handoffd/answerer.c src/handoffd/answerer.h \
	src/handoffd/carry.c src/handoffd/carry.h \
	src/handoffd/check.c src/handoffd/check.h \
	src/handoffd/conf.c src/handoffd/conf.h \
	src/handoffd/conf_machine.c \
	src/handoffd/conf_options.c src/handoffd/conf_options.h \
	src/handoffd/conf_scan.c src/handoffd/conf_scan.h \
	src/handoffd/conf_value.c src/handoffd/conf_value.h \
	src/handoffd/dirs.c \
	src/handoffd/exe.c \
	src/handoffd/fdstore.c src/handoffd/fdstore.h \
	src/handoffd/ids.c src/handoffd/ids.h \
	src/handoffd/conf_kept.c src/handoffd/conf_kept.h \
	src/handoffd/keep.c src/handoffd/keep.h \
	src/handoffd/listen.c src/handoffd/listen.h \
	src/handoffd/listen_unix.c src/handoffd/listen_unix.h \
	src/handoffd/log.c src/handoffd/log.h src/handoffd/bucket.h \
	src/handoffd/logline.c src/handoffd/logline.h \
	src/handoffd/mkdirs.c \
	src/handoffd/output.c src/handoffd/output.h \
	src/handoffd/sdnotify.c src/handoffd/sdnotify.h \
	src/handoffd/spawn.c src/handoffd/spawn.h \
	src/handoffd/sums.c src/handoffd/sums.h \
	src/handoffd/transient.c src/handoffd/transient.h \
	src/handoffd/version.c src/handoffd/version.h

sbin_PROGRAMS += handoffd
handoffd_SOURCES = src/handoffd/main.c \
	src/handoffd/service.c src/handoffd/service.h \
	src/handoffd/boot.c src/handoffd/upgrade.c src/handoffd/served.c src/handoffd/candidate.c \
	src/handoffd/planned.c src/handoffd/planned.h \
	src/handoffd/copier.c src/handoffd/copier.h \
	src/handoffd/act.c src/handoffd/greet.c src/handoffd/register.c \
	src/handoffd/ops.c src/handoffd/ops.h src/handoffd/ops_tell.c src/handoffd/ops_state.c \
	src/handoffd/results.c src/handoffd/results.h \
	src/handoffd/callers.c src/handoffd/callers.h src/handoffd/lockwait.c \
	src/handoffd/peer.c src/handoffd/peer.h \
	src/handoffd/reexec.c src/handoffd/reexec.h \
	src/handoffd/generation.c src/handoffd/generation.h \
	src/handoffd/cgroup.c src/handoffd/cgroup.h \
	src/handoffd/store.c src/handoffd/store.h \
	src/handoffd/tail.c src/handoffd/tail.h \
	src/handoffd/disruption.c src/handoffd/disruption.h \
	src/handoffd/door.c src/handoffd/door.h \
	src/handoffd/history.c src/handoffd/history.h src/handoffd/history_file.h \
	src/handoffd/reap.c src/handoffd/reap.h \
	src/handoffd/room.c src/handoffd/room.h \
	src/handoffd/unit.c src/handoffd/unit.h
handoffd_CFLAGS = $(PIE_C)
handoffd_LDFLAGS = $(PIE_LD)
handoffd_LDADD = libhandoffd.la libbase.la libproto.la $(EVENT_LIBS) $(CBOR_LIBS) $(CONFUSE_LIBS) $(MD_LIBS)
