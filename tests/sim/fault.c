/* fault: what goes wrong in a run, and when. Steps are counted, or steps in a state. */
#include "sim.h"

const char *const fault_name[F_COUNT] = {
#define X(id, name) [F_##id] = name,
	FAULTS(X)
#undef X
};

static const unsigned char weight[F_COUNT] = {
	[F_KILL_S] = 8,  [F_KILL_O] = 8,     [F_KILL_N] = 8,  [F_HANG_S] = 6,  [F_HANG_O] = 6,
	[F_HANG_N] = 6,  [F_HELPER] = 3,     [F_BREAK_O] = 2, [F_BREAK_N] = 1, [F_OP_ABORT] = 3,
	[F_OP_STOP] = 2, [F_OP_RESTART] = 2, [F_JOURNAL] = 3, [F_SPAWN] = 1,   [F_LOCK] = 1,
	[F_SEAL] = 2,    [F_UNHEALTHY] = 1,  [F_STALE] = 1,   [F_BAD] = 2,
	[F_LOST] = 1,
};

static bool is_soft(enum fault_kind k)
{
	return k >= F_JOURNAL;
}

/* ------------------------------------------------------------------ plan --- */

static enum fault_kind pick_kind(struct world *w)
{
	unsigned sum = 0, at;

	for (unsigned i = 0; i < F_COUNT; i++)
		sum += weight[i];
	at = (unsigned)rnd(w, sum);
	for (unsigned i = 0; i < F_COUNT; i++) {
		if (at < weight[i])
			return i;
		at -= weight[i];
	}
	return F_KILL_S;
}

static uint64_t all_timers(const struct world *w)
{
	uint64_t t = 0;

	for (unsigned i = 0; i < TIMER_COUNT; i++)
		t += w->timer[i];
	return t * MS;
}

/* shorter than the fence, longer than every timer, for good (NEVER) */
static uint64_t pick_length(struct world *w)
{
	switch (rnd(w, 4)) {
	case 0: return 1 + rnd(w, (uint64_t)w->timer[TIMER_FENCE] * MS);
	case 1:
		return (uint64_t)w->timer[TIMER_FENCE] * MS +
		       rnd(w, (uint64_t)w->timer[TIMER_DEADLINE] * MS);
	case 2: return all_timers(w) + rnd(w, all_timers(w));
	default: return NEVER;
	}
}

static struct fault *add(struct world *w, enum fault_kind k, enum trigger t, unsigned state,
                         unsigned count)
{
	struct fault *f = &w->fault[w->nfault++];

	*f = (struct fault){
		.kind = k, .trigger = t, .state = state, .count = count, .length = pick_length(w)
	};
	return f;
}

static void plan_one(struct world *w)
{
	enum fault_kind k = pick_kind(w);
	struct fault *f = add(w, k, (enum trigger)rnd(w, 4), 0, 0);

	if (is_soft(k) && k != F_JOURNAL) {
		f->trigger = AT_STEP;
		return;
	}
	switch (f->trigger) {
	case AT_STEP: f->count = (unsigned)rnd(w, 150); break;
	case AT_S: f->state = (unsigned)rnd(w, S_STATE_COUNT); break;
	case AT_O: f->state = D_SERVE + (unsigned)rnd(w, D_EXIT - D_SERVE + 1); break;
	case AT_N: f->state = (unsigned)rnd(w, D_SERVE + 1); break;
	}
	if (f->trigger != AT_STEP)
		f->count = (unsigned)rnd(w, chance(w, 2) ? 4 : 16);
	f->after = w->nfault > 1 && chance(w, 3);
}

/* ... only after the fault before it */
static struct fault *then(struct fault *f)
{
	f->after = true;
	return f;
}

static uint64_t least(const struct world *w, enum timer a, enum timer b)
{
	return (uint64_t)(w->timer[a] < w->timer[b] ? w->timer[a] : w->timer[b]) * MS;
}

