/*
 * Changes, and the turn that makes them durable. A turn is one round of the
 * event loop: its changes are in memory at once, but no reply leaves before
 * store_commit has written their records. If that fails, all of it is undone.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct shard *shard_of(struct store *st, const char *key, uint32_t klen)
{
	return &st->shard[crc32c(key, klen) % st->shards];
}

struct entry *store_find(struct store *st, const char *key, uint32_t klen, uint64_t now)
{
	struct entry *e = db_find(&shard_of(st, key, klen)->db, key, klen);

	return e && e->expires && e->expires <= now ? NULL : e;
}

static struct undo *add_undo(struct store *st, struct shard *s)
{
	struct undo *u;

	if (st->undo_len == st->undo_cap) {
		st->undo_cap = st->undo_cap ? st->undo_cap * 2 : 64;
		st->undo = xrealloc(st->undo, st->undo_cap * sizeof(*st->undo));
	}
	u = &st->undo[st->undo_len++];
	memset(u, 0, sizeof(*u));
	u->shard = s;
	return u;
}

int store_writable(const struct store *st)
{
	return st->refuse ? st->refuse : st->broken ? st->broken : st->writing ? 0 : -EROFS;
}

int store_set(struct store *st, const char *key, uint32_t klen, const char *val, uint32_t vlen,
	      uint64_t expires)
{
	const struct record rec = { RECORD_SET, st->epoch, expires, key, val, klen, vlen };
	struct shard *s = shard_of(st, key, klen);
	int r = store_writable(st);
	struct undo *u;

	if (r < 0)
		return r;
	shard_append(s, &rec);
	u = add_undo(st, s);
	u->now = entry_new(key, klen, val, vlen, expires);
	u->was = db_put(&s->db, u->now);
	return 0;
}

int store_delete(struct store *st, struct entry *e, int expired)
{
	const struct record rec = { expired ? RECORD_EXPIRED : RECORD_DEL, st->epoch, 0,
				    e->data, NULL, e->klen, 0 };
	struct shard *s = shard_of(st, e->data, e->klen);
	int r = store_writable(st);

	if (r < 0)
		return r;
	shard_append(s, &rec);
	db_remove(&s->db, e);
	add_undo(st, s)->was = e;
	return 0;
}

int store_expire(struct store *st, struct entry *e, uint64_t expires)
{
	const struct record rec = { RECORD_EXPIRE, st->epoch, expires, e->data, NULL, e->klen, 0 };
	struct shard *s = shard_of(st, e->data, e->klen);
	int r = store_writable(st);
	struct undo *u;

	if (r < 0)
		return r;
	shard_append(s, &rec);
	u = add_undo(st, s);
	u->now = u->was = e;
	u->expires = e->expires;
	db_expire(&s->db, e, expires);
	return 0;
}

static void keep(struct store *st)
{
	struct undo *u;
	unsigned i;

	for (u = st->undo; u < st->undo + st->undo_len; u++)
		if (u->was != u->now)
			free(u->was);
	st->undo_len = 0;
	for (i = 0; i < st->shards; i++)
		shard_keep(&st->shard[i]);
}

static void undo_one(const struct undo *u)
{
	struct db *db = &u->shard->db;

	if (u->now == u->was) {
		db_expire(db, u->was, u->expires);
	} else if (u->was) {
		free(db_put(db, u->was)); /* displaces `now`, if there is one */
	} else {
		db_remove(db, u->now);
		free(u->now);
	}
}

static void undo(struct store *st)
{
	unsigned i;
	int r;

	while (st->undo_len)
		undo_one(&st->undo[--st->undo_len]);
	for (i = 0; i < st->shards; i++) {
		r = shard_undo(&st->shard[i]);
		if (r < 0)
			st->broken = r;
	}
}

static void rotate_full(struct store *st)
{
	struct shard *s;
	unsigned i;

	for (i = 0; i < st->shards; i++) {
		s = &st->shard[i];
		/* soon after a sync little is left to sync: wait for that, within reason */
		if (s->off < st->segment_size ||
		    (s->off < 2 * st->segment_size && s->off - s->synced > (1u << 20)))
			continue;
		if (shard_rotate(s, st->dir, s->seg + 1, st->epoch) < 0)
			log_line("cannot begin a new segment, going on in the old one: %s",
				 s->error);
	}
}

static int flush(struct store *st)
{
	unsigned i;
	int r;

	for (i = 0; i < st->shards; i++) {
		r = shard_flush(&st->shard[i]);
		if (r < 0) {
			snprintf(st->error, sizeof(st->error), "%s", st->shard[i].error);
			return r;
		}
	}
	return st->fsync == FSYNC_ALWAYS ? store_sync(st) : 0;
}

int store_turn_open(const struct store *st)
{
	return st->undo_len != 0;
}

int store_commit(struct store *st)
{
	int r;

	if (!st->undo_len)
		return 0;
	r = flush(st);
	if (r < 0) {
		undo(st);
		return r;
	}
	keep(st);
	rotate_full(st);
	return 0;
}

int store_dirty(const struct store *st)
{
	unsigned i;

	for (i = 0; i < st->shards; i++)
		if (st->shard[i].wfd >= 0 && st->shard[i].synced < st->shard[i].off)
			return 1;
	return 0;
}

int store_sync(struct store *st)
{
	struct shard *s;
	unsigned i;
	int r = 0, k;

	/* all on their way first: then the waits below overlap */
	for (i = 0; i < st->shards; i++) {
		s = &st->shard[i];
		if (s->wfd >= 0 && s->synced < s->off + s->flushed)
			sync_file_range(s->wfd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	for (i = 0; i < st->shards; i++) {
		k = shard_sync(&st->shard[i]);
		if (k < 0 && !r) {
			r = st->broken = k; /* the kernel forgets what it could not write */
			snprintf(st->error, sizeof(st->error), "%s", st->shard[i].error);
		}
	}
	return r;
}

int store_expire_due(struct store *st, uint64_t now, int max)
{
	struct entry *e;
	unsigned i;
	int n = 0;

	for (i = 0; i < st->shards; i++)
		while (n < max && (e = db_first_expiry(&st->shard[i].db)) != NULL &&
		       e->expires <= now && store_delete(st, e, 1) == 0)
			n++;
	return n;
}

uint64_t store_next_expiry(const struct store *st)
{
	struct entry *e;
	uint64_t next = 0;
	unsigned i;

	for (i = 0; i < st->shards; i++) {
		e = db_first_expiry(&st->shard[i].db);
		if (e && (!next || e->expires < next))
			next = e->expires;
	}
	return next;
}
