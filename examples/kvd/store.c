#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

PRINTF_LIKE(3, 4) static int fail(struct store *st, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(st->error, sizeof(st->error), fmt, ap);
	va_end(ap);
	return err;
}

static int shard_failed(struct store *st, const struct shard *s, int err)
{
	return fail(st, err, "%s", s->error);
}

static void make_shards(struct store *st, unsigned n)
{
	unsigned i;

	for (i = 0; i < st->shards; i++)
		shard_free(&st->shard[i]);
	free(st->shard);
	st->shards = n;
	st->shard = xcalloc(n, sizeof(*st->shard));
	for (i = 0; i < n; i++)
		shard_init(&st->shard[i], i);
}

int store_open(struct store *st, const char *path, unsigned shards)
{
	memset(st, 0, sizeof(*st));
	st->reader_lock = -1;
	st->segment_size = 64u << 20;
	st->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (st->dir < 0)
		return fail(st, -errno, "the data directory %s: %s%s", path, strerror(errno),
			    errno == ENOENT ? ". Make it first: mkdir -m 700" : "");
	st->path = xstrdup(path);
	make_shards(st, shards);
	return 0;
}

void store_close(struct store *st)
{
	make_shards(st, 0);
	free(st->shard);
	free(st->path);
	free(st->undo);
	if (st->reader_lock >= 0)
		close(st->reader_lock);
	if (st->dir >= 0)
		close(st->dir);
	memset(st, 0, sizeof(*st));
	st->dir = st->reader_lock = -1;
}

