/*
 * target: the server's address, and a plain blocking client for what is done
 * outside of the load: the first look at the server, and reading back.
 */
#ifndef KVLOAD_TARGET_H
#define KVLOAD_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "keys.h"
#include "stats.h"

struct target {
	struct sockaddr_storage sa;
	socklen_t len;
	ssize_t (*parse)(const char *buf, size_t len, struct resp *ret);   /* its replies */
	const char *request; /* every request, where there are no keys; NULL: keys decide */
};

/* "ADDRESS:PORT", "[V6]:PORT" or "unix:PATH" (numbers, no names: a load
 * generator waits for no resolver), of a server that speaks RESP2. -EINVAL: none of them. */
int target_parse(const char *text, struct target *ret);

/* Connects and asks PING; blocks up to timeout_ms. 0, or -1 and a sentence. */
int target_probe(const struct target *t, unsigned timeout_ms, char *err, size_t err_size);

/*
 * Reads every key back and compares. Blocks, up to timeout_ms for each answer.
 * The result goes to s->verify and into the totals; each loss is said on stderr
 * (the first ones).
 */
void target_verify(const struct target *t, struct keys *k, struct stats *s, unsigned timeout_ms);

/* Microseconds of CLOCK_MONOTONIC. */
uint64_t now_us(void);

#endif
