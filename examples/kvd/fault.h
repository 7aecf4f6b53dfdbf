/*
 * fault: misbehaviour on request, at named points of the daemon's life, so that
 * tests can see what a supervisor makes of a bad binary.
 */
#ifndef KVD_FAULT_H
#define KVD_FAULT_H

#include <stddef.h>
#include <stdio.h>

enum fault_point {
	FAULT_START,   /* before handoff_open */
	FAULT_WARMUP,  /* before the state is read */
	FAULT_HELLO,   /* before handoff_begin */
	FAULT_BEGIN,   /* handoff_begin has returned */
	FAULT_OPEN,    /* the state is open, nothing said yet */
	FAULT_READY,   /* before handoff_ready */
	FAULT_TAKE,    /* Ready is said, the decision not read yet */
	FAULT_COMMIT,  /* handoff_ready has returned 0, no client served yet */
	FAULT_RECEIVE, /* the first connection has come */
	FAULT_GIVE,    /* half of the connections are given */
	FAULT_GIVEN,   /* all are, the lock is still held */
	FAULT_DRAIN, FAULT_SEAL, FAULT_RESUME, FAULT_EXIT, /* these events, before anything is done */
	FAULT_POINTS
};

enum fault_lie {
	LIE_NONE, LIE_UNHEALTHY, LIE_BADREV, LIE_BADFP, LIE_FAIL, LIE_FAIL_ONCE, LIE_PROGRESS,
	LIE_KEEP, LIE_FORGET, LIE_REJECT
};

#define MAX_FAULTS 16

struct faults {
	unsigned n;
	struct fault {
		enum fault_point point;
		int action;
		int ms;
	} fault[MAX_FAULTS];
};

/* "POINT:ACTION"; -1 with a sentence in why. */
int fault_add(struct faults *f, const char *text, char *why, size_t n);

/* Does what was asked for at this point. Returns the lie that the caller is to tell. */
enum fault_lie fault_at(const struct faults *f, enum fault_point point);

void fault_print(FILE *to); /* for --help */

#endif
