#include "handoffd/history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"
#include "handoffd/tail.h"
#include "proto/cause.h"
#include "proto/slot.h"

#define ITEM_MAX (HISTORY_SLOT_SIZE - SLOT_HEADER)
#define STALLS_ASKED      10   /* handoffs that tell what a stall may be: --max-stall */
#define OUTCOMES_ASKED    16   /* among which one is looked for */
#define STEPS_OF_MESSAGES 40   /* a daemon that talks too much does not crowd out the phases */

static const char under_way[] = HISTORY_UNDER_WAY;

/* ------------------------------------------------------------------- parts --- */

/* As much of s as a field takes. */
static struct span cut(const char *s, size_t max)
{
	size_t n = strlen(s);

	if (n > max)
		for (n = max; n && ((unsigned char)s[n] & 0xc0) == 0x80; n--)
			;
	return utf8_span(s, n);
}

static void look_at(struct history_daemon *d, const struct peer *p)
{
	*d = (struct history_daemon){ .pid = p->pid };
	hex_format(p->build, p->build_size, d->build);
	memcpy(d->software, p->software, sizeof d->software);
}

#define SET_TEXT(m, field, s, max) do { \
	if ((s)[0]) MSG_SET(m, handoff, field, cut(s, max)); \
} while (0)
#define SET_UINT(m, field, v) do { \
	if (v) MSG_SET(m, handoff, field, (uint64_t)(v)); \
} while (0)
#define SET_DAEMON(m, side, d) do { \
	SET_UINT(m, side##_pid, (d)->pid); \
	SET_TEXT(m, side##_build, (d)->build, 128); \
	SET_TEXT(m, side##_software, (d)->software, 64); \
} while (0)

/* What is known at the beginning. */
static void fill_request(const struct service *s, struct msg *m)
{
	const struct attempt *a = &s->attempt;
	const char *command = s->conf->command[0];

	m->handoff.id = a->id;
	MSG_SET(m, handoff, asked_ms, sys_wall_ms() - (sys_now_us() - a->asked_us) / 1000);
	MSG_SET(m, handoff, uid, a->uid);
	MSG_SET(m, handoff, kind, SPAN(a->back ? "rollback" : "upgrade"));
	SET_TEXT(m, old_binary, s->journal.binary[0] ? s->journal.binary : command, 1024);
	SET_TEXT(m, new_binary, s->new_exe.path, 1024);
	SET_TEXT(m, reason, a->reason, 1024);
	SET_TEXT(m, trace_parent, a->trace_parent, 256);
	SET_TEXT(m, correlation_id, a->correlation_id, 256);
	SET_TEXT(m, tenant, a->tenant, 256);
}

/* Arrays that a message borrows. */
struct arrays {
	struct span step[HISTORY_STEPS], queue[DISRUPTION_QUEUES];
	uint64_t us[HISTORY_STEPS], deepest[DISRUPTION_QUEUES], backlog[DISRUPTION_QUEUES],
	         drops[DISRUPTION_QUEUES];
};

static void fill_steps(const struct history *h, struct msg *m, struct arrays *a)
{
	for (unsigned i = 0; i < h->nsteps; i++) {
		a->step[i] = SPAN(h->steps[i].what);
		a->us[i] = h->steps[i].us;
	}
	MSG_SET(m, handoff, steps, ((struct texts){ .n = h->nsteps, .v = a->step }));
	MSG_SET(m, handoff, steps_us, ((struct uints){ .n = h->nsteps, .v = a->us }));
}

static void fill_disruption(const struct disruption *d, uint64_t stall_us, struct msg *m, struct arrays *a)
{
	unsigned n = 0;

	MSG_SET(m, handoff, stall_us, stall_us);
	if (d->drained)
		MSG_SET(m, handoff, left, d->left);
	if (d->counted) {
		MSG_SET(m, handoff, moved, d->moved);
		MSG_SET(m, handoff, stayed, d->stayed);
	}
	for (unsigned i = 0; i < d->n; i++) {
		if (!d->q[i].known)
			continue;
		a->queue[n] = SPAN(d->q[i].name);
		a->deepest[n] = d->q[i].deepest.waiting;
		a->backlog[n] = d->q[i].deepest.backlog;
		a->drops[n++] = d->q[i].deepest.drops;
	}
	if (!n)
		return;
	MSG_SET(m, handoff, queues, ((struct texts){ .n = n, .v = a->queue }));
	MSG_SET(m, handoff, deepest, ((struct uints){ .n = n, .v = a->deepest }));
	MSG_SET(m, handoff, backlogs, ((struct uints){ .n = n, .v = a->backlog }));
	MSG_SET(m, handoff, drops, ((struct uints){ .n = n, .v = a->drops }));
}

static struct s_cause cause_of(const struct service *s)
{
	if (service_late_seal(s, s->history.failed))
		return (struct s_cause){ "incumbent", s_state_desc[S_SEAL].name, timer_desc[TIMER_DEADLINE].name };
	return s_cause_of(s->history.failed);
}

/* The daemon that is not the one at fault; 0: none. */
static pid_t other_daemon(const struct history *h, const char *role)
{
	return !strcmp(role, "successor") ? h->from.pid : !strcmp(role, "incumbent") ? h->to.pid : 0;
}

static void fill_failure(const struct service *s, struct msg *m, char *log, size_t size)
{
	const struct s_cause c = cause_of(s);

	if (s->s.outcome == OUTCOME_COMMITTED)
		return;
	MSG_SET(m, handoff, cause, SPAN(s->history.cause));
	if (s->history.mark >= 0) {
		tail_read(s->conf, s->history.mark, other_daemon(&s->history, c.role), log, size);
		SET_TEXT(m, log, log, 2048);
	}
	MSG_SET(m, handoff, failed_role, SPAN(c.role));
	MSG_SET(m, handoff, failed_phase, SPAN(c.phase));
	if (c.timer)
		MSG_SET(m, handoff, failed_timer, SPAN(c.timer));
}

/* ------------------------------------------------------------------ writing --- */

static void complain(struct service *s, int e)
{
	if (!s->history.complained)
		log_warning("%s/history cannot be written (%s): this handoff is not remembered, all else goes on",
		            s->state_dir, strerror(-e));
	s->history.complained = true;
}

static int put(struct service *s, uint64_t number, const void *item, size_t n, bool durable)
{
	int e = ring_write(&s->history.ring, number, item, n);

	if (!e && durable)
		e = ring_sync(&s->history.ring);
	if (e)
		complain(s, e);
	else
		s->history.complained = false;
	return e;
}

void history_flush(struct service *s)
{
	struct history *h = &s->history;

	if (!h->item)
		return;
	put(s, h->ring.newest, h->item + FRAME_HEADER, h->item_size - FRAME_HEADER, true);
	free(h->item);
	h->item = NULL;
}

/* The record as a frame, the caller's, and its size in *ret; NULL: -errno there. */
static uint8_t *frame_of(const struct msg *m, int *ret)
{
	uint8_t *frame = malloc(ITEM_MAX + FRAME_HEADER);

	*ret = frame ? msg_encode(m, 0, frame, ITEM_MAX + FRAME_HEADER) : -ENOMEM;
	if (*ret >= 0)
		return frame;
	free(frame);
	return NULL;
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	history_flush(arg);
}

/* The item of m, which is written when what is under way is over. */
static void write_later(struct service *s, struct msg *m)
{
	struct history *h = &s->history;
	int n;

	if ((h->item = frame_of(m, &n))) {
		h->item_size = (size_t)n;
		event_active(h->write, EV_TIMEOUT, 0);
	} else {
		complain(s, n);
	}
}

/* ------------------------------------------------------------- one attempt --- */

/* Else nobody knows by its end where the one that failed has written. */
static bool same_output(const struct conf *o, const struct conf *n)
{
	return !n || (!o->output || !n->output ? o->output == n->output : !strcmp(o->output, n->output));
}

void history_begin(struct service *s)
{
	struct history *h = &s->history;
	struct msg m = { .type = MSG_handoff };
	uint8_t *frame;
	int n;

	history_flush(s);
	h->begun = h->fd >= 0 && !s->attempt.plan;
	h->nsteps = 0;
	h->silent = false;
	h->failed = NULL;
	h->base_us = s->attempt.asked_us;
	h->from = h->to = (struct history_daemon){ 0 };
	if (!h->begun)
		return;
	h->mark = same_output(s->conf, s->new_conf) ? tail_mark(s->conf) : -1;
	if (s->o)
		look_at(&h->from, s->o);
	m.handoff.number = h->ring.newest + 1;
	m.handoff.outcome = SPAN(under_way);
	fill_request(s, &m);
	SET_DAEMON(&m, old, &h->from);
	frame = frame_of(&m, &n);
	if (!frame || put(s, m.handoff.number, frame + FRAME_HEADER, (size_t)n - FRAME_HEADER, false))
		h->ring.newest++;   /* its end takes that place, if the disk has room by then */
	free(frame);
	history_step(s, "phase", s_state_desc[s->s.state].name);   /* that it is told of came before */
}

void history_step(struct service *s, const char *who, const char *what)
{
	struct history *h = &s->history;
	struct history_step *step = &h->steps[h->nsteps];

	if (!h->begun || h->nsteps == HISTORY_STEPS)
		return;
	snprintf(step->what, sizeof step->what, "%s %s", who, what);
	step->us = sys_now_us() - h->base_us;
	h->nsteps++;
}

/* What is started when both have died is no successor. */
static const char *role_of(const struct service *s, const struct peer *p)
{
	return p != s->n ? "incumbent" : s_in_handoff(&s->s) ? "successor" : "daemon";
}

void history_message(struct service *s, const struct peer *p, enum msg_type type)
{
	if (type != MSG_heartbeat && type != MSG_sockets && type != MSG_sockets_ack &&
	    type != MSG_seal_progress && s->history.nsteps < STEPS_OF_MESSAGES)
		history_step(s, role_of(s, p), msg_name(type));
}

void history_gone(struct service *s, const struct peer *p, const char *end)
{
	history_step(s, role_of(s, p), end);
}

void history_silence(struct service *s)
{
	struct history *h = &s->history;
	const bool heard = sys_now_ms() - s->s.heard_o < s->s.timer[TIMER_FENCE];

	if (h->silent || heard || !s->s.heard_o || !s_beats_o(&s->s) || !s->o || peer_dead(s->o))
		return;
	h->silent = true;
	history_step(s, "incumbent", "silent for self-fence");
}

void history_successor(struct service *s)
{
	if (s->history.begun && s->n && s_in_handoff(&s->s))
		look_at(&s->history.to, s->n);
}

/* The record as it was begun; m borrows from what is returned, the caller's. m is zeroed if it cannot be read. */
static uint8_t *recall(struct service *s, struct msg *m)
{
	uint8_t *buf = malloc(HISTORY_SLOT_SIZE);

	if (!buf || ring_read(&s->history.ring, s->history.ring.newest, buf, m) || m->type != MSG_handoff ||
	    !hid_equal(&m->handoff.id, &s->attempt.id)) {
		*m = (struct msg){ .type = MSG_handoff };
		m->handoff.id = s->attempt.id;
		m->handoff.number = s->history.ring.newest;
	}
	return buf;
}

void history_cause(struct service *s)
{
	char *cause = s->history.cause;

	snprintf(cause, sizeof s->history.cause, "%s%.900s", s->s.why ? s->s.why : "no reason is known",
	         s->attempt.why);
	utf8_mend(cause);
}

void history_end(struct service *s, int code, const char *outcome, const char *message,
                 const struct times *t)
{
	struct history *h = &s->history;
	uint8_t *buf = NULL;
	struct arrays arrays;
	char log[2000];   /* the message borrows it */
	struct msg m = { .type = MSG_handoff };

	if (!h->begun)
		return;
	h->begun = false;
	if (s->attempt.asked_us) {
		m.handoff.number = h->ring.newest;
		fill_request(s, &m);
		SET_DAEMON(&m, old, &h->from);
		fill_disruption(&s->disruption, t->stall, &m, &arrays);
	} else {
		buf = recall(s, &m);
	}
	SET_DAEMON(&m, new, &h->to);
	m.handoff.outcome = SPAN(outcome);
	MSG_SET(&m, handoff, code, (uint64_t)code);
	SET_TEXT(&m, message, message, 1024);
	fill_steps(h, &m, &arrays);
	SET_UINT(&m, pause_us, t->pause);
	SET_UINT(&m, serving_us, t->serving);
	SET_UINT(&m, total_us, t->total);
	fill_failure(s, &m, log, sizeof log);
	write_later(s, &m);
	free(buf);
}

/* ------------------------------------------------------------------ its life --- */

/* The newest record, if it has begun and not ended: m borrows from what is returned, the caller's. */
static uint8_t *open_newest(struct history *h, struct msg *m)
{
	uint8_t *buf = h->ring.newest ? malloc(HISTORY_SLOT_SIZE) : NULL;

	if (buf && !ring_read(&h->ring, h->ring.newest, buf, m) && m->type == MSG_handoff &&
	    m->handoff.outcome.n == strlen(under_way) && !memcmp(m->handoff.outcome.p, under_way, strlen(under_way)))
		return buf;
	free(buf);
	return NULL;
}

/* It had not ended when its supervisor did, and nobody goes on with it now. */
static void settle(struct service *s, struct msg *m)
{
	const struct journal *j = &s->journal;
	const bool known = hid_equal(&m->handoff.id, &j->last_id) && j->outcome != OUTCOME_NONE;

	m->handoff.outcome = SPAN(known ? outcome_name[j->outcome] : "unknown");
	MSG_SET(m, handoff, code, known ? (uint64_t)store_code(j) : 6u);
	MSG_SET(m, handoff, message, known ? cut(j->message, 1024)
	        : SPAN("the supervisor ended before it had begun, or lost its journal (a reboot, a loss "
	               "of power); 'handoffctl status' says what serves"));
	write_later(s, m);
}

static void take_up(struct service *s, struct msg *m)
{
	struct history *h = &s->history;

	/* decided, and both daemons had died: the cold start says how it ends */
	h->unsettled = store_waits(&s->journal, &m->handoff.id);
	if (h->unsettled)
		return;
	if (s->journal.phase == BOOT_IDLE || !hid_equal(&m->handoff.id, &s->journal.id)) {
		settle(s, m);
		return;
	}
	h->begun = true;
	history_step(s, "supervisor", "started again: these times count from here");
}

static void settle_newest(struct service *s)
{
	struct msg m;
	uint8_t *buf = open_newest(&s->history, &m);

	if (buf)
		take_up(s, &m);
	free(buf);
}

void history_settle(struct service *s)
{
	struct msg m;
	uint8_t *buf = s->history.unsettled ? open_newest(&s->history, &m) : NULL;

	if (buf)
		settle(s, &m);
	free(buf);
	s->history.unsettled = false;
}

void history_open(struct service *s)
{
	struct history *h = &s->history;
	const char *dir = s->state_dir;
	char err[600];
	int e = 0;

	h->base_us = sys_now_us();
	h->fd = store_open_in(dir, "history", err, sizeof err);
	if (h->fd < 0) {
		log_warning("%s: handoffs are not remembered", err);
		return;
	}
	h->write = event_new(s->base, -1, 0, on_write, s);
	if (!h->write || (e = ring_open(&h->ring, h->fd, HISTORY_SLOT_SIZE, HISTORY_SLOTS))) {
		log_warning("%s/history cannot be read: %s; handoffs are not remembered", dir,
		            strerror(h->write ? -e : ENOMEM));
		history_close(s);
		return;
	}
	settle_newest(s);
}

void history_close(struct service *s)
{
	struct history *h = &s->history;

	history_flush(s);
	if (h->write)
		event_free(h->write);
	h->write = NULL;
	h->begun = false;
	sys_closep(&h->fd);
}

static void thaw(struct history_record *r)
{
	struct msg_handoff *h = &r->m.handoff;
	struct uints *arrays[] = { &h->steps_us, &h->deepest, &h->backlogs, &h->drops };

	h->steps.n = texts_copy(&h->steps, r->steps, HISTORY_STEPS);
	h->steps.v = r->steps;
	h->queues.n = texts_copy(&h->queues, r->queues, DISRUPTION_QUEUES);
	h->queues.v = r->queues;
	for (unsigned i = 0; i < sizeof arrays / sizeof *arrays; i++) {
		arrays[i]->n = uints_copy(arrays[i], r->numbers[i], HISTORY_STEPS);
		arrays[i]->v = r->numbers[i];
	}
}

bool history_read(struct service *s, uint64_t before, struct history_record *ret)
{
	const struct history *h = &s->history;
	uint64_t at = before && before <= h->ring.newest ? before : h->ring.newest + 1;

	if (h->fd < 0)
		return false;
	history_flush(s);
	for (unsigned i = 0; --at && i < h->ring.slots; i++)
		if (!ring_read(&h->ring, at, ret->buf, &ret->m) && ret->m.type == MSG_handoff) {
			ret->m.handoff.number = at;
			thaw(ret);
			return true;
		}
	return false;
}

bool history_find(struct service *s, const struct hid *id, struct history_record *ret)
{
	uint64_t before = 0;

	for (unsigned i = 0; i < OUTCOMES_ASKED && history_read(s, before, ret); i++) {
		before = ret->m.handoff.number;
		if (hid_equal(&ret->m.handoff.id, id))
			return MSG_HAS(&ret->m, handoff, code);
	}
	return false;
}

static bool is_text(const struct span *v, const char *s)
{
	return v->n == strlen(s) && !memcmp(v->p, s, v->n);
}

uint64_t history_least_stall(struct service *s)
{
	struct history_record *r = malloc(sizeof *r);
	uint64_t least = UINT64_MAX, before = 0;
	struct history_daemon now = { .pid = 0 };

	if (s->o)
		look_at(&now, s->o);
	for (unsigned i = 0; r && i < STALLS_ASKED && history_read(s, before, r); i++) {
		const struct msg_handoff *h = &r->m.handoff;

		before = h->number;
		if (MSG_HAS(&r->m, handoff, stall_us) && is_text(&h->outcome, "committed") &&
		    MSG_HAS(&r->m, handoff, old_build) && is_text(&h->old_build, now.build) && h->stall_us < least)
			least = h->stall_us;
	}
	free(r);
	return least == UINT64_MAX ? 0 : least;
}
