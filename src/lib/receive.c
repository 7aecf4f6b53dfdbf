/*
 * N's end of the transfer channel: takes connections from the incumbent while this process waits
 * for its turn. It touches none of them; that is the daemon's, once handoff_ready has returned 0.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/sys.h"
#include "proto/move.h"

#define ROOM_MAX  65536  /* descriptors: half a megabyte of the kernel's */
#define TAKING_MS 1000   /* so long a socket that is full is waited for; O has read it all, if it lives */

struct taker {
	struct chan chan;
	struct take t;
	uint32_t watched;        /* events of epoll that are asked for; 0: not in the set */
	bool deaf;               /* O is gone: an answer reaches nobody */
	/* the batch that the daemon has not taken to its end; states lie in the channel's buffer */
	bool waiting;
	struct take_batch b;
	const char *states;
	int fd[MOVE_BATCH];      /* -1: given out, or closed */
	int beside[MOVE_BATCH];  /* of connection i, or -1 */
	unsigned at;             /* the next one to give out */
	int last;                /* given out last: its to be rejected; -1 */
	uint64_t kept;
	char name[MOVE_NAME + 1];
	void *state;             /* of one that lay beside */
};

static int watch(handoff *h, uint32_t events)
{
	return h_watch(h, h->taker->chan.fd, &h->taker->watched, events);
}

/*
 * A descriptor table that grows waits for RCU where a process has two threads: some 10 ms, at each
 * doubling. Now nobody waits for it; when the connections come clients do.
 */
static void make_room(int fd)
{
	struct rlimit r;
	int high;

	if (sys_getrlimit(RLIMIT_NOFILE, &r))
		return;
	high = r.rlim_cur > ROOM_MAX ? ROOM_MAX - 1 : (int)r.rlim_cur - 1;
	high = sys_dup(fd, high);
	if (high >= 0)
		sys_close(high);
}

int take_open(handoff *h, int fd, uint64_t limit)
{
	take_free(h);
	make_room(fd);
	if (!(h->taker = calloc(1, sizeof *h->taker))) {
		sys_close(fd);
		return -ENOMEM;
	}
	chan_init(&h->taker->chan, fd);
	take_init(&h->taker->t, limit);
	return watch(h, EPOLLIN);
}

static void drop_batch(struct taker *k)
{
	for (unsigned i = 0; k->waiting && i < k->b.n; i++) {
		sys_closep(&k->fd[i]);
		sys_closep(&k->beside[i]);
	}
	k->waiting = false;
	free(k->state);
	k->state = NULL;
}

void take_free(handoff *h)
{
	if (!h->taker)
		return;
	watch(h, 0);
	drop_batch(h->taker);
	chan_close(&h->taker->chan);
	free(h->taker);
	h->taker = NULL;
}

void take_abandon(const handoff *h)
{
	const struct taker *k = h->taker;

	if (!k)
		return;
	chan_abandon(&k->chan);
	for (unsigned i = 0; k->waiting && i < k->b.n; i++) {
		if (k->fd[i] >= 0)
			sys_close(k->fd[i]);
		if (k->beside[i] >= 0)
			sys_close(k->beside[i]);
	}
}

/* What this process has may not be all, or not be right: it must not serve. */
static void give_up(handoff *h, const char *why)
{
	h_give_up(h, -ECANCELED, "the incumbent's connections: %s", why);
	h_drop(h);
}

/* ---------------------------------------------------------------- reading --- */

/* A stream socket of a family that has connections, and not a listening one. */
static bool is_connection(int fd)
{
	int domain = 0, type = 0, listens = 1;
	socklen_t n = sizeof(int);

	return !sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) &&
	       !sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) &&
	       !sys_getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) &&
	       (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX) && type == SOCK_STREAM && !listens;
}