int store_lock_compaction(int dir, int how)
{
	int fd = openat(dir, "compaction.lock", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (flock(fd, how) < 0)
		if (errno != EINTR) {
			how = -errno;
			close(fd);
			return how;
		}
	return fd;
}

/* -- reading ------------------------------------------------------------- */

static int load_shards(struct store *st)
{
	unsigned i;
	int r;

	make_shards(st, st->m.shards);
	for (i = 0; i < st->shards; i++) {
		r = shard_load(&st->shard[i], st->dir, &st->m.shard[i], 0);
		if (r < 0)
			return shard_failed(st, &st->shard[i], r);
	}
	return 0;
}

/* Calls fn for each segment in the directory until it returns non-zero. */
static int each_segment(struct store *st, int (*fn)(struct store *st, unsigned shard, uint64_t id,
						    const char *name))
{
	int r = 0, fd = openat(st->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	unsigned long long id;
	struct dirent *d;
	unsigned shard;
	char end[8];

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	while (!r && (d = readdir(dir)) != NULL)
		if (sscanf(d->d_name, "shard-%u-%llu.%7s", &shard, &id, end) == 3)
			r = fn(st, shard, id, d->d_name);
	closedir(dir);
	return r;
}

static int has_records(struct store *st, unsigned shard, uint64_t id, const char *name)
{
	struct stat sb;

	(void)shard, (void)id;
	return fstatat(st->dir, name, &sb, 0) == 0 && sb.st_size > SEGMENT_HEAD;
}

/* No manifest: an empty store, unless there are logs. A lost manifest is no empty store. */
static int load_fresh(struct store *st)
{
	make_shards(st, st->shards);
	if (each_segment(st, has_records) > 0)
		return fail(st, -EBADMSG, "%s has logs but no MANIFEST: restore it", st->path);
	return 0;
}

int store_load(struct store *st)
{
	int r;

	if (st->reader_lock < 0) {
		r = store_lock_compaction(st->dir, LOCK_SH);
		if (r < 0 && r != -ENOENT)
			return fail(st, r, "compaction.lock: %s", strerror(-r));
		st->reader_lock = r < 0 ? -1 : r;
	}
	r = manifest_read(st->dir, &st->m);
	st->fresh = r == -ENOENT;
	if (st->fresh)
		return load_fresh(st);
	if (r < 0)
		return fail(st, r, "MANIFEST in %s: %s", st->path,
			    r == -EBADMSG ? "damaged" : strerror(-r));
	return load_shards(st);
}

int64_t store_follow(struct store *st)
{
	int64_t n, total = 0;
	unsigned i;
	int r;

	if (st->fresh) {
		r = store_load(st);
		return r < 0 ? r : 0;
	}
	for (i = 0; i < st->shards; i++) {
		n = shard_follow(&st->shard[i], st->dir, 0);
		if (n < 0)
			return shard_failed(st, &st->shard[i], (int)n);
		total += n;
	}
	return total;
}

static int check_epoch(struct store *st, uint64_t epoch)
{
	uint64_t highest = st->m.epoch;
	unsigned i;

	for (i = 0; i < st->shards; i++)
		if (st->shard[i].epoch > highest)
			highest = st->shard[i].epoch;
	if (st->fresh || epoch >= highest)
		return 0;
	return fail(st, -ESTALE, "the logs in %s were written with epoch %llu, this process has "
		    "epoch %llu: it is not the writer any more (or .handoff.lock was deleted: put "
		    "it back)", st->path, (unsigned long long)highest,
		    (unsigned long long)epoch);
}

int store_prepare(struct store *st, uint64_t epoch, int synced)
{
	int r = check_epoch(st, epoch);
	struct shard *s;
	unsigned i;

	if (r < 0)
		return r;
	st->epoch = epoch;
	for (i = 0; i < st->shards && !st->fresh; i++) {
		s = &st->shard[i];
		r = shard_check_tail(s);
		if (!r)
			r = shard_open_writer(s, st->dir);
		if (r < 0)
			return shard_failed(st, s, r);
		s->synced = synced ? s->off : 0;
		buf_free(&s->rbuf);
	}
	return 0;
}

/* -- becoming the writer, and ceasing ------------------------------------ */

static int remove_unnamed(struct store *st, unsigned shard, uint64_t id, const char *name)
{
	if (strstr(name, ".tmp") || (shard < st->shards && id < st->m.shard[shard].first))
		unlinkat(st->dir, name, 0);
	return 0;
}

void store_sweep(struct store *st)
{
	each_segment(st, remove_unnamed);
}

/* Made by a first start that died before its manifest: has only a head. */
static int remove_empty(struct store *st, unsigned shard, uint64_t id, const char *name)
{
	(void)shard, (void)id;
	unlinkat(st->dir, name, 0);
	return 0;
}

static int make_store(struct store *st)
{
	struct shard *s;
	unsigned i;
	int fd, r;

	each_segment(st, remove_empty);
	memset(&st->m, 0, sizeof(st->m));
	st->m.shards = st->shards;
	st->m.epoch = st->epoch;
	for (i = 0; i < st->shards; i++) {
		s = &st->shard[i];
		if (getrandom(&s->chain, sizeof(s->chain), 0) != (ssize_t)sizeof(s->chain))
			return fail(st, -errno, "getrandom: %s", strerror(errno));
		st->m.shard[i].first = 1;
		st->m.shard[i].chain = s->chain;
		r = shard_rotate(s, st->dir, 1, st->epoch);
		if (r < 0)
			return shard_failed(st, s, r);
	}
	fd = openat(st->dir, "compaction.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(st, -errno, "compaction.lock: %s", strerror(errno));
	close(fd);
	r = manifest_write(st->dir, &st->m);
	return r < 0 ? fail(st, r, "writing MANIFEST: %s", strerror(-r)) : 0;
}

int store_begin(struct store *st)
{
	unsigned i;
	int r;

	r = st->fresh ? make_store(st) : 0;
	if (r < 0)
		return r;
	for (i = 0; i < st->shards; i++) {
		r = shard_cut_tail(&st->shard[i], st->dir);
		if (r < 0)
			return shard_failed(st, &st->shard[i], r);
		st->shard[i].epoch = st->epoch;
	}
	st->fresh = 0;
	st->writing = 1;
	if (st->reader_lock >= 0)
		close(st->reader_lock);
	st->reader_lock = -1;
	return 0;
}

int store_seal(struct store *st)
{
	unsigned i;
	int r = store_sync(st);

	if (r < 0)
		return r;
	st->writing = 0;
	for (i = 0; i < st->shards; i++)
		shard_close_writer(&st->shard[i]);
	return 0;
}

/* What was sealed is still there, and all that is new lies behind it. */
static int reopen_tail(struct store *st)
{
	struct manifest m;
	int64_t n;
	unsigned i;

	if (manifest_read(st->dir, &m) < 0 || !manifest_equal(&m, &st->m))
		return -ESTALE;
	for (i = 0; i < st->shards; i++)
		if (shard_reopen(&st->shard[i], st->dir) < 0)
			return -ESTALE;
	n = store_follow(st);
	return n < 0 ? (int)n : 0;
}

int store_reopen(struct store *st, uint64_t epoch)
{
	int r;

	if (st->fresh || st->reader_lock >= 0 ||
	    (st->reader_lock = store_lock_compaction(st->dir, LOCK_SH)) < 0 ||
	    reopen_tail(st) < 0) {
		r = store_load(st);
		if (r < 0)
			return r;
	}
	return store_prepare(st, epoch, 0);
}

/* -- state --------------------------------------------------------------- */

uint64_t store_count(const struct store *st)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < st->shards; i++)
		n += st->shard[i].db.count;
	return n;
}

void store_state(const struct store *st, uint64_t *revs, unsigned char fingerprint[32])
{
	const struct digest keys[2] = { { 1, 0 }, { 2, 0 } };
	struct buf b = { 0 };
	struct digest d;
	unsigned i;

	buf_reserve(&b, st->shards * 24);
	for (i = 0; i < st->shards; i++) {
		revs[i] = st->shard[i].rev;
		put64(b.p + b.len, st->shard[i].rev);
		put64(b.p + b.len + 8, st->shard[i].chain.a);
		put64(b.p + b.len + 16, st->shard[i].chain.b);
		b.len += 24;
	}
	for (i = 0; i < 2; i++) {
		d = siphash24_128(keys[i], b.p, b.len);
		put64(fingerprint + 16 * i, d.a);
		put64(fingerprint + 16 * i + 8, d.b);
	}
	buf_free(&b);
}
