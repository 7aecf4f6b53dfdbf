/* The machine's actions, as system calls and messages. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"
#include "handoffd/transient.h"

/* --------------------------------------------------------------- journal --- */

static enum s_event write_journal(struct service *s, const char *what)
{
	int e;

	s->journal.npast = generations_past(s->generations, s->journal.past, PAST_MAX);
	e = store_journal(&s->store, &s->journal);
	if (!e)
		return S_E_JOURNALED;
	log_error("the journal could not be written (%s): %s", what, strerror(-e));
	snprintf(s->attempt.why, sizeof s->attempt.why, ": %s", strerror(-e));
	return S_E_JOURNAL_FAILED;
}

static struct process process_of(const struct peer *p)
{
	return p ? (struct process){ p->pid, p->start } : (struct process){ 0, 0 };
}

/* What its record will say: an attempt whose successor could not be started has an outcome, too. */
static void begin_attempt(struct service *s)
{
	struct journal *j = &s->journal;

	j->plan = s->attempt.plan;
	j->back = s->attempt.back;
	j->id = s->s.id;
	j->new_copy = s->new_exe.copy;
	snprintf(j->new_binary, sizeof j->new_binary, "%s", s->attempt.binary);
	s->awake = s->in_vain = s->stuck = false;
	if (!s->attempt.plan)
		disruption_begin(&s->disruption);
	history_begin(s);
}

/* While the successor prepares itself at its gate. */
static enum s_event journal_started(struct service *s)
{
	s->journal.phase = BOOT_STARTED;
	s->journal.successor = process_of(s->n);
	history_successor(s);
	return write_journal(s, "handoff started");
}

/* By what is, not by the state: with a stop asked for it has gone on already. */
static bool owner_lives(const struct service *s)
{
	return s->o && s->o->pidfd >= 0;
}

static void compose(struct service *s, char *out, size_t size)
{
	const char *why = s->s.why ? s->s.why
		: s->s.outcome == OUTCOME_COMMITTED ? "the successor died when the incumbent was to exit"
		: "no reason is known";

	if (s->s.outcome == OUTCOME_COMMITTED && owner_lives(s))
		snprintf(out, size, "the successor (pid %d) serves", (int)s->o->pid);
	else if (!owner_lives(s))
		snprintf(out, size, "%s%.700s; both daemons have died, %s", why, s->attempt.why,
		         s->s.stop ? "and the service is being stopped"
		         : s->s.outcome == OUTCOME_COMMITTED ? "the new binary is started again"
		         : "the old binary is started again");
	else if (s->s.outcome == OUTCOME_ROLLED_BACK)
		snprintf(out, size, "%s%.700s; the incumbent (pid %d) serves again, a client may have met the successor",
		         why, s->attempt.why, (int)s->o->pid);
	else
		snprintf(out, size, "%s%.700s; the incumbent (pid %d) serves, no client met the successor", why,
		         s->attempt.why, (int)s->o->pid);
}

/* 0, or -errno: what is on disk is not what is known here. */
static int record(struct service *s)
{
	int e;

	memcpy(s->keep.c.boot, s->store.boot, sizeof s->keep.c.boot);
	e = store_current(&s->store, &s->keep.c);
	if (!e && s->keep.dirty)   /* what was said of that is over */
		s->keep.why[0] = '\0';
	s->keep.dirty = e != 0;
	if (e)
		snprintf(s->keep.why, sizeof s->keep.why, "%.200s/current: %s", s->state_dir, strerror(-e));
	return e;
}

/* What serves now is what a crash and a reboot start again. */
static void remember(struct service *s, enum keep_how how)
{
	bool changed;
	int e;

	if (s->store.unread)
		store_read_again(&s->store, &s->keep.c);
	changed = keep_serves(&s->keep, &s->exe, s->journal.binary, s->conf->command[0], how);
	if (!changed && !s->keep.dirty && !strcmp(s->keep.c.boot, s->store.boot))
		return;
	if ((e = record(s)))
		log_error("the current binary could not be recorded in %s: %s (after a reboot the one before would "
		          "start)", s->state_dir, strerror(-e));
}