/* Rare sequences on purpose: what only a chain of three faults shows. */
static void plan_scene(struct world *w)
{
	uint64_t fence = (uint64_t)w->timer[TIMER_FENCE] * MS;

	switch (rnd(w, 14)) {
	case 0:   /* O seals, serves again unheard, dies; then N opens what it remembers */
		add(w, F_STALE, AT_STEP, 0, 0);
		add(w, F_HANG_N, AT_N, D_LOCK, 0)->length = fence + fence / 4 + rnd(w, fence / 4);
		add(w, F_HANG_S, AT_N, D_LOCK, (unsigned)rnd(w, 2))->length =
			fence + fence / 3 + rnd(w, fence / 3);
		then(add(w, F_KILL_O, AT_O, D_SERVE, 2 + (unsigned)rnd(w, 12)));
		break;
	case 9:   /* the same, heard only on O's next channel */
		add(w, F_STALE, AT_STEP, 0, 0);
		add(w, F_HANG_N, AT_N, D_LOCK, 0)->length = fence / 4 + rnd(w, fence / 4);
		add(w, F_BREAK_O, AT_N, D_LOCK, 0);
		then(add(w, F_HANG_S, AT_O, D_SEALED, 1 + (unsigned)rnd(w, 3)))->length =
			fence / 2 + rnd(w, fence / 4);
		then(add(w, F_KILL_O, AT_O, D_SERVE, 2 + (unsigned)rnd(w, 20)));
		break;
	case 1:   /* N dies while S sleeps after the commit; O finds the flock free */
		add(w, F_HANG_S, AT_N, D_SERVE, (unsigned)rnd(w, 8))->length = fence + rnd(w, 2 * fence);
		then(add(w, F_KILL_N, AT_N, D_SERVE, (unsigned)rnd(w, 3)));
		if (chance(w, 2))
			then(add(w, F_BREAK_O, AT_O, D_SEALED, 0));
		break;
	case 2:   /* answers of an ended handoff arrive in the next */
		add(w, F_HANG_S, AT_O, chance(w, 2) ? D_DRAINED : D_DRAINING, (unsigned)rnd(w, 3))->length =
			fence + rnd(w, fence / 2);
		then(add(w, F_KILL_N, AT_O, D_UNDRAIN, (unsigned)rnd(w, 3)));
		then(add(w, F_HANG_O, AT_O, D_SERVE, 1 + (unsigned)rnd(w, 3)))->length =
			fence / 2 + rnd(w, fence / 4);
		w->upgrades += 2;
		break;
	case 3:   /* everything dies around the decision */
		add(w, F_KILL_N, AT_S, S_TAKE, (unsigned)rnd(w, 6));
		if (chance(w, 2))
			add(w, F_KILL_O, AT_S, S_TAKE, (unsigned)rnd(w, 12));
		add(w, F_KILL_S, AT_S, S_TAKE, (unsigned)rnd(w, 12));
		break;
	case 4:   /* N reads its Commit when S has just given it up */
		add(w, F_HANG_N, AT_S, S_TAKE, 0)->length =
			least(w, TIMER_COMMIT, TIMER_DEAD) - MS / 2 + rnd(w, 2 * MS);
		break;
	case 5:   /* O is silent in the seal, not dead */
		add(w, F_STALE, AT_STEP, 0, 0);
		add(w, F_HANG_O, AT_O, chance(w, 4) ? D_DRAINED : D_SEALING, (unsigned)rnd(w, 3))->length =
			(uint64_t)w->timer[TIMER_DEAD] * MS + rnd(w, (uint64_t)w->timer[TIMER_DEAD] * MS / 2);
		break;
	case 6:   /* O's helper has the flock, S sleeps: N waits alone */
		add(w, F_HELPER, AT_O, chance(w, 2) ? D_DRAINING : D_SEALING, 0);
		add(w, F_HANG_S, AT_N, D_LOCK_DEAD, 0)->length = fence + rnd(w, 2 * fence);
		break;
	case 7:   /* O's channel is lost when N is warm, and something else goes wrong */
		add(w, chance(w, 2) ? F_BREAK_O : F_KILL_O, AT_N, D_WBEGIN, (unsigned)rnd(w, 3));
		add(w, (enum fault_kind[]){ F_OP_ABORT, F_OP_STOP, F_KILL_N, F_HANG_O }[rnd(w, 4)], AT_S,
		    S_AWAIT_O, 0);
		break;
	case 8:   /* both are silent, and the drain has time */
		w->timer[TIMER_DRAIN] = w->timer[TIMER_DEADLINE];
		add(w, F_HANG_N, AT_S, S_DRAIN, (unsigned)rnd(w, 3))->length = all_timers(w);
		add(w, F_HANG_O, AT_S, S_DRAIN, 2 + (unsigned)rnd(w, 3))->length = all_timers(w);
		break;
	case 10:  /* Final goes into a channel that N has lost; N registers again in the next attempt,
	           * which S begins before it has read the end, and which comes to nothing */
		add(w, F_HANG_O, AT_O, D_SEALED, 0)->length = 1;
		then(add(w, F_BREAK_O, AT_O, D_SERVE, (unsigned)rnd(w, 6)));
		then(add(w, (enum fault_kind[]){ F_OP_ABORT, F_KILL_N, F_KILL_S, F_UNHEALTHY }[rnd(w, 4)],
		         AT_S, S_SPAWNING + (unsigned)rnd(w, S_CHECK - S_SPAWNING), (unsigned)rnd(w, 30)));
		w->upgrades++;
		w->hasty = true;
		break;
	case 11:  /* the journal is lost with an attempt, and O is not back yet when S asks the lock */
		add(w, F_LOST, AT_STEP, 0, 0);
		add(w, F_KILL_S, AT_O, D_DRAINING + (unsigned)rnd(w, 2), (unsigned)rnd(w, 3));
		if (chance(w, 2))
			then(add(w, F_HANG_O, AT_O, D_UNDRAIN, 0))->length =
				(uint64_t)w->timer[TIMER_DEAD] * MS * (1 + rnd(w, 4)) / 2;
		break;
	case 12:  /* nobody is named, and a stop comes before who serves is found, or has registered */
		add(w, F_LOST, AT_STEP, 0, 0);
		add(w, F_KILL_S, AT_O, D_SERVE, (unsigned)rnd(w, 8));
		then(add(w, F_OP_STOP, AT_S, (enum s_state[]){ S_COLD, S_COLD_WARM, S_COLD_READY, S_COLD_ENDING }[rnd(w, 4)],
		         (unsigned)rnd(w, 4)));
		break;
	default:  /* a restarted S, an incumbent that is silent for long */
		add(w, F_KILL_S, AT_STEP, 0, (unsigned)rnd(w, 100));
		add(w, F_HANG_O, AT_STEP, 0, (unsigned)rnd(w, 100))->length =
			all_timers(w) + rnd(w, all_timers(w));
		break;
	}
}

