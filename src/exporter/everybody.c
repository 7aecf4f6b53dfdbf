#include "exporter/everybody.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "exporter/query.h"
#include "handoffctl/place.h"

struct one {
	struct everybody *all;
	struct query *query;
	const char *name;           /* borrows from places */
};

struct everybody {
	struct places places;
	struct one *ones;
	struct metrics_of *answers;
	size_t n, waiting;
	bool lacks;                 /* this process, what it asks with */
	struct event *nobody;       /* made active by hand: with nobody to ask it is done at once */
	void (*done)(void *arg, const struct metrics_of *v, size_t n);
	void *arg;
};

static void finish(struct everybody *e)
{
	e->done(e->arg, e->lacks ? NULL : e->answers, e->n);
	everybody_free(e);
}

static void on_message(void *arg, const struct msg *m)
{
	struct one *o = arg;

	if (m->type == MSG_op_state)
		metrics_read(&o->all->answers[o - o->all->ones], o->name, m);
}

static void on_ended(void *arg, int error)
{
	struct one *o = arg;

	/* else the row says that there was no answer */
	o->all->lacks |= error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
	if (--o->all->waiting == 0)
		finish(o->all);
}

static void on_nobody(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	finish(arg);
}

static void ask(struct everybody *e, struct event_base *base, const struct place *p)
{
	static const struct query_handler handler = { on_message, on_ended };
	const struct msg question = { .type = MSG_op_status };
	struct one *o = &e->ones[e->n];

	*o = (struct one){ .all = e, .name = p->name };
	metrics_read(&e->answers[e->n++], p->name, NULL);
	o->query = query_new(base, p->socket, &question, &handler, o);
	e->waiting += o->query != NULL;
	e->lacks |= !o->query;
}

struct everybody *everybody_ask(struct event_base *base, const char *only,
                                void (*done)(void *arg, const struct metrics_of *v, size_t n), void *arg)
{
	struct everybody *e = calloc(1, sizeof *e);
	struct ctl c = { 0 };       /* its errors go to stderr, as lines of a log */

	if (!e)
		return NULL;
	e->done = done;
	e->arg = arg;
	if (places_scan(&c, &e->places) || !(e->nobody = event_new(base, -1, 0, on_nobody, e)) ||
	    !(e->ones = calloc(e->places.n + 1, sizeof *e->ones)) ||
	    !(e->answers = calloc(e->places.n + 1, sizeof *e->answers))) {
		everybody_free(e);
		return NULL;
	}
	for (size_t i = 0; i < e->places.n; i++)
		if (!only || !strcmp(only, e->places.v[i].name))
			ask(e, base, &e->places.v[i]);
	if (!e->waiting)
		event_active(e->nobody, EV_TIMEOUT, 0);
	return e;
}

void everybody_free(struct everybody *e)
{
	for (size_t i = 0; i < e->n; i++)
		query_free(e->ones[i].query);
	if (e->nobody)
		event_free(e->nobody);
	free(e->ones);
	free(e->answers);
	places_free(&e->places);
	free(e);
}
