#include "base/slots.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "proto/slot.h"

static ssize_t read_slot(int fd, size_t slot_size, int place, uint8_t *buf)
{
	size_t got = 0;

	while (got < slot_size) {
		ssize_t n = sys_pread(fd, buf + got, slot_size - got, (off_t)(slot_size * (size_t)place + got));
		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int all_zero(const uint8_t *p, size_t n)
{
	while (n--)
		if (*p++)
			return 0;
	return 1;
}

/* A number behind the highest is not reached by counting, and yet a file may say it: the one
 * that follows it is newer all the same, or nothing would ever be written over it. */
static int newer(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b) > 0;
}

int slots_load(struct slots *s, int fd, size_t slot_size, uint8_t *buf, struct msg *ret, char *err,
               size_t err_size)
{
	int best = -1, written = 0, n;
	uint64_t sequence, best_sequence = 0;
	ssize_t got;

	*s = (struct slots){ .fd = fd, .slot_size = slot_size, .place = -1 };
	for (int i = 0; i < 2; i++) {
		if ((got = read_slot(fd, slot_size, i, buf)) < 0)
			return (int)got;
		written |= !all_zero(buf, (size_t)got);
		if (slot_decode(buf, (size_t)got, &sequence) >= 0 && (best < 0 || newer(sequence, best_sequence))) {
			best = i;
			best_sequence = sequence;
		}
	}
	if (best < 0 && !written)
		return -ENODATA;
	if (best < 0) {
		snprintf(err, err_size, "both records are damaged");
		return -EBADMSG;
	}
	if ((got = read_slot(fd, slot_size, best, buf)) < 0)
		return (int)got;
	if ((n = slot_decode(buf, (size_t)got, &sequence)) < 0)
		return n;
	s->place = best;
	s->sequence = sequence;
	return msg_decode(buf + SLOT_HEADER, (size_t)n, ret, err, err_size);
}

int slots_reserve(int fd, size_t slot_size)
{
	int e = sys_fallocate(fd, (off_t)(2 * slot_size));

	/* some file systems cannot: the size alone then, and ENOSPC is found by the store */
	return e == -EOPNOTSUPP ? sys_ftruncate(fd, (off_t)(2 * slot_size)) : e;
}

int slots_write(struct slots *s, const struct msg *m)
{
	uint8_t out[SLOT_HEADER + SLOTS_PAYLOAD_MAX], *frame = out + SLOT_HEADER - FRAME_HEADER;
	int place = s->place == 0, n = msg_encode(m, 0, frame, SLOTS_PAYLOAD_MAX);
	size_t size, done = 0;

	if (n < 0)
		return n;
	size = slot_encode(s->sequence + 1, out + SLOT_HEADER, (size_t)n - FRAME_HEADER, out);
	if (size > s->slot_size)
		return -EMSGSIZE;
	while (done < size) {
		ssize_t w = sys_pwrite(s->fd, out + done, size - done, (off_t)(s->slot_size * (size_t)place + done));
		if (w <= 0)
			return w < 0 ? (int)w : -EIO;
		done += (size_t)w;
	}
	s->before = s->place;
	s->place = place;
	s->sequence++;
	return 0;
}

int slots_sync(struct slots *s)
{
	const int e = sys_fdatasync(s->fd);

	if (!e)
		return 0;
	/* not durable, and yet readable: a supervisor that is started again must not believe what
	 * this one has acted against */
	sys_pwrite(s->fd, "\0\0\0", 4, (off_t)(s->slot_size * (size_t)s->place));
	s->place = s->before;
	s->sequence--;
	return e;
}

int slots_store(struct slots *s, const struct msg *m)
{
	const int e = slots_write(s, m);

	return e ? e : slots_sync(s);
}