void fault_plan(struct world *w)
{
	unsigned n;

	w->nfault = 0;
	if (chance(w, 10))
		return;
	if (chance(w, 10)) {
		plan_scene(w);
		return;
	}
	n = 1 + chance(w, 3) + chance(w, 6);
	if (chance(w, 24)) {   /* S again and again */
		for (unsigned i = 0; i < 4; i++)
			add(w, F_KILL_S, AT_STEP, 0, 10 + (unsigned)rnd(w, 100));
		return;
	}
	while (n--)
		plan_one(w);
}

/* ---------------------------------------------------------------- strike --- */

unsigned fault_phase(const struct world *w)
{
	return w->sup.alive && w->sup.booted ? (unsigned)w->sup.s.state : S_STATE_COUNT;
}

static bool attempt(const struct world *w)
{
	return w->j.phase != BOOT_IDLE || (w->sup.alive && w->sup.booted && s_in_handoff(&w->sup.s));
}

void fault_note(struct world *w, enum fault_kind k)
{
	w->seen |= 1u << k;
	w->strikes++;
	w->last_fault = w->struck_at = w->now;
	if (!attempt(w)) {
		cover_cell(k, fault_phase(w), OUTCOME_NONE);
		return;
	}
	if (w->nopen == sizeof w->open / sizeof *w->open)
		return;
	w->open[w->nopen].kind = k;
	w->open[w->nopen++].phase = fault_phase(w);
}

