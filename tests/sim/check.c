/* check: the guarantees. All the time, and when the world has come to rest. */
#include <stdarg.h>
#include <stdio.h>

#include "sim.h"

void violated(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failed)
		return;   /* the first one counts */
	w->failed = true;
	va_start(ap, fmt);
	vsnprintf(w->violation, sizeof w->violation, fmt, ap);
	va_end(ap);
	say(w, "!", "VIOLATED: %s", w->violation);
}

/* 1: one writer, under the flock; 2: nothing acknowledged is lost; 3: only after the decision. */
void check_writer_starts(struct world *w, struct proc *p)
{
	const char *who = pname(p->pid);

	if (w->lock != p->pid)
		violated(w, "%s becomes the writer without the flock", who);
	for (unsigned i = 0; i < w->nproc; i++)
		if (w->proc[i].life == ALIVE && w->proc[i].writer && &w->proc[i] != p)
			violated(w, "%s becomes the writer beside %s", who, pname(w->proc[i].pid));
	for (unsigned i = 0; i < SHARDS; i++)
		if (p->mem.rev[i] < w->acked[i])
			violated(w, "%s becomes the writer and has lost an acknowledged write", who);
	if (memcmp(&p->mem, &w->disk, sizeof w->disk))
		violated(w, "%s becomes the writer with another state than the disk's", who);
	if (p->hand && !w->decided[p->hand])
		violated(w, "%s serves before the decision to commit h%u is durable", who, p->hand);
	if (p->hand && w->out[p->hand] == OUTCOME_ABORTED)
		violated(w, "%s serves after h%u was reported aborted", who, p->hand);
	if (!p->listens)
		violated(w, "%s serves without its listening sockets", who);
}

void check_write(struct world *w, struct proc *p)
{
	if (w->lock != p->pid)
		violated(w, "%s writes without the flock", pname(p->pid));
	if (memcmp(&p->mem, &w->disk, sizeof w->disk))
		violated(w, "%s writes over what another has written", pname(p->pid));
}

/* 5: never nobody. Who serves leaves only when it is told to end. */
void check_leaves(struct world *w, struct proc *p)
{
	if (p->writer && !p->termed)
		violated(w, "%s leaves although it is the one that serves", pname(p->pid));
}

static bool serves_or_dead(struct world *w, unsigned pid)
{
	struct proc *p = proc_find(w, pid);

	return !p || p->life != ALIVE || p->writer || (p->d.state == D_SERVE && p->qi < p->q.n);
}

/* What struck before it began is over, or a short delay: it may not end this attempt. */
static bool met_no_fault(const struct world *w, unsigned h)
{
	const unsigned asked = 1u << F_OP_ABORT | 1u << F_OP_STOP | 1u << F_OP_RESTART;

	return w->begun[h] && w->fast && !w->tight && !(w->seen & asked) &&
	       w->struck_at < w->begun_at[h] && w->hang_end < w->begun_at[h] + 1500 * MS;
}

/* 7: what is reported is true when it is reported; here it becomes durable. */
void check_outcome(struct world *w, unsigned h, enum s_outcome o)
{
	if (w->out[h] && w->out[h] != o)
		violated(w, "h%u was %s and now is %s", h, outcome_name[w->out[h]], outcome_name[o]);
	w->out[h] = o;
	for (unsigned i = 0; i < w->nopen; i++)
		cover_cell(w->open[i].kind, w->open[i].phase, o);
	w->nopen = 0;
	if (o == OUTCOME_ABORTED && w->served[h])
		violated(w, "h%u is reported aborted, its successor has served", h);
	if (o != OUTCOME_ABORTED && !w->decided[h])
		violated(w, "h%u is reported %s, it was never decided", h, outcome_name[o]);
	if (o != OUTCOME_COMMITTED && met_no_fault(w, h))
		violated(w, "h%u met no fault and is reported %s", h, outcome_name[o]);
	if (w->j.inc && !serves_or_dead(w, w->j.inc))
		violated(w, "h%u is reported %s while %s does not serve", h, outcome_name[o],
		         pname(w->j.inc));
}

