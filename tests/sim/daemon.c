/* daemon: what the library and a daemon do with the machine of O and N. */
#include "sim.h"

/* ------------------------------------------------------------------- app --- */

/* Who serves says so with this; a writer that is not asked for anything. */
bool daemon_serves(const struct proc *p)
{
	return p->life == ALIVE && p->writer && p->d.state == D_SERVE && p->qi == p->q.n && !p->dropped;
}

static void app_does(struct world *w, struct proc *p, enum d_event then, uint64_t limit_ms)
{
	uint64_t t = 20 + rnd(w, 2 * MS);

	/* hooks that take their time; a cold start has no fallback, its limit is right */
	if (!w->fast && !w->clean && !hid_none(&p->d.id)) {
		if (chance(w, 8)) {
			t = rnd(w, limit_ms * MS + 1);
		} else if (chance(w, 24) && limit_ms < 60000) {
			t = limit_ms * MS + rnd(w, limit_ms * MS);
			fault_note(w, F_SLOW);
		}
	}
	if (w->clean || w->tight)
		t = t < 3 * MS ? t / 8 : t;
	p->app_event = then;
	p->app_at = w->now + t;
}

static void writer_starts(struct world *w, struct proc *p)
{
	check_writer_starts(w, p);
	p->writer = true;
	p->write_at = w->now + rnd(w, 2 * MS);
	say(w, pname(p->pid), "*** is the writer, v%u", p->ver);
}

/* D1: acknowledged only after write(2); between both it may die. */
static void app_writes(struct world *w, struct proc *p)
{
	unsigned s = (unsigned)rnd(w, SHARDS);

	if (p->unacked) {
		p->unacked = false;
		memcpy(w->acked, p->mem.rev, sizeof w->acked);
		p->write_at = w->now + 200 + rnd(w, w->now > 200 * MS ? 400 * MS : 20 * MS);
		return;
	}
	check_write(w, p);
	p->mem.rev[s]++;
	p->mem.print = p->mem.print * 6364136223846793005u + s + 1;
	w->disk = p->mem;
	p->unacked = true;
	p->write_at = w->now + 1 + rnd(w, 50);
}

/* The successor's peer may be older than the lock's epoch in Begin: it passes over a key that it does
 * not know. */
static bool asks_epoch(const struct world *w)
{
	return !(sim_flags & M_OLD_N) && w->seed % 4;
}

static void app_opens(struct world *w, struct proc *p)
{
	/* N is allowed this lie where S has something to compare; if it does not ask the lock's epoch,
	 * where S hears that O has served again */
	bool stale = w->sealed[p->hand] && p->hand && !(w->unheard && !asks_epoch(w)) &&
	             fault_strikes(w, F_STALE);

	if (w->fmt > p->ver)
		violated(w, "%s cannot read the format of v%u", pname(p->pid), w->fmt);
	if (stale)
		say(w, pname(p->pid), "opens a stale state");
	else if (!(sim_flags & M_WARM_TRUST))
		p->mem = w->disk;
}

static void app_ends(struct world *w, struct proc *p)
{
	check_leaves(w, p);
	say(w, pname(p->pid), "exits");
	proc_kill(w, p, false);
}

/* What the app was told to do is done. */
static enum d_event app_done(struct world *w, struct proc *p)
{
	enum d_event e = p->app_event;

	p->app_at = NEVER;
	p->app_event = D_E_NONE;
	switch (e) {
	case D_E_APP_BEGIN:
		w->unheard = false;
		p->mem = w->disk;
		break;
	case D_E_APP_READY:
		if (p->bad) {
			p->bad_at = w->now;
			return D_E_NONE;
		}
		app_opens(w, p);
		break;
	case D_E_APP_SEALED:
		if (fault_strikes(w, F_SEAL))
			return D_E_APP_SEAL_FAILED;
		p->writer = false;
		break;
	case D_E_APP_RESUMED:
		if (p->d.state != D_REOPEN)
			break;
		if (w->fmt > p->ver)
			violated(w, "%s cannot read the format of v%u", pname(p->pid), w->fmt);
		if (!(sim_flags & M_MEMORY))
			p->mem = w->disk;
		writer_starts(w, p);
		break;
	default:
		break;
	}
	return e;
}

