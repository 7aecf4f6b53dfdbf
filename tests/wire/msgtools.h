/*
 * msgtools: what tests do with any message, by its table: say it, make it encodable
 * again after decoding, make one up.
 */
#ifndef TESTS_WIRE_MSGTOOLS_H
#define TESTS_WIRE_MSGTOOLS_H

#include "proto/msg.h"

/* For inner loops: Check's own assertions write to a file each time that they hold. */
#define MUST(expr, ...) do { if (!(expr)) ck_abort_msg(__VA_ARGS__); } while (0)

/* What a message's arrays and spans point into. */
struct store {
	uint64_t u[8192];
	struct span t[8192];
	char text[1 << 17];
	size_t used, used_u, used_t;
};

/* One line "name value" for each field present, in the notation of vectors.txt. */
void msg_say(const struct msg *m, char *out, size_t size);

/* Gives a decoded message's arrays the form that msg_encode reads. */
void msg_thaw(struct msg *m, struct store *s);

/* A message of d: random fields, with a liking for edges; every field as large as it
 * may be if fullest. All texts are UTF-8. */
void msg_random(const struct msg_desc *d, struct msg *m, struct store *s, uint64_t *seed,
                bool fullest);

/* Pairs in the map of an encoded message; 0: not to be read. */
uint64_t msg_pairs(const uint8_t *item, size_t n);

bool msg_has(const struct msg *m, const struct msg_desc *d, unsigned i);

uint64_t rnd(uint64_t *seed);   /* splitmix64 */
uint64_t rnd_edge(uint64_t *seed);   /* any width, often where the encoding's width changes */

/* HANDOFF_TEST_SEED, or one from the clock; printed, so that a failure can be had again. */
uint64_t test_seed(const char *test);

#endif