static struct proc *who_serves(struct world *w, unsigned *ret_alive, unsigned *ret_serving)
{
	struct proc *who = NULL;

	*ret_alive = *ret_serving = 0;
	for (unsigned i = 0; i < w->nproc; i++) {
		struct proc *p = &w->proc[i];
		if ((p->life != ALIVE && p->life != DYING) || (w->sup.ended && p->pid == w->left))
			continue;
		++*ret_alive;
		if (daemon_serves(p)) {
			who = p;
			++*ret_serving;
		}
	}
	return who;
}

static bool kernel_quiet(const struct world *w)
{
	for (unsigned i = 0; i < w->nproc; i++)
		if (w->proc[i].life != FREE && proc_kernel_next(&w->proc[i]) != NEVER)
			return false;
	return true;
}

/* Nothing is under way any more. */
bool world_settled(struct world *w)
{
	unsigned alive, serving;
	struct sup *u = &w->sup;
	struct proc *p = who_serves(w, &alive, &serving);

	if (!kernel_quiet(w))
		return false;
	if (u->ended)
		return alive == 0;
	if (!u->alive || u->stopped || !u->booted || u->s.state != S_IDLE || u->qi < u->q.n ||
	    u->answer)
		return false;
	return p && alive == 1 && p->pid == u->o && p->conn.accepted && p->conn.s_open &&
	       p->conn.d_open && pipe_empty(&p->conn.to_s) && pipe_empty(&p->conn.to_d) && !p->answer &&
	       p->app_at == NEVER && u->s.o_connected;
}

static unsigned expected_version(const struct world *w)
{
	unsigned v = 0;

	for (unsigned h = 1; h <= w->nhand; h++)
		if (w->out[h] == OUTCOME_COMMITTED)
			v = h;
	return v;
}

/* A stop waits for daemons that end, for nothing else. */
static void check_stop(struct world *w)
{
	uint64_t most = (uint64_t)w->timer[TIMER_STOP] + w->timer[TIMER_EXIT] + 1000;

	if (w->fast && !w->tight && w->seen == 1u << F_OP_STOP && w->now > w->struck_at + most * MS)
		violated(w, "a stop took %u ms", (unsigned)((w->now - w->struck_at) / MS));
}

/* ------------------------------------------------------------ promptness --- */

/* Since when S goes on, the attempt cannot come to its end any more. NULL: it can. */
static const char *hopeless(enum s_state was, enum s_event e, const struct msg *m)
{
	switch (e) {
	case S_E_N_GONE:
		/* in OEXIT O was told to exit: it says whether it does */
		return (was >= S_WARM && was <= S_TELL_O) || was == S_R_COMMITTED ? "N is dead" : NULL;
	case S_E_O_STATUS:
	case S_E_O_SERVING:
		return (was >= S_DRAIN && was <= S_CHECK) || was == S_OEXIT ? "O serves again" : NULL;
	case S_E_O_BROKEN:
		return was >= S_DRAIN && was <= S_CHECK ? "O is not heard any more" : NULL;
	case S_E_O_SEAL_FAILED:
	case S_E_O_GIVE_FAILED: return was == S_SEAL ? "O cannot seal" : NULL;
	case S_E_N_READY:
		return was == S_READY && m && !m->ready.healthy ? "N is not healthy" : NULL;
	case S_E_ABORT: return was >= S_WARM && was <= S_READY ? "an operator aborts it" : NULL;
	case S_E_O_STANDBY: return was == S_DRAIN || was == S_SEAL ? "O lost its channel" : NULL;
	case S_E_STOP: return was >= S_WARM && was <= S_READY ? "an operator stops all" : NULL;
	default: return NULL;
	}
}

