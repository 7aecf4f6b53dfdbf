#include "shard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (256u << 10)

void shard_init(struct shard *s, unsigned index)
{
	memset(s, 0, sizeof(*s));
	s->index = index;
	s->rfd = s->wfd = -1;
}

void shard_free(struct shard *s)
{
	db_free(&s->db);
	if (s->rfd >= 0)
		close(s->rfd);
	if (s->wfd >= 0)
		close(s->wfd);
	buf_free(&s->rbuf);
	buf_free(&s->batch);
	shard_init(s, s->index);
}

PRINTF_LIKE(3, 4) static int fail(struct shard *s, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
	return err;
}

static int damaged(struct shard *s, int kind, uint64_t id, uint64_t at, const char *what)
{
	char name[SEGMENT_NAME];

	segment_name(name, s->index, id, kind);
	return fail(s, -EBADMSG, "%s is damaged at byte %llu: %s", name,
		    (unsigned long long)at, what);
}

static void apply(struct shard *s, const struct record *r)
{
	struct entry *e;

	if (r->type == RECORD_SET) {
		free(db_put(&s->db, entry_new(r->key, r->klen, r->val, r->vlen, r->expires)));
	} else if ((e = db_find(&s->db, r->key, r->klen)) != NULL) {
		if (r->type == RECORD_EXPIRE) {
			db_expire(&s->db, e, r->expires);
		} else {
			db_remove(&s->db, e);
			free(e);
		}
	}
	if (r->epoch < s->epoch)
		s->backward++;
	else
		s->epoch = r->epoch;
}

/* Applies the whole records of the n bytes at rbuf: bytes taken. *ret_bad: what
 * follows is no record. */
static size_t apply_chunk(struct shard *s, size_t n, struct digest *chain, uint64_t *count,
			  int *ret_bad)
{
	struct record r;
	size_t at = 0;
	ssize_t k;

	while ((k = record_decode(s->rbuf.p + at, n - at, s->salt, &r)) > 0) {
		apply(s, &r);
		*chain = siphash24_128(*chain, s->rbuf.p + at, (size_t)k);
		(*count)++;
		at += (size_t)k;
	}
	*ret_bad = k < 0;
	return at;
}

/* Applies the whole records from *off to the end of the file. *left: the bytes
 * behind them. */
static int read_records(struct shard *s, int fd, uint64_t *off, struct digest *chain,
			uint64_t *count, uint64_t *left)
{
	struct stat st;
	size_t taken;
	ssize_t n;
	int bad = 0;

	buf_reserve(&s->rbuf, CHUNK);
	for (;;) {
		if (s->cancel && atomic_load(s->cancel))
			return -ECANCELED;
		n = pread(fd, s->rbuf.p, s->rbuf.cap, (off_t)*off);
		if (n < 0)
			return fail(s, -errno, "shard %u: reading: %s", s->index, strerror(errno));
		taken = apply_chunk(s, (size_t)n, chain, count, &bad);
		*off += taken;
		if (bad || (size_t)n < s->rbuf.cap)
			break;
		if (!taken)
			buf_reserve(&s->rbuf, s->rbuf.cap * 2); /* a record larger than it */
	}
	*left = (uint64_t)n - taken;
	if (bad && fstat(fd, &st) == 0 && (uint64_t)st.st_size > *off)
		*left = (uint64_t)st.st_size - *off;
	return 0;
}

/* Opens a segment and checks its head. -ENOENT: none. -EAGAIN: no whole head yet. */
static int open_segment(struct shard *s, int dir, uint64_t id, int kind,
			struct segment_head *ret, int *ret_fd)
{
	static const char nothing[SEGMENT_HEAD];
	char name[SEGMENT_NAME], head[SEGMENT_HEAD];
	ssize_t n;
	int fd;

	segment_name(name, s->index, id, kind);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(s, -errno, "%s: %s", name, strerror(errno));
	n = pread(fd, head, sizeof(head), 0);
	if (n == SEGMENT_HEAD && segment_head_decode(head, ret) == 0 && ret->shard == s->index &&
	    ret->id == id && ret->kind == (uint32_t)kind) {
		*ret_fd = fd;
		return 0;
	}
	close(fd);
	if (n < 0)
		return fail(s, -EIO, "%s: cannot be read", name);
	if (n < SEGMENT_HEAD || !memcmp(head, nothing, sizeof(head)))
		return -EAGAIN;
	return damaged(s, kind, id, 0, "its head is not valid");
}

