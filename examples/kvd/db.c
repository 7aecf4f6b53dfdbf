#include "db.h"

#include "hash.h"
#include "util.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static struct digest table_key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void key_init(void)
{
	if (getrandom(&table_key, sizeof(table_key), 0) != (ssize_t)sizeof(table_key))
		table_key.a = wall_ms();
}

static uint32_t hash_of(const char *key, uint32_t klen)
{
	pthread_once(&key_once, key_init);
	return (uint32_t)siphash13(table_key, key, klen);
}

struct entry *entry_new(const char *key, uint32_t klen, const char *val, uint32_t vlen,
			uint64_t expires)
{
	struct entry *e = xmalloc(sizeof(*e) + klen + vlen);

	e->next = NULL;
	e->expires = expires;
	e->heap = 0;
	e->hash = hash_of(key, klen);
	e->klen = klen;
	e->vlen = vlen;
	if (klen)
		memcpy(e->data, key, klen);
	if (vlen)
		memcpy(e->data + klen, val, vlen);
	return e;
}

/* -- the heap ------------------------------------------------------------ */

static void heap_set(struct db *db, size_t i, struct entry *e)
{
	db->heap[i] = e;
	e->heap = (uint32_t)i + 1;
}

static void heap_up(struct db *db, size_t i)
{
	struct entry *e = db->heap[i];

	for (; i && db->heap[(i - 1) / 2]->expires > e->expires; i = (i - 1) / 2)
		heap_set(db, i, db->heap[(i - 1) / 2]);
	heap_set(db, i, e);
}

static void heap_down(struct db *db, size_t i)
{
	struct entry *e = db->heap[i];
	size_t k;

	while ((k = 2 * i + 1) < db->heap_len) {
		if (k + 1 < db->heap_len && db->heap[k + 1]->expires < db->heap[k]->expires)
			k++;
		if (db->heap[k]->expires >= e->expires)
			break;
		heap_set(db, i, db->heap[k]);
		i = k;
	}
	heap_set(db, i, e);
}

static void heap_add(struct db *db, struct entry *e)
{
	if (db->heap_len == db->heap_cap) {
		db->heap_cap = db->heap_cap ? db->heap_cap * 2 : 64;
		db->heap = xrealloc(db->heap, db->heap_cap * sizeof(struct entry *));
	}
	db->heap[db->heap_len] = e;
	heap_up(db, db->heap_len++);
}

static void heap_remove(struct db *db, struct entry *e)
{
	size_t i = e->heap - 1;
	struct entry *last = db->heap[--db->heap_len];

	e->heap = 0;
	if (last == e)
		return;
	heap_set(db, i, last);
	heap_up(db, i);
	heap_down(db, last->heap - 1);
}

struct entry *db_first_expiry(const struct db *db)
{
	return db->heap_len ? db->heap[0] : NULL;
}

/* -- the table ----------------------------------------------------------- */

#define FIRST_SIZE 1024
#define MOVE_STEP  8

static void table_move(struct db *db, size_t buckets)
{
	struct entry *e, *next, **to;

	for (; buckets && db->moved < db->size[0]; buckets--, db->moved++) {
		for (e = db->table[0][db->moved]; e; e = next) {
			next = e->next;
			to = &db->table[1][e->hash & (db->size[1] - 1)];
			e->next = *to;
			*to = e;
		}
		db->table[0][db->moved] = NULL;
	}
	if (db->moved < db->size[0])
		return;
	free(db->table[0]);
	db->table[0] = db->table[1];
	db->size[0] = db->size[1];
	db->table[1] = NULL;
	db->size[1] = 0;
	db->moved = 0;
}

static void table_grow(struct db *db)
{
	if (db->size[1]) {
		table_move(db, MOVE_STEP);
	} else if (!db->size[0]) {
		db->size[0] = FIRST_SIZE;
		db->table[0] = xcalloc(FIRST_SIZE, sizeof(struct entry *));
	} else if (db->count >= db->size[0]) {
		db->size[1] = db->size[0] * 2;
		db->table[1] = xcalloc(db->size[1], sizeof(struct entry *));
	}
}

/* Where the pointer to this key's entry is, or would be. */
static struct entry **table_slot(struct db *db, uint32_t hash, const char *key, uint32_t klen)
{
	size_t old = hash & (db->size[0] - 1);
	struct entry **at;

	at = db->size[1] && old < db->moved ? &db->table[1][hash & (db->size[1] - 1)]
					    : &db->table[0][old];
	for (; *at; at = &(*at)->next)
		if ((*at)->hash == hash && (*at)->klen == klen &&
		    (!klen || !memcmp((*at)->data, key, klen)))
			break;
	return at;
}

struct entry *db_find(struct db *db, const char *key, uint32_t klen)
{
	if (!db->count)
		return NULL;
	if (db->size[1])
		table_move(db, 1);
	return *table_slot(db, hash_of(key, klen), key, klen);
}

static void unlink_at(struct db *db, struct entry **at)
{
	struct entry *e = *at;

	*at = e->next;
	e->next = NULL;
	if (e->heap)
		heap_remove(db, e);
	db->count--;
	db->bytes -= e->klen + e->vlen;
}

struct entry *db_put(struct db *db, struct entry *e)
{
	struct entry **at, *old;

	table_grow(db);
	at = table_slot(db, e->hash, e->data, e->klen);
	old = *at;
	if (old)
		unlink_at(db, at);
	e->next = *at;
	*at = e;
	db->count++;
	db->bytes += e->klen + e->vlen;
	if (e->expires)
		heap_add(db, e);
	return old;
}

void db_remove(struct db *db, struct entry *e)
{
	unlink_at(db, table_slot(db, e->hash, e->data, e->klen));
}

void db_expire(struct db *db, struct entry *e, uint64_t expires)
{
	if (e->heap)
		heap_remove(db, e);
	e->expires = expires;
	if (expires)
		heap_add(db, e);
}

int db_each(const struct db *db, int (*fn)(void *arg, const struct entry *e), void *arg)
{
	struct entry *e;
	size_t i, t;
	int r;

	for (t = 0; t < 2; t++)
		for (i = 0; i < db->size[t]; i++)
			for (e = db->table[t][i]; e; e = e->next) {
				r = fn(arg, e);
				if (r)
					return r;
			}
	return 0;
}

void db_free(struct db *db)
{
	struct entry *e, *next;
	size_t i, t;

	for (t = 0; t < 2; t++) {
		for (i = 0; i < db->size[t]; i++)
			for (e = db->table[t][i]; e; e = next) {
				next = e->next;
				free(e);
			}
		free(db->table[t]);
	}
	free(db->heap);
	memset(db, 0, sizeof(*db));
}