static void start_batch(handoff *h, const struct msg *m)
{
	struct taker *k = h->taker;
	int fds[FRAME_MAX_FDS];
	unsigned next = k->b.n;

	chan_take_fds(&k->chan, fds);
	k->states = m->batch.states.p;
	k->at = 0;
	k->last = -1;
	k->kept = 0;
	k->waiting = true;
	if (h->flags & HANDOFF_NONBLOCK)
		h_queue(h, HANDOFF_BEGIN);
	for (unsigned i = 0; i < k->b.n; i++) {
		k->fd[i] = fds[i];
		k->beside[i] = move_beside(k->b.size[i]) ? fds[next++] : -1;
		if (!is_connection(fds[i]) || k->b.over >> i & 1) {
			h_log(h, HANDOFF_LOG_WARNING, "a descriptor of the incumbent's is refused: %s",
			      k->b.over >> i & 1 ? "too much state" : "it is no connection");
			sys_closep(&k->fd[i]);
		}
	}
}

/* What sending an answer, or its rest, has come to. */
static void note_sent(handoff *h, int e)
{
	struct taker *k = h->taker;

	if (e == -EPIPE || e == -ECONNRESET) {
		k->deaf = true;   /* what it sent is still read */
	} else if (e < 0) {
		give_up(h, "an answer could not be sent");
		return;
	}
	if (k->watched)
		watch(h, EPOLLIN | (chan_pending(&k->chan) && !k->deaf ? EPOLLOUT : 0u));
}

static void send_answer(handoff *h, uint64_t kept)
{
	struct taker *k = h->taker;
	struct msg m = { .type = MSG_answer };

	take_answer(&k->t, kept, &m);
	note_sent(h, k->deaf ? 0 : chan_send(&k->chan, &m, NULL, 0));
}

static void hear(handoff *h, const struct msg *m)
{
	struct taker *k = h->taker;
	int e = take_hear(&k->t, m, &k->b);

	if (e < 0)
		give_up(h, k->t.why);
	else if (e > 0)
		start_batch(h, m);
	else
		send_answer(h, 0);
}

/* One batch at a time: its states lie in the channel's buffer. */
static void read_some(handoff *h)
{
	struct taker *k = h->taker;
	struct msg m;
	int n;

	while (!h->canceled && k->watched && !k->waiting && (n = chan_recv(&k->chan, &m)))
		if (n > 0)
			hear(h, &m);
		else if (n == -ENOMEM)
			break;   /* tried again at the next turn */
		else if (n == -EBADMSG && !k->chan.torn)
			give_up(h, k->chan.error);
		else
			watch(h, 0);   /* O has died: what it had sent whole is here */
}

void take_turn(handoff *h)
{
	struct taker *k = h->taker;

	if (!k || !k->watched || !d_is_successor(&h->d))
		return;
	if (chan_pending(&k->chan) && !k->deaf)
		note_sent(h, chan_flush(&k->chan));
	read_some(h);
}

bool take_waits(const handoff *h)
{
	return h->taker && h->taker->waiting;
}

int take_begin(handoff *h)
{
	if (!h->taker)
		return 0;
	read_some(h);   /* O is dead, or has sealed: no more will come than lies there */
	if (h->canceled || take_waits(h))
		return -EAGAIN;
	if (h->sealed && !take_complete(&h->taker->t)) {
		give_up(h, "it has sealed, and not said that all were sent");
		return -EAGAIN;
	}
	return 0;
}

/* ----------------------------------------------------------------- taking --- */

/* The state of one whose state lay beside: in memory of its own, until the next call. */
static bool fetch(struct taker *k, unsigned i)
{
	const int want = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK;
	int seals = sys_fcntl(k->beside[i], F_GET_SEALS, 0);   /* none on what is no memfd */
	size_t size = k->b.size[i], done = 0;
	struct stat st;
	ssize_t n = 0;

	if (seals < 0 || (seals & want) != want || sys_fstat(k->beside[i], &st) ||
	    (uint64_t)st.st_size != size || !(k->state = malloc(size)))
		return false;
	while (done < size &&
	       (n = sys_pread(k->beside[i], (char *)k->state + done, size - done, (off_t)done)) > 0)
		done += (size_t)n;
	return done == size;
}