int service_record(struct service *s, char *err, size_t size)
{
	/* whether a rollback holds it a handoff has decided: what is read again does not undo that */
	const enum keep_how how = s->keep.c.now.held ? KEEP_ROLLED_BACK : KEEP_STARTED;
	int e;

	if (!s->keep.dirty)
		return 0;
	if (s->store.unread)
		store_read_again(&s->store, &s->keep.c);
	if (!s->store.unread && s->exe.fd >= 0)
		keep_serves(&s->keep, &s->exe, s->journal.binary, s->conf->command[0], how);
	if ((e = record(s)))
		snprintf(err, size, "%.200s/current cannot be %s: %s", s->state_dir, s->store.unread ? "read" : "written",
		         strerror(-e));
	return e;
}

static enum s_event journal_outcome(struct service *s)
{
	struct journal *j = &s->journal;
	bool committed = s->s.outcome == OUTCOME_COMMITTED;

	if (!s->attempt.plan)
		disruption_end(&s->disruption);
	sys_closep(&s->transfer);
	if (committed) {
		exe_close(&s->old_exe);
		s->old_exe = s->exe;
		s->exe = s->new_exe;
		s->exe_served = true;
		s->new_exe.fd = -1;
		if (s->new_conf) {   /* none: this supervisor was started after the commit */
			conf_free(s->conf);
			s->conf = s->new_conf;
			s->new_conf = NULL;
			s->conf_error[0] = '\0';
			service_keep_conf(s, s->conf);
		}
		memcpy(j->binary, j->new_binary, sizeof j->binary);
		j->since = sys_wall_ms();
		remember(s, s->attempt.back ? KEEP_ROLLED_BACK : KEEP_UPGRADED);
	} else {
		listeners_nonblock(&s->listeners);
		s->keep.litter |= s->new_exe.pinned;
		exe_close(&s->new_exe);
		s->new_conf = conf_free(s->new_conf);
	}
	if (committed)
		register_owner(s, s->conf->uid);
	memcpy(s->s.timer, s->conf->timer, sizeof s->s.timer);
	listeners_prune(&s->listeners, s->conf);
	service_bury(s, &s->n);
	j->phase = BOOT_IDLE;
	j->incumbent = process_of(s->o);
	j->successor = (struct process){ 0, 0 };
	j->new_binary[0] = '\0';
	j->new_copy = 0;
	if (!s->attempt.plan) {
		j->outcome = s->s.outcome;
		j->last_id = j->id;
		compose(s, j->message, sizeof j->message);
		utf8_mend(j->message);
		history_cause(s);
		if (!owner_lives(s))
			j->served = false;
	}
	write_journal(s, "outcome");
	return S_NOW;
}

static enum s_event journal_cold(struct service *s)
{
	s->journal.phase = BOOT_IDLE;
	s->journal.served = false;
	s->journal.incumbent = process_of(s->n);
	return write_journal(s, "cold start");
}

static void show_service(struct service *s)
{
	char text[40];

	snprintf(text, sizeof text, "pid %d", s->o ? (int)s->o->pid : 0);
	ops_watchers(s, "serves", text);
}

/* The outcome of an attempt that the supervisor before this one had decided, and had not told:
 * by now it is known whether somebody serves. */
static void settle_former(struct service *s)
{
	history_settle(s);
	ops_settle(s);
}

