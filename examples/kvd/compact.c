#include "compact.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#define WRITE_CHUNK (1u << 20)
#define SYNC_CHUNK  (8u << 20)

struct writer {
	struct compaction *c;
	struct buf b;
	struct digest chain;
	uint64_t keys, bytes, synced;
	uint32_t salt;
	int fd, error;
};

PRINTF_LIKE(3, 4) static int fail(struct compaction *c, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
	return err;
}

void compact_init(struct compaction *c)
{
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->gate, NULL);
	c->closed = 1;
}

/* -- in the job's thread ------------------------------------------------- */

static int writer_flush(struct writer *w)
{
	size_t done;
	int r = write_all(w->fd, w->b.p, w->b.len, &done);

	w->bytes += done;
	w->b.len = 0;
	/* little by little: a large sync at the end would hold up the log's own */
	if (!r && w->bytes - w->synced >= SYNC_CHUNK) {
		r = fdatasync(w->fd) < 0 ? -errno : 0;
		w->synced = w->bytes;
	}
	return r;
}

static int write_key(void *arg, const struct entry *e)
{
	struct writer *w = arg;
	const struct record r = { RECORD_SET, w->c->epoch, e->expires, e->data, entry_value(e),
				  e->klen, e->vlen };
	size_t at = w->b.len;

	record_encode(&w->b, &r, w->salt);
	w->chain = siphash24_128(w->chain, w->b.p + at, w->b.len - at);
	w->keys++;
	if (w->b.len < WRITE_CHUNK)
		return 0;
	return atomic_load(&w->c->cancel) ? -ECANCELED : writer_flush(w);
}

static void temporary_name(char to[SEGMENT_NAME + 8], const struct compaction *c)
{
	char name[SEGMENT_NAME];

	segment_name(name, c->shard, c->cut, SEGMENT_SNAPSHOT);
	snprintf(to, SEGMENT_NAME + 8, "%s.tmp", name);
}