/* --------------------------------------------------------------- actions --- */

static void send_state(struct world *w, struct proc *p, enum msg_type type)
{
	struct msg m = { .type = type };
	struct fprint f = { { 0 } };

	memcpy(f.b, &p->mem.print, sizeof p->mem.print);
	if (type == MSG_seal_complete) {
		m.seal_complete.id = p->d.id;
		m.seal_complete.revisions = (struct uints){ .n = SHARDS, .v = p->mem.rev };
		m.seal_complete.fingerprint = f;
		MSG_SET(&m, seal_complete, epoch, p->epoch);
		if (send_msg(w, p, true, &m))
			w->sealed[hand_of(&p->d.id)] = true;
		return;
	}
	if (!hid_none(&p->d.id))
		MSG_SET(&m, ready, id, p->d.id);
	m.ready.healthy = !fault_strikes(w, F_UNHEALTHY);
	m.ready.revisions = (struct uints){ .n = SHARDS, .v = p->mem.rev };
	m.ready.fingerprint = f;
	send_msg(w, p, true, &m);
}

static void send_hello(struct world *w, struct proc *p)
{
	struct msg m = { .type = MSG_hello };
	struct msg k = { .type = MSG_sockets };
	bool again = !d_is_successor(&p->d);
	struct span name = SPAN("resp");

	m.hello.role = again;
	m.hello.pid = p->pid;
	m.hello.build = SPAN("build");
	m.hello.version_min = m.hello.version_max = 1;
	if (again) {
		MSG_SET(&m, hello, phase, p->d.state);
		MSG_SET(&m, hello, locked, w->lock == p->pid);
		if (!hid_none(&p->d.id))
			MSG_SET(&m, hello, id, p->d.id);
	}
	if (send_msg(w, p, true, &m))
		w->unheard = false;
	if (again) {
		k.sockets.batch = k.sockets.of = 1;
		k.sockets.names = (struct texts){ .n = 1, .v = &name };
		send_msg(w, p, true, &k);
	}
}

static void send_answer(struct world *w, struct proc *p, enum d_action a)
{
	struct msg m = { 0 };

	switch (a) {
	case D_A_SEND_STATUS:
		m.type = MSG_status;
		if (!hid_none(&p->d.id))
			MSG_SET(&m, status, id, p->d.id);
		m.status.serving = true;
		if (p->pid % 2)
			MSG_SET(&m, status, by_successor, true);
		if (p->hand && p->hand == hand_of(&p->d.id))
			w->said[p->hand] = true;
		break;
	case D_A_SEND_DRAINED:
		m.type = MSG_drained;
		m.drained.id = p->d.id;
		m.drained.accept_closed = true;
		break;
	default:
		m.type = MSG_seal_failed;
		m.seal_failed.id = p->d.id;
		m.seal_failed.error = SPAN("refused");
		if (p->pid % 2)
			MSG_SET(&m, seal_failed, by_successor, true);
		break;
	}
	send_msg(w, p, true, &m);
}

static enum d_event try_lock(struct world *w, struct proc *p)
{
	bool had = w->lock == p->pid;

	if (w->lock && !had)
		return D_E_LOCK_HELD;
	/* the record of the owner cannot be written: N gives up, an O that resumes does not */
	if (p->hand && d_is_successor(&p->d) && fault_strikes(w, F_LOCK))
		return D_E_LOCK_FAILED;
	if (!had)
		p->epoch = ++w->epoch;
	w->lock = p->pid;
	say(w, pname(p->pid), "has the flock");
	if (d_is_successor(&p->d) && p->sealed_epoch && p->epoch - 1 > p->sealed_epoch &&
	    asks_epoch(w) && !(sim_flags & M_EPOCH))
		return D_E_LOCK_FAILED;
	return D_E_LOCKED;
}

static void drop(struct world *w, struct proc *p)
{
	check_leaves(w, p);
	say(w, pname(p->pid), "drops everything");
	if (w->lock == p->pid)
		w->lock = 0;
	conn_close_d(p);
	p->writer = p->listens = false;
	p->dropped = true;
	p->exit_at = w->now + rnd(w, MS);
}

