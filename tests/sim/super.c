/* super: what handoffd does with the machine of S. One action, one frame or one timer a step. */
#include "sim.h"

static void give(struct world *w, enum s_event e, const struct msg *m)
{
	struct sup *u = &w->sup;
	enum s_state was;

	if (e == S_NOW)
		return;
	was = u->s.state;
	s_step(&u->s, e, m, w->now / MS, &u->q);
	u->qi = 0;
	check_super_knows(w, was, e, m);
}

/* -------------------------------------------------------------- messages --- */

static void send_to(struct world *w, unsigned pid, struct msg *m)
{
	struct proc *p = proc_find(w, pid);

	if (p && p->conn.s_open && p->conn.accepted) {
		p->conn.told |= m->type == MSG_resume || m->type == MSG_commit;
		p->conn.final |= m->type == MSG_commit && m->commit.final;
		send_msg(w, p, false, m);
	} else {
		say(w, "S", "  %s: nobody is connected", msg_name(m->type));
	}
}

static void send_begin(struct world *w, bool sealed)
{
	const struct s *s = &w->sup.s;
	struct msg m = { .type = MSG_begin };

	if (!hid_none(&s->id))
		MSG_SET(&m, begin, id, s->id);
	m.begin.sealed = sealed;
	if (sealed) {
		MSG_SET(&m, begin, revisions, ((struct uints){ .n = s->nrevisions, .v = s->revisions }));
		MSG_SET(&m, begin, fingerprint, s->fingerprint);
		MSG_SET(&m, begin, epoch, s->epoch);
	}
	send_to(w, w->sup.n, &m);
}

static void send_commit(struct world *w, unsigned pid, bool final)
{
	struct msg m = { .type = MSG_commit };

	if (!hid_none(&w->sup.s.id))
		MSG_SET(&m, commit, id, w->sup.s.id);
	m.commit.final = final;
	send_to(w, pid, &m);
}

static void send_o(struct world *w, enum s_action a)
{
	const struct s *s = &w->sup.s;
	struct msg m = { 0 };

	switch (a) {
	case S_A_PREPARE:
		m.type = MSG_prepare;
		m.prepare.id = s->id;
		m.prepare.successor_pid = w->sup.n;
		m.prepare.deadline_ms = s->timer[TIMER_DEADLINE];
		m.prepare.drain_ms = s->timer[TIMER_DRAIN];
		break;
	case S_A_SEAL_REQUEST:
		m.type = MSG_seal_request;
		m.seal_request.id = s->id;
		break;
	default:
		m.type = MSG_resume;
		m.resume.id = s->id;
		m.resume.why = SPAN(s->why ? s->why : "");
		break;
	}
	send_to(w, w->sup.o, &m);
}

static void welcome(struct world *w, struct proc *p, bool first)
{
	const struct s *s = &w->sup.s;
	struct msg m = { .type = MSG_hello_ack };
	struct msg k = { .type = MSG_sockets };
	struct span name = SPAN("resp");

	if (!hid_none(&s->id))
		MSG_SET(&m, hello_ack, id, s->id);
	m.hello_ack.version = 1;
	m.hello_ack.deadline_ms = s->timer[TIMER_DEADLINE];
	m.hello_ack.commit_ms = s->timer[TIMER_COMMIT];
	m.hello_ack.heartbeat_ms = s->timer[TIMER_HEARTBEAT];
	m.hello_ack.fence_ms = s->timer[TIMER_FENCE];
	m.hello_ack.sockets = first;
	send_msg(w, p, false, &m);
	if (!first)
		return;
	k.sockets.batch = k.sockets.of = 1;
	k.sockets.names = (struct texts){ .n = 1, .v = &name };
	send_msg(w, p, false, &k);
}

static enum s_event understand(struct world *w, struct proc *p, struct msg *m)
{
	struct sup *u = &w->sup;
	struct conn *c = &p->conn;
	bool from_n = p->pid == u->n;
	uint64_t now = w->now / MS;

