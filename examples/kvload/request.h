/*
 * request: one request to one key: chosen, put into bytes, and settled by its
 * reply or by its loss. No I/O here.
 */
#ifndef KVLOAD_REQUEST_H
#define KVLOAD_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keys.h"
#include "stats.h"
#include "target.h"

enum op { OP_NONE, OP_PING, OP_GET, OP_SET, OP_INCR };

struct request {
	enum op op;
	unsigned key;
	uint64_t seq;      /* of a write */
	uint64_t due_us;
};

/* The keys of one owner: first, first + step, ... count of them. */
struct share {
	unsigned first, step, count;
};

/* xorshift64*; the state must not be 0. */
uint64_t random_next(uint64_t *state);

/* Chooses a key of the share that has no request under way and what to do with
 * it; a PING if there is none. Marks the key busy until it is settled. */
struct request request_pick(struct keys *k, const struct share *share, uint64_t *rng,
                            uint64_t due_us);

/* A read of this key: the first thing after a write whose outcome is unknown. */
struct request request_read(struct keys *k, unsigned key, uint64_t due_us);

/* The request's bytes; buf holds value_size + 512 at least. */
size_t request_encode(const struct keys *k, const struct request *r, char *buf);

/* Settles r by its reply and sets r->op to OP_NONE. False: an error reply. */
bool request_reply(struct keys *k, struct request *r, const struct resp *reply, struct stats *s,
                   struct kind_stats *kind);

/* Settles r without a reply. sent: bytes of it left. late: the server may still
 * get to it. */
void request_lost(struct keys *k, struct request *r, bool sent, bool late,
                  struct kind_stats *kind);

/* A line on stderr about something that should not be, the first ones only. */
void complain(const struct stats *s, const char *what, const char *detail);

#endif