static int write_snapshot(struct compaction *c, struct shard *s)
{
	const struct segment_head h = { c->shard, SEGMENT_SNAPSHOT, c->cut, c->rev, c->epoch,
					c->chain };
	struct manifest_shard *m = &c->m.shard[c->shard];
	struct writer w = { .c = c, .salt = (uint32_t)c->chain.a };
	char name[SEGMENT_NAME + 8], head[SEGMENT_HEAD];
	int r;

	temporary_name(name, c);
	w.fd = openat(c->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (w.fd < 0)
		return fail(c, -errno, "%s: %s", name, strerror(errno));
	segment_head_encode(head, &h);
	buf_add(&w.b, head, sizeof(head));
	r = db_each(&s->db, write_key, &w);
	if (!r)
		r = writer_flush(&w);
	if (!r && fsync(w.fd) < 0)
		r = -errno;
	close(w.fd);
	buf_free(&w.b);
	*m = (struct manifest_shard){ c->cut, c->rev, c->chain, 1, w.chain, w.keys };
	c->bytes = w.bytes;
	return r < 0 ? fail(c, r, "writing %s: %s", name, strerror(-r)) : 0;
}

static int rename_and_publish(struct compaction *c, const struct manifest *before)
{
	char name[SEGMENT_NAME], tmp[SEGMENT_NAME + 8];
	struct manifest now;

	if (manifest_read(c->dir, &now) < 0 || !manifest_equal(&now, before))
		return fail(c, -ESTALE, "the manifest was replaced by another process");
	temporary_name(tmp, c);
	segment_name(name, c->shard, c->cut, SEGMENT_SNAPSHOT);
	/* its name must be durable before the manifest that names it */
	if (renameat(c->dir, tmp, c->dir, name) < 0 || fsync(c->dir) < 0)
		return fail(c, -errno, "publishing %s: %s", name, strerror(errno));
	c->m.epoch = c->epoch;
	if (manifest_write(c->dir, &c->m) < 0)
		return fail(c, -EIO, "writing MANIFEST failed");
	return 0;
}

static void remove_old(struct compaction *c, const struct manifest_shard *old)
{
	char name[SEGMENT_NAME];
	uint64_t id;

	if (old->snapshot) {
		segment_name(name, c->shard, old->first, SEGMENT_SNAPSHOT);
		unlinkat(c->dir, name, 0);
	}
	for (id = old->first; id < c->cut; id++) {
		segment_name(name, c->shard, id, SEGMENT_LOG);
		unlinkat(c->dir, name, 0);
	}
}

static int publish(struct compaction *c, const struct manifest *before)
{
	int r = 0, lock;

	pthread_mutex_lock(&c->gate);
	lock = c->closed ? -ECANCELED : store_lock_compaction(c->dir, LOCK_EX | LOCK_NB);
	if (lock < 0)
		r = fail(c, lock, lock == -EWOULDBLOCK ? "a reader is at work" : "put off");
	else
		r = rename_and_publish(c, before);
	if (!r)
		remove_old(c, &before->shard[c->shard]);
	if (lock >= 0)
		close(lock);
	pthread_mutex_unlock(&c->gate);
	return r;
}

static int compact(struct compaction *c)
{
	struct manifest before = c->m;
	char name[SEGMENT_NAME + 8];
	struct shard s;
	int r;

	shard_init(&s, c->shard);
	s.cancel = &c->cancel;
	r = shard_load(&s, c->dir, &c->m.shard[c->shard], c->cut);
	if (r < 0)
		fail(c, r, "%s", s.error);
	else if (s.rev != c->rev || !digest_equal(s.chain, c->chain))
		r = fail(c, -EBADMSG, "shard %u: the log on the disk is not what was written",
			 c->shard);
	if (!r)
		r = write_snapshot(c, &s);
	shard_free(&s);
	if (!r)
		r = publish(c, &before);
	if (r < 0) {
		temporary_name(name, c);
		unlinkat(c->dir, name, 0);
	}
	return r;
}

static void compact_job(void *arg)
{
	struct compaction *c = arg;

	/* on Linux this is the thread's own niceness: clients come first */
	setpriority(PRIO_PROCESS, 0, 10);
	c->result = compact(c);
}

/* -- in the loop's thread ------------------------------------------------ */

int compact_candidate(const struct store *st, uint64_t min_bytes)
{
	const struct shard *s;
	uint64_t waste, most = min_bytes;
	int best = -1;
	unsigned i;

	for (i = 0; i < st->shards; i++) {
		s = &st->shard[i];
		waste = s->stored > shard_live_bytes(s) ? s->stored - shard_live_bytes(s) : 0;
		if (waste >= most && waste >= shard_live_bytes(s)) {
			most = waste;
			best = (int)i;
		}
	}
	return best;
}

int compact_start(struct compaction *c, struct store *st, unsigned i, int wake_fd)
{
	struct shard *s = &st->shard[i];
	int r;

	if (c->job.running || c->closed || !st->writing || store_turn_open(st))
		return -EBUSY;
	r = store_lock_compaction(st->dir, LOCK_EX | LOCK_NB);
	if (r < 0)
		return r; /* a reader is at work: all of it would be in vain */
	close(r);
	r = shard_rotate(s, st->dir, s->seg + 1, st->epoch);
	if (r < 0)
		return r;
	c->dir = st->dir;
	c->shard = i;
	c->m = st->m;
	c->cut = s->seg;
	c->rev = s->rev;
	c->chain = s->chain;
	c->epoch = st->epoch;
	atomic_store(&c->cancel, 0);
	return job_start(&c->job, compact_job, c, wake_fd);
}

int compact_reap(struct compaction *c, struct store *st, int wait)
{
	struct shard *s;

	if (!job_reap(&c->job, wait))
		return 0;
	if (c->result < 0) {
		if (c->result != -ECANCELED && c->result != -EWOULDBLOCK)
			log_line("compaction of shard %u failed, its log stays as it is: %s",
				 c->shard, c->error);
		return 1;
	}
	st->m = c->m;
	s = &st->shard[c->shard];
	/* segments between the cut and the active one are at most one turn's worth */
	s->stored = c->bytes + s->off + (s->seg - c->cut) * st->segment_size;
	log_line("compaction of shard %u: %llu keys, %llu bytes", c->shard,
		 (unsigned long long)c->m.shard[c->shard].snapshot_keys,
		 (unsigned long long)c->bytes);
	return 1;
}

void compact_close(struct compaction *c)
{
	atomic_store(&c->cancel, 1);
	pthread_mutex_lock(&c->gate);
	c->closed = 1;
	pthread_mutex_unlock(&c->gate);
}

void compact_open(struct compaction *c)
{
	pthread_mutex_lock(&c->gate);
	c->closed = 0;
	pthread_mutex_unlock(&c->gate);
}

/* -- syncing ------------------------------------------------------------- */

static void sync_job(void *arg)
{
	struct syncing *y = arg;
	unsigned i;

	for (i = 0; i < y->n; i++)
		if (y->fd[i] >= 0 && fdatasync(y->fd[i]) < 0)
			y->result = -errno;
}

int sync_start(struct syncing *y, struct store *st, int wake_fd)
{
	struct shard *s;
	unsigned i;
	int r;

	if (y->job.running || !store_dirty(st))
		return 0;
	y->n = st->shards;
	y->result = 0;
	for (i = 0; i < y->n; i++) {
		s = &st->shard[i];
		/* copies: the loop may close its own while this goes on */
		y->fd[i] = s->wfd >= 0 && s->synced < s->off ?
			   fcntl(s->wfd, F_DUPFD_CLOEXEC, 3) : -1;
		y->seg[i] = s->seg;
		y->off[i] = y->fd[i] >= 0 ? s->off : 0;
	}
	r = job_start(&y->job, sync_job, y, wake_fd);
	for (i = 0; r < 0 && i < y->n; i++)
		if (y->fd[i] >= 0)
			close(y->fd[i]);
	return r;
}

int sync_reap(struct syncing *y, struct store *st, int wait)
{
	struct shard *s;
	unsigned i;

	if (!job_reap(&y->job, wait))
		return 0;
	for (i = 0; i < y->n; i++) {
		if (y->fd[i] >= 0)
			close(y->fd[i]);
		s = i < st->shards ? &st->shard[i] : NULL;
		if (s && !y->result && s->seg == y->seg[i] && s->synced < y->off[i])
			s->synced = y->off[i];
	}
	if (y->result < 0) {
		st->broken = y->result;
		log_line("fdatasync of the logs failed, writes are refused from now on: %s",
			 strerror(-y->result));
	}
	return 1;
}
