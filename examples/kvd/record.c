#include "record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void record_encode(struct buf *to, const struct record *r, uint32_t salt)
{
	size_t n = RECORD_HEAD + (size_t)r->klen + r->vlen;
	char *p;

	buf_reserve(to, n);
	p = to->p + to->len;
	put32(p + 4, (uint32_t)(n - 8));
	put64(p + 8, r->epoch);
	put64(p + 16, r->expires);
	put32(p + 24, r->klen);
	put32(p + 28, (uint32_t)r->type);
	if (r->klen)
		memcpy(p + RECORD_HEAD, r->key, r->klen);
	if (r->vlen)
		memcpy(p + RECORD_HEAD + r->klen, r->val, r->vlen);
	put32(p, crc32c(p + 4, n - 4) ^ salt);
	to->len += n;
}

/* The size that the head claims, or 0 if no record begins like this. */
static size_t plausible(const char *p)
{
	uint32_t length = get32(p + 4), klen = get32(p + 24), type = get32(p + 28);

	if (length < RECORD_HEAD - 8 || length > MAX_RECORD - 8)
		return 0;
	if (klen > length - (RECORD_HEAD - 8) || type < RECORD_SET || type > RECORD_EXPIRED)
		return 0;
	return 8 + (size_t)length;
}

ssize_t record_decode(const char *p, size_t n, uint32_t salt, struct record *ret)
{
	size_t size;

	if (n < RECORD_HEAD)
		return 0;
	size = plausible(p);
	if (!size)
		return -EBADMSG;
	if (n < size)
		return 0;
	if ((crc32c(p + 4, size - 4) ^ salt) != get32(p))
		return -EBADMSG;
	ret->epoch = get64(p + 8);
	ret->expires = get64(p + 16);
	ret->klen = get32(p + 24);
	ret->type = (int)get32(p + 28);
	ret->key = p + RECORD_HEAD;
	ret->val = ret->key + ret->klen;
	ret->vlen = (uint32_t)(size - RECORD_HEAD - ret->klen);
	return (ssize_t)size;
}

int record_anywhere(const char *p, size_t n, uint32_t salt)
{
	struct record r;

	for (; n >= RECORD_HEAD; p++, n--)
		if (record_decode(p, n, salt, &r) > 0)
			return 1;
	return 0;
}

void segment_head_encode(char to[SEGMENT_HEAD], const struct segment_head *h)
{
	memset(to, 0, SEGMENT_HEAD);
	memcpy(to, "kvdlog1\n", 8);
	put32(to + 8, h->shard);
	put32(to + 12, h->kind);
	put64(to + 16, h->id);
	put64(to + 24, h->rev);
	put64(to + 32, h->chain.a);
	put64(to + 40, h->chain.b);
	put64(to + 48, h->epoch);
	put32(to + 60, crc32c(to, 60));
}

int segment_head_decode(const char from[SEGMENT_HEAD], struct segment_head *ret)
{
	if (memcmp(from, "kvdlog1\n", 8) || crc32c(from, 60) != get32(from + 60))
		return -EBADMSG;
	ret->shard = get32(from + 8);
	ret->kind = get32(from + 12);
	ret->id = get64(from + 16);
	ret->rev = get64(from + 24);
	ret->chain.a = get64(from + 32);
	ret->chain.b = get64(from + 40);
	ret->epoch = get64(from + 48);
	return 0;
}

void segment_name(char to[SEGMENT_NAME], unsigned shard, uint64_t id, int kind)
{
	snprintf(to, SEGMENT_NAME, "shard-%u-%06llu.%s", shard, (unsigned long long)id,
		 kind == SEGMENT_SNAPSHOT ? "snap" : "log");
}
