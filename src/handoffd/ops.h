/*
 * ops: what ops.c, which serves the requests of control.sock, and ops_tell.c have in common.
 */
#ifndef HANDOFF_OPS_H
#define HANDOFF_OPS_H

#include "handoffd/callers.h"
#include "handoffd/results.h"

#define MAX_LATER 8

/* A phase that those who wait are told of when the turn has sent what it had to. */
struct later {
	struct hid id;
	const char *phase;
	char text[300];         /* "": none */
	struct msg counts;      /* an op_event with these only */
	bool watch;             /* only for those who watch */
	uint64_t us, at_ms;
};

struct ops {
	struct callers callers;
	struct event *tell;     /* made active by hand: it runs behind what is under way */
	struct later later[MAX_LATER];
	unsigned nlater;
	struct results results;   /* for who asks again by id */
};

/* Answers its request: an exit code and a message as in handoffctl(1). */
void ops_answer(struct caller *o, int code, const char *outcome, const char *message);
void ops_refuse(struct caller *o, int code, const char *message);
void ops_send(struct caller *o, const struct result *r);

#endif
