/*
 * client: connects in a tight loop, from a process of its own, and notes the time between two
 * answers. The floor: what fork, exec and a first answer cost without any protocol.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <sys/types.h>

#include "service.h"
#include "stat.h"

struct client;

/* Starts it against the unix listener at path. */
struct client *client_start(const char *path);
/* The longest time between two answers since the last call (us); all others go to normal,
 * if it is not NULL. A connection that failed ends the run. */
double client_longest(struct client *c, struct samples *normal);
void client_stop(struct client *c);

/* A listening unix socket at path, its queue long. */
int floor_listen(const char *path);
/* From before the fork to the first answer read, in us; the process is ended before it returns. */
double floor_once(const struct programs *bin, int listener, const char *path);

#endif
