/* What operators are told: the phases of what they wait for, and how it ended. */
#include "handoffd/ops.h"

#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/service.h"

static void tell_one(struct ops *ops, const struct later *l)
{
	const struct attempt *a = &ops->callers.service->attempt;
	struct msg m = l->counts;

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

void ops_send(struct caller *o, const struct result *r)
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
	m.op_result.message = utf8_span(r->message, strlen(r->message));
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
		hex_format(s->o->build, s->o->build_size, build);
		MSG_SET(&m, op_result, build, SPAN(build));
		if (s->o->software[0])
			MSG_SET(&m, op_result, software, SPAN(s->o->software));
	}
	caller_expect(o);
	caller_send(o, &m);
}

void ops_answer(struct caller *o, int code, const char *outcome, const char *message)
{
	char cut[RESULT_MESSAGE_MAX];
	struct result r = { .id = o->id, .code = code, .message = cut };

	snprintf(r.outcome_text, sizeof r.outcome_text, "%s", outcome);
	snprintf(cut, sizeof cut, "%s", message);
	ops_send(o, &r);
}

void ops_refuse(struct caller *o, int code, const char *message)
{
	ops_answer(o, code, "refused", message);
}

void ops_progress(struct service *s, const char *phase, const char *text, const struct msg *counts, bool watch)
{
	struct later *l;

	if (!s->ops || !s->ops->callers.list)
		return;
	if (s->ops->nlater == MAX_LATER)
		tell(s->ops);
	l = &s->ops->later[s->ops->nlater++];
	*l = (struct later){ .phase = phase, .watch = watch, .at_ms = sys_wall_ms(), .counts = *counts };
	snprintf(l->text, sizeof l->text, "%s", text ? text : "");
	if (!s->attempt.told) {
		l->id = s->attempt.id;
		l->us = s->attempt.asked_us ? sys_now_us() - s->attempt.asked_us : 0;
	}
	utf8_mend(l->text);
	event_active(s->ops->tell, EV_TIMEOUT, 0);
}

static const struct msg no_counts = { .type = MSG_op_event };

void ops_phase(struct service *s, const char *phase, const char *text)
{
	ops_progress(s, phase, text, &no_counts, false);
}

void ops_watchers(struct service *s, const char *phase, const char *text)
{
	ops_progress(s, phase, text, &no_counts, true);
}

static void add_up(struct service *s, const struct times *t)
{
	struct totals *sum = &s->totals;

	sum->outcomes[s->s.outcome]++;
	sum->pause_us = t->pause;
	sum->total_us = t->total;
	if (s->s.outcome == OUTCOME_COMMITTED) {
		sum->moved += s->disruption.moved;
		sum->stayed += s->disruption.stayed;
	}
	sum->handed = s->attempt.asked_us != 0;   /* adopted: how long nobody accepted is not known */
	sum->stall_us = t->stall;
	sum->last = s->disruption;
}

void ops_result(struct service *s, int code, const char *outcome, const char *message)
{
	struct attempt *a = &s->attempt;
	char cut[RESULT_MESSAGE_MAX];
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
	results_keep(&s->ops->results, &r);
	if (!a->plan)
		add_up(s, &t);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if ((o->waits == WAITS_ATTEMPT || o->waits == WAITS_ABORT) && hid_equal(&o->id, &a->id))
			ops_send(o, &r);
	ops_watchers(s, outcome, cut);
	a->told = true;
	history_end(s, r.code, outcome, cut, &t);
}

void ops_refused(struct service *s, const struct hid *id, int code, const char *outcome, const char *message)
{
	char cut[RESULT_MESSAGE_MAX];
	struct result r = { .id = *id, .code = code, .message = cut };

	if (!s->ops)
		return;
	snprintf(r.outcome_text, sizeof r.outcome_text, "%s", outcome);
	snprintf(cut, sizeof cut, "%s", message);
	results_keep(&s->ops->results, &r);
	for (struct caller *o = s->ops->callers.list; o; o = o->next)
		if (o->waits == WAITS_ATTEMPT && hid_equal(&o->id, id))
			ops_send(o, &r);
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
	char text[6000], why[1000];

	tell_planned(s);
	planned_end(s);
	if (s->attempt.planned && service_check_stall(s, &s->attempt, why, sizeof why)) {
		snprintf(text, sizeof text, "an upgrade would be refused: %s", why);
		ops_result(s, 1, "plan", text);
		return;
	}
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
			ops_answer(o, code, outcome, text);
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
			ops_answer(o, code, code ? "refused" : "replaced", message);
	if (!code)
		ops_watchers(s, "replaced", message);
}

void ops_tell(struct service *s)
{
	tell(s->ops);
}
