/*
 * keys: what the writers remember. Each key has one owner and at most one
 * request under way, so what a read must show is known exactly: the last
 * acknowledged write, or the one write whose outcome is unknown.
 *
 * A write is unknown when its connection ended before the reply. The next
 * request for that key is a read, which settles it. It is *late* when kvload
 * gave up waiting: the server may still apply it at any later time, so such a
 * key is only read until the write has been seen.
 */
#ifndef KVLOAD_KEYS_H
#define KVLOAD_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resp.h"

#define KEYS_MAX_NAME   96
#define KEYS_MIN_VALUE  64
#define KEYS_MAX_VALUE  (512u << 10)

struct key {
	uint64_t acked;     /* number of the last acknowledged write; a counter's value */
	uint64_t next;      /* number of the last write that was begun */
	uint64_t unknown;   /* number of the write whose outcome is unknown; 0: none */
	uint64_t acked_us;  /* when acked was acknowledged, for the report of a loss */
	bool counter;       /* written by INCR, else by SET */
	bool late, busy, bad;
};

struct keys {
	char prefix[64];
	unsigned count;
	size_t value_size;
	struct key *key;
};

enum verdict {
	KEY_GOOD,            /* shows the last acknowledged write */
	KEY_APPLIED,         /* settled: the unknown write was applied */
	KEY_NOT_APPLIED,     /* settled: it was not */
	KEY_LOST,            /* an acknowledged write is lost: an older value */
	KEY_WRONG            /* a value that was never written */
};

/* Allocates; NULL: out of memory. Freed by keys_free, which takes NULL and
 * returns NULL. */
struct keys *keys_new(const char *prefix, unsigned count, size_t value_size);
struct keys *keys_free(struct keys *k);

/* The key's name on the server (KEYS_MAX_NAME bytes are enough) and the value
 * of write seq (value_size bytes). The name's length. */
size_t keys_name(const struct keys *k, unsigned i, char *buf);
void keys_value(const struct keys *k, unsigned i, uint64_t seq, char *buf);

/* A write begins: its number. Not for a key with an unknown write. */
uint64_t keys_begin(struct keys *k, unsigned i);
void keys_acked(struct keys *k, unsigned i, uint64_t seq, uint64_t now_us);
void keys_unknown(struct keys *k, unsigned i, uint64_t seq, bool late);

/*
 * Compares a reply with what is remembered, and believes it from then on, so
 * that a loss is counted once. A sentence about KEY_LOST and KEY_WRONG in why.
 * keys_check: the reply to GET. keys_check_incr: the reply to INCR number seq,
 * which also acknowledges it.
 */
enum verdict keys_check(struct keys *k, unsigned i, const struct resp *reply, uint64_t now_us,
                        char *why, size_t why_size);
enum verdict keys_check_incr(struct keys *k, unsigned i, uint64_t seq, const struct resp *reply,
                             uint64_t now_us, char *why, size_t why_size);

/* Writes that are still unknown. */
unsigned keys_open(const struct keys *k);

/* The memory as a file, written beside it and renamed; 0 or -errno. keys_load:
 * -EPROTO if the file is none of keys_save's. */
int keys_save(const struct keys *k, const char *path);
int keys_load(const char *path, struct keys **ret);

#endif
