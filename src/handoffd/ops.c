/* What operators ask for over control.sock, and what they are told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/callers.h"
#include "handoffd/log.h"
#include "handoffd/service.h"
#include "handoffd/version.h"

#define MAX_RESULTS  16
#define HISTORY_AT_ONCE 8   /* records for one request: the loop has others to serve */
#define STATE_QUEUES      64   /* listeners whose queues a State has, */
#define STATE_QUEUES_UNIX 8    /* and of unix sockets so many: they take longer */
#define STATE_LISTENERS_MAX 40000   /* bytes of their names and addresses in a State */

struct result {
	struct hid id;
	int code;
	enum s_outcome outcome;
	char outcome_text[64];
	const char *message;    /* borrowed */
	struct times times;
	bool counted;           /* connections: */
	uint64_t moved, stayed;
};

#define MESSAGE_MAX   2000
#define MESSAGE_USUAL 128

/* One that is remembered. There is room for a usual message from the beginning, so that what is
 * remembered is no block more, and lies where it lay. */
struct kept_result {
	struct result r;
	char *message;
	size_t room;
};

#define MAX_LATER 8

/* A phase that those who wait are told of when the turn has sent what it had to. */
struct later {
	struct hid id;
	const char *phase;
	char text[300];         /* "": none */
	bool watch;             /* only for those who watch */
	uint64_t us, at_ms;
};

struct ops {
	struct callers callers;
	struct event *tell;     /* made active by hand: it runs behind what is under way */
	struct later later[MAX_LATER];
	unsigned nlater;
	struct kept_result results[MAX_RESULTS];   /* a ring: for who asks again by id */
	unsigned nresults;
};

/* ---------------------------------------------------------------- answers --- */

/* A path of the configuration may be any bytes; the wire takes UTF-8. */
static struct span text(const char *s)
{
	return utf8_valid(s, strlen(s)) ? SPAN(s) : SPAN("(not UTF-8)");
}

static const char *build_text(const struct peer *p, char out[129])
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; p && i < p->build_size; i++)
		n += (size_t)sprintf(out + n, "%02x", p->build[i]);
	return out;
}

static void tell_one(struct ops *ops, const struct later *l)
{
	const struct attempt *a = &ops->callers.service->attempt;
	struct msg m = { .type = MSG_op_event };

	if (!hid_none(&l->id))
		MSG_SET(&m, op_event, id, l->id);
	if (!hid_none(&l->id) && hid_equal(&l->id, &a->id))
		SET_CONTEXT(&m, op_event, a);
	MSG_SET(&m, op_event, at_ms, l->at_ms);
	m.op_event.phase = SPAN(l->phase);
	m.op_event.us = l->us;
	if (l->text[0])
		MSG_SET(&m, op_event, text, SPAN(l->text));
	for (struct caller *o = ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_WATCH)
			caller_offer(o, &m);
		else if (!l->watch && o->waits != WAITS_NOT && (hid_none(&o->id) || hid_equal(&o->id, &l->id)))
			caller_send(o, &m);
}

static void tell(struct ops *ops)
{
	for (unsigned i = 0; i < ops->nlater; i++)
		tell_one(ops, &ops->later[i]);
	ops->nlater = 0;
}

static void send_result(struct caller *o, const struct result *r)
{
	struct service *s = o->all->service;
	struct msg m = { .type = MSG_op_result };
	char build[129];

	tell(s->ops);   /* the phases come before their outcome */
	if (!hid_none(&r->id))
		MSG_SET(&m, op_result, id, r->id);
	m.op_result.code = (uint64_t)r->code;
	if (o->waits == WAITS_ABORT)   /* who asked for the abort has got it, or not */
		m.op_result.code = r->outcome == OUTCOME_COMMITTED ? 1 : r->code == 5 ? 5 : 0;
	m.op_result.outcome = SPAN(r->outcome_text);
	m.op_result.message = text(r->message);
	if (r->times.pause)
		MSG_SET(&m, op_result, pause_us, r->times.pause);
	if (r->times.serving)
		MSG_SET(&m, op_result, serving_us, r->times.serving);
	if (r->times.total)
		MSG_SET(&m, op_result, total_us, r->times.total);
	if (r->times.stall)
		MSG_SET(&m, op_result, stall_us, r->times.stall);
	if (r->counted) {
		MSG_SET(&m, op_result, moved, r->moved);
		MSG_SET(&m, op_result, stayed, r->stayed);
	}
	if (s->o) {
		MSG_SET(&m, op_result, pid, (uint64_t)s->o->pid);
		MSG_SET(&m, op_result, build, SPAN(build_text(s->o, build)));
		if (s->o->software[0])
			MSG_SET(&m, op_result, software, SPAN(s->o->software));
	}
	log_flush();   /* who is told the outcome finds it in the log */
	caller_expect(o);
	caller_send(o, &m);
}

