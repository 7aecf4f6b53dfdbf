/*
 * O's end of the transfer channel: gives connections to the successor, in the seal, while this
 * process still has the lock. Waiting for answers is waiting for the supervisor, too: the calls
 * end when the attempt does.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/sys.h"
#include "proto/move.h"

struct giver {
	struct chan chan;
	struct give g;
	uint32_t watched;        /* events of epoll that are asked for; 0: not in the set */
	uint32_t count;          /* connections given, in the batch below too */
	uint32_t refused;        /* not given: too much state, no memory, no descriptor */
	uint64_t *kept;          /* bit i: N has connection i */
	uint32_t words;
	/* the batch that is being made */
	unsigned n, nbeside;
	int fd[MOVE_BATCH], beside[MOVE_BATCH];
	char name[MOVE_BATCH][MOVE_NAME + 1];
	uint64_t size[MOVE_BATCH];
	size_t inside;
	uint8_t states[MOVE_INLINE];
};

static int watch(handoff *h, uint32_t events)
{
	return h_watch(h, h->giver->chan.fd, &h->giver->watched, events);
}

static void drop_batch(struct giver *g)
{
	while (g->nbeside)
		sys_close(g->beside[--g->nbeside]);
	g->n = 0;
	g->inside = 0;
}

void give_open(handoff *h, int fd, uint64_t limit)
{
	give_free(h);
	if (!(h->giver = calloc(1, sizeof *h->giver))) {
		h_log(h, HANDOFF_LOG_WARNING, "no memory to move connections: they stay");
		sys_close(fd);
		return;
	}
	chan_init(&h->giver->chan, fd);
	give_init(&h->giver->g, limit);
}

void give_close(handoff *h)
{
	if (!h->giver || h->giver->chan.fd < 0)
		return;
	watch(h, 0);
	drop_batch(h->giver);
	chan_close(&h->giver->chan);
}

void give_free(handoff *h)
{
	if (!h->giver)
		return;
	give_close(h);
	free(h->giver->kept);
	free(h->giver);
	h->giver = NULL;
}

void give_abandon(const handoff *h)
{
	if (!h->giver)
		return;
	chan_abandon(&h->giver->chan);
	for (unsigned i = 0; i < h->giver->nbeside; i++)
		sys_close(h->giver->beside[i]);
}

/* ---------------------------------------------------------------- answers --- */

static void note_answer(struct giver *g, const struct give_answer *a)
{
	for (unsigned i = 0; i < a->n; i++)
		if (a->kept >> i & 1)
			g->kept[(a->first + i) / 64] |= UINT64_C(1) << (a->first + i) % 64;
}

/* Reads what N has said. False: it will say no more. */
static bool hear(handoff *h)
{
	struct giver *g = h->giver;
	struct give_answer a;
	struct msg m;
	int n;

	while ((n = chan_recv(&g->chan, &m)) > 0) {
		int e = give_hear(&g->g, &m, &a);
		if (e > 0)
			note_answer(g, &a);
		else if (e < 0)
			return false;   /* it may go on for ever */
	}
	if (n == 0 || n == -ENOMEM)
		return true;
	give_lost(&g->g, true, n == -EBADMSG && !g->chan.torn ? "the successor sent what is not the protocol"
	                                                      : "the successor has gone");
	return false;
}

/* Whether it is N's end that is gone, or what was to be sent cannot be. */
static void not_sent(struct give *g, int e)
{
	if (e == -EPIPE || e == -ECONNRESET)
		give_lost(g, true, "the successor has gone");
	else if (e == -ETOOMANYREFS || e == -EMFILE)
		give_lost(g, false, "too many descriptors are on their way (raise limit-nofile)");
	else
		give_lost(g, false, e == -ENOMEM ? "no memory" : strerror(-e));
}

void give_turn(handoff *h)
{
	struct giver *g = h->giver;
	int e;

	if (!g || !g->watched)
		return;
	if (chan_pending(&g->chan) && (e = chan_flush(&g->chan)) < 0)
		not_sent(&g->g, e);
	if (!hear(h) || g->g.state == GIVE_BROKEN)
		watch(h, 0);   /* its end would be readable for ever */
}

