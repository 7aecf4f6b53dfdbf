#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_socket(evutil_socket_t fd, short what, void *arg);
static void on_delay(evutil_socket_t fd, short what, void *arg);

int conn_init(struct conn *c, const struct conn_ops *ops, struct event_base *base,
              const struct target *target, size_t size)
{
	*c = (struct conn){ .ops = ops, .base = base, .target = target, .fd = -1, .size = size };
	c->out = malloc(size);
	c->in = malloc(size);
	if (c->out == NULL || c->in == NULL) {
		free(c->out);
		free(c->in);
		return -ENOMEM;
	}
	event_assign(&c->event, base, -1, 0, on_delay, c);
	return 0;
}

void conn_free(struct conn *c)
{
	conn_close(c);
	free(c->out);
	free(c->in);
}

void conn_close(struct conn *c)
{
	event_del(&c->event);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->connected = false;
	c->in_len = 0;
}

static void fail(struct conn *c, int err)
{
	conn_close(c);
	c->ops->closed(c, err);
}

static void watch(struct conn *c, short what)
{
	event_del(&c->event);
	event_assign(&c->event, c->base, c->fd, what | EV_PERSIST, on_socket, c);
	event_add(&c->event, NULL);
}

static void later(struct conn *c, unsigned ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 };

	event_del(&c->event);
	event_assign(&c->event, c->base, -1, 0, on_delay, c);
	event_add(&c->event, &t);
}

static void start(struct conn *c)
{
	int one = 1;

	c->fd = socket(c->target->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0) {
		fail(c, -errno);
		return;
	}
	if (c->target->sa.ss_family != AF_UNIX)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(c->fd, (const struct sockaddr *)&c->target->sa, c->target->len) == 0 ||
	    errno == EINPROGRESS) {
		watch(c, EV_WRITE);
	} else if (errno == EAGAIN) {
		/* unix(7): the accept queue is full, and there is nothing to poll for. */
		conn_close(c);
		later(c, 1);
	} else {
		fail(c, -errno);
	}
}

static void on_delay(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	start(arg);
}

void conn_open(struct conn *c, unsigned delay_ms)
{
	c->out_len = c->out_sent = 0;
	later(c, delay_ms);
}

/* -EAGAIN: wait until it is writable. */
static int push(struct conn *c)
{
	while (c->out_sent < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent,
		                 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		c->out_sent += n;
	}
	return 0;
}

int conn_send(struct conn *c, size_t len)
{
	int r;

	c->out_len = len;
	c->out_sent = 0;
	r = push(c);
	if (r == -EAGAIN) {
		watch(c, EV_READ | EV_WRITE);
		return 0;
	}
	if (r < 0 && c->out_sent > 0)
		return 0; /* the read side will say it */
	return r;
}

static void on_writable(struct conn *c)
{
	int err = 0, r;
	socklen_t len = sizeof(err);

	if (!c->connected) {
		if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err != 0) {
			fail(c, err != 0 ? -err : -errno);
			return;
		}
		c->connected = true;
		watch(c, EV_READ);
		c->ops->ready(c);
		return;
	}
	r = push(c);
	if (r == 0)
		watch(c, EV_READ);
	else if (r != -EAGAIN)
		fail(c, r);
}

static void on_readable(struct conn *c)
{
	struct resp reply;
	ssize_t n = recv(c->fd, c->in + c->in_len, c->size - c->in_len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		fail(c, n == 0 ? 0 : -errno);
		return;
	}
	c->in_len += n;
	n = c->target->parse(c->in, c->in_len, &reply);
	if (n == 0 && c->in_len < c->size)
		return;
	/* One request, one reply: more of it was never asked for. */
	if (n <= 0 || (size_t)n != c->in_len || c->out_len == 0) {
		fail(c, -EPROTO);
		return;
	}
	c->in_len = 0;
	c->out_len = c->out_sent = 0;
	if (reply.last)
		conn_close(c);
	c->ops->reply(c, &reply);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	if (what & EV_WRITE)
		on_writable(c);
	else if (what & EV_READ)
		on_readable(c);
}