static void answer(struct caller *o, int code, const char *outcome, const char *message)
{
	char cut[MESSAGE_MAX];
	struct result r = { .id = o->id, .code = code, .message = cut };

	snprintf(r.outcome_text, sizeof r.outcome_text, "%s", outcome);
	snprintf(cut, sizeof cut, "%s", message);
	send_result(o, &r);
}

static void refuse(struct caller *o, int code, const char *message)
{
	answer(o, code, "refused", message);
}

static void note(struct service *s, const char *phase, const char *text, bool watch)
{
	struct later *l;

	if (!s->ops || !s->ops->callers.list)
		return;
	if (s->ops->nlater == MAX_LATER)
		tell(s->ops);
	l = &s->ops->later[s->ops->nlater++];
	*l = (struct later){ .phase = phase, .watch = watch, .at_ms = sys_wall_ms() };
	snprintf(l->text, sizeof l->text, "%s", text ? text : "");
	if (!s->attempt.told) {
		l->id = s->attempt.id;
		l->us = s->attempt.asked_us ? sys_now_us() - s->attempt.asked_us : 0;
	}
	utf8_mend(l->text);
	event_active(s->ops->tell, EV_TIMEOUT, 0);
}

void ops_phase(struct service *s, const char *phase, const char *text)
{
	note(s, phase, text, false);
}

void ops_watchers(struct service *s, const char *phase, const char *text)
{
	note(s, phase, text, true);
}

static bool make_room(struct kept_result *k, size_t n)
{
	char *p = n > k->room ? realloc(k->message, n) : k->message;

	if (!p)
		return false;
	k->message = p;
	if (n > k->room)
		k->room = n;
	return true;
}

static void keep_result(struct ops *ops, const struct result *r)
{
	struct kept_result *k = &ops->results[ops->nresults++ % MAX_RESULTS];

	k->r = *r;
	if (make_room(k, strlen(r->message) + 1))
		k->r.message = strcpy(k->message, r->message);
	else
		k->r.message = "(there was no memory to remember its message)";
}

void ops_result(struct service *s, int code, const char *outcome, const char *message)
{
	struct attempt *a = &s->attempt;
	char cut[MESSAGE_MAX];
	struct result r = { .id = a->id, .code = code, .outcome = s->s.outcome, .message = cut };
	uint64_t now = sys_now_us();
	struct times t = { 0 };

	snprintf(r.outcome_text, sizeof r.outcome_text, "%s", outcome);
	snprintf(cut, sizeof cut, "%s", message);
	if (a->asked_us) {
		t.total = now - a->asked_us;
		t.serving = a->serving_us ? a->serving_us - a->asked_us : 0;
		t.pause = a->serving_us && a->prepared_us ? a->serving_us - a->prepared_us : 0;
		t.stall = a->plan ? 0 : disruption_longest(&s->disruption);
	}
	if (code == 0 && a->max_stall_ms && t.stall > (uint64_t)a->max_stall_ms * 1000) {
		r.code = 7;
		snprintf(cut, sizeof cut, "%.1500s; but nobody accepted for %.1f ms, over the %u ms of "
		         "--max-stall", message, (double)t.stall / 1000, a->max_stall_ms);
	}
	r.times = t;
	if (!a->plan && s->s.outcome == OUTCOME_COMMITTED)
		disruption_committed(&s->disruption);
	if (!a->plan && s->disruption.counted)
		r.counted = true, r.moved = s->disruption.moved, r.stayed = s->disruption.stayed;
	keep_result(s->ops, &r);
	if (!a->plan) {
		s->totals.outcomes[s->s.outcome]++;
		s->totals.pause_us = t.pause;
		s->totals.total_us = t.total;
		s->totals.moved += s->s.outcome == OUTCOME_COMMITTED ? s->disruption.moved : 0;
		s->totals.stayed += s->s.outcome == OUTCOME_COMMITTED ? s->disruption.stayed : 0;
		s->totals.handed = a->asked_us != 0;   /* adopted: how long nobody accepted is not known */
		s->totals.stall_us = t.stall;
		s->totals.last = s->disruption;
	}
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if ((o->waits == WAITS_ATTEMPT || o->waits == WAITS_ABORT) && hid_equal(&o->id, &a->id))
			send_result(o, &r);
	ops_watchers(s, outcome, cut);
	a->told = true;
	history_end(s, r.code, outcome, cut, &t);
}

