/*
 * hist: a latency histogram with a constant relative error (1/64), in
 * microseconds, as HdrHistogram keeps it: each power of two is divided into 64
 * equal steps. No allocation, adding is O(1).
 */
#ifndef KVLOAD_HIST_H
#define KVLOAD_HIST_H

#include <stdint.h>

#define HIST_STEP_BITS 6
#define HIST_STEPS     (1u << HIST_STEP_BITS)
#define HIST_POWERS    34 /* up to 2^40 us, twelve days */

struct hist {
	uint64_t count, max;
	uint64_t bucket[HIST_STEPS * (HIST_POWERS + 1)];
};

void hist_add(struct hist *h, uint64_t us);

/* The smallest value that share (0 to 1) of all values do not exceed, rounded up
 * to the bucket's end but never over the true maximum; 0 if h is empty. */
uint64_t hist_quantile(const struct hist *h, double share);

#endif
