/* The kernel's part of it, and what who owns a connection does with it. */
#include "moves.h"

/* ------------------------------------------------- the kernel's part of it --- */

void last_reference(struct world *w, unsigned c)
{
	struct conn *k = &w->conn[c];

	if (k->ref[O] || k->ref[N] || k->in_channel || k->fin)
		return;
	k->fin = true;
	k->odd = k->out < BYTES * k->requests;
}

void release(struct world *w, enum who p, unsigned c)
{
	w->conn[c].ref[p] = w->conn[c].own[p] = false;
	last_reference(w, c);
}

/* As the kernel would have it: encoded, and descriptors are references. */
struct moved *push(struct moves *q)
{
	return &q->m[(q->at + q->n++) % MAX_QUEUE];
}

struct moved *pop(struct moves *q)
{
	struct moved *m = &q->m[q->at];

	q->at = (q->at + 1) % MAX_QUEUE;
	q->n--;
	return m;
}

void encode(struct world *w, struct moved *to, const struct msg *m)
{
	int n = msg_encode(m, 1, to->frame, sizeof to->frame);

	if (n < 0)
		violated(w, "a message cannot be encoded", 0);
	to->len = n < 0 ? 0 : (unsigned)n;
}

bool decode(struct world *w, const struct moved *from, struct msg *ret)
{
	char why[160];

	if (!msg_decode(from->frame + FRAME_HEADER, from->len - FRAME_HEADER, ret, why, sizeof why))
		return true;
	violated(w, "a message cannot be decoded", 0);
	return false;
}

static void clear_x(struct world *w)
{
	while (w->x.n) {
		struct moved *m = pop(&w->x);
		for (unsigned i = 0; i < m->n; i++) {
			w->conn[m->conn[i]].in_channel = false;
			last_reference(w, m->conn[i]);
		}
	}
}

void channel_breaks(struct world *w)
{
	w->broken = true;
	clear_x(w);
	w->y.n = 0;
}

void unlock(struct world *w, enum who p)
{
	if (w->lock == p)
		w->lock = NOBODY;
}

/* x can still be read by N, */
void old_dies(struct world *w)
{
	w->o = O_DEAD;
	w->owes = false;
	w->s2o.n = w->y.n = 0;
	w->broken = true;
	unlock(w, O);
	for (unsigned c = 0; c < w->nconn; c++)
		release(w, O, c);
}

/* and y by O. */
void new_dies(struct world *w)
{
	w->n = N_DEAD;
	w->s2n.n = 0;
	w->broken = true;
	clear_x(w);
	unlock(w, N);
	for (unsigned c = 0; c < w->nconn; c++)
		release(w, N, c);
}

/* The memory of a dead writer is lost. */
void recover(struct world *w)
{
	for (unsigned c = 0; c < w->nconn; c++)
		w->conn[c].appm = w->conn[c].appd;
	check_recovered(w);
}

void flush(struct world *w)
{
	for (unsigned c = 0; c < w->nconn; c++)
		w->conn[c].appd = w->conn[c].appm;
}

/* ----------------------------------------- who owns a connection: one thing --- */

static bool lives(const struct world *w, enum who p)
{
	if (p == O)
		return w->o == O_SERVE || w->o == O_DRAIN;
	return breaks(M_N_EARLY) ? w->n >= N_WARM : w->n == N_SERVE;
}

/* What stays: before the seal what was read whole is applied, */
static bool finishes(const struct world *w, enum who p, const struct conn *k)
{
	return p == O && k->given == STAY && w->o == O_MOVING;
}

/* and the rest of its reply is written also by a sealed O. */
static bool may_write(const struct world *w, enum who p, const struct conn *k)
{
	return lives(w, p) || (p == O && k->given == STAY && w->o >= O_MOVING && w->o <= O_SEALED);
}

/* With the mutant N does nothing before it has read more. */
static bool kicked(const struct conn *k, enum who p)
{
	return p == O || !breaks(M_NO_KICK) || k->view[N].rd > k->came;
}

static bool take_byte(struct world *w, enum who p, unsigned c)
{
	struct conn *k = &w->conn[c];

	if (!k->own[p] || !lives(w, p) || k->con == k->sent || k->fin)
		return false;
	check_touch(w, p, c);
	if (k->view[p].rd++ != k->con++)
		violated(w, "a request is torn", c);
	return true;
}

static bool apply(struct world *w, enum who p, unsigned c)
{
	struct conn *k = &w->conn[c];

	if (!k->own[p] || (!lives(w, p) && !finishes(w, p, k)) || !kicked(k, p) || w->lock != p ||
	    k->view[p].rd < BYTES * (k->view[p].ap + 1))
		return false;
	check_touch(w, p, c);
	if (k->view[p].ap++ != k->appm++)
		violated(w, "a request is applied twice, or one is left out", c);
	return true;
}

static bool to_disk(struct world *w, enum who p, unsigned c)
{
	struct conn *k = &w->conn[c];

	if ((!lives(w, p) && !finishes(w, p, k)) || w->lock != p || k->appd == k->appm)
		return false;
	k->appd = k->appm;
	return true;
}

static bool write_byte(struct world *w, enum who p, unsigned c)
{
	struct conn *k = &w->conn[c];
	struct view *v = &k->view[p];
	const unsigned request = v->wo / BYTES + 1;

	if (!k->own[p] || !may_write(w, p, k) || !kicked(k, p) || v->wo == BYTES * v->ap || k->fin ||
	    (k->appd < request && k->appm >= request))   /* it waits for the disk */
		return false;
	check_touch(w, p, c);
	if (v->wo++ != k->out++)
		violated(w, "replies are torn, doubled or left out", c);
	if (k->appd < request)
		violated(w, "a reply for what is not on disk", c);
	return true;
}

/* With its last reply the server ends it. */
static bool end(struct world *w, enum who p, unsigned c)
{
	struct conn *k = &w->conn[c];

	if (!k->own[p] || !lives(w, p) || k->view[p].wo < BYTES * k->requests || k->fin)
		return false;
	if (!breaks(M_CLOSE_ONLY))
		k->fin = true;   /* shutdown: for all references */
	release(w, p, c);
	if (!k->fin)
		violated(w, "an end that the client does not see", c);
	return true;
}

bool touch(struct world *w, enum who p, unsigned c)
{
	static bool (*const f[])(struct world *, enum who, unsigned) = {
		take_byte, apply, to_disk, write_byte, end,
	};
	const unsigned n = sizeof f / sizeof *f, from = rnd(w, n);

	for (unsigned i = 0; i < n; i++)
		if (f[(from + i) % n](w, p, c))
			return true;
	return false;
}


/* One of them that can be taken. */
bool any(struct world *w, step_fn *const *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (f[rnd(w, n)](w))
			return true;
	for (unsigned i = 0; i < n; i++)
		if (f[i](w))
			return true;
	return false;
}