void ops_refused(struct service *s, const struct hid *id, int code, const char *outcome, const char *message)
{
	char cut[MESSAGE_MAX];
	struct result r = { .id = *id, .code = code, .message = cut };

	if (!s->ops)
		return;
	snprintf(r.outcome_text, sizeof r.outcome_text, "%s", outcome);
	snprintf(cut, sizeof cut, "%s", message);
	keep_result(s->ops, &r);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_ATTEMPT && hid_equal(&o->id, id))
			send_result(o, &r);
}

static void tell_planned(struct service *s)
{
	struct msg m;

	if (!planned_tell(s, &m))
		return;
	tell(s->ops);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_ATTEMPT && hid_equal(&o->id, &s->attempt.id))
			caller_send(o, &m);
}

void ops_planned(struct service *s)
{
	char text[6000];

	tell_planned(s);
	planned_end(s);
	if (s->attempt.planned) {
		snprintf(text, sizeof text, "an upgrade would go ahead: the successor started as far as its first message; the "
		         "incumbent (pid %d) was not asked", s->o ? (int)s->o->pid : 0);
		ops_result(s, 0, "plan", text);
		return;
	}
	snprintf(text, sizeof text, "an upgrade would fail: %s%s", s->s.why ? s->s.why : "", s->attempt.why);
	ops_result(s, 1, "plan", text);
}

static void answer_restarts(struct service *s, int code, const char *outcome, const char *text)
{
	for (struct caller *o = s->ops ? s->ops->callers.list : NULL; o; o = o->next)
		if (o->waits == WAITS_RESTART)
			answer(o, code, outcome, text);
}

void ops_restarted(struct service *s, bool serves)
{
	char text[900];

	if (serves)
		snprintf(text, sizeof text, "the daemon was restarted (pid %d) and serves", s->o ? (int)s->o->pid : 0);
	else
		snprintf(text, sizeof text, "the daemon does not start (%s); the service is NOT served, a start is "
		         "tried again and again: see the daemon's log", s->cold_error);
	answer_restarts(s, serves ? 0 : 5, serves ? "restarted" : "failed", text);
}

void ops_found(struct service *s)
{
	char text[200];

	snprintf(text, sizeof text, "pid %d was found to have the lock on the data, and was not restarted: what was "
	         "being started beside it has ended; try again", (int)s->o->pid);
	answer_restarts(s, 1, "failed", text);
}

void ops_reexeced(struct service *s, int code, const char *message)
{
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_REEXEC)
			answer(o, code, code ? "refused" : "replaced", message);
	if (!code)
		ops_watchers(s, "replaced", message);
}

void ops_tell(struct service *s)
{
	tell(s->ops);
}

struct callers *ops_callers(const struct service *s)
{
	return &s->ops->callers;
}

/* --------------------------------------------------------------- requests --- */

static void wait_for(struct caller *o, enum waits w, const struct hid *id)
{
	o->waits = w;
	o->id = id ? *id : (struct hid){ { 0 } };
}

static void start(struct caller *o, struct attempt *a)
{
	char err[1000];
	int code;

	a->asked_us = sys_now_us();
	a->uid = o->who.uid;
	wait_for(o, WAITS_ATTEMPT, &a->id);
	code = hid_none(&a->id) ? 2 : service_upgrade(o->all->service, a, err, sizeof err);
	if (hid_none(&a->id))
		snprintf(err, sizeof err, "a handoff needs an id");
	if (code)
		refuse(o, code, err);
}