static enum s_event journal_serves(struct service *s)
{
	disruption_over(&s->disruption);
	if (!s->journal.served)
		s->journal.since = sys_wall_ms();
	s->journal.served = s->exe_served = true;
	s->journal.incumbent = process_of(s->o);
	if (s->back)
		service_binary_back(s, s->conf, &s->exe, s->journal.binary, sizeof s->journal.binary);
	if (s->exe.fd >= 0)   /* it is known what it is */
		remember(s, s->back ? KEEP_ROLLED_BACK : KEEP_STARTED);
	s->asked = s->back = s->superseded = false;
	s->cold_error[0] = '\0';
	write_journal(s, "the daemon serves");
	if (s->o && s->o->child)
		register_owner(s, s->conf->uid);
	log_event(LOG_E_SERVES, LOG_L_INFO, "the daemon (pid %d) serves", s->o ? (int)s->o->pid : 0);
	show_service(s);
	ops_restarted(s, true);
	settle_former(s);
	if (s->reported) {
		s->reported = false;
		ops_result(s, s->s.outcome == OUTCOME_COMMITTED ? 0 : 1, outcome_name[s->s.outcome], s->journal.message);
	}
	return S_NOW;
}

static void journal_found(struct service *s)
{
	s->back = s->superseded = false;
	s->journal.served = true;
	s->journal.incumbent = process_of(s->o);
	s->journal.since = 0;   /* nobody knows */
	write_journal(s, "the daemon was found");
	ops_found(s);
}

/* ----------------------------------------------------------------- spawn --- */

static enum s_event spawn(struct service *s, bool cold)
{
	const struct conf *c = cold || !s->new_conf ? s->conf : s->new_conf;
	char err[600] = "no memory";
	struct exe *exe = cold ? &s->exe : &s->new_exe;
	struct spawn_args a = {
		.conf = c, .exe = exe, .dir = -1, .runtime_dir = s->runtime_dir,
		.lock_dir = c->data_dir ? NULL : s->lock_dir, .role = cold ? "first" : "successor",
	};
	struct child child;
	uint64_t start = 0;
	char generation[24];
	int pair[2], e;

	if (cold && s->exe.fd < 0 &&
	    keep_cold(&s->keep, c, s->journal.binary, s->asked, &s->exe, err, sizeof err))
		goto failed;
	if ((e = sys_socketpair(SOCK_STREAM, pair))) {
		snprintf(err, sizeof err, "cannot make the daemon's channel: %s%s", strerror(-e), transient_hint(e));
		goto failed;
	}
	a.channel = pair[1];
	a.generation = generation;
	sums_look(c, &exe->with);
	snprintf(generation, sizeof generation, "%llu", (unsigned long long)sys_boot_us());
	a.dir = keep_copy_dir(&s->keep, a.exe);
	if (a.dir < 0 && a.exe->copy)
		log_error("the kept copy of %s cannot be opened: %s", a.exe->path, strerror(-a.dir));
	e = spawn_daemon(&a, &child, err, sizeof err);
	sys_closep(&a.dir);
	sys_close_own(pair[1]);
	if (e) {
		sys_close(pair[0]);
		goto failed;
	}
	/* without its start time nobody could name it after this life; it still is at its gate */
	if (proc_start_time(child.pid, &start) || !(s->n = peer_new(&s->owner, child.pid, start, child.pidfd))) {
		sys_close(child.gate);   /* it exits */
		sys_close(child.pidfd);
		sys_close(pair[0]);
		goto failed;
	}
	s->totals.cold_starts += cold;
	s->n->child = true;
	s->n->gate = child.gate;
	generation_begin(s->generations, child.pid, start, generation);
	if (peer_attach(s->n, pair[0])) {
		peer_signal(s->n, SIGKILL);   /* its death is an event like any other */
		return S_E_SPAWNED;
	}
	return S_E_SPAWNED;
failed:
	utf8_mend(err);
	log_error("%s", err);
	snprintf(s->attempt.why, sizeof s->attempt.why, ": %s", err);
	if (cold)
		snprintf(s->cold_error, sizeof s->cold_error, "%s", err);
	return S_E_SPAWN_FAILED;
}

