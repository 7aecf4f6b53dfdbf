/*
 * The manifest: where each shard's log begins. Log segments are numbered one
 * after the other, so a new segment needs no new manifest; only compaction
 * does. It is a small text file, replaced as a whole: written beside, fsynced,
 * renamed, the directory fsynced. A reader sees the old or the new one.
 */
#ifndef KVD_MANIFEST_H
#define KVD_MANIFEST_H

#include "hash.h"
#include "util.h"

#define MAX_SHARDS 256

struct manifest_shard {
	uint64_t first;        /* id of the first log segment that counts */
	uint64_t rev;          /* revision and chain before that segment */
	struct digest chain;
	int snapshot;          /* 1: the keys as of then are in the snapshot `first` */
	struct digest snapshot_chain; /* hash chained over the snapshot's records, from 0 */
	uint64_t snapshot_keys;
};

struct manifest {
	unsigned shards;
	uint64_t epoch;        /* highest epoch of a writer at the time of writing */
	struct manifest_shard shard[MAX_SHARDS];
};

/* 0; -ENOENT none; -EBADMSG damaged; or an errno. */
int manifest_read(int dir, struct manifest *ret);
int manifest_write(int dir, const struct manifest *m);
int manifest_equal(const struct manifest *a, const struct manifest *b);

#endif