static void asked(const struct caller *o, const char *what, const struct span *reason)
{
	log_info("uid %d (pid %d) asks for %s%s%.*s", (int)o->who.uid, (int)o->who.pid, what, reason->n ? ": " : "",
	         (int)reason->n, reason->n ? reason->p : "");
}

/* What an operator may say of an attempt. */
#define COPY_ATTEMPT(a, m) do { \
	(a)->id = (m)->id; \
	(a)->deadline_ms = (uint32_t)(m)->deadline_ms; \
	(a)->drain_ms = (uint32_t)(m)->drain_ms; \
	span_copy((a)->reason, sizeof (a)->reason, &(m)->reason); \
	span_copy((a)->trace_parent, sizeof (a)->trace_parent, &(m)->trace_parent); \
	span_copy((a)->correlation_id, sizeof (a)->correlation_id, &(m)->correlation_id); \
	span_copy((a)->tenant, sizeof (a)->tenant, &(m)->tenant); \
} while (0)

static void start_asked(struct caller *o, struct attempt *a, const char *what, const struct span *reason)
{
	asked(o, what, reason);
	if (a->correlation_id[0] || a->tenant[0] || a->trace_parent[0])
		log_info("it bears correlation-id '%s', tenant '%s', trace-parent '%s'", a->correlation_id, a->tenant,
		         a->trace_parent);
	start(o, a);
}

/* A start that has come to its end serves, also while nobody has read that it does. */
static bool nobody_serves(struct service *s)
{
	if (service_nobody_serves(s) && s->n)
		peer_read(s->n);
	return service_nobody_serves(s);
}

/* id: of a rollback, NULL: as it is. */
static void restart(struct caller *o, const char *what, const struct hid *id, const struct span *reason)
{
	char err[1200];
	int code;

	asked(o, what, reason);
	wait_for(o, WAITS_RESTART, id);
	if ((code = service_restart(o->all->service, id, err, sizeof err)))
		refuse(o, code, err);
}

static void on_upgrade(struct caller *o, const struct msg *m)
{
	struct attempt a = { .plan = false };

	COPY_ATTEMPT(&a, &m->op_upgrade);
	span_copy(a.binary, sizeof a.binary, &m->op_upgrade.binary);
	a.max_stall_ms = (uint32_t)m->op_upgrade.max_stall_ms;
	a.pinned = MSG_HAS(m, op_upgrade, sha256);
	a.pin = m->op_upgrade.sha256;
	a.if_changed = m->op_upgrade.if_changed;
	start_asked(o, &a, "an upgrade", &m->op_upgrade.reason);
}

static void on_rollback(struct caller *o, const struct msg *m)
{
	struct attempt a = { .back = true };

	COPY_ATTEMPT(&a, &m->op_rollback);
	if (nobody_serves(o->all->service))   /* who could hand over */
		restart(o, "a rollback", &m->op_rollback.id, &m->op_rollback.reason);
	else
		start_asked(o, &a, "a rollback", &m->op_rollback.reason);
}

static void on_plan(struct caller *o, const struct msg *m)
{
	struct attempt a = { .id = m->op_plan.id, .plan = true };

	span_copy(a.binary, sizeof a.binary, &m->op_plan.binary);
	start(o, &a);
}

static bool is_candidate(const struct service *s, const struct hid *id)
{
	return s->candidate && hid_equal(id, &s->candidate->attempt.id);
}

static void on_abort(struct caller *o, const struct msg *m)
{
	struct service *s = o->all->service;

	if (s->candidate && (!MSG_HAS(m, op_abort, id) || is_candidate(s, &m->op_abort.id))) {
		candidate_drop(s, "the abort was asked for before it had begun");
		answer(o, 0, "aborted", "the handoff that was about to begin does not");
		return;
	}
	if (!s_in_handoff(&s->s) || (MSG_HAS(m, op_abort, id) && !hid_equal(&m->op_abort.id, &s->s.id))) {
		refuse(o, 1, "no such handoff is under way: nothing to abort");
		return;
	}
	if (s->s.state >= S_DECIDING && s->s.state <= S_OEXIT) {
		refuse(o, 1, "too late: the commit is decided");
		return;
	}
	wait_for(o, WAITS_ABORT, &s->s.id);
	if (m->op_abort.reason.n && s->s.state < S_ABORT && !s->attempt.why[0]) {
		snprintf(s->attempt.why, sizeof s->attempt.why, ": %.*s", (int)m->op_abort.reason.n, m->op_abort.reason.p);
		utf8_mend(s->attempt.why);
	}
	service_event(s, S_E_ABORT, NULL);
}