bool fault_strikes(struct world *w, enum fault_kind k)
{
	if (!w->arm[k])
		return false;
	w->arm[k] = false;
	say(w, "*", "FAULT: %s", fault_name[k]);
	fault_note(w, k);
	return true;
}

/* A supervisor starts and the journal is not there. That is made up for as long as the lock says
 * who serves, and nothing was decided: an O that has sealed, or an N that nobody knows, needs an
 * operator then. */
bool fault_may_lose(const struct world *w)
{
	for (unsigned i = 0; i < w->nproc; i++) {
		const struct proc *p = &w->proc[i];
		if (p->life == ALIVE && p->pid == w->lock)
			return w->j.phase != BOOT_COMMITTED && !d_is_successor(&p->d);
	}
	return false;
}

static struct proc *target(struct world *w, bool n)
{
	const struct sup *u = &w->sup;
	bool knows = u->alive && u->booted;   /* else the journal does */
	unsigned pid = n ? (knows ? u->n : w->j.succ) : knows ? u->o : w->j.inc;
	struct proc *p = proc_find(w, pid);

	return p && p->life == ALIVE ? p : NULL;
}

/* Who serves and then hangs for good is beyond help: its liveness is its pidfd. Nor is
 * who has not gone through its gate the daemon's to hang. */
static bool hang(struct world *w, struct proc *p, struct fault *f)
{
	uint64_t length = f->length;

	if (p->gated || p->stopped)
		return false;
	if (length == NEVER && (p->d.state == D_SERVE || p->hand == 0))
		length = (uint64_t)w->timer[TIMER_FENCE] * MS;
	p->stopped = true;
	p->cont_at = length == NEVER ? NEVER : w->now + length;
	if (w->hang_end < p->cont_at)
		w->hang_end = p->cont_at;
	return true;
}

static bool hang_s(struct world *w, struct fault *f)
{
	struct sup *u = &w->sup;

	if (!u->alive || u->stopped)
		return false;
	u->stopped = true;
	u->cont_at = w->now + (f->length == NEVER ? all_timers(w) * 3 : f->length);
	if (w->hang_end < u->cont_at)
		w->hang_end = u->cont_at;
	return true;
}

static bool kill_s(struct world *w)
{
	struct sup *u = &w->sup;
	uint64_t dead = (uint64_t)w->timer[TIMER_DEAD] * MS;

	if (!u->alive)
		return false;
	sup_die(w);
	/* soon, within the time that daemons are given, late, or after every timer */
	switch (rnd(w, 10)) {
	case 0: u->restart_at = w->now + 3 * all_timers(w); break;
	case 1: case 2: u->restart_at = w->now + rnd(w, dead); break;
	case 3: case 4: u->restart_at = w->now + rnd(w, 3 * dead); break;
	default: u->restart_at = w->now + rnd(w, 5 * MS); break;
	}
	return true;
}

/* The daemon's end: nothing of S lies there unread. */
static bool o_can_close(const struct proc *o)
{
	return !o->stopped && pipe_empty(&o->conn.to_d) && o->qi == o->q.n && !o->answer;
}

/* The channel ends and both live. S's end: what it had sent is still read. */
static bool may_break(const struct world *w, const struct proc *o)
{
	const struct conn *c = &o->conn;

	if (!c->s_open || !c->d_open || !c->accepted || !w->sup.alive || !w->sup.booted)
		return false;
	return !w->sup.stopped || o_can_close(o);
}

