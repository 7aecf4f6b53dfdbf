/*
 * The store: keys spread over shards, all of them durable in a data directory.
 *
 * The life of a store, the same for every role of a process:
 *   store_open      the directory, nothing read
 *   store_load      reads all, read-only; other processes may write meanwhile
 *   store_follow    reads what they have added since
 *   store_prepare   the last look, and the logs open for writing; still nothing written
 *   store_begin     from here on this process is the writer
 *   store_commit    once for each turn of the loop: one write(2) per shard
 *   store_seal      synced and closed: another may write
 *   store_reopen    and it is ours again: reads what another has added
 *
 * Functions return 0 or more, or a negative errno with a sentence in st->error.
 */
#ifndef KVD_STORE_H
#define KVD_STORE_H

#include "manifest.h"
#include "shard.h"

enum store_fsync { FSYNC_ALWAYS, FSYNC_EVERYSEC };

/* What takes one change of this turn back. */
struct undo {
	struct shard *shard;
	struct entry *now;   /* in the table now, or NULL */
	struct entry *was;   /* was there before, or NULL */
	uint64_t expires;    /* now == was: what its expiry was */
};

struct store {
	char *path;
	int dir;
	int reader_lock;     /* compaction.lock, shared: held from load to begin */
	int fresh;           /* no manifest yet: an empty store */
	int writing;         /* this process is the writer */
	int broken;          /* negative errno: an fsync failed, so no more writes */
	int refuse;          /* negative errno: why writes of this turn are refused */
	enum store_fsync fsync;
	uint64_t epoch;      /* of this writer */
	uint64_t segment_size; /* rotate above it */
	struct manifest m;
	struct shard *shard;
	unsigned shards;
	struct undo *undo;
	size_t undo_len, undo_cap;
	char error[320];
};

/* shards: for a store that is made new; its manifest says it otherwise. */
int store_open(struct store *st, const char *path, unsigned shards);
void store_close(struct store *st);

int store_load(struct store *st);         /* again: forgets all and reads again */
int64_t store_follow(struct store *st);  /* records applied */
/* synced: what lies in the logs is known to be on the disk. -ESTALE: the logs have
 * a higher epoch than this process: it is not the writer. */
int store_prepare(struct store *st, uint64_t epoch, int synced);
int store_begin(struct store *st);
int store_seal(struct store *st);
int store_reopen(struct store *st, uint64_t epoch); /* then store_begin */

/* The live entry, or NULL; owned by the store. */
struct entry *store_find(struct store *st, const char *key, uint32_t klen, uint64_t now);

/* Changes: visible at once, durable after store_commit. A refusal leaves all as it was. */
int store_set(struct store *st, const char *key, uint32_t klen, const char *val, uint32_t vlen,
	      uint64_t expires);
int store_delete(struct store *st, struct entry *e, int expired);
int store_expire(struct store *st, struct entry *e, uint64_t expires);
/* 0 if a change would be taken now, else why not. */
int store_writable(const struct store *st);

/*
 * Ends the turn. On failure all of the turn's changes are undone, in the files
 * and in memory. -ESTALE: another process writes: the caller must stop.
 */
int store_commit(struct store *st);
int store_turn_open(const struct store *st); /* something waits for store_commit */
/* fdatasync of what is not synced yet. */
int store_sync(struct store *st);
int store_dirty(const struct store *st);     /* something waits for store_sync */

/* Deletes up to max keys whose time has come (logged). Returns how many. */
int store_expire_due(struct store *st, uint64_t now, int max);
uint64_t store_next_expiry(const struct store *st); /* wall ms; 0: none */

uint64_t store_count(const struct store *st);
/* revs: room for st->shards. */
void store_state(const struct store *st, uint64_t *revs, unsigned char fingerprint[32]);

/* Removes what no manifest names: left by a compaction that died. Only the
 * writer for good may do that. */
void store_sweep(struct store *st);

/* compaction.lock: a reader holds it shared; who publishes a manifest and
 * deletes segments holds it exclusively. how as in flock(2). Returns a
 * descriptor, whose close unlocks. -ENOENT: no such store yet. */
int store_lock_compaction(int dir, int how);

#endif
