/*
 * conn: one client connection with at most one request under way, on libevent.
 * It moves bytes and says what happened; what they mean is its owner's business.
 */
#ifndef KVLOAD_CONN_H
#define KVLOAD_CONN_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>

#include "resp.h"
#include "target.h"

struct conn;

/* Called from the event loop. closed: err is 0 for EOF, else a negative errno
 * (-EPROTO: not its protocol); the connection is closed already and may be opened
 * again or freed in it. A reply that is the server's last one: it is closed in
 * reply already, and closed is not called. */
struct conn_ops {
	void (*ready)(struct conn *c);
	void (*reply)(struct conn *c, const struct resp *reply);
	void (*closed)(struct conn *c, int err);
};

struct conn {
	const struct conn_ops *ops;
	struct event_base *base;
	const struct target *target;
	struct event event;
	int fd;              /* -1: closed */
	bool connected;
	char *out, *in;
	size_t size;         /* of out and of in */
	size_t out_len, out_sent, in_len;
};

/* size: the largest request and reply. -ENOMEM. conn_free closes. */
int conn_init(struct conn *c, const struct conn_ops *ops, struct event_base *base,
              const struct target *target, size_t size);
void conn_free(struct conn *c);

/* Connects after delay_ms (0: now); ready or closed follows, from the loop. */
void conn_open(struct conn *c, unsigned delay_ms);
void conn_close(struct conn *c);

/* Sends the first len bytes of c->out. 0; or a negative errno when nothing was
 * sent, so that the request can be made on another connection safely (closed
 * is not called). */
int conn_send(struct conn *c, size_t len);

/* Did any byte of the last request leave? */
static inline bool conn_sent(const struct conn *c)
{
	return c->out_sent > 0;
}

#endif