static enum s_event spawn_cold(struct service *s)
{
	service_bury(s, &s->o);
	service_bury(s, &s->n);
	s->attempt.why[0] = '\0';
	s->stop_by = 0;
	return spawn(s, true);
}

static void release(struct service *s)
{
	struct child c = { .pid = s->n->pid, .pidfd = s->n->pidfd, .gate = s->n->gate };

	s->n->gate = -1;
	s->attempt.released_us = sys_now_us();
	spawn_release(&c);
	if (s_in_handoff(&s->s) && !s->attempt.plan)   /* while the successor starts */
		disruption_watch(&s->disruption, &s->listeners, s->conf);
}

static enum s_event bind_listeners(struct service *s)
{
	char err[600];

	if (!listeners_open(&s->listeners, s->conf, err, sizeof err))
		return S_E_LISTENING;
	snprintf(s->cold_error, sizeof s->cold_error, "%s", err);
	return S_E_NOT_LISTENING;
}

/* -------------------------------------------------------------- messages --- */

static void send_prepare(struct service *s)
{
	struct msg m = { .type = MSG_prepare };

	m.prepare.id = s->s.id;
	m.prepare.successor_pid = s->n ? (uint64_t)s->n->pid : 0;
	m.prepare.deadline_ms = s->s.timer[TIMER_DEADLINE];
	m.prepare.drain_ms = s->s.timer[TIMER_DRAIN];
	SET_CONTEXT(&m, prepare, &s->attempt);
	if (s->transfer >= 0)
		MSG_SET(&m, prepare, transfer, transfer_limit(s->new_conf ? s->new_conf : s->conf));
	s->attempt.prepared_us = sys_now_us();
	disruption_stall(&s->disruption);
	peer_send(s->o, &m, &s->transfer, s->transfer >= 0);
	sys_closep(&s->transfer);
}

static void send_begin(struct service *s, bool sealed)
{
	struct msg m = { .type = MSG_begin };

	if (!hid_none(&s->s.id))
		MSG_SET(&m, begin, id, s->s.id);
	m.begin.sealed = sealed;
	if (sealed) {
		MSG_SET(&m, begin, revisions, ((struct uints){ .n = s->s.nrevisions, .v = s->s.revisions }));
		MSG_SET(&m, begin, fingerprint, s->s.fingerprint);
		if (s->s.epoch)
			MSG_SET(&m, begin, epoch, s->s.epoch);
	}
	SET_CONTEXT(&m, begin, &s->attempt);
	if (!s->attempt.prepared_us)
		s->attempt.prepared_us = sys_now_us();
	peer_send(s->n, &m, NULL, 0);
}

static void send_commit(struct service *s, struct peer *p, bool final)
{
	struct msg m = { .type = MSG_commit };

	if (!p)
		return;
	if (!hid_none(&s->s.id))
		MSG_SET(&m, commit, id, s->s.id);
	m.commit.final = final;
	peer_send(p, &m, NULL, 0);
}

static void send_seal_request(struct service *s)
{
	struct msg m = { .type = MSG_seal_request };

	m.seal_request.id = s->s.id;
	peer_send(s->o, &m, NULL, 0);
}

static void send_resume(struct service *s)
{
	struct msg m = { .type = MSG_resume };

	m.resume.id = s->s.id;
	m.resume.why = SPAN(s->s.why ? s->s.why : "the attempt has ended");
	if (s->o)
		peer_send(s->o, &m, NULL, 0);
}

static enum s_event read_o(struct service *s)
{
	if (s->o)
		peer_read(s->o);
	register_drain(s);   /* or on a new channel that nobody has accepted yet */
	register_settle(s);
	if (s->o)
		peer_read(s->o);
	return S_E_O_READ;
}

/* --------------------------------------------------------------- outcome --- */

static void kill_peer(struct peer *p, const char *who, int sig)
{
	if (!p || p->pidfd < 0)
		return;
	log_info("%s (pid %d) is sent %s", who, (int)p->pid, sig == SIGKILL ? "SIGKILL" : "SIGTERM");
	peer_signal(p, sig);
}

