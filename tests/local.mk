# The tests of `make check`. Each area has its section; what needs root, namespaces or
# minutes is run by tests/run.sh.
check_LTLIBRARIES =

# ---- the wire: codec, golden vectors, and that table, CDDL and manual agree
noinst_HEADERS += tests/unit/suite.h
EXTRA_DIST += tests/wire/vectors.txt tests/wire/msgdef.py \
	tests/wire/check_vectors.py tests/wire/check_wire.py
TESTS += tests/wire/check_vectors.py tests/wire/check_wire.py
if HAVE_CHECK
check_LTLIBRARIES += tests/wire/libmsgtools.la
tests_wire_libmsgtools_la_SOURCES = tests/wire/msgtools.c tests/wire/msgtools.h

WIRE_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/tests/wire
WIRE_LIBS = tests/wire/libmsgtools.la libproto.la $(CBOR_LIBS) $(CHECK_LIBS)
WIRE_TESTS = tests/wire/test_vectors tests/unit/test_frame tests/unit/test_scbor \
	tests/unit/test_msg tests/unit/test_move tests/unit/test_timers
check_PROGRAMS += $(WIRE_TESTS)
TESTS += $(WIRE_TESTS)
tests_wire_test_vectors_CFLAGS = $(WIRE_CFLAGS)
tests_wire_test_vectors_LDADD = $(WIRE_LIBS)
tests_unit_test_frame_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_frame_LDADD = $(WIRE_LIBS)
tests_unit_test_scbor_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_scbor_LDADD = $(WIRE_LIBS)
tests_unit_test_msg_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_msg_LDADD = $(WIRE_LIBS)
tests_unit_test_move_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_move_LDADD = $(WIRE_LIBS)
tests_unit_test_timers_CFLAGS = $(WIRE_CFLAGS)
tests_unit_test_timers_LDADD = $(WIRE_LIBS)
endif

# ---- handoffd's parts: configuration, listeners, starting daemons
EXTRA_DIST += tests/conf/good/minimal.conf tests/conf/good/full.conf \
	tests/conf/bad/listener-twice.conf tests/conf/bad/missing-brace.conf \
	tests/conf/bad/option-twice.conf tests/conf/bad/timers-out-of-order.conf \
	tests/conf/bad/unclosed-comment.conf tests/conf/bad/unknown-option.conf \
	tests/conf/bad/unset-variable.conf
if HAVE_CHECK
HANDOFFD_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
HANDOFFD_LIBS = libhandoffd.la libbase.la libproto.la $(EVENT_LIBS) $(CONFUSE_LIBS) $(CBOR_LIBS) $(MD_LIBS) $(CHECK_LIBS)
HANDOFFD_TESTS = tests/unit/test_sys tests/unit/test_conf tests/unit/test_listen \
	tests/unit/test_spawn tests/unit/test_keep tests/unit/test_log tests/unit/test_sdnotify tests/unit/test_door tests/unit/test_peer \
	tests/unit/test_output tests/unit/test_sums tests/unit/test_carry tests/unit/test_reap tests/unit/test_room tests/unit/test_dirs \
	tests/unit/test_answerer tests/unit/test_tail tests/unit/test_generation