	switch (m->type) {
	case MSG_hello:
		c->has_hello = MSG_HAS(m, hello, phase);
		c->hello = *m;
		welcome(w, p, !c->has_hello);
		return S_NOW;
	case MSG_sockets: {
		struct msg k = { .type = MSG_sockets_ack };
		k.sockets_ack.batch = 1;
		send_msg(w, p, false, &k);
		u->listens = true;
		if (!c->has_hello)
			return S_NOW;
		c->has_hello = false;
		return s_event_of_hello(&u->s, from_n, &c->hello, d_phase_serves(c->hello.hello.phase),
		                        now);
	}
	case MSG_sockets_ack:
		return from_n ? S_E_N_HELLO : S_NOW;
	default:
		break;
	}
	if (sim_flags & M_IDS) {   /* any handoff's answers will do */
		struct hid id = u->s.id;
		u->s.id = msg_id(m);
		enum s_event e = s_event_of(&u->s, from_n, m, now);
		u->s.id = id;
		return e;
	}
	return s_event_of(&u->s, from_n, m, now);
}

static bool told_to_serve(const struct s *s)
{
	return (s->state >= S_TAKE && s->state <= S_OEXIT) || s->state == S_R_COMMITTED ||
	       s->state == S_COLD_TAKE;
}

static void lost(struct world *w, struct proc *p, bool by_s)
{
	struct sup *u = &w->sup;

	if (p->pid == u->o && !u->o_told)
		give(w, by_s ? S_E_O_BROKEN : S_E_O_LOST, NULL);
	/* a successor that has not been told to serve cannot be told any more */
	else if (p->pid == u->n && !told_to_serve(&u->s))
		proc_kill(w, p, false);
	else if (p->pid == u->n && by_s)
		give(w, S_E_N_LOST, NULL);
}

/* It has the lock, and nobody knew it: it waits until what is being started has ended. */
static bool found(struct world *w, struct proc *p)
{
	struct sup *u = &w->sup;

	if (sim_flags & M_STRANGER || u->s.state < S_COLD || u->s.state > S_COLD_ENDING)
		return false;
	if (u->s.state == S_COLD_ENDING)
		return true;
	say(w, "S", "finds %s", pname(p->pid));
	if (u->s.state == S_COLD || u->s.state == S_COLD_STOP) {
		u->o = p->pid;
		u->o_told = false;
		p->conn.accepted = true;
	}
	give(w, S_E_O_FOUND, NULL);
	return true;
}

static void receive(struct world *w, struct proc *p)
{
	struct sup *u = &w->sup;
	struct msg m;

	if (!p->conn.accepted) {
		if (p->pid != u->o && p->pid != u->n && p->pid == w->lock && found(w, p))
			return;
		p->conn.accepted = true;
		if (p->pid != u->o && p->pid != u->n) {
			say(w, "S", "refuses %s: unknown", pname(p->pid));
			conn_close_s(p);
			return;
		}
	}
	if (recv_msg(w, &p->conn.to_s, &m)) {
		enum s_event e = understand(w, p, &m);
		if (e == S_E_N_READY && (sim_flags & M_NO_REV))
			u->s.sealed = false;
		give(w, e, &m);
		return;
	}
	say(w, "S", "reads %s of %s", p->conn.s_reset ? "ECONNRESET" : "EOF", pname(p->pid));
	conn_close_s(p);
	lost(w, p, false);
}

/* --------------------------------------------------------------- actions --- */

