/*
 * A shard: its keys in memory and its place in its log. Reading and writing
 * share one position, so a reader that followed to the end goes on as writer
 * without another look at what it has read.
 *
 * shard_read.c: load, follow.   shard_write.c: append, flush, rotate.
 * Functions return 0 or more, or a negative errno with a sentence in error.
 */
#ifndef KVD_SHARD_H
#define KVD_SHARD_H

#include "db.h"
#include "hash.h"
#include "manifest.h"
#include "record.h"
#include "util.h"

#include <stdatomic.h>

struct shard {
	unsigned index;
	struct db db;
	uint64_t rev;          /* records ever applied */
	struct digest chain;   /* hash chained over them */
	uint64_t epoch;        /* highest of a record or a segment */
	uint64_t backward;     /* records with a lower epoch than one before: two writers */

	uint64_t seg, off;     /* all before this place is applied */
	uint32_t salt;         /* of segment seg */
	uint64_t left;         /* bytes behind off that are no whole record (yet) */
	int torn_next;         /* segment seg + 1 has no whole head: made by a writer that died */
	uint64_t stored;       /* bytes of all segments that count */
	int rfd;               /* segment seg for reading, or -1 */
	struct buf rbuf;

	int wfd;               /* segment seg for appending, or -1 */
	uint64_t synced;       /* bytes of it that fdatasync has covered */
	struct buf batch;      /* records of this turn */
	size_t flushed;        /* bytes of batch that are in the file */
	uint64_t turn_rev;     /* rev and chain before batch */
	struct digest turn_chain;
	atomic_int *cancel;    /* set by another thread: stop reading; or NULL */
	char error[256];
};

void shard_init(struct shard *s, unsigned index);
void shard_free(struct shard *s);

/* Reads from the beginning. Stops before segment `until` if that is not 0. */
int shard_load(struct shard *s, int dir, const struct manifest_shard *m, uint64_t until);

/* Applies what was appended since: the number of records. -EBADMSG: damage. */
int64_t shard_follow(struct shard *s, int dir, uint64_t until);

/* What is left at the end: 0 a torn tail, -EBADMSG if valid records lie behind it. */
int shard_check_tail(struct shard *s);

/* Opens the place again where this shard had stopped. -ESTALE: it is gone. */
int shard_reopen(struct shard *s, int dir);

/* Opens the active segment for appending; writes nothing. */
int shard_open_writer(struct shard *s, int dir);
/* Cuts a torn tail off. First write of a new owner. */
int shard_cut_tail(struct shard *s, int dir);
/* Makes segment `id` and goes on there. The one before is synced first: a reader
 * that finds a next segment takes the one before as whole. */
int shard_rotate(struct shard *s, int dir, uint64_t id, uint64_t epoch);
void shard_close_writer(struct shard *s);

/* Adds a record to the turn's batch. */
void shard_append(struct shard *s, const struct record *r);
/* Writes the batch with one write(2); on failure nothing of it stays in the file.
 * -ESTALE: another process has written here. -EIO with wfd -1: cannot be undone. */
int shard_flush(struct shard *s);
void shard_keep(struct shard *s);  /* the turn counts */
int shard_undo(struct shard *s);   /* it does not: file, revision and chain go back */
int shard_sync(struct shard *s);   /* fdatasync if there is something to sync, this turn's too */

/* The bytes that the live keys would take in a snapshot. */
static inline uint64_t shard_live_bytes(const struct shard *s)
{
	return s->db.bytes + s->db.count * RECORD_HEAD;
}

#endif
