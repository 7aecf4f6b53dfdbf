/*
 * move: the two ends of the transfer channel, over which live connections go from O to N
 * (rules.md, Live connections). Pure: messages in, what they mean out; the descriptors
 * and the states are the library's.
 */
#ifndef HANDOFF_PROTO_MOVE_H
#define HANDOFF_PROTO_MOVE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"

#define CAP_CONNECTIONS UINT64_C(1)   /* in Hello's capabilities */

#define MOVE_BATCH  FRAME_MAX_FDS     /* descriptors with a batch, memfds among them */
#define MOVE_WINDOW 8u                /* batches that may be unanswered: what lies in the channel
                                       * counts against O's limits, unix(7) ETOOMANYREFS */
#define MOVE_INLINE 65536u            /* a larger state lies in a memfd beside its batch */
#define MOVE_NAME   64u               /* bytes of a connection's name */

/* A descriptor beside the connection's own carries its state. */
static inline bool move_beside(uint64_t state_size) { return state_size > MOVE_INLINE; }

/* How many descriptors come with a batch. */
unsigned move_fds(const struct msg *batch);

/* ---- O's end */

enum give_state {
	GIVE_OPEN,     /* batches may be sent */
	GIVE_ENDED,    /* End is sent, answers are missing */
	GIVE_DONE,     /* all is answered: O may seal */
	GIVE_BROKEN    /* why says it: O must not seal */
};

struct give {
	enum give_state state;
	uint64_t limit, bytes;          /* of all states together */
	uint32_t sent, answered;        /* batches; End counts as one */
	uint32_t connections, told;     /* sent; answered */
	uint32_t kept;                  /* of those told: N has them */
	uint8_t size[MOVE_WINDOW];      /* of those not answered, by their number */
	bool taking;                    /* N has said that it touches them */
	bool by_n;                      /* it came to nothing, and N is to blame */
	const char *why;
};

/* An answer: connections first to first + n - 1, in the order sent; bit i: N has first + i. */
struct give_answer { uint32_t first; unsigned n; uint64_t kept; };

void give_init(struct give *g, uint64_t limit);
/* Counts a state in. False: it would be too much in all, the connection cannot move. */
bool give_state(struct give *g, uint64_t size);
bool give_has_room(const struct give *g, uint64_t size);      /* the same, and counts nothing */
bool give_may_send(const struct give *g);
void give_batch(struct give *g, unsigned n, struct msg *m);   /* n connections: sets m's number */
void give_end(struct give *g, struct msg *m);                 /* makes m the End */
/* 1: an answer; 0: nothing to note; -1: broken, g->why. */
int give_hear(struct give *g, const struct msg *m, struct give_answer *ret);
/* The channel's end, or an error on it; by_n: of N's making. Behind GIVE_DONE it changes nothing. */
void give_lost(struct give *g, bool by_n, const char *why);

/* ---- N's end */

struct take {
	uint64_t limit, bytes;
	uint32_t batches, connections;
	bool ended;
	const char *why;
};

/* A batch, as announced; connection i has the state of size[i] bytes, which starts at at[i] in the
 * message's states unless it lies beside. Bit i of over: one state too many, not to be kept. */
struct take_batch {
	unsigned n;
	struct span name[MOVE_BATCH];
	uint64_t size[MOVE_BATCH];
	uint32_t at[MOVE_BATCH];
	uint64_t over;
};

void take_init(struct take *t, uint64_t limit);
/* 1: a batch, *ret borrows from m; 0: the End; -1: broken, t->why. */
int take_hear(struct take *t, const struct msg *m, struct take_batch *ret);
/* The answer to what was heard last; kept is 0 for the End. */
void take_answer(const struct take *t, uint64_t kept, struct msg *m);
/* Begin says that O has sealed: false if it cannot have, with batches and no End. */
bool take_complete(const struct take *t);

#endif
