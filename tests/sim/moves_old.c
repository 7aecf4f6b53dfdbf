/* O: what the rules of rules.md, Live connections, have it do. */
#include "moves.h"

static void tell_o(struct world *w, enum word word)
{
	if (!w->eof[O] && w->s != S_DOWN)
		put(&w->o2s, word);
}

/* With its own copies and its own buffers. */
static void serve(struct world *w)
{
	w->o = O_SERVE;
	w->y.n = w->nbatch = w->nfds = 0;
	for (unsigned c = 0; c < w->nconn; c++) {
		w->conn[c].own[O] = w->conn[c].ref[O];
		w->conn[c].given = KEEP;
	}
	say(w, "O serves");
}

static void tell_and_serve(struct world *w, enum word word)
{
	if (breaks(M_TOUCH_FIRST))
		w->owes = true;
	else
		tell_o(w, word);
	serve(w);
}

static bool o_hears(struct world *w)
{
	enum word word;

	if (w->o != O_SERVE || !get(&w->s2o, &word))
		return false;
	if (word == PREPARE)
		w->o = O_DRAIN;
	else
		tell_o(w, word == SEALREQ ? SEALFAIL : STATUS);
	return true;
}

static bool o_drains(struct world *w)
{
	if (w->o != O_DRAIN)
		return false;
	tell_o(w, DRAINED);
	w->o = O_DRAINED;
	return true;
}

static bool o_seals(struct world *w)
{
	enum word word;

	if (w->o != O_DRAINED || !lies(&w->s2o, SEALREQ))
		return false;
	get(&w->s2o, &word);
	w->o = O_MOVING;
	return true;
}

static bool o_gives(struct world *w)
{
	const unsigned c = w->next;
	struct conn *k = &w->conn[c];
	const uint64_t size = k->large ? MOVE_INLINE + 1 : sizeof(struct view);

	if (w->o != O_MOVING || w->give.state != GIVE_OPEN || c == w->nconn ||
	    w->nfds + 1 + k->large > MOVE_BATCH)
		return false;
	w->next++;
	if (!k->ref[O] || k->fin || !rnd(w, 12) || !give_state(&w->give, size)) {
		k->given = STAY;
		return true;
	}
	if (!breaks(M_NO_FLUSH))
		k->appd = k->appm;   /* the state may hold replies: acknowledgements to be */
	k->own[O] = false;
	k->given = SENT;
	w->batch[w->nbatch++] = c;
	w->nfds += 1u + k->large;
	return true;
}

static struct view carried(const struct conn *k)
{
	struct view v = k->view[O];

	if (breaks(M_NO_INPUT))
		v.rd = BYTES * v.ap;
	if (breaks(M_NO_OUTPUT))
		v.wo = BYTES * v.ap;
	return v;
}

static bool o_sends(struct world *w)
{
	struct msg m = { .type = MSG_batch };
	struct span name[MOVE_BATCH];
	uint64_t size[MOVE_BATCH];
	struct view inside[MOVE_BATCH];
	unsigned n = 0;

	if (w->o != O_MOVING || !w->nbatch || !give_may_send(&w->give) || w->broken ||
	    (w->next < w->nconn && w->nfds < MOVE_BATCH - 1 && rnd(w, 5)))
		return false;
	struct moved *to = push(&w->x);
	to->n = w->nbatch;
	for (unsigned i = 0; i < to->n; i++) {
		struct conn *k = &w->conn[to->conn[i] = w->order[w->norder++] = w->batch[i]];
		name[i] = SPAN("resp");
		size[i] = k->large ? MOVE_INLINE + 1 : sizeof *inside;
		to->view[i] = carried(k);
		if (!k->large)
			inside[n++] = to->view[i];
		k->in_channel = true;
	}
	if (breaks(M_OUT_OF_ORDER) && n > 1) {
		struct view first = inside[0];
		inside[0] = inside[1];
		inside[1] = first;
	}
	m.batch.names = (struct texts){ .n = to->n, .v = name };
	m.batch.sizes = (struct uints){ .n = to->n, .v = size };
	m.batch.states = (struct span){ (const char *)inside, n * sizeof *inside };
	give_batch(&w->give, to->n, &m);
	encode(w, to, &m);
	say(w, "O sends %u", to->n);
	w->nbatch = w->nfds = 0;
	return true;
}