/* The one given out last is the daemon's now; what was allocated for it goes. */
static void keep_last(struct taker *k)
{
	if (k->last >= 0)
		k->kept |= UINT64_C(1) << k->last;
	k->last = -1;
	free(k->state);
	k->state = NULL;
}

static bool give_out(handoff *h, unsigned i, struct handoff_connection *ret)
{
	struct taker *k = h->taker;
	bool beside = k->beside[i] >= 0, ok = k->fd[i] >= 0 && (!beside || fetch(k, i));

	sys_closep(&k->beside[i]);
	if (!ok) {
		if (k->fd[i] >= 0)
			h_log(h, HANDOFF_LOG_WARNING, "a connection's state of %llu bytes could not be read",
			      (unsigned long long)k->b.size[i]);
		sys_closep(&k->fd[i]);
		keep_last(k);
		return false;
	}
	memcpy(k->name, k->b.name[i].p, k->b.name[i].n);
	k->name[k->b.name[i].n] = '\0';
	*ret = (struct handoff_connection){
		.size = ret->size, .fd = k->fd[i], .name = k->name, .state_size = k->b.size[i],
		.state = beside ? k->state : k->states + k->b.at[i],
	};
	k->fd[i] = -1;
	k->last = (int)i;
	return true;
}

EXPORT int handoff_receive(handoff *h, struct handoff_connection *ret)
{
	struct taker *k = h->taker;

	if (!ret || ret->size < sizeof *ret)
		return h_fail(h, -EINVAL, "handoff_receive: without ret->size");
	if (h->canceled)
		return h_fail(h, h->end_code, "%s", h->end);
	while (k && take_waits(h)) {
		keep_last(k);
		while (k->at < k->b.n)
			if (give_out(h, k->at++, ret))
				return 1;
		drop_batch(k);
		send_answer(h, k->kept);
		read_some(h);
		if (h->canceled)
			return h_fail(h, h->end_code, "%s", h->end);
	}
	return 0;
}

EXPORT int handoff_reject(handoff *h, int fd)
{
	struct taker *k = h->taker;

	if (!k || !k->waiting || k->last < 0)
		return h_fail(h, -EINVAL, "handoff_reject: only what handoff_receive gave out last");
	k->last = -1;
	sys_close(fd);   /* never shutdown: it is the incumbent's still */
	return 0;
}

/* ---------------------------------------------------------------- Taking --- */

/* 0: all has left, or the time is up; or -errno. */
static int flush_until(struct chan *c, uint64_t until)
{
	struct pollfd p = { .fd = c->fd, .events = POLLOUT };
	uint64_t now;
	int e;

	while ((e = chan_flush(c)) > 0 && (now = sys_now_ms()) < until)
		/* a socket that has room while the kernel has none for the message is writable at once */
		if (sys_poll(&p, 1, (int)(until - now)) > 0 && chan_flush(c) > 0)
			sys_poll(NULL, 0, 1);
	return e < 0 ? e : 0;
}

void take_over(handoff *h)
{
	struct taker *k = h->taker;
	struct msg m = { .type = MSG_taking };
	int e;

	if (!k)
		return;
	watch(h, 0);
	if (k->t.batches == 0 || k->deaf)
		return;
	e = chan_send(&k->chan, &m, NULL, 0);
	if (!e && chan_pending(&k->chan))
		e = flush_until(&k->chan, sys_now_ms() + TAKING_MS);
	if (e == -EPIPE || e == -ECONNRESET)   /* O is dead: nobody else touches them */
		return;
	if (e || chan_pending(&k->chan))   /* O might go on with what this process would answer */
		give_up(h, "it could not be told that they are taken");
}
