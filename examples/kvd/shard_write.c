#include "shard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct shard *s, int err, const char *what)
{
	snprintf(s->error, sizeof(s->error), "shard %u: %s: %s", s->index, what, strerror(-err));
	return err;
}

int shard_open_writer(struct shard *s, int dir)
{
	char name[SEGMENT_NAME];
	struct stat a, b;
	int fd;

	segment_name(name, s->index, s->seg, SEGMENT_LOG);
	fd = openat(dir, name, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return fail(s, -errno, "opening the log for writing");
	if (fstat(fd, &a) < 0 || fstat(s->rfd, &b) < 0 || a.st_ino != b.st_ino ||
	    a.st_dev != b.st_dev) {
		close(fd);
		return fail(s, -ESTALE, "the log was replaced while it was read");
	}
	shard_close_writer(s);
	s->wfd = fd;
	s->synced = 0; /* what an earlier owner wrote may not be on the disk yet */
	return 0;
}

void shard_close_writer(struct shard *s)
{
	if (s->wfd >= 0)
		close(s->wfd);
	s->wfd = -1;
}

int shard_cut_tail(struct shard *s, int dir)
{
	char name[SEGMENT_NAME];

	if (s->left && ftruncate(s->wfd, (off_t)s->off) < 0)
		return fail(s, -errno, "cutting the torn tail off");
	s->left = 0;
	segment_name(name, s->index, s->seg + 1, SEGMENT_LOG);
	if (s->torn_next && unlinkat(dir, name, 0) < 0)
		return fail(s, -errno, "removing a segment without a head");
	s->torn_next = 0;
	return 0;
}

static int make_segment(struct shard *s, int dir, const struct segment_head *h)
{
	char name[SEGMENT_NAME], head[SEGMENT_HEAD];
	size_t done;
	int fd, r;

	segment_name(name, s->index, h->id, SEGMENT_LOG);
	segment_head_encode(head, h);
	fd = openat(dir, name, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(s, -errno, "making a log segment");
	r = write_all(fd, head, sizeof(head), &done);
	/* both, before a record goes there: a segment without a name or a head is lost */
	if (!r && (fdatasync(fd) < 0 || fsync(dir) < 0))
		r = -errno;
	if (!r)
		return fd;
	close(fd);
	unlinkat(dir, name, 0);
	return fail(s, r, "making a log segment");
}

int shard_rotate(struct shard *s, int dir, uint64_t id, uint64_t epoch)
{
	struct segment_head h = { s->index, SEGMENT_LOG, id, s->rev, epoch, s->chain };
	int fd;

	if (s->wfd >= 0 && shard_sync(s) < 0)
		return -EIO;
	fd = make_segment(s, dir, &h);
	if (fd < 0)
		return fd;
	shard_close_writer(s);
	if (s->rfd >= 0)
		close(s->rfd);
	s->rfd = -1;
	s->wfd = fd;
	s->seg = id;
	s->off = s->synced = SEGMENT_HEAD;
	s->stored += SEGMENT_HEAD;
	s->salt = (uint32_t)s->chain.a;
	if (epoch > s->epoch)
		s->epoch = epoch;
	return 0;
}

void shard_append(struct shard *s, const struct record *r)
{
	size_t at = s->batch.len;

	if (!at) {
		s->turn_rev = s->rev;
		s->turn_chain = s->chain;
	}
	record_encode(&s->batch, r, s->salt);
	s->chain = siphash24_128(s->chain, s->batch.p + at, s->batch.len - at);
	s->rev++;
}

int shard_flush(struct shard *s)
{
	struct stat st;
	int r;

	if (!s->batch.len)
		return 0;
	if (s->wfd < 0)
		return fail(s, -EIO, "the log is closed");
	if (fstat(s->wfd, &st) < 0)
		return fail(s, -errno, "looking at the log");
	if ((uint64_t)st.st_size != s->off) {
		snprintf(s->error, sizeof(s->error), "shard %u: the log has %lld bytes, this "
			 "process had written it up to %llu: another process writes here",
			 s->index, (long long)st.st_size, (unsigned long long)s->off);
		return -ESTALE;
	}
	r = write_all(s->wfd, s->batch.p, s->batch.len, &s->flushed);
	return r < 0 ? fail(s, r, "writing the log") : 0;
}

void shard_keep(struct shard *s)
{
	s->off += s->flushed;
	s->stored += s->flushed;
	s->flushed = 0;
	s->batch.len = 0;
	if (s->batch.cap > (1u << 20)) /* a large value went through: give it back */
		buf_free(&s->batch);
}

int shard_undo(struct shard *s)
{
	int r = 0;

	if (!s->batch.len)
		return 0;
	s->rev = s->turn_rev;
	s->chain = s->turn_chain;
	if (s->flushed && ftruncate(s->wfd, (off_t)s->off) < 0) {
		r = fail(s, -errno, "taking back a failed write");
		shard_close_writer(s); /* the file is ahead of the memory now: no more writes */
	}
	s->flushed = 0;
	s->batch.len = 0;
	if (s->synced > s->off)
		s->synced = s->off;
	return r;
}

int shard_sync(struct shard *s)
{
	uint64_t end = s->off + s->flushed;

	if (s->wfd < 0 || s->synced >= end)
		return 0;
	if (fdatasync(s->wfd) < 0)
		return fail(s, -errno, "fdatasync of the log");
	s->synced = end;
	return 0;
}