void give_settle(handoff *h)
{
	struct giver *g = h->giver;

	if (!g || g->chan.fd < 0)
		return;
	/* what cannot be read may have been a Taking: then the connections are not touched again */
	if (hear(h) ? chan_midframe(&g->chan) : g->chan.error[0] && !g->chan.torn)
		g->g.taking |= g->g.state == GIVE_DONE;
	give_close(h);
}

/* ----------------------------------------------------------------- giving --- */

/* 0: the seal is under way, and the channel whole. */
static int may_give(handoff *h)
{
	if (h->d.state == D_UNSEAL)
		return h_fail(h, -ECANCELED, "the attempt has ended: handoff_seal_failed, and serve");
	if (h->d.state != D_SEALING)
		return h_fail(h, -EINVAL, "connections are given in answer to HANDOFF_SEAL only");
	if (h->giver->g.state == GIVE_BROKEN)
		return h_fail(h, -EPIPE, "connections cannot be moved: %s", h->giver->g.why);
	return 0;
}

/* Reads what comes, S's words too, until done or until nothing can be given any more. */
static int wait_until(handoff *h, bool (*done)(const struct giver *))
{
	struct giver *g = h->giver;
	bool waited = false;
	int e;

	while (!(e = may_give(h)) && !done(g)) {
		if (watch(h, EPOLLIN | (chan_pending(&g->chan) ? EPOLLOUT : 0u))) {
			give_lost(&g->g, false, "the channel cannot be watched (no memory, or max_user_watches)");
			continue;
		}
		waited = true;
		h_poll(h, -1);
		h_dispatch(h);
	}
	h_wake(h);   /* events may have come for the caller's own loop */
	if (e == -ECANCELED && waited && g->g.answered != g->g.sent) {
		g->g.by_n = true;
		h_fail(h, e, "the attempt has ended, and the successor had not answered: handoff_seal_failed, and serve");
	}
	return e;
}

static bool has_room(const struct giver *g)
{
	return give_may_send(&g->g) && !chan_pending(&g->chan);
}

static bool is_done(const struct giver *g)
{
	return g->g.state == GIVE_DONE;
}

/* A frame that was sent in part, and whose rest could not be kept, ends the channel. */
static int send_message(handoff *h, const struct msg *m, const int *fds, unsigned n)
{
	struct giver *g = h->giver;
	int e = chan_send(&g->chan, m, fds, n);

	if (!e)
		return 0;
	not_sent(&g->g, e);
	return may_give(h);
}

static int send_batch(handoff *h)
{
	struct giver *g = h->giver;
	struct msg m = { .type = MSG_batch };
	struct span names[MOVE_BATCH];
	int e = 0, fds[MOVE_BATCH];

	if (g->n == 0 || (e = wait_until(h, has_room)))
		return g->n ? e : 0;
	for (unsigned i = 0; i < g->n; i++)
		names[i] = SPAN(g->name[i]);
	memcpy(fds, g->fd, g->n * sizeof *fds);
	memcpy(fds + g->n, g->beside, g->nbeside * sizeof *fds);
	m.batch.names = (struct texts){ .n = g->n, .v = names };
	m.batch.sizes = (struct uints){ .n = g->n, .v = g->size };
	m.batch.states = (struct span){ (const char *)g->states, g->inside };
	give_batch(&g->g, g->n, &m);
	e = send_message(h, &m, fds, g->n + g->nbeside);
	drop_batch(g);
	return e;
}

/*
 * A state that no message takes: in memory that nobody can change any more. RLIMIT_FSIZE holds for
 * that, too, and SIGXFSZ would kill a daemon that is in its seal.
 */
static int put_beside(const struct handoff_connection *c)
{
	struct rlimit r;
	size_t done = 0;
	ssize_t n = 0;
	int fd;

	if (!sys_getrlimit(RLIMIT_FSIZE, &r) && c->state_size > r.rlim_cur)
		return -EFBIG;
	fd = sys_memfd("handoff-state");
	while (fd >= 0 && done < c->state_size &&
	       (n = sys_write(fd, (const char *)c->state + done, c->state_size - done)) > 0)
		done += (size_t)n;
	if (fd < 0)
		return fd;
	if (done < c->state_size)
		n = n < 0 ? n : -EIO;
	else
		n = sys_fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	if (n < 0)
		sys_close(fd);
	return n < 0 ? (int)n : fd;
}

