#include "handoffd/service.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/sys.h"
#include "handoffd/log.h"

#define AWAKE_US 200
#define READY_LISTENERS 64   /* a Ready has places for so many names */

/* ---------------------------------------------------------------- events --- */

void service_pend(struct service *s, enum s_event e)
{
	if (s->npending < PENDING_MAX)
		s->pending[s->npending++] = e;
	else
		log_error("too many events at once: %s is dropped", s_event_name[e]);
}

static enum s_event next_pending(struct service *s)
{
	enum s_event e = s->pending[0];

	memmove(s->pending, s->pending + 1, --s->npending * sizeof *s->pending);
	return e;
}

/* What the machine takes for an abort is the end of each plan. */
static bool plan_went_well(const struct service *s)
{
	return s->attempt.plan && s->attempt.planned && s->s.state == S_ABORT;
}

static const char *phase_name(const struct service *s)
{
	return plan_went_well(s) ? "plan" : s_state_desc[s->s.state].name;
}

static void be_about(struct service *s)
{
	const struct attempt *a = &s->attempt;

	if (!s_in_handoff(&s->s))
		return;
	hid_format(&s->s.id, s->about_id);
	s->about = (struct log_about){ s->about_id, phase_name(s), a->trace_parent,
	                               a->correlation_id, a->tenant };
	log_about(&s->about);
}

/* One line for each transition that people know by name. */
static void show(struct service *s)
{
	const char *name = phase_name(s), *before = s_state_desc[s->shown].name;
	uint64_t now = sys_now_us();
	char id[37];

	if (s->shown == s->s.state || !strcmp(name, before)) {
		s->shown = s->s.state;
		return;
	}
	hid_format(&s->s.id, id);
	if (s_in_handoff(&s->s))
		log_event(s->s.state == S_SPAWNING ? LOG_E_BEGUN : LOG_E_NONE, LOG_L_INFO,
		          "handoff %.8s: %s (%s took %.1f ms)", id, name, before, (double)(now - s->shown_at_us) / 1000);
	else if (s->s.state != S_IDLE)   /* how one got there is said by what follows */
		log_info("%s", name);
	s->shown = s->s.state;
	s->shown_at_us = now;
	if (s->s.state == S_IDLE || plan_went_well(s))   /* the outcome tells of it */
		return;
	history_step(s, "phase", name);
	ops_phase(s, name, NULL);
}

bool service_late_seal(const struct service *s, const struct s_row *row)
{
	return s->attempt.sealed_late && row && row->state == S_READY && row->event == S_E_TIMEOUT;
}

void service_on_row(void *arg, const struct s_row *row)
{
	struct service *s = arg;

	/* the law's name of each step: a log can be laid beside rules.md */
	log_debug("rule \"%s\": %s --%s--> %s", row->rule, s_state_desc[row->state].id, s_event_name[row->event],
	          s_state_desc[row->next].id);
	if (row->why && row->next == S_ABORT && !s->history.failed)
		s->history.failed = row;
	if (service_late_seal(s, row) && !s->attempt.why[0])
		snprintf(s->attempt.why, sizeof s->attempt.why, ": that was over when the incumbent had sealed");
}

/* A daemon waits for it, and mostly clients for the daemon. */
static bool is_message(enum s_action a)
{
	switch (a) {
	case S_A_RELEASE:
	case S_A_PREPARE:
	case S_A_SEAL_REQUEST:
	case S_A_BEGIN_SEALED:
	case S_A_BEGIN_NOTHING:
	case S_A_COMMIT_N:
	case S_A_COMMIT_O:
		return true;
	default:
		return false;
	}
}

static void act(struct service *s, enum s_action a)
{
	const enum s_event answer = service_act(s, a);

	if (answer != S_NOW)
		service_pend(s, answer);
}