static bool o_says_end(struct world *w)
{
	struct msg m = { 0 };

	if (w->o != O_MOVING || w->next < w->nconn || w->nbatch || w->give.state != GIVE_OPEN)
		return false;
	if (!w->norder) {
		w->give.state = GIVE_DONE;   /* nothing to wait for */
		return true;
	}
	if (w->broken || !give_may_send(&w->give))
		return false;
	struct moved *to = push(&w->x);
	to->n = 0;
	give_end(&w->give, &m);
	encode(w, to, &m);
	return true;
}

static void o_notes(struct world *w, const struct give_answer *a)
{
	for (unsigned i = 0; i < a->n; i++) {
		struct conn *k = &w->conn[w->order[(breaks(M_FIRST_FORGOTTEN) ? 0 : a->first) + i]];
		const bool kept = a->kept >> i & 1 || breaks(M_REJ_FORGET);
		k->given = kept ? GONE : STAY;
		k->own[O] = !kept && k->ref[O];
	}
}

static bool o_hears_n(struct world *w)
{
	struct give_answer a;
	struct msg m;

	if (w->o != O_MOVING || !w->y.n || !decode(w, pop(&w->y), &m))
		return false;
	int e = give_hear(&w->give, &m, &a);
	if (e < 0)
		violated(w, "O's end of the channel breaks at what N has said", 0);
	else if (e > 0)
		o_notes(w, &a);
	return true;
}

static bool o_is_left(struct world *w)
{
	if (w->o != O_MOVING || !w->broken || w->y.n || w->give.state == GIVE_DONE ||
	    w->give.state == GIVE_BROKEN)
		return false;
	give_lost(&w->give, true, "the channel breaks");
	if (!breaks(M_BREAK_STAYS) || w->n == N_DEAD)
		return true;
	for (unsigned c = 0; c < w->nconn; c++)
		if (w->conn[c].given <= SENT) {
			w->conn[c].given = STAY;
			w->conn[c].own[O] = w->conn[c].ref[O];
		}
	w->give.state = GIVE_DONE;
	return true;
}

static bool stays_are_done(const struct world *w)
{
	for (unsigned c = 0; c < w->nconn; c++) {
		const struct conn *k = &w->conn[c];
		if (k->given == STAY && k->ref[O] && !k->fin && k->view[O].rd >= BYTES * (k->view[O].ap + 1))
			return false;
	}
	return true;
}

static bool o_has_moved(struct world *w)
{
	const bool all = w->give.state == GIVE_DONE || (breaks(M_NO_END) && w->give.state == GIVE_OPEN &&
	                 w->next == w->nconn && !w->nbatch && w->give.answered == w->give.sent);

	if (w->o != O_MOVING || !all || !stays_are_done(w))
		return false;
	w->o = O_SEALING;
	return true;
}

static bool o_unlocks(struct world *w)
{
	if (w->o != O_SEALING)
		return false;
	flush(w);
	w->lock = NOBODY;
	w->o = O_SEALSND;
	return true;
}

static bool has_lock(const struct world *w)
{
	return w->o >= O_DRAINED && w->o <= O_SEALING && w->lock == O;
}

static bool o_cannot_seal(struct world *w)
{
	if (!has_lock(w) || w->give.state != GIVE_BROKEN)
		return false;
	tell_and_serve(w, SEALFAIL);
	return true;
}

static bool o_resumes(struct world *w)
{
	enum word word;

	if (!lies(&w->s2o, RESUME) || (!has_lock(w) && w->o != O_SEALED))
		return false;
	get(&w->s2o, &word);
	if (w->o == O_SEALED)
		w->o = O_RELOCK;
	else
		tell_and_serve(w, STATUS);
	return true;
}