static int grow(struct giver *g)
{
	uint32_t words = g->words ? g->words * 2 : 16;
	uint64_t *p;

	if (g->count / 64 < g->words)
		return 0;
	if (!(p = realloc(g->kept, words * sizeof *p)))
		return -ENOMEM;
	memset(p + g->words, 0, (words - g->words) * sizeof *p);
	g->kept = p;
	g->words = words;
	return 0;
}

static bool fits(const struct giver *g, size_t state_size)
{
	unsigned more = move_beside(state_size) ? 2 : 1;

	return g->n + g->nbeside + more <= MOVE_BATCH && (more == 2 || g->inside + state_size <= MOVE_INLINE);
}

static void put(struct giver *g, const struct handoff_connection *c, int beside)
{
	g->fd[g->n] = c->fd;
	strcpy(g->name[g->n], c->name ? c->name : "");
	g->size[g->n++] = c->state_size;
	if (beside >= 0) {
		g->beside[g->nbeside++] = beside;
	} else if (c->state_size) {
		memcpy(g->states + g->inside, c->state, c->state_size);
		g->inside += c->state_size;
	}
}

EXPORT int handoff_give(handoff *h, const struct handoff_connection *c)
{
	struct giver *g = h->giver;
	int e, beside = -1;

	if (!c || c->size < sizeof *c || c->fd < 0 || (c->state_size && !c->state) ||
	    (c->name && (strlen(c->name) > MOVE_NAME || !utf8_valid(c->name, strlen(c->name)))))
		return h_fail(h, -EINVAL, "handoff_give: a connection of an unknown shape");
	if (!g)
		return h_fail(h, h->d.state == D_SEALING ? -ENOTSUP : -EINVAL, "the successor takes no connections");
	if ((e = may_give(h)))
		return e;
	if (g->g.state != GIVE_OPEN)
		return h_fail(h, -EINVAL, "handoff_give comes before handoff_give_end");
	if (!give_has_room(&g->g, c->state_size)) {
		g->refused++;
		return h_fail(h, -E2BIG, "the states of all connections are over the limit (connection-state)");
	}
	if (!fits(g, c->state_size) && (e = send_batch(h)))
		return e;
	if ((e = grow(g)) || (move_beside(c->state_size) && (e = beside = put_beside(c)) < 0)) {
		g->refused++;
		return h_fail(h, e, "a connection's state of %zu bytes: %s", c->state_size, strerror(-e));
	}
	give_state(&g->g, c->state_size);
	put(g, c, beside);
	return (int)g->count++;
}

EXPORT int handoff_give_end(handoff *h)
{
	struct giver *g = h->giver;
	struct msg m;
	int e;

	if (!g)
		return 0;
	if ((e = may_give(h)))
		return e;
	if (g->g.state != GIVE_OPEN)
		return h_fail(h, -EINVAL, "handoff_give_end: called twice");
	if (g->count == 0) {   /* nothing to wait for */
		g->g.state = GIVE_DONE;
		return 0;
	}
	if ((e = send_batch(h)) || (e = wait_until(h, has_room)))
		return e;
	memset(&m, 0, sizeof m);
	give_end(&g->g, &m);
	if ((e = send_message(h, &m, NULL, 0)) || (e = wait_until(h, is_done)))
		return e;
	watch(h, 0);
	return (int)(g->count - g->g.kept);
}

EXPORT int handoff_gone(const handoff *h, unsigned i)
{
	const struct giver *g = h->giver;

	if (!g || i >= g->count || !(g->kept[i / 64] >> i % 64 & 1))
		return 0;
	return h->d.state == D_SERVE || h->d.state == D_REOPEN ? g->g.taking : 1;
}

void give_count(const handoff *h, struct msg *m)
{
	const struct giver *g = h->giver;

	if (!g || g->g.state != GIVE_DONE)
		return;
	MSG_SET(m, seal_complete, moved, g->g.kept);
	MSG_SET(m, seal_complete, stayed, g->count - g->g.kept + g->refused);
}

bool give_failed_by_n(const handoff *h)
{
	return h->giver && h->giver->g.by_n;
}

bool give_open_ended(const handoff *h)
{
	return h->giver && h->giver->count && h->giver->g.state != GIVE_DONE;
}