static void on_restart(struct caller *o, const struct msg *m)
{
	nobody_serves(o->all->service);   /* whoever is told of that start is told before */
	restart(o, "a restart of the daemon", NULL, &m->op_restart.reason);
}

static void on_reexec(struct caller *o, const struct msg *m)
{
	char err[1200];
	int code;

	asked(o, "another handoffd in place of this one", &m->op_reexec.reason);
	wait_for(o, WAITS_REEXEC, NULL);
	if ((code = reexec_begin(o->all->service, err, sizeof err)))
		refuse(o, code, err);
}

static void on_stop(struct caller *o, const struct msg *m)
{
	char text[200];

	if (getenv("INVOCATION_ID") && getenv("NOTIFY_SOCKET")) {
		snprintf(text, sizeof text, "this supervisor runs under systemd, which would start it again: "
		         "use 'systemctl stop handoff@%s'", o->all->service->conf->name);
		refuse(o, 1, text);
		return;
	}
	wait_for(o, WAITS_STOP, NULL);
	asked(o, "a stop", &m->op_stop.reason);
	service_event(o->all->service, S_E_STOP, NULL);
}

static const struct result *find_result(struct service *s, const struct hid *id)
{
	for (unsigned i = 0; i < MAX_RESULTS && i < s->ops->nresults; i++)
		if (hid_equal(&s->ops->results[i].r.id, id))
			return &s->ops->results[i].r;
	return NULL;
}

/* What an earlier supervisor has told, or this process before a re-exec. */
static bool recall_result(struct service *s, const struct hid *id, char message[MESSAGE_MAX], struct result *ret)
{
	struct history_record r;
	const struct msg_handoff *h = &r.m.handoff;

	if (!history_find(s, id, &r))
		return false;
	*ret = (struct result){ .id = *id, .code = (int)h->code, .message = message };
	span_copy(ret->outcome_text, sizeof ret->outcome_text, &h->outcome);
	span_copy(message, MESSAGE_MAX, &h->message);
	ret->times = (struct times){ .pause = h->pause_us, .serving = h->serving_us, .total = h->total_us,
	                             .stall = h->stall_us };
	ret->counted = MSG_HAS(&r.m, handoff, moved) && MSG_HAS(&r.m, handoff, stayed);
	ret->moved = h->moved;
	ret->stayed = h->stayed;
	return true;
}

static void answer_last(struct caller *o)
{
	const struct journal *j = &o->all->service->journal;

	answer(o, store_code(j), outcome_name[j->outcome], j->message);
}

void ops_settle(struct service *s)
{
	/* what this supervisor has decided itself, ops_result tells */
	for (struct caller *o = s->ops && !s->reported ? s->ops->callers.list : NULL; o; o = o->next)
		if (o->waits == WAITS_ATTEMPT && hid_equal(&o->id, &s->journal.last_id))
			answer_last(o);
}

static void answer_unknown(struct caller *o)
{
	char text[200];

	snprintf(text, sizeof text, "this supervisor knows nothing of that handoff: see 'handoffctl status %.64s'",
	         service_name(o->all->service));
	answer(o, 6, "unknown", text);
}

static void on_outcome(struct caller *o, const struct msg *m)
{
	struct service *s = o->all->service;
	const struct hid *id = &m->op_outcome.id;
	const struct result *r = find_result(s, id);
	struct result recalled;
	char message[MESSAGE_MAX];

	o->id = *id;
	if (((s_in_handoff(&s->s) || s->reported) && hid_equal(id, &s->attempt.id)) || is_candidate(s, id))
		wait_for(o, WAITS_ATTEMPT, id);
	else if (r)
		send_result(o, r);
	else if (store_waits(&s->journal, id) && s->s.state != S_IDLE && !s->s.stop)
		wait_for(o, WAITS_ATTEMPT, id);   /* told when it is known whether somebody serves */
	else if (recall_result(s, id, message, &recalled))
		send_result(o, &recalled);
	else if (hid_equal(id, &s->journal.last_id) && s->journal.outcome != OUTCOME_NONE)
		answer_last(o);
	else
		answer_unknown(o);
}

