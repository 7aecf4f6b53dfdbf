/* kernel: streams, flock, processes and the journal's file, as kernel_facts.py shows them. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/slot.h"
#include "sim.h"

/* --------------------------------------------------------------- streams --- */

bool pipe_empty(const struct pipe_ *q)
{
	return q->at == q->n;
}

static void pipe_clear(struct pipe_ *q)
{
	q->at = q->n = 0;
}

/* False: EPIPE. What the sender does not care about, the simulator does not either. */
bool send_msg(struct world *w, struct proc *p, bool to_s, const struct msg *m)
{
	struct conn *c = &p->conn;
	struct pipe_ *q = to_s ? &c->to_s : &c->to_d;
	int n;

	if (w->verbose) {
		struct hid id = msg_id(m);
		say(w, to_s ? pname(p->pid) : "S", "  -> %s: %s(h%u)%s", to_s ? "S" : pname(p->pid),
		    msg_name(m->type), hand_of(&id), !c->s_open || !c->d_open ? " EPIPE" : "");
	}
	if (!c->s_open || !c->d_open)
		return false;
	if (m->type == MSG_heartbeat && q->n - q->at > PIPE_SIZE / 4)
		return true;      /* a peer that does not read: beats need not pile up */
	if (q->at && q->n > PIPE_SIZE / 2) {
		memmove(q->b, q->b + q->at, q->n - q->at);
		q->n -= q->at;
		q->at = 0;
	}
	n = msg_encode(m, PROTO_VERSION_HELLO, q->b + q->n, PIPE_SIZE - q->n);
	if (n < 0) {
		violated(w, "simulator: %s cannot be sent", msg_name(m->type));
		return false;
	}
	q->n += (unsigned)n;
	uint64_t at = w->now + latency(w);
	uint64_t *busy = to_s ? &w->sup.busy : &p->busy;
	if (*busy < at)
		*busy = at;
	return true;
}

bool recv_msg(struct world *w, struct pipe_ *q, struct msg *m)
{
	uint16_t version;
	char err[128];
	int n;

	if (pipe_empty(q))
		return false;
	n = frame_get_header(q->b + q->at, &version);
	if (n < 0 || msg_decode(q->b + q->at + FRAME_HEADER, (size_t)n, m, err, sizeof err)) {
		violated(w, "a frame cannot be decoded: %s", n < 0 ? "header" : err);
		pipe_clear(q);
		return false;
	}
	q->at += FRAME_HEADER + (unsigned)n;
	return true;
}

/* What was sent stays readable; unread input turns the peer's EOF into ECONNRESET. */
void conn_close_d(struct proc *p)
{
	if (!p->conn.d_open)
		return;
	p->conn.d_open = false;
	p->conn.s_reset = !pipe_empty(&p->conn.to_d);
	pipe_clear(&p->conn.to_d);
}

void conn_close_s(struct proc *p)
{
	if (!p->conn.s_open)
		return;
	p->conn.s_open = p->conn.accepted = p->conn.has_hello = false;
	p->conn.d_reset = !pipe_empty(&p->conn.to_s);
	pipe_clear(&p->conn.to_s);
}

/* ------------------------------------------------------------- processes --- */

struct proc *proc_find(struct world *w, unsigned pid)
{
	for (unsigned i = 0; pid && i < w->nproc; i++)
		if (w->proc[i].pid == pid && w->proc[i].life != FREE)
			return &w->proc[i];
	return NULL;
}

static struct proc *slot_for(struct world *w)
{
	for (unsigned i = 0; i < w->nproc; i++) {
		struct proc *p = &w->proc[i];
		if (p->life == DEAD && proc_kernel_next(p) == NEVER && p->pid != w->sup.o &&
		    p->pid != w->sup.n)
			return p;
	}
	return w->nproc < MAX_PROC ? &w->proc[w->nproc++] : NULL;
}

static void conn_init(struct conn *c)
{
	c->s_open = c->d_open = c->accepted = true;
	c->s_reset = c->d_reset = c->s_eof = c->has_hello = false;
	c->again = c->told = c->final = false;
	pipe_clear(&c->to_s);
	pipe_clear(&c->to_d);
}

struct proc *proc_new(struct world *w, unsigned hand, unsigned ver)
{
	struct proc *p = slot_for(w);