static void tell(struct world *w, struct proc *p, enum d_action a)
{
	switch (a) {
	case D_A_TELL_BEGIN: app_does(w, p, D_E_APP_READY, p->d.deadline_ms); break;
	case D_A_TELL_DRAIN: app_does(w, p, D_E_APP_DRAINED, w->timer[TIMER_DRAIN]); break;
	case D_A_TELL_SEAL: app_does(w, p, D_E_APP_SEALED, p->d.deadline_ms); break;
	case D_A_TELL_RESUME: app_does(w, p, D_E_APP_RESUMED, w->timer[TIMER_START]); break;
	case D_A_TELL_REOPEN: app_does(w, p, D_E_APP_RESUMED, w->timer[TIMER_START]); break;
	case D_A_TELL_DECIDED:
		writer_starts(w, p);
		if (p->hand)
			w->served[p->hand] = true;
		if (sim_flags & M_NEWFMT)
			w->fmt = p->ver;
		break;
	case D_A_TELL_COMMIT:
		if (!w->said[hand_of(&p->d.id)])
			violated(w, "%s was told to exit before the successor took over", pname(p->pid));
		p->exit_at =
			w->now + rnd(w, chance(w, 8) && !w->clean ? w->timer[TIMER_EXIT] * 2 * MS : 2 * MS);
		break;
	case D_A_TELL_FINAL: w->fmt = p->ver; break;
	default: break;
	}
}

static void act(struct world *w, struct proc *p, enum d_action a)
{
	switch (a) {
	case D_A_SEND_HELLO: send_hello(w, p); break;
	case D_A_TRY_LOCK: p->answer = try_lock(w, p); break;
	case D_A_UNLOCK:
		if (w->lock == p->pid)
			w->lock = 0;
		say(w, pname(p->pid), "gives up the flock");
		break;
	case D_A_SEND_READY: send_state(w, p, MSG_ready); break;
	case D_A_SEND_SEALED: send_state(w, p, MSG_seal_complete); break;
	case D_A_SEND_STATUS:
	case D_A_SEND_DRAINED:
	case D_A_SEND_SEAL_FAILED:
	case D_A_SEND_REFUSED: send_answer(w, p, a); break;
	case D_A_UNTIE: p->tied = false; break;
	case D_A_RECONNECT: p->connect_at = w->now + MS + rnd(w, 3 * MS); break;
	case D_A_DROP: drop(w, p); break;
	default: tell(w, p, a); break;
	}
}

/* ------------------------------------------------------------------ loop --- */

static void give(struct world *w, struct proc *p, enum d_event e)
{
	enum d_state was = p->d.state;

	if (e == D_E_NONE)
		return;
	d_step(&p->d, e, w->now / MS, &p->q);
	p->qi = 0;
	check_daemon_obeys(w, p, was, e);
}

static void receive(struct world *w, struct proc *p)
{
	struct msg m;

	if (!recv_msg(w, &p->conn.to_d, &m)) {
		say(w, pname(p->pid), "reads %s", p->conn.d_reset ? "ECONNRESET" : "EOF");
		conn_close_d(p);
		give(w, p, D_E_EOF);
		return;
	}
	if (m.type == MSG_sockets) {
		struct msg k = { .type = MSG_sockets_ack };
		p->listens = true;
		k.sockets_ack.batch = 1;
		send_msg(w, p, true, &k);
	}
	if (m.type == MSG_begin)
		p->sealed_epoch = MSG_HAS(&m, begin, epoch) ? m.begin.epoch : 0;
	give(w, p, d_event_of(&p->d, &m, w->now / MS));
}

static void reconnect(struct world *w, struct proc *p)
{
	struct conn *c = &p->conn;

	p->connect_at = NEVER;
	if (!w->sup.alive || !w->sup.booted || c->s_open) {
		p->connect_at = w->now + MS + rnd(w, 10 * MS);   /* ECONNREFUSED */
		return;
	}
	*c = (struct conn){ .s_open = true, .d_open = true, .again = true };
	say(w, pname(p->pid), "connects to S again");
	give(w, p, D_E_CONNECTED);
}