check_PROGRAMS += $(HANDOFFD_TESTS)
TESTS += $(HANDOFFD_TESTS)
tests_unit_test_sys_SOURCES = tests/unit/test_sys.c tests/unit/leak.h
tests_unit_test_sys_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_sys_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_carry_SOURCES = tests/unit/test_carry.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_carry_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_carry_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_conf_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_conf_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_listen_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_listen_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_spawn_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_spawn_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_keep_SOURCES = tests/unit/test_keep.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_keep_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_keep_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_log_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_log_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_sdnotify_SOURCES = tests/unit/test_sdnotify.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_sdnotify_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_sdnotify_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_door_SOURCES = tests/unit/test_door.c tests/unit/leak.h tests/unit/fault.h tests/unit/starved.h src/handoffd/door.c
tests_unit_test_door_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_door_LDADD = $(HANDOFFD_LIBS) $(EVENT_LIBS)
tests_unit_test_peer_SOURCES = tests/unit/test_peer.c tests/unit/leak.h tests/unit/fault.h tests/unit/starved.h src/handoffd/peer.c
tests_unit_test_peer_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_peer_LDADD = $(HANDOFFD_LIBS) $(EVENT_LIBS)
tests_unit_test_output_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_output_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_reap_SOURCES = tests/unit/test_reap.c tests/unit/leak.h tests/unit/fault.h src/handoffd/cgroup.c
tests_unit_test_reap_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_reap_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_dirs_SOURCES = tests/unit/test_dirs.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_dirs_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_dirs_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_room_SOURCES = tests/unit/test_room.c src/handoffd/room.c
tests_unit_test_room_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_room_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_answerer_SOURCES = tests/unit/test_answerer.c tests/unit/leak.h tests/unit/fault.h tests/unit/starved.h
tests_unit_test_answerer_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_answerer_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_tail_SOURCES = tests/unit/test_tail.c tests/unit/leak.h tests/unit/fault.h src/handoffd/tail.c
tests_unit_test_tail_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_tail_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_generation_SOURCES = tests/unit/test_generation.c tests/unit/leak.h tests/unit/fault.h tests/unit/starved.h \
	src/handoffd/generation.c src/handoffd/cgroup.c
tests_unit_test_generation_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_generation_LDADD = $(HANDOFFD_LIBS)
tests_unit_test_sums_SOURCES = tests/unit/test_sums.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_sums_CFLAGS = $(HANDOFFD_CFLAGS)
tests_unit_test_sums_LDADD = $(HANDOFFD_LIBS)
endif

# ---- handoffctl: each system call fails in turn
if HAVE_CHECK
check_PROGRAMS += tests/unit/test_ctl_faults tests/unit/test_expect
TESTS += tests/unit/test_ctl_faults tests/unit/test_expect
tests_unit_test_expect_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_expect_LDADD = $(HANDOFFCTL_LIBS) $(CHECK_LIBS)
tests_unit_test_ctl_faults_SOURCES = tests/unit/test_ctl_faults.c tests/unit/leak.h
tests_unit_test_ctl_faults_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_ctl_faults_LDADD = $(HANDOFFCTL_LIBS) $(CHECK_LIBS)
endif

# ---- handoff-exporter: each system call and each allocation fails in turn
if HAVE_CHECK
check_PROGRAMS += tests/unit/test_exporter
TESTS += tests/unit/test_exporter
tests_unit_test_exporter_SOURCES = tests/unit/test_exporter.c tests/unit/leak.h tests/unit/fault.h \
	src/exporter/query.c src/exporter/everybody.c src/exporter/web.c src/exporter/span.c src/exporter/traces.c
tests_unit_test_exporter_CFLAGS = $(AM_CFLAGS) $(EXTRA_EVENT_CFLAGS) $(CHECK_CFLAGS)
tests_unit_test_exporter_LDFLAGS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=free
tests_unit_test_exporter_LDADD = $(handoff_exporter_LDADD) $(CHECK_LIBS)
endif

# ---- the library and what it stands on
EXTRA_DIST += tests/lib/check_symbols.sh
TESTS += tests/lib/check_symbols.sh
if HAVE_CHECK
BASE_TESTS = tests/unit/test_chan tests/unit/test_slots tests/unit/test_ring \
	tests/unit/test_cause tests/unit/test_lockfile tests/unit/test_proc
LIB_TESTS = tests/unit/test_lib tests/lib/test_moves tests/lib/test_limits \
	tests/lib/test_process tests/lib/test_stress tests/lib/test_faults