/* There S waits for this, or it is asked of it: it goes on, or at least does something. */
static bool heeds(const struct s *s, enum s_state was, enum s_event e)
{
	switch (e) {
	case S_E_N_SERVING: return was == S_TAKE || was == S_COLD_TAKE || was == S_R_COMMITTED;
	case S_E_N_LOST: return was == S_TAKE;
	case S_E_N_READY: return was == S_COLD_READY;
	case S_E_O_FOUND:
		return was == S_COLD || was == S_COLD_STOP || was == S_COLD_WARM || was == S_COLD_READY;
	case S_E_RESTART:
		return (was == S_IDLE && !s->o_gone) || was == S_COLD_WARM || was == S_COLD_READY || was == S_COLD_TAKE;
	case S_E_REEXEC: return was == S_IDLE && !s->o_gone && s->o_connected && !s->o_standby && !s->stop;
	case S_E_STOP:
		return was == S_PROBATION || was == S_COLD || was == S_COLD_WARM || was == S_COLD_READY ||
		       was == S_COLD_TAKE || was == S_R_IDLE;
	default: return false;
	}
}

/* What S knows it acts upon, at once: no timer is there to be waited for. */
void check_super_knows(struct world *w, enum s_state was, enum s_event e, const struct msg *m)
{
	const struct s *s = &w->sup.s;
	const char *why = hopeless(was, e, m);
	bool goes_on = s->state == S_R_COMMITTED || (s->state > S_IDLE && s->state < S_ABORT);

	if (why && goes_on)
		violated(w, "%s, S knows it and goes on with h%u (%s)", why, w->sup.hand,
		         s_state_desc[s->state].id);
	if (s->state == was && !w->sup.q.n && heeds(s, was, e))
		violated(w, "S is told %s in %s, and nothing comes of it", s_event_name[e],
		         s_state_desc[was].id);
}

/* Nobody is killed who was not asked first, nor bothered with what does not concern it. */
void check_super_acts(struct world *w, enum s_action a)
{
	const struct sup *u = &w->sup;
	const struct proc *o = proc_find(w, u->o);
	bool asked = u->s.state == S_STOPPING || u->s.state == S_RESTARTING;

	if (a == S_A_SPAWN_COLD && u->s.stop)
		violated(w, "S was told to stop and starts a daemon");
	if (a == S_A_RELEASE && w->j.succ != u->n && w->j.inc != u->n)
		violated(w, "%s goes through its gate, and no journal names it", pname(u->n));
	if (a == S_A_PREPARE)
		w->prepared[u->hand] = true;
	if (a == S_A_RESUME_O && !w->prepared[u->hand] && !(w->seen & 1u << F_KILL_S))
		violated(w, "%s is told to resume and was never told to prepare", pname(u->o));
	if (a != S_A_KILL_O || asked || !o || o->life != ALIVE)
		return;
	if (w->j.phase == BOOT_IDLE && w->j.served)
		violated(w, "%s has served, nothing is under way, and S kills it", pname(u->o));
	if (u->s.o_connected && o->conn.s_open && o->conn.accepted && !o->conn.told)
		violated(w, "%s is connected and is killed, it was told nothing", pname(u->o));
}

/* Each bind(2) that fails makes the wait for the next one longer. */
void check_bind(struct world *w)
{
	struct sup *u = &w->sup;

	if (u->unbound_at != NEVER && w->now < u->unbound_at + 150 * MS)
		violated(w, "S binds again and again");
	u->unbound_at = w->now;
}

/* On its way back to serve: it says so when it does. */
static bool on_its_way(enum d_state st)
{
	return st == D_UNDRAIN || st == D_UNSEAL || st == D_RELOCK || st == D_REOPEN || st == D_EXIT;
}