/* What an operator sees as the state; while a supervisor waits for a daemon that serves
 * and has not registered, that. */
static const char *state_text(const struct service *s)
{
	if (s->s.state == S_IDLE && !s->s.o_connected)
		return "unregistered";
	return s_state_desc[s->s.state].name;
}

static void put_totals(struct msg *m, const struct service *s)
{
	const struct totals *t = &s->totals;

	MSG_SET(m, op_state, serves, service_serves(s));
	MSG_SET(m, op_state, supervisor_since_ms, t->since_ms);
	MSG_SET(m, op_state, committed, t->outcomes[OUTCOME_COMMITTED]);
	MSG_SET(m, op_state, aborted, t->outcomes[OUTCOME_ABORTED]);
	MSG_SET(m, op_state, rolled_back, t->outcomes[OUTCOME_ROLLED_BACK]);
	MSG_SET(m, op_state, cold_starts, t->cold_starts);
	MSG_SET(m, op_state, moved, t->moved);
	MSG_SET(m, op_state, stayed, t->stayed);
	if (t->pause_us)
		MSG_SET(m, op_state, last_pause_us, t->pause_us);
	if (t->total_us)
		MSG_SET(m, op_state, last_total_us, t->total_us);
	if (t->handed)
		MSG_SET(m, op_state, last_stall_us, t->stall_us);
}

/* Whether another file lies at the path by now the client looks itself: a path can hang. */
static void put_binaries(const struct service *s, struct msg *m, uint64_t id[4])
{
	const struct kept *before = &s->keep.c.before;
	const struct exe *e = &s->exe;

	MSG_SET(m, op_state, binary, text(e->fd >= 0 ? e->path : s->journal.binary[0] ? s->journal.binary
	                                                                              : s->conf->command[0]));
	if (e->fd >= 0) {
		id[0] = e->id.ino, id[1] = e->id.size, id[2] = e->id.mtime, id[3] = e->id.ctime;
		if (e->id.ino)
			MSG_SET(m, op_state, file, ((struct uints){ .n = 4, .v = id }));
		MSG_SET(m, op_state, kept, e->copy > 0);
		if (sum_known(&s->keep.c.now.sum) && s->exe_served)
			MSG_SET(m, op_state, sha256, s->keep.c.now.sum);
	}
	if (!before->path[0])
		return;
	MSG_SET(m, op_state, previous, text(before->path));
	MSG_SET(m, op_state, previous_kept, before->copy > 0);
}

/* Of the first listeners; who asks may not make it look at a thousand. */
struct queues {
	uint64_t waiting[STATE_QUEUES], backlog[STATE_QUEUES], drops[STATE_QUEUES];
	uint64_t deepest[STATE_QUEUES], dropped[STATE_QUEUES];   /* in the last handoff */
};

/* What the last handoff cost the same listeners, as far as they were there. */
static void put_last_queues(const struct service *s, struct msg *m, struct queues *q, unsigned n)
{
	const struct disruption *d = &s->totals.last;

	for (unsigned i = 0; i < n; i++) {
		const struct disruption_queue *l = disruption_of(d, s->conf->listen[i].name);

		q->deepest[i] = l ? l->deepest.waiting : UINT64_MAX;
		q->dropped[i] = l ? l->deepest.drops : UINT64_MAX;
	}
	MSG_SET(m, op_state, last_deepest, ((struct uints){ .n = n, .v = q->deepest }));
	MSG_SET(m, op_state, last_drops, ((struct uints){ .n = n, .v = q->dropped }));
}