check_PROGRAMS += $(BASE_TESTS) $(LIB_TESTS) tests/lib/puppet
TESTS += $(BASE_TESTS) $(LIB_TESTS)
BASE_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
BASE_LIBS = libbase.la libproto.la $(CBOR_LIBS) $(CHECK_LIBS)
tests_unit_test_chan_SOURCES = tests/unit/test_chan.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_chan_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_chan_LDADD = $(BASE_LIBS)
tests_unit_test_slots_SOURCES = tests/unit/test_slots.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_slots_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_slots_LDADD = $(BASE_LIBS)
tests_unit_test_ring_SOURCES = tests/unit/test_ring.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_ring_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_ring_LDADD = $(BASE_LIBS)
tests_unit_test_cause_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_cause_LDADD = $(BASE_LIBS)
tests_unit_test_lockfile_SOURCES = tests/unit/test_lockfile.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_lockfile_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_lockfile_LDADD = $(BASE_LIBS)
tests_unit_test_proc_SOURCES = tests/unit/test_proc.c tests/unit/leak.h tests/unit/fault.h
tests_unit_test_proc_CFLAGS = $(BASE_CFLAGS)
tests_unit_test_proc_LDADD = $(BASE_LIBS)
# the puppet is a daemon like any other: it has the library's public face and no more
tests_lib_puppet_LDADD = libhandoff.la
LIB_CFLAGS = $(BASE_CFLAGS) -I$(top_srcdir)/tests/lib
tests_unit_test_lib_SOURCES = tests/unit/test_lib.c tests/lib/stage.c tests/lib/stage.h
tests_unit_test_lib_CFLAGS = $(LIB_CFLAGS)
tests_unit_test_lib_LDADD = $(BASE_LIBS)
tests_lib_test_moves_SOURCES = tests/lib/test_moves.c tests/lib/stage.c tests/lib/stage.h
tests_lib_test_moves_CFLAGS = $(LIB_CFLAGS)
tests_lib_test_moves_LDADD = $(BASE_LIBS)
tests_lib_test_limits_SOURCES = tests/lib/test_limits.c tests/lib/stage.c tests/lib/stage.h
tests_lib_test_limits_CFLAGS = $(LIB_CFLAGS)
tests_lib_test_limits_LDADD = $(BASE_LIBS)
tests_lib_test_process_SOURCES = tests/lib/test_process.c tests/lib/stage.c tests/lib/stage.h
tests_lib_test_process_CFLAGS = $(LIB_CFLAGS)
tests_lib_test_process_LDADD = $(BASE_LIBS)
tests_lib_test_stress_SOURCES = tests/lib/test_stress.c tests/lib/stage.c tests/lib/stage.h
tests_lib_test_stress_CFLAGS = $(LIB_CFLAGS)
tests_lib_test_stress_LDADD = $(BASE_LIBS)
# the library is in it, for only so its calls can be failed
tests_lib_test_faults_SOURCES = tests/lib/test_faults.c tests/lib/stage.c tests/lib/stage.h $(libhandoff_la_SOURCES)
tests_lib_test_faults_CFLAGS = $(LIB_CFLAGS)
tests_lib_test_faults_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strndup
tests_lib_test_faults_LDADD = $(BASE_LIBS) -lpthread
endif

include $(top_srcdir)/tests/sim/local.mk
include $(top_srcdir)/tests/model/local.mk
include $(top_srcdir)/tests/fuzz/local.mk

# ---- other handoffds: of another version, and of one that takes nothing over from this one
noinst_PROGRAMS += tests/e2e/handoffd-next tests/e2e/handoffd-other
tests_e2e_handoffd_next_SOURCES = src/handoffd/version.c
tests_e2e_handoffd_next_CPPFLAGS = $(AM_CPPFLAGS) -DHANDOFFD_VERSION='"999.9"'
tests_e2e_handoffd_next_CFLAGS = $(handoffd_CFLAGS)
tests_e2e_handoffd_next_LDFLAGS = $(handoffd_LDFLAGS)
tests_e2e_handoffd_next_LDADD = $(handoffd_OBJECTS) $(handoffd_LDADD)
tests_e2e_handoffd_other_SOURCES = src/handoffd/version.c
tests_e2e_handoffd_other_CPPFLAGS = $(AM_CPPFLAGS) -DCARRY_VERSION=999
tests_e2e_handoffd_other_CFLAGS = $(handoffd_CFLAGS)
tests_e2e_handoffd_other_LDFLAGS = $(handoffd_LDFLAGS)
tests_e2e_handoffd_other_LDADD = $(handoffd_OBJECTS) $(handoffd_LDADD)