static void journal_change(struct world *w, enum s_action a, struct journal *j)
{
	struct sup *u = &w->sup;

	switch (a) {
	case S_A_JOURNAL_STARTED:
		*j = (struct journal){ .phase = BOOT_STARTED, .hand = u->hand, .inc = u->o, .cur = u->cur,
		                       .new = u->new, .succ = u->n, .served = u->s.served };
		break;
	case S_A_JOURNAL_COMMITTED: j->phase = BOOT_COMMITTED; j->succ = u->n; break;
	case S_A_JOURNAL_OUTCOME:
		if (u->s.outcome == OUTCOME_COMMITTED)
			u->cur = u->new;
		if ((sim_flags & M_BOTH_NEW) && u->s.o_gone)
			u->cur = u->new;
		*j = (struct journal){ .phase = BOOT_IDLE, .hand = u->hand, .outcome = u->s.outcome };
		j->inc = u->s.o_gone ? 0 : u->o;
		j->cur = u->cur;
		j->served = u->s.served;
		break;
	case S_A_JOURNAL_COLD:
		j->inc = u->n;
		j->served = false;
		break;
	default:
		j->inc = u->o;
		j->served = true;
		break;
	}
}

/* A write has a beginning and an end: a crash between them tears the record. */
static void journal(struct world *w, enum s_action a)
{
	struct sup *u = &w->sup;
	bool asked = a != S_A_JOURNAL_OUTCOME && a != S_A_JOURNAL_SERVES && a != S_A_JOURNAL_FOUND;
	struct journal j = u->j;

	if (!u->writing) {
		journal_change(w, a, &j);
		journal_begin(w, &j);
		u->qi--;
		u->j = j;
		return;
	}
	if (!journal_end(w, asked && fault_strikes(w, F_JOURNAL))) {
		u->j = w->j;
		u->answer = S_E_JOURNAL_FAILED;
		return;
	}
	if (asked)
		u->answer = S_E_JOURNALED;
	say(w, "S", "  journaled: %s", s_action_name[a] + 8);
	if (a == S_A_JOURNAL_OUTCOME) {
		cover_outcome(u->s.outcome);
		u->n = 0;
		u->n_told = false;
		if (u->s.o_gone && u->s.state == S_COLD)
			u->o = 0;
	}
}

static void spawn(struct world *w, bool cold)
{
	struct sup *u = &w->sup;
	unsigned hand = cold ? 0 : u->hand;
	struct proc *p;

	if (fault_strikes(w, F_SPAWN)) {
		u->answer = S_E_SPAWN_FAILED;
		return;
	}
	if (cold) {
		u->o = 0;
		w->cold_starts++;
	}
	p = proc_new(w, hand, cold ? u->cur : u->new);
	if (!p)
		return;
	p->gated = true;
	p->bad = w->badbin[p->ver];
	u->n = p->pid;
	u->n_told = false;
	u->answer = S_E_SPAWNED;
	say(w, "S", "  spawned %s, v%u", pname(p->pid), p->ver);
}

static void sigkill(struct world *w, unsigned pid)
{
	struct proc *p = proc_find(w, pid);

	if (!p)
		return;
	say(w, "S", "  SIGKILL %s", pname(pid));
	proc_kill(w, p, !w->fast && !w->clean && chance(w, 12));
}

/* Abort is a courtesy; what ends N is SIGKILL. */
static void kill_n(struct world *w)
{
	struct sup *u = &w->sup;
	struct msg m = { .type = MSG_abort };

	if (!chance(w, 4)) {
		sigkill(w, u->n);
		return;
	}
	if (!hid_none(&u->s.id))
		MSG_SET(&m, abort, id, u->s.id);
	m.abort.why = SPAN("aborted");
	send_to(w, u->n, &m);
	u->kill_pid = u->n;
	u->kill_n_at = w->now + rnd(w, MS);
}

static bool anybody_listens(struct world *w)
{
	for (unsigned i = 0; i < w->nproc; i++)
		if (w->proc[i].life != FREE && w->proc[i].listens)
			return true;
	return false;
}

static void listen_(struct world *w)
{
	struct sup *u = &w->sup;

	if (!u->listens && anybody_listens(w)) {
		say(w, "S", "  EADDRINUSE");
		check_bind(w);
		u->answer = S_E_NOT_LISTENING;
		return;
	}
	u->listens = true;
	u->answer = S_E_LISTENING;
}

