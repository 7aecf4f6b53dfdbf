#include "exporter/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chan.h"
#include "handoffctl/ask.h"

struct query {
	struct chan chan;
	struct event *event, *late;
	const struct query_handler *handler;
	void *arg;
	int error;              /* of the beginning: told in the loop */
};

static void end(struct query *q, int error)
{
	event_del(q->late);
	if (q->event)
		event_del(q->event);
	chan_close(&q->chan);
	q->handler->ended(q->arg, error);   /* which may free q */
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct query *q = arg;

	(void)fd;
	(void)what;
	end(q, q->error ? q->error : -ETIMEDOUT);
}

static bool is_last(const struct msg *m)
{
	return m->type == MSG_op_state || m->type == MSG_op_result;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct query *q = arg;
	struct msg m;
	int e;

	(void)fd;
	(void)what;
	while ((e = chan_recv(&q->chan, &m)) == 1) {
		q->handler->message(q->arg, &m);
		if (is_last(&m)) {
			end(q, 0);
			return;
		}
	}
	if (e < 0)
		end(q, e);
}

/* Asks: the question is so small that a new socket takes it as a whole, or has no memory for it. */
static int begin(struct query *q, struct event_base *base, const char *socket, const struct msg *question)
{
	const int fd = ask_connect(socket);
	int e;

	if (fd < 0)
		return fd;
	chan_init(&q->chan, fd);
	q->event = event_new(base, fd, EV_READ | EV_PERSIST, on_event, q);
	if (!q->event || event_add(q->event, NULL))
		return -ENOMEM;
	e = chan_send(&q->chan, question, NULL, 0);
	return e == -EPIPE ? 0 : !e && chan_pending(&q->chan) ? -ENOBUFS : e;   /* of -EPIPE the end is read */
}

struct query *query_new(struct event_base *base, const char *socket, const struct msg *question,
                        const struct query_handler *h, void *arg)
{
	struct timeval limit = { QUERY_MS / 1000, QUERY_MS % 1000 * 1000 };
	struct query *q = calloc(1, sizeof *q);

	if (!q)
		return NULL;
	chan_init(&q->chan, -1);
	q->handler = h;
	q->arg = arg;
	q->late = event_new(base, -1, 0, on_late, q);
	if (q->late && (q->error = begin(q, base, socket, question)))
		limit = (struct timeval){ 0, 0 };
	if (!q->late || event_add(q->late, &limit)) {   /* nobody would end it */
		query_free(q);
		return NULL;
	}
	return q;
}

void query_free(struct query *q)
{
	if (!q)
		return;
	if (q->event)
		event_free(q->event);
	if (q->late)
		event_free(q->late);
	chan_close(&q->chan);
	free(q);
}
