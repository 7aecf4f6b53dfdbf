/*
 * disruption: what a handoff cost its clients: how long nobody accepted, how deep the
 * listeners' queues were meanwhile, how many connections they dropped.
 *
 * The queues are looked at when whoever is to serve has been told so, and not before: it
 * wakes up meanwhile. Then at each heartbeat, since one that hangs lets them grow, and at the end,
 * when the first of them may be accepted already. They are few, so that many listeners lengthen
 * no pause: TCP's take a microsecond each, unix ones ten.
 */
#ifndef HANDOFF_DISRUPTION_H
#define HANDOFF_DISRUPTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/queue.h"
#include "handoffd/listen.h"

#define DISRUPTION_QUEUES 16u   /* listeners that are looked at, in the order of the configuration */
#define DISRUPTION_UNIX   4u    /* of them at most so many unix ones */

struct disruption {
	unsigned n;
	struct disruption_queue {
		int fd;                      /* the listeners', who stay in hand until disruption_end; -1 */
		char name[CONF_MAX_NAME + 1];
		bool known;                  /* it was looked at in time */
		uint32_t before;             /* its drops at the beginning */
		struct queue deepest;
	} q[DISRUPTION_QUEUES];
	int diag;                            /* for unix listeners, while a handoff is under way; -1 */
	uint64_t from_us;                    /* nobody accepts since; 0: somebody does */
	uint64_t longest_us;                 /* of those that are over */
	bool drained;                        /* the incumbent has said so, */
	uint64_t left;                       /* and how many connections it still had */
	bool counted;                        /* it has said, sealed, how many of them */
	uint64_t moved, stayed;              /* are with the successor; could not go there */
};

/* A handoff begins. */
void disruption_begin(struct disruption *d);
/* Once in it, while the incumbent still accepts: what its listeners have dropped by now. */
void disruption_watch(struct disruption *d, const struct listeners *l, const struct conf *c);
/* From here on nobody accepts, and since the first of such calls. */
void disruption_stall(struct disruption *d);
/* Somebody was told to serve, and may not do it yet. */
void disruption_look(struct disruption *d);
/* Somebody serves. */
void disruption_over(struct disruption *d);
/* The longest time without anybody who accepts, one that still lasts among them. */
uint64_t disruption_longest(const struct disruption *d);
/* What is known of the listener of that name; NULL: nothing. */
const struct disruption_queue *disruption_of(const struct disruption *d, const char *name);
/* The successor serves: what an incumbent that moves none had left has ended with it. */
void disruption_committed(struct disruption *d);
/* Its end, with the listeners still open: what they have dropped is counted. */
void disruption_end(struct disruption *d);

#endif