static void term_o(struct world *w)
{
	struct proc *p = proc_find(w, w->sup.o);

	if (!p || p->life != ALIVE)
		return;
	p->termed = true;
	p->exit_at = w->now + rnd(w, chance(w, 4) ? w->timer[TIMER_STOP] * 2 * MS : 3 * MS);
}

static void promote(struct world *w)
{
	struct sup *u = &w->sup;
	struct proc *p;

	u->o = u->n;
	u->o_told = u->n_told;
	u->n = 0;
	u->n_told = false;
	p = proc_find(w, u->o);
	if (!p || !p->conn.s_open || !p->conn.accepted)
		u->answer = S_E_O_LOST;
}

static void report(struct world *w)
{
	struct sup *u = &w->sup;

	say(w, "S", "  REPORT h%u: %s%s%s", u->hand, outcome_name[u->s.outcome], u->s.why ? ": " : "",
	    u->s.why ? u->s.why : "");
	if (w->out[u->hand] != u->s.outcome)
		violated(w, "h%u was reported %s, the journal has %s", u->hand, outcome_name[u->s.outcome],
		         outcome_name[w->out[u->hand]]);
}

/* It has the lock and comes to register. */
static struct proc *at_the_door(struct world *w)
{
	struct proc *p = proc_find(w, w->lock);

	return p && p->conn.s_open && !p->conn.accepted && !pipe_empty(&p->conn.to_s) ? p : NULL;
}

static void ended(struct world *w)
{
	w->sup.ended = true;
	if (!w->left)
		w->left = at_the_door(w) ? 0 : w->lock;
	sup_die(w);
	say(w, "S", "  ends");
}

/* Another life: the kernel's things stay, and of S's memory what handoffd carries over. */
static void reexec(struct world *w)
{
	struct sup *u = &w->sup;
	const struct s was = u->s;

	say(w, "S", "  goes on as another binary");
	s_init(&u->s, sim_s_table, w->timer);
	u->s.trace = was.trace;
	u->s.trace_arg = w;
	u->n = 0;
	u->n_told = false;
	cover_life('S', 0);
	s_go_on(&u->s, was.served_since, was.cold_tries);
}

static void act(struct world *w, enum s_action a)
{
	struct sup *u = &w->sup;
	struct proc *p = proc_find(w, u->n);

	check_super_acts(w, a);
	switch (a) {
	case S_A_JOURNAL_STARTED: case S_A_JOURNAL_COMMITTED:
	case S_A_JOURNAL_OUTCOME: case S_A_JOURNAL_COLD: case S_A_JOURNAL_SERVES: case S_A_JOURNAL_FOUND:
		journal(w, a);
		break;
	case S_A_SPAWN: spawn(w, false); break;
	case S_A_SPAWN_COLD: spawn(w, true); break;
	case S_A_RELEASE:
		if (p && p->life == ALIVE)
			daemon_start(w, p);
		break;
	case S_A_PREPARE: case S_A_SEAL_REQUEST: case S_A_RESUME_O: send_o(w, a); break;
	case S_A_BEGIN_SEALED: send_begin(w, true); break;
	case S_A_BEGIN_NOTHING:
		send_begin(w, false);
		if ((sim_flags & M_OLDREV) && u->s.state == S_READY) {
			u->s.sealed = true;
			u->s.nrevisions = SHARDS;
			memset(u->s.revisions, 0, SHARDS * sizeof *u->s.revisions);
		}
		break;
	case S_A_READ_O: u->reading_o = true; break;
	case S_A_COMMIT_N: send_commit(w, u->n, false); break;
	case S_A_COMMIT_O: send_commit(w, u->o, false); break;
	case S_A_FINAL: send_commit(w, u->o, true); break;
	case S_A_KILL_N: kill_n(w); break;
	case S_A_KILL_O: sigkill(w, u->o); break;
	case S_A_TERM_O: term_o(w); break;
	case S_A_PROMOTE: promote(w); break;
	case S_A_LISTEN: listen_(w); break;
	case S_A_REPORT: report(w); break;
	case S_A_COLD_FAILED: u->n = 0; u->n_told = false; break;
	case S_A_END: ended(w); break;
	case S_A_REEXEC: reexec(w); break;
	default: break;
	}
}

