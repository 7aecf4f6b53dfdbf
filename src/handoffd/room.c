#include "handoffd/room.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <stdlib.h>

static void on_nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

int room_for_timers(struct event_base *base, unsigned n)
{
	const struct timeval later = { 3600, 0 };
	struct event *v = calloc(n, sizeof *v);
	unsigned added = 0;

	while (v && added < n && !event_assign(&v[added], base, -1, 0, on_nothing, NULL) &&
	       !event_add(&v[added], &later))
		added++;
	for (unsigned i = 0; i < added; i++)
		event_del(&v[i]);
	free(v);
	return added < n ? -ENOMEM : 0;
}