/* Goes to the beginning of segment id, which must go on where this one ends. */
static int enter_segment(struct shard *s, int dir, uint64_t id)
{
	struct segment_head head;
	int r, fd;

	r = open_segment(s, dir, id, SEGMENT_LOG, &head, &fd);
	if (r < 0)
		return r;
	if (head.rev != s->rev || !digest_equal(head.chain, s->chain)) {
		close(fd);
		return damaged(s, SEGMENT_LOG, id, 0, head.rev != s->rev ?
			       "it does not begin where the segment before ends" :
			       "the records before it are not those that were written");
	}
	if (head.epoch > s->epoch)
		s->epoch = head.epoch;
	if (s->rfd >= 0)
		close(s->rfd);
	s->rfd = fd;
	s->seg = id;
	s->off = SEGMENT_HEAD;
	s->stored += SEGMENT_HEAD;
	s->salt = (uint32_t)head.chain.a;
	return 0;
}

static int load_snapshot(struct shard *s, int dir, const struct manifest_shard *m)
{
	struct digest chain = { 0, 0 };
	struct segment_head head;
	uint64_t off = SEGMENT_HEAD, left = 0, keys = 0;
	int r, fd;

	r = open_segment(s, dir, m->first, SEGMENT_SNAPSHOT, &head, &fd);
	if (r < 0)
		return r == -EAGAIN ? damaged(s, SEGMENT_SNAPSHOT, m->first, 0, "no head") : r;
	s->salt = (uint32_t)head.chain.a;
	r = read_records(s, fd, &off, &chain, &keys, &left);
	close(fd);
	s->stored += off;
	if (r < 0)
		return r;
	if (left)
		return damaged(s, SEGMENT_SNAPSHOT, m->first, off, "this is no record");
	if (keys != m->snapshot_keys || !digest_equal(chain, m->snapshot_chain))
		return damaged(s, SEGMENT_SNAPSHOT, m->first, off,
			       "it is not the snapshot that the manifest means");
	return 0;
}

static int64_t read_segment(struct shard *s)
{
	uint64_t before = s->rev, from = s->off;
	int r = read_records(s, s->rfd, &s->off, &s->chain, &s->rev, &s->left);

	s->stored += s->off - from;
	return r < 0 ? r : (int64_t)(s->rev - before);
}

int64_t shard_follow(struct shard *s, int dir, uint64_t until)
{
	struct segment_head head;
	int64_t n, total = 0;
	int r, fd;

	for (;;) {
		n = read_segment(s);
		if (n < 0)
			return n;
		total += n;
		if (s->seg + 1 == until)
			return total;
		r = open_segment(s, dir, s->seg + 1, SEGMENT_LOG, &head, &fd);
		s->torn_next = r == -EAGAIN;
		if (r == -ENOENT || r == -EAGAIN)
			return total;
		if (r < 0)
			return r;
		close(fd);
		/* the writer has left this segment: what it wrote between the read above
		 * and leaving is read now, and then this one is complete */
		n = read_segment(s);
		if (n < 0)
			return n;
		total += n;
		if (s->left)
			return damaged(s, SEGMENT_LOG, s->seg, s->off, "this is no record");
		r = enter_segment(s, dir, s->seg + 1);
		if (r < 0)
			return r;
	}
}

int shard_load(struct shard *s, int dir, const struct manifest_shard *m, uint64_t until)
{
	atomic_int *cancel = s->cancel;
	int64_t n;
	int r = 0;

	shard_free(s);
	s->cancel = cancel;
	if (m->snapshot)
		r = load_snapshot(s, dir, m);
	if (r < 0)
		return r;
	s->rev = m->rev;
	s->chain = m->chain;
	r = enter_segment(s, dir, m->first);
	if (r == -EAGAIN)
		return damaged(s, SEGMENT_LOG, m->first, 0, "no head");
	if (r < 0)
		return r;
	n = shard_follow(s, dir, until);
	return n < 0 ? (int)n : 0;
}

int shard_reopen(struct shard *s, int dir)
{
	struct segment_head head;
	struct stat st;
	int r, fd;

	r = open_segment(s, dir, s->seg, SEGMENT_LOG, &head, &fd);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < s->off ||
	    (uint32_t)head.chain.a != s->salt) {
		close(fd);
		return fail(s, -ESTALE, "shard %u: its log is not the one it was", s->index);
	}
	if (s->rfd >= 0)
		close(s->rfd);
	s->rfd = fd;
	return 0;
}

int shard_check_tail(struct shard *s)
{
	struct buf b = { 0 };
	ssize_t n;
	int found;

	if (!s->left)
		return 0;
	buf_reserve(&b, s->left);
	n = pread(s->rfd, b.p, s->left, (off_t)s->off);
	found = n > 0 && record_anywhere(b.p, (size_t)n, s->salt);
	buf_free(&b);
	if (!found)
		return 0;
	return damaged(s, SEGMENT_LOG, s->seg, s->off, "this is no record, but valid ones follow. "
		       "Restore the file; or cut it there (truncate -s) to give up what follows");
}