static void put_queues(struct service *s, struct msg *m, struct queues *q)
{
	const struct conf *c = s->conf;
	unsigned left = STATE_QUEUES_UNIX, n;
	int diag = queue_open();

	for (n = 0; n < c->nlisten && n < STATE_QUEUES; n++) {
		const struct listener *l = listeners_find(&s->listeners, &c->listen[n]);
		struct queue now;
		bool known = l && (!l->path || left) && !queue_look(l->fd, diag, &now);

		left -= known && l->path;
		q->waiting[n] = known ? now.waiting : UINT64_MAX;
		q->backlog[n] = known ? now.backlog : UINT64_MAX;
		q->drops[n] = known ? now.drops : UINT64_MAX;
	}
	sys_closep(&diag);
	MSG_SET(m, op_state, waiting, ((struct uints){ .n = n, .v = q->waiting }));
	MSG_SET(m, op_state, backlogs, ((struct uints){ .n = n, .v = q->backlog }));
	MSG_SET(m, op_state, drops, ((struct uints){ .n = n, .v = q->drops }));
	if (s->totals.handed)
		put_last_queues(s, m, q, n);
}

static void on_status(struct caller *o, const struct msg *req)
{
	struct service *s = o->all->service;
	struct msg m = { .type = MSG_op_state };
	char build[129], (*addresses)[CONF_MAX_NAME + 140] = calloc(s->conf->nlisten + 1u, sizeof *addresses);
	struct span *names = calloc(s->conf->nlisten + 1u, sizeof *names);
	uint64_t timers[TIMER_COUNT], id[4], left;
	const char *no = service_refuses(s);
	char broken[sizeof s->conf_error + 100];
	struct queues queues;
	size_t bytes = 0;

	(void)req;
	put_queues(s, &m, &queues);
	m.op_state.service = SPAN(s->conf->name);
	m.op_state.state = SPAN(state_text(s));
	m.op_state.supervisor_pid = (uint64_t)getpid();
	MSG_SET(&m, op_state, supervisor_version, SPAN(handoffd_version));
	if (s_in_handoff(&s->s))
		MSG_SET(&m, op_state, id, s->s.id);
	if (s->o) {
		MSG_SET(&m, op_state, pid, (uint64_t)s->o->pid);
		if (s->o->build_size)   /* not before it has registered */
			MSG_SET(&m, op_state, build, SPAN(build_text(s->o, build)));
		if (s->o->epoch)
			MSG_SET(&m, op_state, epoch, s->o->epoch);
		if (s->journal.since)   /* not of one that no journal named */
			MSG_SET(&m, op_state, since_ms, s->journal.since);
		if (s->o->software[0])
			MSG_SET(&m, op_state, software, SPAN(s->o->software));
	}
	put_binaries(s, &m, id);
	for (unsigned i = 0; addresses && names && i < s->conf->nlisten; i++) {
		snprintf(addresses[i], sizeof *addresses, "%s %.130s", s->conf->listen[i].name, s->conf->listen[i].address);
		names[i] = text(addresses[i]);
		m.op_state.listeners.n = i + 1;
		if ((bytes += names[i].n + 3) > STATE_LISTENERS_MAX)   /* a frame has its limit */
			names[i] = SPAN("..."), i = s->conf->nlisten;
	}
	m.op_state.listeners.v = names;
	if (s->journal.outcome != OUTCOME_NONE) {
		MSG_SET(&m, op_state, last_id, s->journal.last_id);
		MSG_SET(&m, op_state, last_outcome, SPAN(outcome_name[s->journal.outcome]));
		MSG_SET(&m, op_state, last_message, SPAN(s->journal.message));
	}
	if (no)
		MSG_SET(&m, op_state, refused, SPAN(no));
	if (s->n)
		MSG_SET(&m, op_state, successor_pid, (uint64_t)s->n->pid);
	if (s->store.dirty)
		MSG_SET(&m, op_state, warning, SPAN("the journal could not be written"));
	else if (s->lockwait.text[0])
		MSG_SET(&m, op_state, warning, SPAN(s->lockwait.text));
	else if (s->cold_error[0] && (!s->o || peer_dead(s->o)))
		MSG_SET(&m, op_state, warning, text(s->cold_error));
	else if (s->conf_error[0]) {
		snprintf(broken, sizeof broken, "%s; the configuration that was in use is used, and an upgrade "
		         "reads the file again", s->conf_error);
		MSG_SET(&m, op_state, warning, text(broken));
	}
	else if (s->keep.why[0])
		MSG_SET(&m, op_state, warning, text(s->keep.why));
	for (int i = 0; i < TIMER_COUNT; i++)
		timers[i] = s->conf->timer[i];
	m.op_state.timers = (struct uints){ .n = TIMER_COUNT, .v = timers };
	if ((left = generations_left(s->generations)))
		MSG_SET(&m, op_state, left, left);
	put_totals(&m, s);
	caller_send(o, &m);
	free(addresses);
	free(names);
}

