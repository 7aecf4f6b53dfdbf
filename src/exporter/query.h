/*
 * query: one question to one supervisor, in the loop: what it answers, or that it does not within
 * a limit of time. A supervisor that hangs costs its own answer and nothing else.
 */
#ifndef HANDOFF_EXPORTER_QUERY_H
#define HANDOFF_EXPORTER_QUERY_H

#include <event2/event.h>

#include "proto/msg.h"

#define QUERY_MS 2000   /* for the whole answer */

struct query;

/*
 * message: called for each message; m is valid until it returns. ended: called once, in a turn of
 * the loop after query_new: 0: State or Result has come, and was the last message; or -errno
 * (-ETIMEDOUT, -ECONNREFUSED, -EACCES, -EBADMSG, ...).
 */
struct query_handler {
	void (*message)(void *arg, const struct msg *m);
	void (*ended)(void *arg, int error);
};

/* Asks whoever listens at that path. h outlives it. NULL: no memory. */
struct query *query_new(struct event_base *base, const char *socket, const struct msg *question,
                        const struct query_handler *h, void *arg);
/* Also before its end. Takes NULL. */
void query_free(struct query *q);

#endif
