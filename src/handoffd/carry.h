/*
 * carry: what one life of handoffd hands to the next over an exec, as records of msg.def in a
 * sealed memfd: Carry, CarryPeer, then the others. Descriptors stay open under their numbers, and
 * the records name them; CarryBytes follow the record of the channel that they belong to.
 *
 * Whoever changes what a record means gives it another carry_version (version.h): a handoffd with
 * another one refuses, before anything has happened.
 */
#ifndef HANDOFF_CARRY_H
#define HANDOFF_CARRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/chan.h"
#include "proto/msg.h"

#define CARRY_PIECE 65536u   /* bytes of a channel in one record */

/* ---- what goes ---- */

struct carry { int fd, error; };   /* the first error stays */

/* A memfd, close-on-exec. 0 or -errno. */
int carry_begin(struct carry *c);
void carry_put(struct carry *c, const struct msg *m);
/* What ch has in hand, if anything. */
void carry_put_chan(struct carry *c, const struct chan *ch);
/* Seals it. The first error that there was; the descriptor is the caller's in any case. */
int carry_end(struct carry *c);

/* ---- what comes ---- */

struct carried {
	uint8_t *bytes;
	size_t n;
	struct msg head, peer;   /* Carry, CarryPeer */
};

/* Reads it from the beginning; fd stays open. 0; -EPROTONOSUPPORT: of another version;
 * -EBADMSG, -EIO, -ENOMEM, ...: a sentence in err. */
int carry_read(int fd, struct carried *ret, char *err, size_t err_size);
void carry_free(struct carried *c);
/* All records of that type, in order; ends at the first error of take. */
int carry_each(const struct carried *c, enum msg_type type, int (*take)(void *arg, const struct msg *m), void *arg);
/* What ch had in hand. As chan_restore(). */
int carry_restore(struct chan *ch, const struct msg_carry_bytes *m);
/* Each descriptor that a record names is closed by an exec from now on, or (keep) survives it.
 * 0 or -EBADF: one of them is not open. */
int carry_keep(const struct carried *c, bool keep);

#endif
