#include "handoffd/disruption.h"

#include <stdio.h>
#include <string.h>

#include "base/sys.h"

void disruption_begin(struct disruption *d)
{
	*d = (struct disruption){ .diag = -1 };
}

void disruption_watch(struct disruption *d, const struct listeners *l, const struct conf *c)
{
	unsigned left = DISRUPTION_UNIX;

	d->diag = queue_open();
	for (unsigned i = 0; i < c->nlisten && d->n < DISRUPTION_QUEUES; i++) {
		const struct listener *one = listeners_find(l, &c->listen[i]);
		struct disruption_queue *q = &d->q[d->n];

		if (!one || (one->path && !left) || queue_look(one->fd, d->diag, &q->deepest))
			continue;
		left -= one->path != NULL;
		q->fd = one->fd;
		q->before = q->deepest.drops;
		snprintf(q->name, sizeof q->name, "%s", one->name);
		d->n++;
	}
}

void disruption_stall(struct disruption *d)
{
	if (!d->from_us)
		d->from_us = sys_now_us();
}

void disruption_look(struct disruption *d)
{
	struct queue now;

	for (unsigned i = 0; i < d->n; i++) {
		struct disruption_queue *q = &d->q[i];

		if (queue_look(q->fd, d->diag, &now) || (q->known && now.waiting <= q->deepest.waiting))
			continue;
		q->deepest = now;
		q->known = true;
	}
}

uint64_t disruption_longest(const struct disruption *d)
{
	const uint64_t us = d->from_us ? sys_now_us() - d->from_us : 0;

	return us > d->longest_us ? us : d->longest_us;
}

void disruption_over(struct disruption *d)
{
	if (!d->from_us)
		return;
	d->longest_us = disruption_longest(d);
	d->from_us = 0;
	disruption_look(d);   /* who came since somebody was told to serve */
}

void disruption_end(struct disruption *d)
{
	struct queue now;

	if (d->from_us)   /* both daemons have died: who waits waits on */
		disruption_look(d);
	for (unsigned i = 0; i < d->n; i++) {
		struct disruption_queue *q = &d->q[i];

		q->deepest.drops = queue_look(q->fd, d->diag, &now) ? 0 : now.drops - q->before;
		q->fd = -1;   /* from here on it may be somebody else's */
	}
	sys_closep(&d->diag);
}

void disruption_committed(struct disruption *d)
{
	/* 0 is also what a daemon says that does not count them */
	if (d->counted || !d->left)
		return;
	d->counted = true;
	d->stayed = d->left;
}

const struct disruption_queue *disruption_of(const struct disruption *d, const char *name)
{
	for (unsigned i = 0; i < d->n; i++)
		if (d->q[i].known && !strcmp(d->q[i].name, name))
			return &d->q[i];
	return NULL;
}