	if (!p) {
		violated(w, "simulator: out of processes");
		return NULL;
	}
	p->pid = ++w->last_pid;
	p->life = ALIVE;
	p->hand = hand;
	p->ver = ver;
	d_init(&p->d, sim_d_table);
	p->d.trace = cover_d_row;
	p->d.trace_arg = p;
	cover_life('D', p->pid);
	p->world = w;
	conn_init(&p->conn);
	p->gated = p->tied = p->stopped = p->termed = p->dropped = p->listens = false;
	p->writer = p->unacked = p->bad = false;
	memset(&p->mem, 0, sizeof p->mem);
	p->q.n = p->qi = 0;
	p->answer = p->app_event = D_E_NONE;
	p->busy = w->now + latency(w);
	p->app_at = p->beat_at = p->poll_at = p->connect_at = p->write_at = p->exit_at = p->bad_at =
		NEVER;
	p->cont_at = p->eof_at = p->unlock_at = p->reap_at = p->helper_until = p->pdeath_at = NEVER;
	return p;
}

/*
 * SIGKILL, or an end of its own. The descriptors go one by one: the socket and the
 * flock in either order; only then the pidfd becomes readable. A forked helper keeps
 * both descriptors and the listeners for a while.
 */
void proc_kill(struct world *w, struct proc *p, bool helper)
{
	uint64_t slow = chance(w, 8) ? 30 * MS : 300;

	if (p->life != ALIVE)
		return;
	p->life = DYING;
	p->writer = false;
	p->stopped = false;
	p->cont_at = p->pdeath_at = NEVER;
	p->eof_at = w->now + rnd(w, slow);
	p->unlock_at = w->now + rnd(w, slow);
	p->reap_at = (p->eof_at > p->unlock_at ? p->eof_at : p->unlock_at) + rnd(w, slow);
	if (helper) {
		p->eof_at = p->unlock_at = NEVER;
		p->helper_until =
			w->now + 1 + rnd(w, (uint64_t)w->timer[TIMER_DEADLINE] * MS * (w->fast ? 1 : 6) / 3);
	}
}

uint64_t proc_kernel_next(const struct proc *p)
{
	uint64_t t = p->cont_at;

	if (p->eof_at < t)
		t = p->eof_at;
	if (p->unlock_at < t)
		t = p->unlock_at;
	if (p->reap_at < t)
		t = p->reap_at;
	if (p->helper_until < t)
		t = p->helper_until;
	return p->pdeath_at < t ? p->pdeath_at : t;
}

static void unlock(struct world *w, struct proc *p)
{
	if (w->lock == p->pid)
		w->lock = 0;
}

static void helper_ends(struct world *w, struct proc *p)
{
	say(w, pname(p->pid), "its helper ends");
	unlock(w, p);
	conn_close_d(p);
	p->listens = false;
}

void proc_kernel_step(struct world *w, struct proc *p)
{
	uint64_t *at[] = { &p->cont_at, &p->eof_at,       &p->unlock_at,
		               &p->reap_at, &p->helper_until, &p->pdeath_at };
	unsigned i = 0;

	while (i < 5 && *at[i] > w->now)
		i++;
	*at[i] = NEVER;
	switch (i) {
	case 0: p->stopped = false; say(w, pname(p->pid), "SIGCONT"); break;
	case 1: conn_close_d(p); break;
	case 2: unlock(w, p); p->listens = false; break;
	case 3: p->life = DEAD; say(w, pname(p->pid), "dead (pidfd readable)"); break;
	case 4: helper_ends(w, p); break;
	default:
		if (p->tied) {
			say(w, pname(p->pid), "PDEATHSIG");
			proc_kill(w, p, false);
		}
	}
	uint64_t wake = w->now + latency(w);
	if (w->sup.busy < wake)
		w->sup.busy = wake;
}

/* --------------------------------------------------------------- journal --- */

static struct span number(unsigned n)
{
	static char text[64][4];

	if (n > 63)
		abort();
	if (!text[n][0])
		snprintf(text[n], sizeof text[n], "%u", n & 63u);
	return SPAN(text[n]);
}

static unsigned number_of(struct span s)
{
	return s.n == 1 ? (unsigned)(s.p[0] - '0') : (unsigned)((s.p[0] - '0') * 10 + s.p[1] - '0');
}

/* Without a journal the lock says who may be serving, as in handoffd/boot.c. */
static void guess_incumbent(struct world *w, struct journal *ret)
{
	const struct proc *p = proc_find(w, w->lock);

	ret->cur = w->kept;
	if (p && p->life == ALIVE) {
		ret->inc = p->pid;
		ret->served = true;
	}
}

