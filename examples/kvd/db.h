/*
 * db: the live keys of one shard in memory. A hash table that grows a little
 * with each access (doubling at once would stall all clients for milliseconds),
 * and a heap of what expires, so that nobody wakes up to look for it.
 * Knows nothing of logs, clocks or clients.
 */
#ifndef KVD_DB_H
#define KVD_DB_H

#include <stddef.h>
#include <stdint.h>

/* One key. The value never changes: another value is another entry. */
struct entry {
	struct entry *next;
	uint64_t expires;    /* wall ms, 0: never */
	uint32_t heap;       /* place in the heap + 1, 0: not there */
	uint32_t hash;
	uint32_t klen, vlen;
	char data[];         /* the key, then the value */
};

static inline const char *entry_value(const struct entry *e)
{
	return e->data + e->klen;
}

struct db {
	struct entry **table[2]; /* [1]: the larger one, while entries move there */
	size_t size[2];          /* powers of two, 0: none */
	size_t moved;            /* buckets of table[0] that have moved */
	size_t count;
	uint64_t bytes;          /* keys and values */
	struct entry **heap;
	size_t heap_len, heap_cap;
};

/* A new entry, the caller's until db_put. */
struct entry *entry_new(const char *key, uint32_t klen, const char *val, uint32_t vlen,
			uint64_t expires);

struct entry *db_find(struct db *db, const char *key, uint32_t klen); /* owned by db, or NULL */
struct entry *db_put(struct db *db, struct entry *e);   /* returns what it displaced, or NULL */
void db_remove(struct db *db, struct entry *e);         /* e is the caller's again */
void db_expire(struct db *db, struct entry *e, uint64_t expires);
struct entry *db_first_expiry(const struct db *db);     /* or NULL */

/* Calls fn for each entry until it returns non-zero, and returns that. */
int db_each(const struct db *db, int (*fn)(void *arg, const struct entry *e), void *arg);

void db_free(struct db *db);                            /* empty again */

#endif