/* ------------------------------------------------------------------ loop --- */

static bool readable(const struct proc *p)
{
	const struct conn *c = &p->conn;

	return c->s_open && (!pipe_empty(&c->to_s) || !c->d_open);
}

static struct proc *pick_readable(struct world *w)
{
	struct proc *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < w->nproc; i++)
		if (w->proc[i].life != FREE && readable(&w->proc[i]) && rnd(w, ++n) == 0)
			found = &w->proc[i];
	return found;
}

/* It lies in the accept queue: a part of O's socket all the same. */
static bool waiting(const struct proc *p)
{
	return !p->conn.accepted;
}

/* Dead, verified, and what it had sent was read (EOF, or EAGAIN where a helper has the socket). */
static bool gone(struct world *w, unsigned pid, bool is_n)
{
	struct proc *p = proc_find(w, pid);

	if (!pid)
		return false;
	if (!p)
		return true;
	if ((sim_flags & M_AT_EOF) && !is_n)
		return !p->conn.d_open && pipe_empty(&p->conn.to_s);
	if (p->life != DEAD)
		return false;
	if (((sim_flags & M_UNREAD_N) && is_n) || ((sim_flags & M_UNREAD_O) && !is_n))
		return true;
	return !p->conn.s_open || pipe_empty(&p->conn.to_s) || (waiting(p) && (sim_flags & M_QUEUE));
}

static enum s_event somebody_gone(struct world *w)
{
	struct sup *u = &w->sup;

	if (u->n && !u->n_told && gone(w, u->n, true))
		return S_E_N_GONE;
	if (u->o && !u->o_told && gone(w, u->o, false))
		return S_E_O_GONE;
	return S_NOW;
}

static void tell_gone(struct world *w, enum s_event e)
{
	struct sup *u = &w->sup;
	struct proc *p = proc_find(w, e == S_E_N_GONE ? u->n : u->o);

	if (p)
		conn_close_s(p);
	if (e == S_E_N_GONE)
		u->n_told = true;
	else
		u->o_told = true;
	give(w, e, NULL);
}

static bool startable(struct world *w)
{
	const struct sup *u = &w->sup;
	struct proc *o = proc_find(w, u->o);

	return u->s.state == S_IDLE && u->s.o_connected && !u->s.o_standby && !u->s.stop && !u->s.o_gone &&
	       !(o && o->conn.has_hello);   /* it registers: its sockets are still to come */
}

/* The operator. A request that cannot be taken now is refused, and asked again. */
static bool operate(struct world *w)
{
	struct sup *u = &w->sup;

	if (w->want_stop || w->want_restart || w->want_abort) {
		enum s_event e = w->want_stop ? S_E_STOP : w->want_restart ? S_E_RESTART : S_E_ABORT;
		w->want_stop = w->want_restart = w->want_abort = false;
		say(w, "S", "operator: %s", s_event_name[e]);
		give(w, e, NULL);
		return true;
	}
	if (!w->upgrades || w->op_at > w->now || u->s.state == S_STOPPED)
		return false;
	w->op_at = w->now + (w->hasty ? 200 : 3 * MS + rnd(w, 40 * MS));
	if (!startable(w))
		return true;
	w->upgrades--;
	u->hand = ++w->nhand;
	w->begun_at[u->hand] = w->now;
	u->new = u->hand;
	w->badbin[u->new] = w->arm[F_BAD];   /* noted when it dies */
	w->arm[F_BAD] = false;
	u->s.id = hid_of(u->hand);
	say(w, "S", "operator: upgrade h%u to v%u", u->hand, u->new);
	give(w, S_E_START, NULL);
	return true;
}