/* By S for a frame that it could not read, or by O. */
static void break_o(struct world *w, struct proc *o)
{
	if (!w->sup.stopped && !(o_can_close(o) && chance(w, 2))) {
		conn_close_s(o);
		w->sup.broken = o->pid;
		return;
	}
	/* what it does then nobody hears of if it dies before it registers again, and its end looks
	 * like a death to S: only the lock's epoch tells */
	w->unheard = true;
	conn_close_d(o);
	d_step(&o->d, D_E_EOF, w->now / MS, &o->q);
	o->qi = 0;
}

/* By S, or by an N that serves already. */
static void break_n(struct world *w, struct proc *n)
{
	if (n->d.state != D_SERVE || !o_can_close(n) || chance(w, 2)) {
		conn_close_s(n);
		w->sup.broken = n->pid;
		return;
	}
	conn_close_d(n);
	d_step(&n->d, D_E_EOF, w->now / MS, &n->q);
	n->qi = 0;
}

static bool strike(struct world *w, struct fault *f)
{
	struct proc *o = target(w, false), *n = target(w, true);

	switch (f->kind) {
	case F_KILL_S: return w->sup.alive;
	case F_HANG_S: return w->sup.alive && w->sup.booted && !w->sup.stopped;
	case F_KILL_O: case F_HELPER: return o;
	case F_HANG_O: return o && !o->gated && !o->stopped;
	case F_KILL_N: return n;
	case F_HANG_N: return n && !n->gated && !n->stopped;
	case F_BREAK_N: return n && n->conn.s_open && w->sup.alive && w->sup.booted && !w->sup.stopped;
	case F_BREAK_O: return o && may_break(w, o);
	case F_OP_ABORT: case F_OP_STOP: case F_OP_RESTART: return w->sup.alive && w->sup.booted;
	default: return true;
	}
}

static void carry_out(struct world *w, struct fault *f)
{
	struct proc *o = target(w, false), *n = target(w, true);

	switch (f->kind) {
	case F_KILL_S: kill_s(w); break;
	case F_HANG_S: hang_s(w, f); break;
	case F_KILL_O: proc_kill(w, o, false); break;
	case F_HELPER: proc_kill(w, o, true); break;
	case F_HANG_O: hang(w, o, f); break;
	case F_KILL_N: proc_kill(w, n, !w->fast && chance(w, 6)); break;
	case F_BREAK_N: break_n(w, n); break;
	case F_HANG_N: hang(w, n, f); break;
	case F_BREAK_O: break_o(w, o); break;
	case F_OP_ABORT: w->want_abort = true; break;
	case F_OP_STOP: w->want_stop = true; w->upgrades = 0; break;
	case F_OP_RESTART: w->want_restart = true; break;
	default: w->arm[f->kind] = true; break;
	}
}

static bool due(struct world *w, struct fault *f)
{
	struct proc *p;

	switch (f->trigger) {
	case AT_STEP: break;
	case AT_S:
		if (!w->sup.alive || !w->sup.booted || w->sup.s.state != f->state)
			return false;
		break;
	default:
		p = target(w, f->trigger == AT_N);
		if (!p || p->d.state != f->state || (p->gated && f->state != D_START))
			return false;
	}
	if (f->count) {
		f->count--;
		return false;
	}
	return true;
}

void fault_check(struct world *w)
{
	for (unsigned i = 0; i < w->nfault; i++) {
		struct fault *f = &w->fault[i];
		if (f->done || (f->after && i && !w->fault[i - 1].done) || !due(w, f) || !strike(w, f))
			continue;
		f->done = true;
		say(w, "*", "FAULT: %s", fault_name[f->kind]);
		if (f->kind < F_JOURNAL)
			fault_note(w, f->kind);
		carry_out(w, f);
	}
	if (w->sup.stopped && w->sup.cont_at != NEVER && w->sup.cont_at > w->last_fault)
		w->last_fault = w->sup.cont_at;
	if (!w->sup.alive && !w->sup.ended && w->sup.restart_at > w->last_fault)
		w->last_fault = w->sup.restart_at;
}
