/*
 * room: memory for timers, made beforehand. libevent keeps them in a heap that grows when one more is
 * added, and never shrinks: once it has had so many, event_add(3) of a timer cannot fail, and whoever
 * waits for one does not wait for ever when memory is short.
 */
#ifndef HANDOFF_ROOM_H
#define HANDOFF_ROOM_H

#include <event2/event.h>

#define ROOM_TIMERS 512   /* more than handoffd ever has at once: of 64 callers, and a few of all else */

/* 0, -ENOMEM. */
int room_for_timers(struct event_base *base, unsigned n);

#endif
