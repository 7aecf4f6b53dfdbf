/*
 * everybody: the supervisors of this host, asked for their State at once. Each is either here
 * with its answer or here without one.
 */
#ifndef HANDOFF_EXPORTER_EVERYBODY_H
#define HANDOFF_EXPORTER_EVERYBODY_H

#include <event2/event.h>

#include "handoffctl/metrics.h"

struct everybody;

/*
 * Asks all, or the one of that name (NULL: all). done: called once, in a later turn of the loop,
 * with what each has said; v is valid until it returns, and everybody is freed then. v NULL: this
 * process had no memory or descriptors to ask all of them, which says nothing about them.
 * NULL: no memory, or the runtime directory cannot be read.
 */
struct everybody *everybody_ask(struct event_base *base, const char *only,
                                void (*done)(void *arg, const struct metrics_of *v, size_t n), void *arg);
/* Also before it is done. */
void everybody_free(struct everybody *e);

#endif