static void report(struct service *s)
{
	static const enum log_event event_of[OUTCOME_COUNT] = {
		[OUTCOME_COMMITTED] = LOG_E_COMMITTED, [OUTCOME_ABORTED] = LOG_E_ABORTED,
		[OUTCOME_ROLLED_BACK] = LOG_E_ROLLED_BACK,
	};
	char id[37];

	if (s->attempt.plan) {
		ops_planned(s);
		log_about(NULL);
		return;
	}
	hid_format(&s->s.id, id);
	log_event(event_of[s->s.outcome], s->s.outcome == OUTCOME_COMMITTED ? LOG_L_INFO : LOG_L_WARNING,
	          "handoff %.8s %s: %s", id,
	         outcome_name[s->s.outcome], s->journal.message);
	if (!owner_lives(s) && !s->s.stop)
		s->reported = true;   /* told when it is known whether somebody serves */
	else
		ops_result(s, !owner_lives(s) ? 5 : s->s.outcome == OUTCOME_COMMITTED ? 0 : 1,
		           outcome_name[s->s.outcome], s->journal.message);
	log_about(NULL);
}

/* Not by itself: what was asked for instead is yet to come. */
static void cold_superseded(struct service *s)
{
	log_info("a start is ended, for the one that was asked for");
	s->superseded = false;
	s->cold_error[0] = '\0';
	service_bury(s, &s->n);
}

static void tell_cold_failed(const struct service *s)
{
	const char *why = s->s.why ? s->s.why : "the daemon could not be started";
	const pid_t pid = s->store.fresh ? service_lock_holder(s) : 0;

	if (pid)   /* it is not known whether it is the daemon, as long as it does not register */
		log_warning("%s: %s; pid %d has the lock on the data and may serve: it is waited for, and "
		            "a start is tried again in a moment", why, s->cold_error, (int)pid);
	else
		log_event(LOG_E_NOT_SERVED, LOG_L_ERROR,
		          "%s: %s; the service is NOT served, a start is tried again in a moment", why,
		          s->cold_error);
}

/* Both had died, and whoever asked for that handoff waits to hear whether the old one serves again. */
static void report_cold_failed(struct service *s)
{
	char text_[1800];

	s->reported = false;
	if (s->s.stop)
		snprintf(text_, sizeof text_, "%s; that failed, and the service is being stopped", s->journal.message);
	else
		snprintf(text_, sizeof text_, "%s; that failed (%s) and is tried again: see 'handoffctl status %s'",
		         s->journal.message, s->cold_error, service_name(s));
	ops_result(s, 5, outcome_name[s->s.outcome], text_);
}

static void cold_failed(struct service *s)
{
	bool known;

	/* what has served is kept, whatever lies at its path by now; what never did may be mended there */
	if (!s->exe_served)
		exe_close(&s->exe);
	s->back = false;
	if (register_has_found(s)) {   /* who waits is told what becomes of that one */
		log_info("%s: what was started beside it has ended", s->s.why);
		service_bury(s, &s->n);
		return;
	}
	if (!s->s.stop)
		tell_cold_failed(s);
	/* a helper of those before it may have had what it needs: then nothing is known yet */
	known = generations_settled(s->generations, s->n ? s->n->pid : 0);
	service_bury(s, &s->n);
	if (!s->s.stop)   /* else ops_close() tells them */
		ops_restarted(s, false);
	if (known)
		settle_former(s);
	if (s->reported && known)
		report_cold_failed(s);
}

/* It has not come to register, so that it may be another service's. */
static void name_stranger(const struct service *s)
{
	const pid_t pid = lockwait_holder(s);

	if (pid > 0)
		log_warning("pid %d has the lock on the data and goes on: that it is a daemon of this service is not "
		            "known; end it if it is", (int)pid);
}

