/* The guarantees, and that the cases are reached. */
#include "moves.h"

#include <stdio.h>
#include <string.h>

/* What connections.pml's PROBEs ask for, and more. */
#define CASES(X) \
	X(committed, "committed, and all moved are answered by N") \
	X(aborted, "aborted after they had moved, and O goes on") \
	X(rolled_back, "rolled back, N had not taken them, and O goes on") \
	X(closed, "rolled back after N had taken them: closed") \
	X(survived, "O died unsealed, and what it had sent lives on") \
	X(in_the_middle, "N goes on in the middle of a request") \
	X(stayed, "one that stayed ended with O") \
	X(many, "more than the window holds") \
	X(beside, "a state beside its batch") \
	X(both_dead, "both have died")

static struct {
#define X(name, what) unsigned long name;
	CASES(X)
#undef X
} cases;

void violated(struct world *w, const char *what, unsigned c)
{
	if (w->failed)
		return;
	w->failed = true;
	snprintf(w->violation, sizeof w->violation, "%s (connection %u)", what, c);
}

/* Never two processes on one connection. */
void check_touch(struct world *w, enum who p, unsigned c)
{
	if (w->conn[c].own[!p])
		violated(w, "two processes touch it", c);
}

void check_recovered(struct world *w)
{
	for (unsigned c = 0; c < w->nconn; c++)
		if ((w->conn[c].out + BYTES - 1) / BYTES > w->conn[c].appd)
			violated(w, "an acknowledged request is lost", c);
}

/* No effect without a whole reply, nor a request that is taken and dropped. */
void check_exit(struct world *w)
{
	for (unsigned c = 0; c < w->nconn; c++) {
		const struct conn *k = &w->conn[c];
		if (k->given != STAY || k->fin || !k->ref[O])
			continue;
		if (k->out != BYTES * k->appm)
			violated(w, "O exits, and owes a reply", c);
		if (k->view[O].rd >= BYTES * (k->view[O].ap + 1))
			violated(w, "O exits with a request that it has read", c);
	}
}

/* Cut short only by a death that no other copy outlived, a rollback behind Taking, or because it
 * stayed. */
static bool may_be_cut(const struct world *w, const struct conn *k)
{
	switch (w->outcome) {
	case COMMITTED:
		return w->n_crashed || (w->o_crashed && !k->n_has) || (k->given == STAY && !k->n_has);
	case ABORTED: return w->o_crashed;
	case ROLLED_BACK: return w->o_crashed || (w->took && k->n_has);
	default: return true;
	}
}

static void count(const struct world *w, const struct conn *k)
{
	const bool moved = k->n_has && !k->odd;

	cases.committed += w->outcome == COMMITTED && moved && !w->n_crashed;
	cases.aborted += w->outcome == ABORTED && moved;
	cases.rolled_back += w->outcome == ROLLED_BACK && moved && !w->took;
	cases.closed += w->outcome == ROLLED_BACK && k->odd && !w->o_crashed;
	cases.survived += w->outcome == COMMITTED && moved && w->nothing_sealed;
	cases.in_the_middle += w->outcome == COMMITTED && moved && k->came % BYTES;
	cases.stayed += w->outcome == COMMITTED && k->given == STAY && k->odd;
	cases.beside += moved && k->large;
	cases.both_dead += w->outcome == BOTH_DEAD;
}

void check_end(struct world *w)
{
	if (w->s != S_DONE)
		violated(w, "S waits for ever", 0);
	if ((w->o != O_DEAD && w->o != O_SERVE) || (w->n != N_DEAD && w->n != N_SERVE))
		violated(w, "a process waits for ever", 0);
	for (unsigned c = 0; c < w->nconn && !w->failed; c++) {
		const struct conn *k = &w->conn[c];
		if (!k->fin)
			violated(w, "it is silent for ever", c);
		else if (!k->odd && k->out != BYTES * k->requests)
			violated(w, "it has ended, and not all is answered", c);
		else if (k->odd && !may_be_cut(w, k))
			violated(w, "it was cut, and nobody had to", c);
		count(w, k);
	}
	cases.many += w->give.sent > MOVE_WINDOW && w->give.state == GIVE_DONE;
}

bool cases_print(bool require)
{
	bool all = true;
#define X(name, what) \
	printf("%10lu  %s\n", cases.name, what); \
	all &= cases.name > 0;
	CASES(X)
#undef X
	return all || !require;
}
