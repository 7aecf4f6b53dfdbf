/*
 * ring: a file of a fixed number of record slots (proto/slot.h), written in turn, in place:
 * the newest records, for good, in bounded space. What is torn by a loss of power is the
 * record that was being written, and the oldest, whose place it takes.
 */
#ifndef HANDOFF_BASE_RING_H
#define HANDOFF_BASE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

struct ring {
	int fd;               /* borrowed */
	size_t slot_size;
	unsigned slots;
	uint64_t newest;      /* number of the newest record; they count from 1; 0: none */
};

/* Looks for the newest record of fd. 0 or -errno. Reads the whole file. */
int ring_open(struct ring *r, int fd, size_t slot_size, unsigned slots);

/*
 * Reads a record into buf (slot_size bytes), from which *ret borrows. 0; -ENODATA: it is
 * damaged, overwritten, or was never there; -errno.
 */
int ring_read(const struct ring *r, uint64_t number, uint8_t *buf, struct msg *ret);

/*
 * Writes n bytes of a message's item as the record number: the newest again, or the next.
 * It lasts when ring_sync has returned 0, which reserves room for the next, as far as there is
 * any. 0 or -errno. Blocks on the disk seldom, ring_sync always.
 */
int ring_write(struct ring *r, uint64_t number, const void *item, size_t n);
int ring_sync(struct ring *r);

#endif