/* What is to be said of a step is put into words when its message is on the way. */
static void carry_out(struct service *s, const struct s_out *out)
{
	unsigned i = 0;

	be_about(s);
	while (i < out->n && is_message(out->action[i]))
		act(s, out->action[i++]);
	show(s);
	while (i < out->n)
		act(s, out->action[i++]);
}

void service_run(struct service *s, struct s_out *out)
{
	s->running = true;
	carry_out(s, out);
	while (s->npending) {
		s_step(&s->s, next_pending(s), NULL, sys_now_ms(), out);
		carry_out(s, out);
	}
	s->running = false;
}

void service_event(struct service *s, enum s_event e, const struct msg *m)
{
	struct s_out out;

	if (s->running) {   /* an action read a socket: m would not outlive it */
		service_pend(s, e);
		return;
	}
	s_step(&s->s, e, m, sys_now_ms(), &out);
	service_run(s, &out);
}

/* ----------------------------------------------------------------- peers --- */

static void note_why(struct service *s, const struct span *words)
{
	snprintf(s->attempt.why, sizeof s->attempt.why, ": %.*s", (int)words->n, words->p);
	utf8_mend(s->attempt.why);
}

static bool is_among(const struct span *v, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++)
		if (v[i].n == strlen(name) && !memcmp(v[i].p, name, v[i].n))
			return true;
	return false;
}

/* A listener that its daemon does not take is no error, and its clients wait in its queue for
 * ever. Ready names as many as it has places for. */
static void warn_untaken(const struct service *s, struct peer *p, const struct msg *m)
{
	const struct conf *c = s->new_conf ? s->new_conf : s->conf;
	struct span v[READY_LISTENERS];
	const unsigned n = texts_copy(&m->ready.listening, v, READY_LISTENERS);

	for (unsigned i = 0; c->nlisten <= READY_LISTENERS && i < c->nlisten; i++)
		if (!is_among(v, n, c->listen[i].name))
			log_limited(&p->lines, LOG_L_WARNING, "the daemon (pid %d) has not taken the listener %s: who "
			            "connects there waits, and nobody accepts", (int)p->pid, c->listen[i].name);
}

/* In what a Ready differs from what was sealed, for people; the machine decides. */
static void note_ready(struct service *s, const struct msg *m)
{
	char *why = s->attempt.why;
	size_t size = sizeof s->attempt.why;
	uint64_t rev[MAX_SHARDS];
	unsigned n = uints_copy(&m->ready.revisions, rev, MAX_SHARDS);

	if (!m->ready.healthy && MSG_HAS(m, ready, why)) {
		note_why(s, &m->ready.why);
	} else if (!m->ready.healthy || !s->s.sealed) {
		return;
	} else if (n != s->s.nrevisions) {
		snprintf(why, size, ": it opened %u shards, %u were sealed", n, s->s.nrevisions);
	} else if (memcmp(&m->ready.fingerprint, &s->s.fingerprint, sizeof s->s.fingerprint)) {
		snprintf(why, size, ": the fingerprint differs");
	}
	for (unsigned i = 0; s->s.sealed && n == s->s.nrevisions && i < n; i++)
		if (rev[i] != s->s.revisions[i]) {
			snprintf(why, size, ": shard %u is at revision %llu, sealed was %llu", i,
			         (unsigned long long)rev[i], (unsigned long long)s->s.revisions[i]);
			return;
		}
}

static void show_remaining(struct service *s, const struct msg *m)
{
	struct msg counts = { .type = MSG_op_event };
	char text[100];

	snprintf(text, sizeof text, "%u connections are open", (unsigned)m->drained.connections);
	MSG_SET(&counts, op_event, left, m->drained.connections);
	ops_progress(s, "drain", text, &counts, true);
}

static void show_progress(struct service *s, const struct msg *m)
{
	struct msg counts = { .type = MSG_op_event };
	char text[100];

	snprintf(text, sizeof text, "%u of %u shards sealed", (unsigned)m->seal_progress.done,
	         (unsigned)m->seal_progress.total);
	MSG_SET(&counts, op_event, sealed, m->seal_progress.done);
	MSG_SET(&counts, op_event, shards, m->seal_progress.total);
	ops_progress(s, "seal", text, &counts, false);
}

