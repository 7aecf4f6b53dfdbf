/*
 * The two kinds of background work. Compaction reads the closed segments of a
 * shard from disk as a successor would, writes the keys that live into a
 * snapshot, publishes it by a new manifest and deletes what it replaces.
 * Syncing is the fdatasync of --fsync everysec.
 */
#ifndef KVD_COMPACT_H
#define KVD_COMPACT_H

#include "job.h"
#include "store.h"

struct compaction {
	struct job job;
	pthread_mutex_t gate;  /* held while publishing */
	int closed;            /* no publishing: this process is about to stop writing */
	atomic_int cancel;
	/* the job's own */
	int dir;
	unsigned shard;
	struct manifest m;     /* before; after success: as published */
	uint64_t cut;          /* the first segment that stays */
	uint64_t rev, epoch;   /* state at the cut, as the writer knows it */
	struct digest chain;
	uint64_t bytes;        /* of the snapshot */
	int result;
	char error[320];
};

void compact_init(struct compaction *c);
/* Begins with shard i; 0 or a negative errno. One at a time: -EBUSY. */
int compact_start(struct compaction *c, struct store *st, unsigned i, int wake_fd);
/* The shard that needs it most, or -1. */
int compact_candidate(const struct store *st, uint64_t min_bytes);
/* If the job has ended, or with wait when it has: takes its result over. 1: it had. */
int compact_reap(struct compaction *c, struct store *st, int wait);
/* After it nothing is published, until opened again. Waits for a publication
 * that is under way, some milliseconds; never for the rest of the job. */
void compact_close(struct compaction *c);
void compact_open(struct compaction *c);

struct syncing {
	struct job job;
	unsigned n;
	int fd[MAX_SHARDS];
	uint64_t seg[MAX_SHARDS], off[MAX_SHARDS];
	int result;
};

int sync_start(struct syncing *y, struct store *st, int wake_fd);
int sync_reap(struct syncing *y, struct store *st, int wait); /* 1: one has ended */

#endif
