/*
 * ask: connections to supervisors. One question to many of them at once, with one limit
 * of time; and the connection that a handoff is followed on (follow.c).
 */
#ifndef HANDOFF_CTL_ASK_H
#define HANDOFF_CTL_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/chan.h"

/* Connects; never waits. A non-blocking descriptor, now the caller's; -EAGAIN: the
 * supervisor's queue is full, -ENAMETOOLONG, -ENOENT, -ECONNREFUSED, -EACCES, ... */
int ask_connect(const char *socket);

/* The same, and waits for a place in a full queue; -ETIMEDOUT: there was none for limit_ms. */
int ask_connect_within(const char *socket, uint64_t limit_ms);
#define ASK_CONNECT_MS 10000

/* Whether somebody is behind that socket: 0 (a full queue too), or -errno. */
int ask_knock(const char *socket);

#define ASK_RETRY_MS 20   /* a full queue has no event to wait for */

/* One question's state. Set socket, result = -EAGAIN and chan.fd = -1; the rest 0. */
struct ask {
	const char *socket;        /* borrowed */
	struct chan chan;
	int result;                /* 0: the answer is in msg; -ETIMEDOUT; -EINTR; -errno */
	bool sent;
	struct msg msg;            /* borrows from chan: until ask_end */
};

#define ASK_INIT(path) ((struct ask){ .socket = (path), .result = -EAGAIN, .chan = { .fd = -1 } })

/*
 * Asks n supervisors the same and waits until each has answered or limit_ms are over.
 * Ends early, with -EINTR in what is missing, when wake (-1: none) becomes readable.
 */
void ask_all(struct ask *v, unsigned n, const struct msg *question, uint64_t limit_ms, int wake);
/* One step of one question, as far as it goes without waiting; a->result -EAGAIN: go on when
 * chan.fd has an event, or, where there is none yet, after ASK_RETRY_MS. */
void ask_step(struct ask *a, const struct msg *question);
void ask_end(struct ask *a);   /* closes, frees */

#endif