static void note_moved(struct service *s, const struct msg *m)
{
	struct disruption *d = &s->disruption;
	struct msg counts = { .type = MSG_op_event };
	char text[100];

	if (!MSG_HAS(m, seal_complete, moved))
		return;
	d->counted = true;
	d->moved = m->seal_complete.moved;
	d->stayed = MSG_HAS(m, seal_complete, stayed) ? m->seal_complete.stayed : 0;
	snprintf(text, sizeof text, "%u connections move, %u stay", (unsigned)d->moved, (unsigned)d->stayed);
	MSG_SET(&counts, op_event, moved, d->moved);
	MSG_SET(&counts, op_event, stayed, d->stayed);
	ops_progress(s, "seal", text, &counts, true);
}

static bool told_to_serve(const struct service *s)
{
	return (s->s.state >= S_TAKE && s->s.state <= S_OEXIT) || s->s.state == S_R_COMMITTED ||
	       s->s.state == S_COLD_TAKE;
}

void service_heard_serving(struct service *s, const struct peer *p)
{
	if (p == s->n && !s->attempt.serving_us)
		s->attempt.serving_us = sys_now_us();
	if (p != s->n || told_to_serve(s))   /* else it is being ended, whatever it says */
		disruption_over(&s->disruption);
}

static void on_message(void *arg, struct peer *p, const struct msg *m)
{
	struct service *s = arg;
	bool from_n = p == s->n;

	history_message(s, p, m->type);
	switch (m->type) {
	case MSG_hello: greet_hello(s, p, m); return;
	case MSG_sockets: greet_sockets(s, p, m); return;
	case MSG_sockets_ack: greet_sockets_ack(s, p, m); return;
	default: break;
	}
	if (m->type >= MSG_batch || !p->greeted) {
		greet_refuse(s, p, m->type >= MSG_op_upgrade ? "an operator's request on a daemon's channel"
		             : m->type >= MSG_batch ? "a message of the transfer channel" : "a message before Hello");
		return;
	}
	/* later it only says that the successor has gone, which was not the beginning of it */
	if (m->type == MSG_seal_failed && (s->s.state == S_DRAIN || s->s.state == S_SEAL))
		note_why(s, &m->seal_failed.error);
	if (m->type == MSG_ready && from_n)
		note_ready(s, m);
	if (m->type == MSG_seal_progress && s->s.state == S_SEAL)
		show_progress(s, m);
	if (m->type == MSG_status && MSG_HAS(m, status, epoch))
		p->epoch = m->status.epoch;
	if (m->type == MSG_drained && !from_n) {
		s->disruption.drained = true;
		s->disruption.left = m->drained.connections;
		show_remaining(s, m);
	}
	enum s_event e = s_event_of(&s->s, from_n, m, sys_now_ms());
	if (e == S_E_O_SEALED && s->s.state == S_SEAL) {
		note_moved(s, m);
		s->attempt.sealed_late = sys_now_ms() >= s->s.deadline;
	}
	if (e == S_E_N_READY && (s->s.state == S_READY || s->s.state == S_COLD_READY))
		warn_untaken(s, p, m);
	if (m->type == MSG_status && e != S_NOW)
		service_heard_serving(s, p);
	if (e != S_NOW)
		service_event(s, e, m);
}

/* Who exits closes its channel, too: then the kill finds nobody, and its status is its own. */
static void cut(struct service *s, struct peer *p, int error)
{
	char *why = s->attempt.why;

	p->cut = error != -EBADMSG && !p->killed && !p->send_error;
	if (why[0])
		;
	else if (error == -EBADMSG)
		snprintf(why, sizeof s->attempt.why, ": what it sent is not the protocol (%s)", p->chan.error);
	else if (p->send_error)
		snprintf(why, sizeof s->attempt.why, ": a message could not be sent to it: %s",
		         strerror(-p->send_error));
	peer_signal(p, SIGKILL);
}

