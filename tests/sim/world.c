/* world: one run, a function of its seed. */
#include <stdarg.h>
#include <stdio.h>

#include "sim.h"

const struct s_row *sim_s_table = s_table;
const struct d_row *sim_d_table = d_table;
unsigned sim_flags;

uint64_t rnd(struct world *w, uint64_t below)
{
	uint64_t z = w->rnd += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return below ? z % below : 0;
}

bool chance(struct world *w, unsigned one_in)
{
	return rnd(w, one_in) == 0;
}

uint64_t latency(struct world *w)
{
	if (!w->clean && !w->fast && chance(w, 200))
		return rnd(w, 12 * MS);
	return 1 + rnd(w, 60);
}

void say(const struct world *w, const char *who, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	printf("%10.3f ms  %-4s ", (double)w->now / MS, who);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

struct hid hid_of(unsigned hand)
{
	struct hid id = { { 0 } };

	if (hand) {
		memset(id.b, 0x5a, sizeof id.b);
		id.b[15] = (uint8_t)hand;
	}
	return id;
}

unsigned hand_of(const struct hid *id)
{
	return id->b[15];
}

const char *pname(unsigned pid)
{
	static char text[4][16];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(text[i], sizeof text[i], "D%u", pid);
	return text[i];
}

/* ---------------------------------------------------------------- set-up --- */

/* The defaults, or every one of them short: then each may fire early and late. */
static void pick_timers(struct world *w)
{
	uint32_t *t = w->timer;

	timers_default(t);
	t[TIMER_START] = 20000;
	t[TIMER_STOP] = 5000;
	t[TIMER_PROBATION] = chance(w, 3) ? (uint32_t)rnd(w, 400) : chance(w, 20) ? 100000 : 0;
	w->tight = chance(w, 4);
	if (!w->tight)
		return;
	for (unsigned i = 0; i < TIMER_COUNT; i++)
		t[i] = 15 + (uint32_t)rnd(w, 1u << (3 + rnd(w, 7)));
	t[TIMER_PROBATION] = chance(w, 2) ? (uint32_t)rnd(w, 50) : 0;
	t[TIMER_HEARTBEAT] = 5 + (uint32_t)rnd(w, 20);
	if (t[TIMER_DRAIN] > t[TIMER_DEADLINE])
		t[TIMER_DRAIN] = t[TIMER_DEADLINE];
	if (t[TIMER_FENCE] < 2 * t[TIMER_HEARTBEAT])
		t[TIMER_FENCE] = 2 * t[TIMER_HEARTBEAT];
	if (t[TIMER_DEAD] <= t[TIMER_FENCE])
		t[TIMER_DEAD] = t[TIMER_FENCE] + 1 + (uint32_t)rnd(w, 50);
}

/* An incumbent serves and S is idle: most runs need not start it first. */
static void begin_serving(struct world *w)
{
	struct sup *u = &w->sup;
	struct proc *p = proc_new(w, 0, 0);
	struct journal j = { .phase = BOOT_IDLE, .inc = p->pid, .served = true };

	p->d.state = D_SERVE;
	p->d.connected = true;
	p->d.deadline_ms = w->timer[TIMER_DEADLINE];
	p->d.commit_ms = w->timer[TIMER_COMMIT];
	p->d.heartbeat_ms = w->timer[TIMER_HEARTBEAT];
	p->d.fence_ms = w->timer[TIMER_FENCE];
	p->listens = p->writer = true;
	p->write_at = 0;
	w->lock = p->pid;
	p->epoch = w->epoch = 1;
	u->alive = u->booted = u->listens = true;
	u->j = j;
	u->o = p->pid;
	journal_begin(w, &j);
	journal_end(w, false);
	s_init(&u->s, sim_s_table, w->timer);
	u->s.trace = cover_s_row;
	u->s.trace_arg = w;
	cover_life('S', 0);
	u->s.o_present = u->s.o_connected = u->s.served = true;
}

static void set_up(struct world *w, uint64_t seed, bool verbose)
{
	memset(w, 0, offsetof(struct world, proc));
	memset(&w->nproc, 0, sizeof *w - offsetof(struct world, nproc));
	w->seed = w->rnd = seed;
	for (unsigned i = 0; i < 4; i++)
		w->rnd ^= rnd(w, 0);
	w->verbose = verbose;
	w->sup.restart_at = w->sup.beat_at = w->sup.kill_n_at = w->sup.cont_at = NEVER;
	w->sup.unbound_at = NEVER;
	pick_timers(w);
	w->fast = chance(w, 2);
	w->pdeath = !chance(w, 4);
	w->upgrades = 1 + (unsigned)chance(w, 3) + (unsigned)chance(w, 9);
	w->op_at = rnd(w, 4 * MS);
	fault_plan(w);
	if (chance(w, 6)) {
		w->cold = true;
		sup_start(w);
	} else {
		begin_serving(w);
	}
}

/* ------------------------------------------------------------------ loop --- */

static uint64_t bound(const struct world *w)
{
	uint64_t t = 60000;

	for (unsigned i = 0; i < TIMER_COUNT; i++)
		t += 4 * (uint64_t)w->timer[i];
	return t * MS;
}

/* The next one to act; whoever of those that are due at the same time. */
static void *next_actor(struct world *w, uint64_t *ret_at, bool *ret_kernel)
{
	uint64_t best = sup_next(w), t;
	void *who = &w->sup;
	unsigned n = 1;

	*ret_kernel = false;
	for (unsigned i = 0; i < w->nproc; i++)
		for (int kernel = 0; kernel < 2; kernel++) {
			struct proc *p = &w->proc[i];
			if (p->life == FREE)
				continue;
			t = kernel ? proc_kernel_next(p) : daemon_next(w, p);
			if (t > best || t == NEVER || (t == best && rnd(w, ++n)))
				continue;
			if (t < best)
				n = 1;
			best = t;
			who = p;
			*ret_kernel = kernel;
		}
	*ret_at = best;
	return who;
}

/* S hangs or is away for longer than every timer: clients are served all the same. */
static void check_away(struct world *w, uint64_t until, enum fault_kind k)
{
	unsigned n = 0;
	uint64_t all = 0;

	for (unsigned i = 0; i < TIMER_COUNT; i++)
		all += w->timer[i];
	if (w->seen != 1u << k || w->strikes != 1 || !w->fast || w->cold_starts || w->cold ||
	    until - w->struck_at < all * 2 * MS)
		return;
	for (unsigned i = 0; i < w->nproc; i++)
		n += daemon_serves(&w->proc[i]) && w->proc[i].life == ALIVE;
	if (n != 1)
		violated(w, "the supervisor %s for good and %u daemons serve",
		         k == F_HANG_S ? "hangs" : "is away", n);
}

static bool step(struct world *w)
{
	uint64_t at;
	bool kernel;
	void *who = next_actor(w, &at, &kernel);

	if (at == NEVER)
		return false;
	if (at > w->now)
		w->now = at;
	w->steps++;
	if (who == &w->sup) {
		if (w->sup.stopped)
			check_away(w, w->now, F_HANG_S);
		else if (!w->sup.alive)
			check_away(w, w->now, F_KILL_S);
		sup_step(w);
	} else if (kernel) {
		proc_kernel_step(w, who);
	} else {
		daemon_step(w, who);
	}
	return true;
}

static bool operator_waits(const struct world *w)
{
	return !w->sup.ended && (w->upgrades || w->want_abort || w->want_stop || w->want_restart);
}

static void describe(struct world *w, char *out, size_t size)
{
	int n = snprintf(out, size, "S %s", !w->sup.alive ? "down" : s_state_desc[w->sup.s.state].id);

	for (unsigned i = 0; i < w->nproc && n < (int)size; i++) {
		struct proc *p = &w->proc[i];
		if (p->life == ALIVE)
			n += snprintf(out + n, size - (size_t)n, ", %s %s%s", pname(p->pid),
			              d_state_id[p->d.state], p->stopped ? " (stopped)" : "");
	}
}

/* Until nothing is under way any more; false: a guarantee was violated. */
static bool until_settled(struct world *w)
{
	uint64_t from = w->now;
	char text[160];

	while (!w->failed) {
		if (world_settled(w) && !operator_waits(w))
			break;
		if (w->last_fault > from)
			from = w->last_fault;
		if (!step(w) || w->now > from + bound(w) || w->steps > 2000000) {
			describe(w, text, sizeof text);
			violated(w, "not settled: %s", text);
			break;
		}
		if (!w->clean)
			fault_check(w);
	}
	if (!w->failed)
		check_end(w);
	return !w->failed;
}

/* 8: what failed leaves nothing behind that makes the next one fail. */
static void clean_upgrade(struct world *w)
{
	memset(w->arm, 0, sizeof w->arm);
	w->clean = true;
	w->upgrades = 1;
	w->op_at = w->now + rnd(w, 5 * MS);
	say(w, "*", "an upgrade without any fault");
	if (until_settled(w) && w->out[w->nhand] != OUTCOME_COMMITTED)
		violated(w, "h%u met no fault and was %s", w->nhand, outcome_name[w->out[w->nhand]]);
}

void sim_run(struct world *w, uint64_t seed, bool verbose)
{
	set_up(w, seed, verbose);
	if (until_settled(w) && !w->sup.ended)
		clean_upgrade(w);
}
