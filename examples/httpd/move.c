/*
 * Live connections: what one carries to the successor, and back when the attempt ends. The state is
 * everything that this process knows of a connection and the kernel does not: where it is in a
 * request or a reply, and the two buffers of its bufferevent.
 */
#include "httpd.h"

#include <errno.h>
#include <string.h>

/*
 * u64 form, in the byte order of this machine, on which both processes are; one that does not know
 * it leaves the connection where it is
 * u64 for each field of the session
 * u64 bytes of input, u64 bytes of output; both
 */
#define FORM 1

static void put(struct evbuffer *b, uint64_t v)
{
	evbuffer_add(b, &v, sizeof(v));
}

static uint64_t get(const char **p)
{
	uint64_t v;

	memcpy(&v, *p, sizeof(v));
	*p += sizeof(v);
	return v;
}

/* A copy. It only looks at `from`: an output buffer is frozen at its beginning, where only its
 * bufferevent may take something away. */
static void put_all(struct evbuffer *b, struct evbuffer *from)
{
	size_t at = 0, n, end = evbuffer_get_length(from);
	const char *p;

	for (; at < end; at += n) {
		n = piece_at(from, at, &p);
		evbuffer_add(b, p, n);
	}
}

void move_encode(const struct conn *c, struct evbuffer *b)
{
	struct evbuffer *in = bufferevent_get_input(c->bev), *out = bufferevent_get_output(c->bev);

	put(b, FORM);
#define PUT(name) put(b, c->s.name);
	SESSION(PUT)
#undef PUT
	put(b, evbuffer_get_length(in));
	put(b, evbuffer_get_length(out));
	put_all(b, in);
	put_all(b, out);
}

static size_t head_size(void)
{
	struct session s;

	return sizeof(uint64_t) + sizeof(s) + 2 * sizeof(uint64_t);
}

int move_decode(struct conn *c, const void *state, size_t n)
{
	struct evbuffer *in = bufferevent_get_input(c->bev), *out = bufferevent_get_output(c->bev);
	const char *p = state;
	uint64_t in_size, out_size;

	if (n < head_size() || get(&p) != FORM)
		return -EBADMSG;
#define GET(name) c->s.name = get(&p);
	SESSION(GET)
#undef GET
	in_size = get(&p);
	out_size = get(&p);
	n -= head_size();
	if (in_size > n || out_size != n - in_size ||
	    !route_known(c->s.route, c->s.replying != 0) || http_resume(c) < 0)
		return -EBADMSG;
	evbuffer_unfreeze(in, 0); /* its end is its bufferevent's, else */
	evbuffer_add(in, p, in_size);
	evbuffer_freeze(in, 0);
	evbuffer_add(out, p + in_size, out_size);
	return 0;
}

/* -- the incumbent ------------------------------------------------------- */

/* 0: it is given, or it stays. */
static int give(struct conn *c, struct evbuffer *state)
{
	struct handoff_connection moving = { .size = sizeof(moving), .fd = c->fd, .name = "http" };
	int r;

	conn_sleep(c);
	move_encode(c, state);
	moving.state_size = evbuffer_get_length(state);
	moving.state = evbuffer_pullup(state, -1);
	r = handoff_give(c->sv->h, &moving);
	evbuffer_drain(state, moving.state_size);
	if (r == -EPIPE || r == -ECANCELED)
		return r;
	if (r >= 0) {
		c->ticket = (unsigned)r;
		conn_relink(c, &c->sv->given);
	}
	return 0;
}

static int give_all(struct server *sv)
{
	struct evbuffer *state = evbuffer_new();
	struct conn *c, *next;
	int r = 0;

	if (!state)
		return 0; /* all stay */
	for (c = sv->conns; c && !r; c = next) {
		next = c->next;
		if (!c->lingering) /* all was said */
			r = give(c, state);
	}
	evbuffer_free(state);
	return r ? r : handoff_give_end(sv->h);
}

void move_wake(struct server *sv)
{
	struct conn *c, *next;

	for (c = sv->conns; c; c = next) {
		next = c->next;
		conn_wake(c);
	}
}

int move_give(struct server *sv)
{
	struct conn *c, *next;
	int r = sv->can_give ? give_all(sv) : 0;

	if (r < 0)
		return r;
	for (c = sv->given; c; c = next) {
		next = c->next;
		if (!handoff_gone(sv->h, c->ticket))
			conn_relink(c, &sv->conns); /* the successor did not want it */
	}
	move_wake(sv);
	return 0;
}

void move_back(struct server *sv)
{
	struct conn *c, *next;

	for (c = sv->given; c; c = next) {
		next = c->next;
		if (handoff_gone(sv->h, c->ticket))
			conn_free(c);
		else
			conn_relink(c, &sv->conns);
	}
}

/* -- the successor ------------------------------------------------------- */

static int take(struct server *sv, const struct handoff_connection *in)
{
	struct conn *c = sv->nconns < sv->opt->max_connections ? conn_adopt(sv, in->fd) : NULL;

	if (!c)
		return -EMFILE;
	if (move_decode(c, in->state, in->state_size) == 0)
		return 0;
	c->fd = -1; /* the library's again */
	conn_free(c);
	return -EBADMSG;
}

void move_take(struct server *sv)
{
	struct handoff_connection in = { .size = sizeof(in) };

	while (handoff_receive(sv->h, &in) > 0)
		if (take(sv, &in) < 0)
			handoff_reject(sv->h, in.fd);
}
