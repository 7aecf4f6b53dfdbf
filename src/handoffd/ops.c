/* What operators ask for over control.sock. */
#include "handoffd/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

#define HISTORY_AT_ONCE 8   /* records for one request: the loop has others to serve */

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
		ops_refuse(o, code, err);
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
		ops_refuse(o, code, err);
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
	a.max_stall_ms = (uint32_t)m->op_plan.max_stall_ms;
	start(o, &a);
}

static bool is_candidate(const struct service *s, const struct hid *id)
{
	return s->candidate && hid_equal(id, &s->candidate->attempt.id);
}

static void on_abort(struct caller *o, const struct msg *m)
{
	struct service *s = o->all->service;
	char stuck[300];

	if (s->candidate && (!MSG_HAS(m, op_abort, id) || is_candidate(s, &m->op_abort.id))) {
		candidate_drop(s, "the abort was asked for before it had begun");
		ops_answer(o, 0, "aborted", "the handoff that was about to begin does not");
		return;
	}
	if (!s_in_handoff(&s->s) || (MSG_HAS(m, op_abort, id) && !hid_equal(&m->op_abort.id, &s->s.id))) {
		ops_refuse(o, 1, "no such handoff is under way: nothing to abort");
		return;
	}
	if (s->s.state >= S_DECIDING && s->s.state <= S_OEXIT) {
		ops_refuse(o, 1, "too late: the commit is decided");
		return;
	}
	wait_for(o, WAITS_ABORT, &s->s.id);
	if (service_stuck(s, stuck, sizeof stuck))
		ops_phase(s, ops_state_name(s), stuck);
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
		ops_refuse(o, code, err);
}

static void on_stop(struct caller *o, const struct msg *m)
{
	char text[200];

	if (getenv("INVOCATION_ID") && getenv("NOTIFY_SOCKET")) {
		snprintf(text, sizeof text, "this supervisor runs under systemd, which would start it again: "
		         "use 'systemctl stop handoff@%s'", o->all->service->conf->name);
		ops_refuse(o, 1, text);
		return;
	}
	wait_for(o, WAITS_STOP, NULL);
	asked(o, "a stop", &m->op_stop.reason);
	service_event(o->all->service, S_E_STOP, NULL);
}

/* What an earlier supervisor has told, or this process before a re-exec. */
static bool recall_result(struct service *s, const struct hid *id, char message[RESULT_MESSAGE_MAX], struct result *ret)
{
	struct history_record r;
	const struct msg_handoff *h = &r.m.handoff;

	if (!history_find(s, id, &r))
		return false;
	*ret = (struct result){ .id = *id, .code = (int)h->code, .message = message };
	span_copy(ret->outcome_text, sizeof ret->outcome_text, &h->outcome);
	span_copy(message, RESULT_MESSAGE_MAX, &h->message);
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

	ops_answer(o, store_code(j), outcome_name[j->outcome], j->message);
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
	ops_answer(o, 6, "unknown", text);
}

static void on_outcome(struct caller *o, const struct msg *m)
{
	struct service *s = o->all->service;
	const struct hid *id = &m->op_outcome.id;
	const struct result *r = results_find(&s->ops->results, id);
	struct result recalled;
	char message[RESULT_MESSAGE_MAX];

	o->id = *id;
	if (((s_in_handoff(&s->s) || s->reported) && hid_equal(id, &s->attempt.id)) || is_candidate(s, id))
		wait_for(o, WAITS_ATTEMPT, id);
	else if (r)
		ops_send(o, r);
	else if (store_waits(&s->journal, id) && s->s.state != S_IDLE && !s->s.stop)
		wait_for(o, WAITS_ATTEMPT, id);   /* told when it is known whether somebody serves */
	else if (recall_result(s, id, message, &recalled))
		ops_send(o, &recalled);
	else if (hid_equal(id, &s->journal.last_id) && s->journal.outcome != OUTCOME_NONE)
		answer_last(o);
	else
		answer_unknown(o);
}

static void on_status(struct caller *o, const struct msg *req)
{
	(void)req;
	ops_state(o->all->service, o);
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
	ops_answer(o, 0, "history", "");
}

static void on_watch(struct caller *o, const struct msg *req)
{
	struct msg m = { .type = MSG_op_event };

	(void)req;
	wait_for(o, WAITS_WATCH, NULL);
	m.op_event.phase = SPAN(ops_state_name(o->all->service));
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
		ops_refuse(o, 8, "permission denied: root, the supervisor's user, or the group named by 'operators' may do this");
	} else if (o->waits != WAITS_NOT) {
		ops_refuse(o, 4, "this connection still waits for the answer to its last request");
	} else if (!r->looks_only && o->all->service->reexec.child.end) {
		caller_later(o);   /* another handoffd may answer it */
	} else {
		r->serve(o, m);
	}
}

/* -------------------------------------------------------------- their life --- */

struct callers *ops_callers(const struct service *s)
{
	return &s->ops->callers;
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;

	(void)fd;
	(void)what;
	ops_tell(s);
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
	results_open(&s->ops->results);
	s->ops->callers.serve = serve;
	return callers_open(&s->ops->callers, s, fd, err, size);
}

void ops_close(struct service *s)
{
	if (!s->ops)
		return;
	ops_tell(s);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_STOP)
			ops_answer(o, 0, "stopped", "the daemon has ended, and so does the supervisor");
		else if (o->waits != WAITS_NOT && o->waits != WAITS_WATCH)
			ops_answer(o, 5, "stopped", "the supervisor was stopped; the service is NOT served");
	callers_close(&s->ops->callers);
	event_free(s->ops->tell);
	results_close(&s->ops->results);
	free(s->ops);
	s->ops = NULL;
}