# ---- whole processes: run by tests/run.sh, not by make check
EXTRA_DIST += tests/install.sh tests/run.sh tests/count.awk tests/checklog.awk tests/e2e/run.py \
	tests/e2e/harness.py tests/e2e/fakeserver.py tests/e2e/fakesupervisor.py \
	tests/e2e/test_kvload.py tests/e2e/test_harness.py tests/e2e/test_ctl_fake.py \
	tests/e2e/test_kvd_alone.py tests/e2e/test_httpd.py tests/e2e/test_minimal.py tests/e2e/test_mend.py \
	tests/e2e/test_reexec.py

# ---- upgrades, deaths, clients and exit codes, with everything real (run by tests/run.sh)
EXTRA_DIST += tests/e2e/test_quickstart.py tests/e2e/test_upgrade.py \
	tests/e2e/test_supervisor_dies.py tests/e2e/test_redis_clients.py \
	tests/e2e/manager.py tests/e2e/test_fdstore.py tests/e2e/test_sdnotify.py tests/e2e/test_deploy.py \
	tests/e2e/test_messages.py tests/e2e/test_metrics.py tests/e2e/test_exporter.py \
	tests/e2e/moving.py tests/e2e/test_moving.py \
	tests/e2e/test_exit_codes.py tests/e2e/handoffs.py tests/e2e/test_leftovers.py

# ---- the crash matrix: make check-crash, make soak-chaos
include $(top_srcdir)/tests/crash/local.mk

# ---- each system call and allocation fails in turn: make check-fault
include $(top_srcdir)/tests/fault/local.mk

# ---- measurements: make bench, make soak
include $(top_srcdir)/tests/bench/local.mk

# ---- bad input, with real processes (run by tests/run.sh)
EXTRA_DIST += tests/e2e/badinput.py tests/e2e/puppet.py tests/e2e/test_bad_frames.py \
	tests/e2e/test_bad_peers.py tests/e2e/test_bad_config.py tests/e2e/test_bad_binaries.py \
	tests/e2e/test_bad_state.py tests/e2e/test_security.py tests/e2e/test_resources.py \
	tests/e2e/attacks.py tests/e2e/test_daemon_user.py tests/e2e/test_lying_daemon.py

# ---- each rule of the protocol, and how other systems of this kind end badly
EXTRA_DIST += tests/e2e/played.py tests/e2e/test_rules.py tests/e2e/test_asked.py tests/e2e/test_endings.py

# ---- the units, below a real systemd (run by tests/run.sh)
EXTRA_DIST += tests/systemd/run.sh tests/systemd/with-systemd.sh tests/systemd/systemd.py \
	tests/systemd/test_units.py tests/systemd/test_store.py tests/systemd/test_reload.py \
	tests/systemd/test_life.py
# `systemctl stop` and kill -9 at once, as root: make check-stops (STOP_RACES=1000)
STOP_RACES = 300
.PHONY: check-stops
check-stops: all
	STOP_RACES=$(STOP_RACES) WS_CMD=3600 TEST_LIMIT=3600 \
		sh $(srcdir)/tests/systemd/run.sh . test_units.Stop.test_race

# ---- what operators look at (run by tests/run.sh)
EXTRA_DIST += tests/e2e/test_history.py tests/e2e/test_explain.py tests/e2e/test_hung.py tests/e2e/test_kept.py \
	tests/e2e/test_disruption.py tests/e2e/test_watch.py tests/e2e/test_log.py tests/e2e/test_context.py tests/e2e/test_pin.py tests/e2e/test_json.py tests/e2e/test_plan.py

# ---- how much of the code the tests execute: make coverage
EXTRA_DIST += tests/coverage/run.sh tests/coverage/figures.py tests/coverage/counters.h
.PHONY: coverage
coverage:
	sh $(srcdir)/tests/coverage/run.sh "$(abs_builddir)"

# ---- the documents say what the code does
EXTRA_DIST += tests/docs/check_docs.py tests/docs/manual.py tests/docs/library.py tests/docs/messages.py
TESTS += tests/docs/check_docs.py