static void beats(struct world *w)
{
	struct sup *u = &w->sup;
	struct msg m = { .type = MSG_heartbeat };

	m.heartbeat.ms = w->now / MS;
	u->beat_at = w->now + (uint64_t)w->timer[TIMER_HEARTBEAT] * MS;
	if (s_beats_o(&u->s) && proc_find(w, u->o))
		send_to(w, u->o, &m);
	if (s_beats_n(&u->s) && proc_find(w, u->n))
		send_to(w, u->n, &m);
}

static bool beating(const struct sup *u)
{
	return s_beats_o(&u->s) || s_beats_n(&u->s);
}

/* Asked for whenever it is; the table says where it comes to something. It takes nothing from w->rnd:
 * a run is the same with and without. */
static void ask_reexec(struct world *w)
{
	struct sup *u = &w->sup;
	const uint64_t dice = (w->seed * 0x9e3779b97f4a7c15u ^ w->steps * 0xbf58476d1ce4e5b9u) >> 60;
	const struct proc *o = proc_find(w, u->o);

	if (!u->booted || u->qi < u->q.n || u->answer || u->reading_o || u->broken || dice != 0 ||
	    (o && o->conn.has_hello))   /* it registers: refused */
		return;
	give(w, S_E_REEXEC, NULL);
	while (u->qi < u->q.n)
		act(w, u->q.action[u->qi++]);
}

uint64_t sup_next(struct world *w)
{
	struct sup *u = &w->sup;
	uint64_t t = NEVER, n;

	if (!u->alive)
		return u->ended ? NEVER : u->restart_at;
	if (u->stopped)
		return u->cont_at;
	if (!u->booted || u->qi < u->q.n || u->answer || u->reading_o || u->broken ||
	    pick_readable(w) || somebody_gone(w) || w->want_abort || w->want_stop || w->want_restart)
		return u->busy;
	n = s_next(&u->s);
	t = n == UINT64_MAX ? NEVER : n * MS;
	if (beating(u) && u->beat_at < t)
		t = u->beat_at;
	if (w->upgrades && w->op_at < t)
		t = w->op_at;
	if (u->kill_n_at < t)
		t = u->kill_n_at;
	return t > u->busy ? t : u->busy;
}

/* With the journal, in every other run: who serves is not found by the lock; the sockets come back
 * from the service manager, or do not. It takes nothing from w->rnd, as ask_reexec. */
static void lose(struct world *w)
{
	struct sup *u = &w->sup;
	const uint64_t dice = (w->seed * 0x9e3779b97f4a7c15u) >> 62;
	const struct proc *p = proc_find(w, w->lock);
	bool blind = dice & 1 && p && p->d.state == D_SERVE;

	journal_lose(w);
	journal_load(w, &u->j, &u->jseq, &u->jslot);
	if (!blind)
		return;
	u->j.inc = 0;
	u->j.served = false;
	u->listens = dice & 2;
}

static void boot(struct world *w)
{
	struct sup *u = &w->sup;
	struct s_boot b = { 0 };

	if (fault_may_lose(w) && fault_strikes(w, F_LOST))
		lose(w);
	else
		journal_load(w, &u->j, &u->jseq, &u->jslot);
	u->booted = true;
	u->o = u->j.inc;
	u->n = u->j.succ;
	u->o_told = u->n_told = u->reading_o = false;
	u->broken = 0;
	u->hand = u->j.hand;
	u->cur = u->j.cur;
	u->new = u->j.new;
	u->answer = S_NOW;
	u->kill_n_at = NEVER;
	s_init(&u->s, sim_s_table, w->timer);
	u->s.trace = cover_s_row;
	u->s.trace_arg = w;
	cover_life('S', 0);
	b.phase = u->j.phase;
	b.has_incumbent = u->o;
	b.has_successor = u->n;
	b.served = u->j.served;
	b.id = hid_of(u->hand);
	say(w, "S", "starts; journal: phase %u, h%u, incumbent %s, successor %s", u->j.phase, u->hand,
	    u->o ? pname(u->o) : "none", u->n ? pname(u->n) : "none");
	s_boot(&u->s, &b, w->now / MS, &u->q);
	u->qi = 0;
}

