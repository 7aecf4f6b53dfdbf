/*
 * bucket: so many at once, and then one in each interval: a token bucket as one number, the
 * time at which it will be full again. No timer: an idle one costs nothing. Zero is a full one.
 */
#ifndef HANDOFF_BUCKET_H
#define HANDOFF_BUCKET_H

#include <stdint.h>

struct bucket { uint64_t full_ms; };

/* In how many ms there is one to take; 0: now. */
static inline uint64_t bucket_wait(const struct bucket *b, uint64_t now_ms, unsigned burst,
                                   unsigned interval_ms)
{
	const uint64_t later = b->full_ms + interval_ms, most = now_ms + (uint64_t)burst * interval_ms;

	return later > most ? later - most : 0;
}

/* Takes one, there or not: who has waited for it knows. */
static inline void bucket_take(struct bucket *b, uint64_t now_ms, unsigned interval_ms)
{
	b->full_ms = (b->full_ms > now_ms ? b->full_ms : now_ms) + interval_ms;
}

#endif
