/* N: the same. */
#include "moves.h"

#include <string.h>

static void tell_n(struct world *w, enum word word)
{
	if (!w->eof[N] && w->s != S_DOWN)
		put(&w->n2s, word);
}

static void answer(struct world *w, uint64_t kept)
{
	struct msg m = { 0 };

	take_answer(&w->take, breaks(M_KEPT_SHIFTED) ? kept >> 1 : kept, &m);
	if (!w->broken)
		encode(w, push(&w->y), &m);
}

/* True: N has it. */
static bool n_takes(struct world *w, unsigned c, const struct view *v, bool too_large)
{
	struct conn *k = &w->conn[c];

	k->in_channel = false;
	k->ref[N] = true;
	if (!too_large && rnd(w, 8)) {
		k->view[N] = *v;
		k->came = v->rd;
		k->n_has = true;
		k->own[N] = breaks(M_N_EARLY);
		return true;
	}
	k->ref[N] = false;   /* close, never shutdown */
	if (breaks(M_REJ_SHUTDOWN))
		k->fin = k->odd = true;
	last_reference(w, c);
	return false;
}

static bool n_reads(struct world *w)
{
	struct take_batch b;
	struct view v;
	uint64_t kept = 0;
	struct msg m;

	if (w->n < N_WARM || w->n >= N_COMM || !w->x.n || (breaks(M_UNREAD_X) && w->o == O_DEAD))
		return false;
	struct moved *from = pop(&w->x);
	if (!decode(w, from, &m))
		return false;
	int e = take_hear(&w->take, &m, &b);
	if (e < 0 || (e && (b.n != from->n || move_fds(&m) < b.n)))
		violated(w, "N's end of the channel breaks at what O has said", 0);
	for (unsigned i = 0; e > 0 && i < b.n; i++) {
		if (move_beside(b.size[i]))
			v = from->view[i];
		else
			memcpy(&v, m.batch.states.p + b.at[i], sizeof v);
		kept |= (uint64_t)n_takes(w, from->conn[i], &v, b.over >> i & 1) << i;
	}
	if (e >= 0)
		answer(w, kept);
	return true;
}

static bool n_begins(struct world *w)
{
	enum word word;

	if (w->n != N_WARM || !get(&w->s2n, &word))
		return false;
	w->unsealed = word == BEGIN_UNSEALED;
	w->n = N_LOCK;
	return true;
}

static bool n_locks(struct world *w)
{
	if (w->n != N_LOCK || (w->lock != NOBODY && w->unsealed))
		return false;
	if (w->lock != NOBODY) {
		new_dies(w);
		return true;
	}
	w->lock = N;
	w->n = N_OPEN;
	return true;
}

static bool n_opens(struct world *w)
{
	if (w->n != N_OPEN || (w->x.n && !breaks(M_UNREAD_X)))   /* first the channel, to its end */
		return false;
	if (!w->unsealed && !take_complete(&w->take) && moves_mutant == LAW)
		violated(w, "O has sealed without an End", 0);
	recover(w);
	tell_n(w, READY);
	w->n = N_READY;
	return true;
}

static bool n_is_told(struct world *w)
{
	enum word word;

	if (w->n != N_READY || !get(&w->s2n, &word))
		return false;
	w->n = N_COMM;
	return true;
}

static bool n_reads_end(struct world *w)
{
	if (w->n < N_WARM || w->n > N_READY || !w->eof[N] || w->s2n.n)
		return false;
	new_dies(w);
	return true;
}

static void say_taking(struct world *w)
{
	struct msg m = { .type = MSG_taking };

	if (w->o != O_DEAD && !w->broken && w->take.batches)
		encode(w, push(&w->y), &m);
}

static void n_serves(struct world *w)
{
	w->n = N_SERVE;
	for (unsigned c = 0; c < w->nconn; c++)
		w->conn[c].own[N] = w->conn[c].n_has && !w->conn[c].fin;
	w->took = true;
	say(w, "N serves");
}

static bool n_commits(struct world *w)
{
	if (w->n != N_COMM)
		return false;
	if (breaks(M_TAKING_FIRST)) {
		say_taking(w);
		w->took = true;
	} else {
		tell_n(w, STATUS);
	}
	w->n = N_TELL;
	return true;
}

static bool n_tells(struct world *w)
{
	if (w->n == N_SERVE && w->late_taking) {
		w->late_taking = false;
		say_taking(w);
		return true;
	}
	if (w->n != N_TELL)
		return false;
	if (breaks(M_TAKING_FIRST))
		tell_n(w, STATUS);
	else if (breaks(M_TAKING_LATE))
		w->late_taking = true;
	else
		say_taking(w);
	n_serves(w);
	return true;
}

static bool n_registers(struct world *w)
{
	if (w->n != N_SERVE || !w->eof[N] || w->s2n.n || w->s == S_DOWN)
		return false;
	w->eof[N] = false;
	put(&w->n2s, STATUS);
	return true;
}

bool new_step(struct world *w, bool timers)
{
	static step_fn *const f[] = {
		n_reads, n_begins, n_locks, n_opens, n_is_told, n_reads_end, n_commits, n_tells, n_registers,
	};

	if (timers && w->n == N_OPEN) {
		new_dies(w);   /* it fails */
		return true;
	}
	return ANY(w, f);
}
