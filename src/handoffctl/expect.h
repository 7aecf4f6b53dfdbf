/* expect: what earlier handoffs say about the next one. Pure. */
#ifndef HANDOFF_EXPECT_H
#define HANDOFF_EXPECT_H

#include <stdint.h>

struct expected { unsigned handoffs; uint64_t median_us, max_us; };

/* Of n pauses, which are sorted; of none: all 0. */
void expect_pause(uint64_t *pause_us, unsigned n, struct expected *ret);
/* Connections a second: so many had come when nobody had accepted for that long. */
uint64_t expect_rate(uint64_t waiting, uint64_t stall_us);
/* After so many ms a queue of that many places is full; UINT64_MAX: never. */
uint64_t expect_full_ms(uint64_t places, uint64_t rate);

#endif