static bool readable(const struct proc *p)
{
	return p->conn.d_open && (!pipe_empty(&p->conn.to_d) || !p->conn.s_open);
}

static bool may_write(const struct proc *p)
{
	return p->writer && (p->unacked || daemon_serves(p) || p->d.state == D_DRAINING ||
	                     (p->d.state == D_READY && p->qi == p->q.n));
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t daemon_next(struct world *w, struct proc *p)
{
	uint64_t t = earlier(p->exit_at, p->bad_at), n;

	(void)w;
	if (p->life != ALIVE || p->stopped)
		return NEVER;
	if (p->gated || p->dropped)
		return t == NEVER || t > p->busy ? t : p->busy;
	if (p->qi < p->q.n || p->answer || readable(p))
		return p->busy;
	t = earlier(earlier(t, p->app_at), p->connect_at);
	n = d_next(&p->d);
	t = earlier(t, n == UINT64_MAX ? NEVER : n * MS);
	if (d_beats(&p->d))
		t = earlier(t, p->beat_at);
	if (d_wants_lock(&p->d))
		t = earlier(t, p->poll_at);
	if (may_write(p))
		t = earlier(t, p->write_at);
	return t > p->busy ? t : p->busy;
}

static void beat(struct world *w, struct proc *p)
{
	struct msg m = { .type = MSG_heartbeat };

	m.heartbeat.ms = w->now / MS;
	send_msg(w, p, true, &m);
	p->beat_at = w->now + (uint64_t)p->d.heartbeat_ms * MS;
}

/* The timers' turn: the socket was read. */
static void idle_turn(struct world *w, struct proc *p)
{
	enum d_event e = d_tick(&p->d, w->now / MS);

	if (e)
		give(w, p, e);
	else if (p->connect_at <= w->now)
		reconnect(w, p);
	else if (d_wants_lock(&p->d) && p->poll_at <= w->now) {
		p->poll_at = w->now + D_LOCK_POLL_MS * MS;
		give(w, p, try_lock(w, p));
	} else if (d_beats(&p->d) && p->beat_at <= w->now)
		beat(w, p);
	else if (may_write(p) && p->write_at <= w->now)
		app_writes(w, p);
}

void daemon_step(struct world *w, struct proc *p)
{
	p->busy = w->now + latency(w);
	if (p->bad_at <= w->now) {
		say(w, "*", "FAULT: bad binary: %s dies", pname(p->pid));
		fault_note(w, F_BAD);
		proc_kill(w, p, false);
	} else if (p->exit_at <= w->now &&
	           (p->termed || p->gated || p->dropped || p->d.state == D_EXIT)) {
		app_ends(w, p);
	} else if (p->qi < p->q.n) {
		act(w, p, p->q.action[p->qi++]);
	} else if (p->answer) {
		enum d_event e = p->answer;
		p->answer = D_E_NONE;
		give(w, p, e);
	} else if (p->app_at <= w->now && (!readable(p) || chance(w, 2))) {
		give(w, p, app_done(w, p));
	} else if (readable(p)) {
		receive(w, p);
	} else {
		idle_turn(w, p);
	}
	if (d_beats(&p->d) && p->beat_at == NEVER)
		p->beat_at = w->now;
	if (d_wants_lock(&p->d) && p->poll_at == NEVER)
		p->poll_at = w->now;
	if (!d_beats(&p->d))
		p->beat_at = NEVER;
	if (!d_wants_lock(&p->d))
		p->poll_at = NEVER;
}

/* Through its gate: exec, warm-up. */
void daemon_start(struct world *w, struct proc *p)
{
	p->gated = false;
	p->tied = w->pdeath;
	p->busy = w->now + latency(w);
	p->d.id = hid_of(p->hand);   /* for app_does; HelloAck says it */
	app_does(w, p, D_E_APP_BEGIN, w->timer[TIMER_START]);
	p->d.id = hid_of(0);
	if (p->bad)
		p->bad_at = w->now + rnd(w, 4 * MS);
}
