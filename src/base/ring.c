#include "base/ring.h"

#include <errno.h>
#include <stdlib.h>

#include "base/sys.h"
#include "proto/slot.h"

static off_t place(const struct ring *r, uint64_t number)
{
	return (off_t)(number % r->slots * r->slot_size);
}

/* The payload's length and *ret_number, -ENODATA, or -errno. */
static int load(const struct ring *r, off_t at, uint8_t *buf, uint64_t *ret_number)
{
	size_t got = 0;
	int n;

	while (got < r->slot_size) {
		ssize_t g = sys_pread(r->fd, buf + got, r->slot_size - got, at + (off_t)got);
		if (g < 0)
			return (int)g;
		if (g == 0)
			break;
		got += (size_t)g;
	}
	n = slot_decode(buf, got, ret_number);
	return n < 0 ? -ENODATA : n;
}

int ring_open(struct ring *r, int fd, size_t slot_size, unsigned slots)
{
	uint8_t *buf = malloc(slot_size);
	uint64_t number;
	int e = buf ? 0 : -ENOMEM;

	*r = (struct ring){ .fd = fd, .slot_size = slot_size, .slots = slots };
	for (unsigned i = 0; i < slots && !e; i++) {
		int n = load(r, (off_t)(i * slot_size), buf, &number);
		if (n < 0 && n != -ENODATA)
			e = n;
		else if (n >= 0 && number > r->newest && number < UINT64_MAX && number % slots == i)
			r->newest = number;
	}
	free(buf);
	return e;
}

int ring_read(const struct ring *r, uint64_t number, uint8_t *buf, struct msg *ret)
{
	uint64_t found;
	char why[200];
	int n = load(r, place(r, number), buf, &found);

	if (n < 0)
		return n;
	if (found != number || msg_decode(buf + SLOT_HEADER, (size_t)n, ret, why, sizeof why))
		return -ENODATA;
	return 0;
}

/* The oldest is overwritten in place; before the first round is over the file grows. */
static void reserve_next(const struct ring *r)
{
	if (r->newest + 1 < r->slots)
		sys_fallocate(r->fd, place(r, r->newest + 1) + (off_t)r->slot_size);
}

int ring_write(struct ring *r, uint64_t number, const void *item, size_t n)
{
	size_t size = SLOT_HEADER + n, done = 0;
	uint8_t *out = size <= r->slot_size ? malloc(size) : NULL;
	int e = out ? 0 : size <= r->slot_size ? -ENOMEM : -EMSGSIZE;

	if (out)
		slot_encode(number, item, n, out);
	while (!e && done < size) {
		ssize_t w = sys_pwrite(r->fd, out + done, size - done, place(r, number) + (off_t)done);
		if (w <= 0)
			e = w < 0 ? (int)w : -EIO;
		else
			done += (size_t)w;
	}
	free(out);
	if (!e)
		r->newest = number;
	return e;
}

int ring_sync(struct ring *r)
{
	reserve_next(r);
	return sys_fdatasync(r->fd);
}
