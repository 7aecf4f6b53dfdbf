/*
 * copier: the short-lived child that copies executables to the state directory (keep.h), and
 * hashes what an upgrade would start and what runs (sums.h).
 * It lives only while nothing else is under way: a handoff, a stop and a death of the daemon
 * end it, and it is started again when the service has come to rest. handoffd's death ends it,
 * too, but for one that reads arguments as the daemon's user: that ends by itself.
 */
#ifndef HANDOFF_COPIER_H
#define HANDOFF_COPIER_H

#include <stdbool.h>
#include <stdint.h>

#include "handoffd/answerer.h"

struct service;

enum copier_job {
	COPY_CURRENT, COPY_PREVIOUS,
	SUM_CURRENT,
	SWEEP,                   /* removes copies that came to nothing */
	LOOK,                    /* hashes the candidate (candidate.c) */
	PIN,                     /* copies it, and hashes the copy */
};

struct copier {
	struct answerer child;   /* it says what it has hashed */
	bool ended;              /* it was killed: what it leaves does not count */
	enum copier_job job;
	uint64_t number;         /* of the copy that it makes */
	bool unhashed;           /* what runs could not be hashed: not again before it is another */
	struct event *again;     /* it has failed, and is tried again: 1 s later, 2 s, ... 1 h */
	unsigned tries;
};

/* Starts, or ends, the child as the state of the service asks for. */
void copier_settle(struct service *s);
/* The candidate is another, or there is none any more. */
void copier_forget_candidate(struct service *s);
/* The child ends, and what it leaves does not count. */
void copier_kill(struct service *s);
/* At the supervisor's end. */
void copier_close(struct service *s);

#endif