void service_lost(struct service *s, struct peer *p, int error)
{
	if (p == s->o)
		service_event(s, error == -EBADMSG ? S_E_O_BROKEN : S_E_O_LOST, NULL);
	/* a successor that has not been told to serve cannot be told any more */
	else if (p == s->n && !told_to_serve(s))
		cut(s, p, error);
	/* its Status may be among what was not read; an end, or a reset, comes behind all it sent */
	else if (p == s->n && error != -ENODATA && error != -ECONNRESET)
		service_event(s, S_E_N_LOST, NULL);
}

/* In a handoff. Of one that is drained it is known already. */
static bool was_serving(const struct service *s, const struct peer *p)
{
	if (p == s->o)
		return s->s.state >= S_WARM && s->s.state < S_TAKE;
	return p == s->n && s->s.state >= S_PROBATION && s->s.state <= S_OEXIT;
}

/* What a start after this death is for, or what the one that has died had met. */
static void note_cold_error(struct service *s, const struct peer *p, const char *end)
{
	const char *lock = s->lockwait.text, *why = p == s->n ? s->attempt.why : "";

	snprintf(s->cold_error, sizeof s->cold_error, "pid %d %s%s%.500s", (int)p->pid, end, lock[0] ? ": " : "",
	         lock[0] ? lock : why);
	utf8_mend(s->cold_error);
}

static void on_gone(void *arg, struct peer *p)
{
	struct service *s = arg;
	char end[64];

	peer_end(p, end);
	if (p == s->n && s->s.state >= S_WARM && s->s.state <= S_TAKE && !s->attempt.why[0])
		snprintf(s->attempt.why, sizeof s->attempt.why, ": it %s", end);
	if (p == s->n || (p == s->o && s->s.state != S_RESTARTING))
		note_cold_error(s, p, end);
	if (p == s->n || p == s->o)
		history_gone(s, p, end);
	if (p == s->o && s->s.state == S_IDLE)
		log_event(LOG_E_DIED, LOG_L_ERROR, "the daemon (pid %d) %s: it is started again", (int)p->pid, end);
	else
		log_info("pid %d %s", (int)p->pid, end);
	if (was_serving(s, p))
		disruption_stall(&s->disruption);
	generation_ended(s->generations, p->pid);
	service_event(s, p == s->n ? S_E_N_GONE : S_E_O_GONE, NULL);
}

void service_bury(struct service *s, struct peer **p)
{
	struct peer *dead = *p;

	*p = NULL;
	if (!dead)
		return;
	/* freed by service_settle: the callback under way may still look at it */
	dead->next = s->grave;
	s->grave = dead;
}

static void on_dying(void *arg, struct peer *p)
{
	struct service *s = arg;

	(void)p;
	register_drain(s);
	service_reap(s);
}

static void on_settled(void *arg)
{
	service_settle(arg);
}

static void on_lost(void *arg, struct peer *p, int error)
{
	service_lost(arg, p, error);
}

void service_own(struct service *s, struct event_base *base)
{
	s->base = base;
	s->owner = (struct peer_owner){
		.base = base, .arg = s, .message = on_message, .lost = on_lost, .dying = on_dying,
		.gone = on_gone, .settled = on_settled,
	};
}

void service_generations(void *arg)
{
	struct service *s = arg;

	if (!s->ending)
		return;
	s->ended = true;
	event_base_loopbreak(s->base);
}

static void note_end(struct service *s, pid_t pid, const siginfo_t *si)
{
	int status = si->si_code == CLD_EXITED ? si->si_status << 8 : si->si_status & 0x7f;

	if (s->o && s->o->pid == pid && s->o->child)
		s->o->status = status;
	else if (s->n && s->n->pid == pid && s->n->child)
		s->n->status = status;
	else if (!answerer_reaped(&s->copier.child, pid, status) && !answerer_reaped(&s->reexec.child, pid, status))
		log_debug("a process left behind by a daemon (pid %d) has ended", (int)pid);
}

