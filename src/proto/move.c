#include "proto/move.h"

#include <string.h>

unsigned move_fds(const struct msg *m)
{
	uint64_t size[MOVE_BATCH];
	unsigned n = uints_copy(&m->batch.sizes, size, MOVE_BATCH), fds = m->batch.names.n;

	for (unsigned i = 0; i < n; i++)
		fds += move_beside(size[i]);
	return fds;
}

/* -------------------------------------------------------------- O's end --- */

void give_init(struct give *g, uint64_t limit)
{
	memset(g, 0, sizeof *g);
	g->limit = limit;
}

bool give_has_room(const struct give *g, uint64_t size)
{
	return size <= g->limit && g->bytes <= g->limit - size;
}

bool give_state(struct give *g, uint64_t size)
{
	if (!give_has_room(g, size))
		return false;
	g->bytes += size;
	return true;
}

bool give_may_send(const struct give *g)
{
	return g->state == GIVE_OPEN && g->sent - g->answered < MOVE_WINDOW;
}

void give_batch(struct give *g, unsigned n, struct msg *m)
{
	m->batch.batch = ++g->sent;
	g->size[g->sent % MOVE_WINDOW] = (uint8_t)n;
	g->connections += n;
}

void give_end(struct give *g, struct msg *m)
{
	m->type = MSG_end;
	m->end.batch = ++g->sent;
	m->end.connections = g->connections;
	g->size[g->sent % MOVE_WINDOW] = 0;
	g->state = GIVE_ENDED;
}

static int give_break(struct give *g, const char *why)
{
	give_lost(g, true, why);
	return -1;
}

void give_lost(struct give *g, bool by_n, const char *why)
{
	if (g->state == GIVE_DONE || g->state == GIVE_BROKEN)
		return;
	g->state = GIVE_BROKEN;
	g->by_n = by_n;
	g->why = why;
}

static int give_answered(struct give *g, const struct msg *m, struct give_answer *ret)
{
	unsigned n;

	if (g->answered == g->sent || m->answer.batch != g->answered + 1)
		return give_break(g, "the successor answered what was not asked");
	n = g->size[m->answer.batch % MOVE_WINDOW];
	if (n < 64 && m->answer.kept >> n)
		return give_break(g, "the successor says that it has connections that were not sent");
	*ret = (struct give_answer){ g->told, n, m->answer.kept };
	g->told += n;
	g->kept += (uint32_t)__builtin_popcountll(m->answer.kept);
	g->answered++;
	if (g->state == GIVE_ENDED && g->answered == g->sent)
		g->state = GIVE_DONE;
	return n > 0;
}

int give_hear(struct give *g, const struct msg *m, struct give_answer *ret)
{
	if (g->state == GIVE_BROKEN)
		return -1;
	if (m->type == MSG_answer && g->state != GIVE_DONE)
		return give_answered(g, m, ret);
	/* N says it behind Commit only, and there is no Commit before the seal */
	if (g->state == GIVE_DONE) {   /* what lies now may do so in touching them, too: as if it were one */
		bool first = m->type == MSG_taking && !g->taking;
		g->taking = true;
		return first ? 0 : -1;
	}
	return give_break(g, "the successor sent what only the incumbent may send, or too early");
}

/* -------------------------------------------------------------- N's end --- */

void take_init(struct take *t, uint64_t limit)
{
	memset(t, 0, sizeof *t);
	t->limit = limit;
}

static int take_break(struct take *t, const char *why)
{
	t->why = why;
	return -1;
}

static int take_in(struct take *t, const struct msg *m, struct take_batch *ret)
{
	uint64_t inside = 0;
	unsigned n = m->batch.names.n;

	if (n == 0)
		return take_break(t, "an empty batch");
	if (m->batch.sizes.n != n)
		return take_break(t, "a batch with another number of states than of names");
	ret->n = texts_copy(&m->batch.names, ret->name, MOVE_BATCH);
	uints_copy(&m->batch.sizes, ret->size, MOVE_BATCH);
	ret->over = 0;
	for (unsigned i = 0; i < n; i++) {
		if (ret->name[i].n > MOVE_NAME)
			return take_break(t, "a connection's name is too long");
		ret->at[i] = (uint32_t)inside;
		if (!move_beside(ret->size[i]))
			inside += ret->size[i];
		if (ret->size[i] > t->limit || t->bytes > t->limit - ret->size[i])
			ret->over |= UINT64_C(1) << i;
		else
			t->bytes += ret->size[i];
	}
	if (inside != m->batch.states.n)
		return take_break(t, "a batch's states are not as long as it says");
	t->batches++;
	t->connections += n;
	return 1;
}

int take_hear(struct take *t, const struct msg *m, struct take_batch *ret)
{
	if (t->why)
		return -1;
	if (t->ended)
		return take_break(t, "more behind the End");
	if (m->type == MSG_batch && m->batch.batch == t->batches + 1)
		return take_in(t, m, ret);
	if (m->type == MSG_end && m->end.batch == t->batches + 1) {
		if (m->end.connections != t->connections)
			return take_break(t, "the End counts other connections than have come");
		t->ended = true;
		return 0;
	}
	return take_break(t, m->type == MSG_batch || m->type == MSG_end
	                     ? "a batch is missing, or came twice"
	                     : "what only a successor may send, or no message of this channel");
}

void take_answer(const struct take *t, uint64_t kept, struct msg *m)
{
	m->type = MSG_answer;
	m->answer.batch = t->batches + t->ended;
	m->answer.kept = kept;
}

bool take_complete(const struct take *t)
{
	return t->batches == 0 || t->ended;
}