void sup_start(struct world *w)
{
	struct sup *u = &w->sup;

	u->alive = true;
	u->booted = u->listens = u->stopped = false;
	w->left = 0;
	u->unbound_at = NEVER;
	u->restart_at = NEVER;
	u->busy = w->now + latency(w);
}

/* READ_O: all that lies in O's socket, a connection that waits to be accepted too. */
static void read_o(struct world *w)
{
	struct proc *p = w->sup.s.state == S_COLD_STOP ? at_the_door(w) : proc_find(w, w->sup.o);

	if (p && p->conn.s_open && !pipe_empty(&p->conn.to_s) &&
	    !(waiting(p) && (sim_flags & M_QUEUE))) {
		receive(w, p);
		return;
	}
	if (w->sup.s.state == S_COLD_STOP)
		w->left = w->lock;   /* who comes now comes too late */
	w->sup.reading_o = false;
	give(w, S_E_O_READ, NULL);
}

static void expire(struct world *w, enum s_event e)
{
	const struct s *s = &w->sup.s;
	enum s_state was = s->state;

	give(w, e, NULL);
	if (s->state == was && s_tick(s, w->now / MS) == e)
		violated(w, "S was to wait no longer in %s (%s) and does nothing", s_state_desc[was].id,
		         s_event_name[e]);
}

static void timers_turn(struct world *w)
{
	struct sup *u = &w->sup;
	enum s_event e = s_tick(&u->s, w->now / MS);

	if (e)
		expire(w, e);
	else if (beating(u) && u->beat_at <= w->now)
		beats(w);
	else
		operate(w);
}

void sup_step(struct world *w)
{
	struct sup *u = &w->sup;
	struct proc *p;
	enum s_event e;

	if (!u->alive) {
		sup_start(w);
		return;
	}
	if (u->stopped) {
		u->stopped = false;
		u->cont_at = NEVER;
		u->busy = w->now + latency(w);
		say(w, "S", "SIGCONT");
		return;
	}
	u->busy = w->now + latency(w);
	if (!u->booted) {
		boot(w);
	} else if (u->qi < u->q.n) {
		act(w, u->q.action[u->qi++]);
	} else if (u->answer) {
		e = u->answer;
		u->answer = S_NOW;
		give(w, e, NULL);
	} else if (u->broken) {
		p = proc_find(w, u->broken);
		u->broken = 0;
		if (p)
			lost(w, p, true);
	} else if (u->kill_n_at <= w->now) {
		u->kill_n_at = NEVER;
		sigkill(w, u->kill_pid);
	} else if (u->reading_o) {
		read_o(w);
	} else if ((w->want_stop || w->want_abort || w->want_restart) && chance(w, 2)) {
		operate(w);
	} else if (w->hasty && w->upgrades && w->op_at <= w->now && chance(w, 2)) {
		operate(w);
	} else if ((e = somebody_gone(w)) && chance(w, 2)) {
		tell_gone(w, e);
	} else if ((p = pick_readable(w))) {
		receive(w, p);
	} else if ((e = somebody_gone(w))) {
		tell_gone(w, e);
	} else if (w->want_stop || w->want_abort || w->want_restart) {
		operate(w);
	} else {
		timers_turn(w);
	}
	if (!u->alive)
		return;
	ask_reexec(w);
	if (!beating(u))
		u->beat_at = NEVER;
	else if (u->beat_at == NEVER)
		u->beat_at = w->now;
}