void journal_load(struct world *w, struct journal *ret, uint64_t *ret_seq, unsigned *ret_next)
{
	uint64_t best = 0, seq;
	struct msg m;
	char err[128];
	int n;

	memset(ret, 0, sizeof *ret);
	*ret_next = 0;
	for (unsigned i = 0; i < 2; i++) {
		n = slot_decode(w->slot[i], JSIZE, &seq);
		if (n < 0 || seq < best)
			continue;
		if (msg_decode(w->slot[i] + SLOT_HEADER + FRAME_HEADER, (size_t)n - FRAME_HEADER, &m, err,
		               sizeof err)) {
			violated(w, "a whole record of the journal cannot be decoded: %s", err);
			return;
		}
		best = seq;
		*ret_next = i ^ 1;
		*ret = (struct journal){
			.phase = (unsigned)m.journal.phase, .outcome = (unsigned)m.journal.outcome,
			.hand = hand_of(&m.journal.id), .served = m.journal.served,
			.inc = (unsigned)m.journal.pid, .succ = (unsigned)m.journal.successor_pid,
			.cur = number_of(m.journal.binary),
			.new = MSG_HAS(&m, journal, new_binary) ? number_of(m.journal.new_binary) : 0,
		};
	}
	*ret_seq = best;
	if (!best)
		guess_incumbent(w, ret);
}

/* The new record is being written: until journal_end it may be torn by a crash. */
void journal_begin(struct world *w, const struct journal *j)
{
	struct msg m = { .type = MSG_journal };
	uint8_t item[JSIZE];
	int n;

	m.journal.id = hid_of(j->hand);
	m.journal.boot = SPAN("00000000-0000-0000-0000-000000000001");
	m.journal.phase = j->phase;
	m.journal.outcome = j->outcome;
	m.journal.served = j->served;
	m.journal.binary = number(j->cur);
	if (j->inc)
		MSG_SET(&m, journal, pid, j->inc);
	if (j->succ)
		MSG_SET(&m, journal, successor_pid, j->succ);
	if (j->new)
		MSG_SET(&m, journal, new_binary, number(j->new));
	n = msg_encode(&m, PROTO_VERSION_HELLO, item, sizeof item - SLOT_HEADER);
	if (n < 0) {
		violated(w, "simulator: journal record too long");
		return;
	}
	w->jlen = (unsigned)slot_encode(++w->sup.jseq, item, (size_t)n, w->jnew);
	w->sup.writing = true;
}

static void journal_landed(struct world *w, unsigned bytes)
{
	struct journal old = w->j;
	uint64_t seq;
	unsigned next;

	memcpy(w->slot[w->sup.jslot], w->jnew, bytes);
	journal_load(w, &w->j, &seq, &next);
	if (w->j.phase == BOOT_STARTED)
		w->begun[w->j.hand] = true;
	if (w->j.phase == BOOT_COMMITTED)
		w->decided[w->j.hand] = true;
	if (w->j.phase == BOOT_IDLE)
		w->kept = w->j.cur;
	if (w->j.phase == BOOT_IDLE && w->j.outcome && w->j.hand &&
	    (old.phase != BOOT_IDLE || old.hand != w->j.hand))
		check_outcome(w, w->j.hand, (enum s_outcome)w->j.outcome);
}

/* The write's end. False: it failed, and the record may be torn. */
bool journal_end(struct world *w, bool fail)
{
	w->sup.writing = false;
	journal_landed(w, fail ? (unsigned)rnd(w, w->jlen) : w->jlen);
	if (!fail)
		w->sup.jslot ^= 1;
	return !fail;
}

/* All of it, between two supervisors. An attempt under way is ended by nobody. */
void journal_lose(struct world *w)
{
	uint64_t seq;
	unsigned next;

	memset(w->slot, 0, sizeof w->slot);
	w->lost[w->j.hand] |= w->j.phase != BOOT_IDLE;
	for (unsigned i = 0; i < w->nopen; i++)
		cover_cell(w->open[i].kind, w->open[i].phase, OUTCOME_NONE);
	w->nopen = 0;
	journal_load(w, &w->j, &seq, &next);
}

/* -------------------------------------------------------------------- S --- */

void sup_die(struct world *w)
{
	struct sup *u = &w->sup;

	if (u->writing)
		journal_landed(w, (unsigned)rnd(w, w->jlen + 1));
	w->lost[u->hand] |= w->j.phase == BOOT_IDLE && !w->out[u->hand];
	u->alive = u->stopped = u->booted = u->writing = u->listens = false;
	u->cont_at = u->kill_n_at = NEVER;
	for (unsigned i = 0; i < w->nproc; i++) {
		struct proc *p = &w->proc[i];
		conn_close_s(p);
		if (p->life != ALIVE)
			continue;
		if (p->gated)
			p->exit_at = w->now + rnd(w, 200);   /* EOF at its gate */
		else if (p->tied)
			p->pdeath_at = w->now + rnd(w, 300);
		if (p->busy < w->now)
			p->busy = w->now + latency(w);
	}
}