static void on_history(struct caller *o, const struct msg *m)
{
	uint64_t number = m->op_history.before;
	uint64_t count = MSG_HAS(m, op_history, count) ? m->op_history.count : HISTORY_AT_ONCE;
	struct history_record r;

	while (count-- && history_read(o->all->service, number, &r)) {
		number = r.m.handoff.number;
		if (!o->may)   /* what a daemon says is for those who may see its log */
			r.m.has &= ~(UINT64_C(1) << MSG_BIT_handoff_log);
		caller_send(o, &r.m);
	}
	answer(o, 0, "history", "");
}

static void on_watch(struct caller *o, const struct msg *req)
{
	struct msg m = { .type = MSG_op_event };

	(void)req;
	wait_for(o, WAITS_WATCH, NULL);
	m.op_event.phase = SPAN(state_text(o->all->service));
	MSG_SET(&m, op_event, at_ms, sys_wall_ms());
	caller_send(o, &m);
}

static const struct request {
	enum msg_type type;
	bool looks_only;
	void (*serve)(struct caller *o, const struct msg *m);
} requests[] = {
	{ MSG_op_upgrade, false, on_upgrade },
	{ MSG_op_rollback, false, on_rollback },
	{ MSG_op_plan, false, on_plan },
	{ MSG_op_status, true, on_status },
	{ MSG_op_abort, false, on_abort },
	{ MSG_op_restart, false, on_restart },
	{ MSG_op_stop, false, on_stop },
	{ MSG_op_reexec, false, on_reexec },
	{ MSG_op_outcome, true, on_outcome },
	{ MSG_op_history, true, on_history },
	{ MSG_op_watch, true, on_watch },
};

static void serve(struct caller *o, const struct msg *m)
{
	const struct request *r = NULL;

	for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
		if (requests[i].type == m->type)
			r = &requests[i];
	if (!r) {
		caller_end(o, "sent %s to control.sock, which is no request", msg_name(m->type));
	} else if (!r->looks_only && !o->may) {
		refuse(o, 8, "permission denied: root, the supervisor's user, or the group named by 'operators' may do this");
	} else if (o->waits != WAITS_NOT) {
		refuse(o, 4, "this connection still waits for the answer to its last request");
	} else if (!r->looks_only && o->all->service->reexec.child.end) {
		caller_later(o);   /* another handoffd may answer it */
	} else {
		r->serve(o, m);
	}
}

/* -------------------------------------------------------------- their life --- */

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;

	(void)fd;
	(void)what;
	tell(s->ops);
	callers_sweep(&s->ops->callers);
}

int ops_open(struct service *s, int fd, char *err, size_t size)
{
	s->ops = calloc(1, sizeof *s->ops);
	if (!s->ops || !(s->ops->tell = event_new(s->base, -1, 0, on_tell, s))) {
		free(s->ops);
		s->ops = NULL;
		snprintf(err, size, "no memory");
		return -ENOMEM;
	}
	for (unsigned i = 0; i < MAX_RESULTS; i++)
		make_room(&s->ops->results[i], MESSAGE_USUAL);   /* if not, then later */
	s->ops->callers.serve = serve;
	return callers_open(&s->ops->callers, s, fd, err, size);
}

void ops_close(struct service *s)
{
	if (!s->ops)
		return;
	tell(s->ops);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_STOP)
			answer(o, 0, "stopped", "the daemon has ended, and so does the supervisor");
		else if (o->waits != WAITS_NOT && o->waits != WAITS_WATCH)
			answer(o, 5, "stopped", "the supervisor was stopped; the service is NOT served");
	callers_close(&s->ops->callers);
	event_free(s->ops->tell);
	for (unsigned i = 0; i < MAX_RESULTS; i++)
		free(s->ops->results[i].message);
	free(s->ops);
	s->ops = NULL;
}