static void end(struct service *s)
{
	if (!s->o)
		name_stranger(s);
	service_bury(s, &s->o);
	s->journal.phase = BOOT_IDLE;
	s->journal.incumbent = s->journal.successor = (struct process){ 0, 0 };
	s->journal.served = false;
	write_journal(s, "stopped");
	/* what the daemons have left behind ends first: service_generations */
	s->ending = true;
	generations_stop(s->generations, s->stop_by ? s->stop_by : sys_now_ms() + GENERATION_TERM_MS);
}

/* What is remembered on disk is so when another binary reads it, or when that dies at once. */
static void reexec(struct service *s)
{
	if (service_record(s, s->reexec.why, sizeof s->reexec.why))
		return;
	if (write_journal(s, "another handoffd") == S_E_JOURNALED)
		reexec_now(s);
	else
		snprintf(s->reexec.why, sizeof s->reexec.why, "%.200s/journal cannot be written", s->runtime_dir);
}

enum s_event service_act(struct service *s, enum s_action a)
{
	switch (a) {
	case S_A_BEGIN_ATTEMPT: begin_attempt(s); return S_NOW;
	case S_A_SPAWN: return spawn(s, false);
	case S_A_JOURNAL_STARTED: return journal_started(s);
	case S_A_RELEASE: release(s); return S_NOW;
	case S_A_PREPARE: send_prepare(s); return S_NOW;
	case S_A_SEAL_REQUEST: send_seal_request(s); return S_NOW;
	case S_A_BEGIN_SEALED: send_begin(s, true); return S_NOW;
	case S_A_BEGIN_NOTHING: send_begin(s, false); return S_NOW;
	case S_A_READ_O: return read_o(s);
	case S_A_JOURNAL_COMMITTED:
		s->journal.phase = BOOT_COMMITTED;
		return write_journal(s, "committed");
	case S_A_COMMIT_N:
		send_commit(s, s->n, false);
		if (s_in_handoff(&s->s))
			disruption_look(&s->disruption);
		return S_NOW;
	case S_A_COMMIT_O: send_commit(s, s->o, false); return S_NOW;
	case S_A_FINAL: send_commit(s, s->o, true); return S_NOW;
	case S_A_KILL_N: kill_peer(s->n, "the successor", SIGKILL); return S_NOW;
	case S_A_KILL_O: kill_peer(s->o, "the incumbent", SIGKILL); return S_NOW;
	case S_A_TERM_O:
		s->stop_by = sys_now_ms() + s->s.timer[TIMER_STOP];
		kill_peer(s->o, "the daemon", SIGTERM);
		return S_NOW;
	case S_A_RESUME_O:
		send_resume(s);
		if (s_in_handoff(&s->s))
			disruption_look(&s->disruption);
		return S_NOW;
	case S_A_PROMOTE:
		service_bury(s, &s->o);
		s->o = s->n;
		s->n = NULL;
		return peer_connected(s->o) ? S_NOW : S_E_O_LOST;
	case S_A_JOURNAL_OUTCOME: return journal_outcome(s);
	case S_A_REPORT: report(s); return S_NOW;
	case S_A_LISTEN: return bind_listeners(s);
	case S_A_SPAWN_COLD: return spawn_cold(s);
	case S_A_JOURNAL_COLD: return journal_cold(s);
	case S_A_JOURNAL_SERVES: return journal_serves(s);
	case S_A_JOURNAL_FOUND: journal_found(s); return S_NOW;
	case S_A_COLD_FAILED: s->superseded ? cold_superseded(s) : cold_failed(s); return S_NOW;
	case S_A_END: end(s); return S_NOW;
	case S_A_REEXEC: reexec(s); return S_NOW;
	case S_A_MAY:
	case S_A_OUTCOME:
	case S_A_NONE:
	case S_ACTION_COUNT: break;
	}
	return S_NOW;
}
