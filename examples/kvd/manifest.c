#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME     "MANIFEST"
#define NAME_NEW "MANIFEST.new"

static void encode(const struct manifest *m, struct buf *b)
{
	const struct manifest_shard *s;
	unsigned i;

	buf_printf(b, "kvd-manifest 1 shards %u epoch %llu\n", m->shards,
		   (unsigned long long)m->epoch);
	for (i = 0; i < m->shards; i++) {
		s = &m->shard[i];
		buf_printf(b, "first %llu revision %llu chain %016llx %016llx "
			      "snapshot %d keys %llu chain %016llx %016llx\n",
			   (unsigned long long)s->first, (unsigned long long)s->rev,
			   (unsigned long long)s->chain.a, (unsigned long long)s->chain.b,
			   s->snapshot, (unsigned long long)s->snapshot_keys,
			   (unsigned long long)s->snapshot_chain.a,
			   (unsigned long long)s->snapshot_chain.b);
	}
	buf_printf(b, "crc %08x\n", crc32c(b->p, b->len));
}

static int decode_shard(const char **p, struct manifest_shard *s)
{
	unsigned long long v[8];
	int used = 0;

	if (sscanf(*p, "first %llu revision %llu chain %llx %llx snapshot %llu keys %llu "
		       "chain %llx %llx\n%n",
		   &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &used) != 8 || !used)
		return -EBADMSG;
	s->first = v[0];
	s->rev = v[1];
	s->chain = (struct digest){ v[2], v[3] };
	s->snapshot = v[4] != 0;
	s->snapshot_keys = v[5];
	s->snapshot_chain = (struct digest){ v[6], v[7] };
	*p += used;
	return 0;
}

static int decode(const char *p, size_t n, struct manifest *m)
{
	const char *start = p;
	unsigned long long epoch;
	unsigned i, crc;
	int used = 0;

	memset(m, 0, sizeof(*m));
	if (sscanf(p, "kvd-manifest 1 shards %u epoch %llu\n%n", &m->shards, &epoch, &used) != 2 ||
	    !used || !m->shards || m->shards > MAX_SHARDS)
		return -EBADMSG;
	m->epoch = epoch;
	for (p += used, i = 0; i < m->shards; i++)
		if (decode_shard(&p, &m->shard[i]) < 0)
			return -EBADMSG;
	if (n - (size_t)(p - start) != 13 || sscanf(p, "crc %8x", &crc) != 1 ||
	    crc != crc32c(start, (size_t)(p - start)))
		return -EBADMSG;
	return 0;
}

int manifest_read(int dir, struct manifest *ret)
{
	struct manifest m;
	struct buf b = { 0 };
	ssize_t k = 0;
	int fd, r;

	fd = openat(dir, NAME, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do {
		buf_reserve(&b, 4096 + 1);
		k = read(fd, b.p + b.len, 4096);
		b.len += k > 0 ? (size_t)k : 0;
	} while (k > 0 && b.len < (1u << 20));
	r = k < 0 ? -errno : 0;
	close(fd);
	if (!r) {
		b.p[b.len] = '\0';
		r = decode(b.p, b.len, &m);
	}
	if (!r)
		*ret = m;
	buf_free(&b);
	return r;
}

static int write_new(int dir, const struct buf *b)
{
	size_t done;
	int fd, r;

	fd = openat(dir, NAME_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, b->p, b->len, &done);
	/* before the rename: else a crash may leave the new name with no bytes */
	if (!r && fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

int manifest_write(int dir, const struct manifest *m)
{
	struct buf b = { 0 };
	int r;

	encode(m, &b);
	r = write_new(dir, &b);
	if (!r && renameat(dir, NAME_NEW, dir, NAME) < 0)
		r = -errno;
	if (!r && fsync(dir) < 0)
		r = -errno;
	buf_free(&b);
	return r;
}

int manifest_equal(const struct manifest *a, const struct manifest *b)
{
	struct buf x = { 0 }, y = { 0 };
	int same;

	encode(a, &x);
	encode(b, &y);
	same = x.len == y.len && !memcmp(x.p, y.p, x.len);
	buf_free(&x);
	buf_free(&y);
	return same;
}
