/*
 * slots: a file of two record slots, written alternately in place (proto/slot.h). Never
 * renamed, preallocated: no ENOSPC at a commit, and fdatasync costs a fraction of what a
 * rename does.
 */
#ifndef HANDOFF_BASE_SLOTS_H
#define HANDOFF_BASE_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

#define SLOTS_PAYLOAD_MAX 16384u

struct slots {
	int fd;               /* borrowed or owned: the caller knows */
	size_t slot_size;
	uint64_t sequence;    /* of the newest record */
	int place;            /* where it lies: 0, 1; -1 nowhere */
	int before;           /* the same of the one before */
};

/*
 * Reads the newest valid record of fd, a message of msg.def; it borrows from buf
 * (SLOTS_PAYLOAD_MAX + a header). 0; -ENODATA: no record yet (an empty file); -EBADMSG:
 * both slots are broken: a sentence in err; -EIO, ...
 */
int slots_load(struct slots *s, int fd, size_t slot_size, uint8_t *buf, struct msg *ret,
               char *err, size_t err_size);

/* Preallocates both slots. 0 or -ENOSPC, ... */
int slots_reserve(int fd, size_t slot_size);

/* Writes m over the older slot. 0 or -errno: the newest record then still is the one before. It
 * lasts when slots_sync has returned 0; if that fails the record is taken back. Blocks on the
 * disk. */
int slots_write(struct slots *s, const struct msg *m);
int slots_sync(struct slots *s);
/* Both. */
int slots_store(struct slots *s, const struct msg *m);

#endif