static bool o_reads_end(struct world *w)
{
	if (!w->eof[O] || w->s2o.n || (!has_lock(w) && w->o != O_DRAIN))
		return false;
	serve(w);   /* and says so when S is there again */
	return true;
}

static bool o_is_sealed(struct world *w)
{
	if (w->o != O_SEALSND)
		return false;
	tell_o(w, SEALOK);
	w->o = O_SEALED;
	return true;
}

static bool o_reads_moved(struct world *w)
{
	if (!breaks(M_NO_EPOLL_DEL) || w->o < O_MOVING)
		return false;
	for (unsigned c = 0; c < w->nconn; c++) {
		struct conn *k = &w->conn[c];
		if (k->given != SENT && k->given != GONE)
			continue;
		if (k->con < k->sent && !k->fin) {
			k->con++;
			k->view[O].rd++;
			return true;
		}
	}
	return false;
}

static bool o_exits(struct world *w)
{
	if (w->o != O_SEALED || !lies(&w->s2o, COMMIT))
		return false;
	for (unsigned c = 0; c < w->nconn; c++) {
		const struct conn *k = &w->conn[c];
		if (!breaks(M_EXIT_OWING) && k->given == STAY && k->ref[O] && !k->fin &&
		    k->view[O].wo < BYTES * k->view[O].ap)
			return false;   /* a reply that was begun is finished */
	}
	check_exit(w);
	for (unsigned c = 0; breaks(M_O_SHUTDOWN) && c < w->nconn; c++)
		if (w->conn[c].ref[O] && !w->conn[c].fin) {
			w->conn[c].fin = true;
			w->conn[c].odd = w->conn[c].out < BYTES * w->conn[c].requests;
		}
	say(w, "O exits");
	old_dies(w);
	return true;
}

static bool o_locks(struct world *w)
{
	if (w->lock != NOBODY || (w->o != O_RELOCK && !(w->o == O_SEALED && w->eof[O])))
		return false;
	w->lock = O;
	w->o = O_REOPEN;
	return true;
}

/* N is gone, or cannot take over: its end is read to the end. */
static bool o_reopens(struct world *w)
{
	struct give_answer a;
	bool taken;
	struct msg m;

	if (w->o != O_REOPEN)
		return false;
	recover(w);
	while (w->y.n && decode(w, pop(&w->y), &m))
		give_hear(&w->give, &m, &a);
	taken = (w->give.taking && !breaks(M_STALE)) || breaks(M_CLOSE_ALL);
	for (unsigned c = 0; taken && c < w->nconn; c++)
		if (w->conn[c].given == SENT || w->conn[c].given == GONE)
			release(w, O, c);
	tell_and_serve(w, STATUS);
	return true;
}

static bool o_registers(struct world *w)
{
	if (!w->eof[O] || w->s2o.n || w->s == S_DOWN || (w->o != O_SERVE && w->o != O_SEALED))
		return false;
	w->eof[O] = w->owes = false;
	if (w->o == O_SERVE)
		put(&w->o2s, STATUS);
	return true;
}

static bool o_owes(struct world *w)
{
	if (!w->owes)
		return false;
	w->owes = false;
	tell_o(w, STATUS);
	return true;
}

bool old_step(struct world *w, bool timers)
{
	static step_fn *const f[] = {
		o_hears, o_drains, o_seals, o_gives, o_sends, o_says_end, o_hears_n, o_is_left, o_has_moved,
		o_unlocks, o_cannot_seal, o_resumes, o_reads_end, o_is_sealed, o_reads_moved, o_exits, o_locks,
		o_reopens, o_registers, o_owes,
	};

	if (timers && has_lock(w)) {
		tell_and_serve(w, SEALFAIL);
		return true;
	}
	if (timers && w->o == O_SEALED && w->lock == NOBODY) {
		w->lock = O;
		w->o = O_REOPEN;
		return true;
	}
	return ANY(w, f);
}