void service_reap(struct service *s)
{
	siginfo_t si = { 0 };

	while (!sys_wait_any(&si) && si.si_pid) {
		note_end(s, si.si_pid, &si);
		si.si_pid = 0;
	}
}

/* ------------------------------------------------------------------ time --- */

static void beat(struct service *s)
{
	struct msg m = { .type = MSG_heartbeat };

	if (s->disruption.from_us)
		disruption_look(&s->disruption);
	m.heartbeat.ms = sys_now_ms();
	if (s->n && s->n->greeted && s_beats_n(&s->s))
		peer_send(s->n, &m, NULL, 0);
	if (s->o && s->o->greeted && s_beats_o(&s->s))
		peer_send(s->o, &m, NULL, 0);
}

static void arm(struct service *s)
{
	uint64_t now = sys_now_ms(), at = s_next(&s->s);
	struct timeval tv;

	if (!s_beats_n(&s->s) && !s_beats_o(&s->s))
		s->next_beat = 0;
	else if (!s->next_beat)
		s->next_beat = now + s->s.timer[TIMER_HEARTBEAT];
	if (s->next_beat && s->next_beat < at)
		at = s->next_beat;
	if (at == UINT64_MAX) {
		event_del(s->timer);   /* no timer, no wake-up */
		return;
	}
	at = at > now ? at - now : 0;
	tv = (struct timeval){ (time_t)(at / 1000), (suseconds_t)(at % 1000 * 1000) };
	event_add(s->timer, &tv);
}

void service_free_grave(struct service *s)
{
	while (s->grave) {
		struct peer *p = s->grave;
		s->grave = p->next;
		peer_free(p);
	}
}

void service_settle(struct service *s)
{
	unit_tell(s);
	if (s->ended)
		return;
	register_settle(s);
	service_free_grave(s);
	copier_settle(s);
	lockwait_settle(s);
	arm(s);
}

void service_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;
	enum s_event e;

	(void)fd;
	(void)what;
	/* what lies in the sockets came before the timer, however late this process is; so did who waits
	 * at the door, which may be shut for longer than the timer when there was a lack of descriptors */
	if ((s->o && !peer_connected(s->o)) || (s->n && !peer_connected(s->n))) {
		register_drain(s);
		register_settle(s);
	}
	if (s->o)
		peer_read(s->o);
	if (s->n)
		peer_read(s->n);
	e = s_tick(&s->s, sys_now_ms());
	if (e != S_NOW)
		service_event(s, e, NULL);
	if (s->next_beat && sys_now_ms() >= s->next_beat) {
		beat(s);
		s->next_beat = 0;
	}
	history_silence(s);
	service_look_stuck(s);
	service_settle(s);
}

/*
 * In a handoff a daemon answers within some 20 us, and a processor that has gone to sleep takes
 * 40 to wake up, in a virtual machine: five times in a pause. So this one stays awake for a
 * moment behind what it has sent. With one processor, or with others that are busy, the answer
 * needs this one, and sched_yield(2) does not give it away while its slice lasts (Linux 6.18): who
 * has waited in vain once sleeps for the rest of the handoff.
 */
static bool stays_awake(struct service *s)
{
	const uint64_t o = s->o ? s->o->sent_us : 0, n = s->n ? s->n->sent_us : 0;
	const bool soon = s_in_handoff(&s->s) && sys_now_us() - (o > n ? o : n) < AWAKE_US;

	s->in_vain |= s->awake && !soon;
	s->awake = soon && !s->in_vain;
	if (s->awake)
		sched_yield();
	return s->awake;
}

int service_turn(struct service *s)
{
	return event_base_loop(s->base, EVLOOP_ONCE | (stays_awake(s) ? EVLOOP_NONBLOCK : 0));
}