/* A daemon does what it is told, or answers; its own time and its application move it on. */
void check_daemon_obeys(struct world *w, struct proc *p, enum d_state was, enum d_event e)
{
	const char *event = d_event_name[e], *state = d_state_id[was];

	switch (e) {
	case D_E_EOF: case D_E_ABORT:
		/* in LOCK the answer of flock(2) comes first */
		if (was <= D_READY && was != D_LOCK && p->d.state != D_EXIT)
			violated(w, "%s is to end (%s in %s) and stays", pname(p->pid), event, state);
		if (e == D_E_EOF && was > D_READY && was != D_EXIT && !p->q.n)
			violated(w, "%s has lost its channel in %s and looks for no other", pname(p->pid), state);
		break;
	case D_E_CONNECTED:
		if (!p->q.n && was != D_EXIT)
			violated(w, "%s has connected in %s and says nothing", pname(p->pid), state);
		break;
	case D_E_LOCKED: case D_E_LOCK_FAILED:
		if (p->d.state == was && was != D_EXIT && was != D_RELOCK && was != D_SEALED)
			violated(w, "%s: %s in %s, and nothing comes of it", pname(p->pid), event, state);
		break;
	case D_E_TIMEOUT:
		if (d_tick(&p->d, w->now / MS) == D_E_TIMEOUT)
			violated(w, "%s was to wait no longer in %s and does nothing", pname(p->pid), state);
		break;
	case D_E_LOCK_HELD:
		if (was == D_LOCK && p->d.state == was)
			violated(w, "%s has not got the flock that was given up, and waits", pname(p->pid));
		break;
	case D_E_COMMIT: case D_E_RESUME: case D_E_SEAL_REQUEST:
		if (p->d.state == was && !p->q.n &&
		    (!on_its_way(was) || (e == D_E_SEAL_REQUEST && was == D_UNDRAIN)))
			violated(w, "%s is told %s in %s and does not react", pname(p->pid), event, state);
		break;
	case D_E_APP_BEGIN: case D_E_APP_READY: case D_E_APP_DRAINED: case D_E_APP_SEALED:
	case D_E_APP_SEAL_FAILED: case D_E_APP_RESUMED:
		if (p->d.state == was && was != D_EXIT)
			violated(w, "%s: %s in %s, and nothing comes of it", pname(p->pid), event, state);
		break;
	default: break;
	}
}

/* The world has settled: 5, 6, 7. */
void check_end(struct world *w)
{
	unsigned alive, serving, v = expected_version(w);
	struct proc *p = who_serves(w, &alive, &serving);

	for (unsigned h = 1; h <= w->nhand; h++)
		if (!w->out[h] && !w->lost[h])
			violated(w, "h%u was asked for and never reported", h);
	if (w->sup.ended) {
		check_stop(w);
		return;
	}
	if (w->lock != p->pid)
		violated(w, "at rest %s serves without the flock", pname(p->pid));
	if (w->j.phase != BOOT_IDLE || w->j.inc != p->pid || !w->j.served)
		violated(w, "at rest the journal does not know %s as the one that has served",
		         pname(p->pid));
	if (p->ver != v || w->j.cur != v)
		violated(w, "at rest v%u serves and v%u is current, the last commit is v%u", p->ver,
		         w->j.cur, v);
	if (w->fmt != v)
		violated(w, "at rest %s was not told that its commit is final", pname(p->pid));
	/* its Final may have gone into the channel that it had lost */
	if (p->conn.again && !p->conn.final)
		violated(w, "at rest %s has registered again and was not told Final", pname(p->pid));
	if (!p->listens || !w->sup.listens)
		violated(w, "at rest a listening socket is in one hand only");
	/* 6: a supervisor that dies costs nothing but an attempt */
	if (w->seen == 1u << F_KILL_S && w->fast && !w->tight && !w->cold && w->cold_starts)
		violated(w, "only the supervisor died, and the service was started cold");
	/* never nobody: O's death alone does not stop a handoff that has begun */
	if (w->fast && !w->tight && w->seen && !(w->seen & ~(1u << F_KILL_O | 1u << F_HELPER)))
		for (unsigned h = 1; h <= w->nhand; h++)
			if (w->begun[h] && w->out[h] != OUTCOME_COMMITTED)
				violated(w, "only incumbents died, and h%u did not commit", h);
}
