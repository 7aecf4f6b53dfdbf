/*
 * chan: frames over a unix stream socket, non-blocking, with descriptors.
 *
 * One recvmsg never goes past the end of a frame: a larger read would merge it with the
 * next frame, whose descriptors would arrive with this one, or be lost (unix(7)).
 */
#ifndef HANDOFF_BASE_CHAN_H
#define HANDOFF_BASE_CHAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/msg.h"

#define CHAN_ITEM_MAX (82u * 1024)   /* the largest message of msg.def, and room to say no */
#define CHAN_OUT_MAX  (512u * 1024)  /* queued for a peer that does not read: then it is cut off */

struct chan_node;

struct chan {
	int fd;                        /* owned; -1: closed */
	uint16_t version;              /* of the frames sent */
	size_t item_max;
	bool no_fds;
	bool torn;                     /* -EBADMSG, because the stream ended inside a frame */
	bool at_end;                   /* nothing is left to be read, and nothing can come */
	/* reading */
	uint8_t header[FRAME_HEADER];
	size_t header_got, body_got, body_size;
	uint8_t *body;
	size_t body_cap;
	int fds[FRAME_MAX_FDS];        /* came with the frame being read */
	unsigned nfds;
	bool handed_out;               /* the last frame is in the caller's hands */
	/* writing */
	struct chan_node *out, **out_tail;
	size_t out_bytes;
	char error[160];               /* after -EBADMSG: what was wrong */
};

void chan_init(struct chan *c, int fd);   /* consumes fd; never blocks, whatever its flags */
/* For a peer that is nobody's: no frame is longer, and descriptors end it without having been
 * in this process's table. */
void chan_limit(struct chan *c, size_t item_max);
/* Closes and frees all; takes a closed one. */
void chan_close(struct chan *c);
/* In a forked child: closes its descriptors and frees nothing. Async-signal-safe. */
void chan_abandon(const struct chan *c);

/*
 * Takes the next whole frame. 1: *ret, which borrows from c until the next call; its
 * descriptors are in c->fds until then (chan_take_fds). 0: nothing (more) now. Errors:
 * -ENODATA end of the stream, -ECONNRESET the same with loss; -EBADMSG not this
 * protocol: c->error says what, close it; -EMFILE, -ENOMEM, ...
 * A message that may carry no descriptors and does is -EBADMSG.
 */
int chan_recv(struct chan *c, struct msg *ret);

/* The frame just received was not taken: the next chan_recv has it again. */
static inline void chan_unread(struct chan *c) { c->handed_out = false; }

/* Moves the descriptors of the frame just received to fds; returns how many. */
unsigned chan_take_fds(struct chan *c, int fds[FRAME_MAX_FDS]);

/*
 * Sends a frame, with copies of fds (borrowed). What the socket does not take is
 * queued, also for want of the kernel's memory. 0; -EPIPE the peer is gone (what it sent can
 * still be read); -EMSGSIZE; -ENOBUFS over CHAN_OUT_MAX; -ENOMEM, -EMFILE, -ETOOMANYREFS.
 * After an error nothing of the frame has left, or the stream is ended (chan_end).
 */
int chan_send(struct chan *c, const struct msg *m, const int *fds, unsigned nfds);
/* The same without descriptors, but drops it where chan_send would queue it: a heartbeat. */
int chan_offer(struct chan *c, const struct msg *m);
/* Sends what is queued. 0: nothing is left; 1: wait until writable; -EPIPE, ... */
int chan_flush(struct chan *c);
/* Ends the stream both ways, when the peer waits for a frame that cannot be sent: here and there
 * what has come is still read, then -ENODATA. The descriptor stays open. */
void chan_end(struct chan *c);
/*
 * What it has in hand, for another life of this process: the part of a frame that has come, then
 * (out) what waits to be sent, with the descriptors that belong to it. add is called for pieces
 * of at most max bytes, which borrow from c; its first error is returned.
 */
struct chan_piece { bool out; struct span bytes; const int *fds; unsigned nfds; };
int chan_save(const struct chan *c, size_t max, int (*add)(void *arg, const struct chan_piece *p), void *arg);
/* A piece of it, in that order, before anything else is done with c. Its descriptors are c's, or
 * closed. 0, -EBADMSG, -ENOMEM, -EMFILE. */
int chan_restore(struct chan *c, const struct chan_piece *p);
static inline bool chan_pending(const struct chan *c) { return c->out != NULL; }
/* A frame has begun to arrive and is not complete. */
static inline bool chan_midframe(const struct chan *c) { return c->header_got > 0 && !c->handed_out; }

#endif
