/*
 * copier: the short-lived child that copies an executable to the state directory (keep.h).
 * It lives only while nothing else is under way: a handoff, a stop and a death of the daemon
 * end it, and it is started again when the service has come to rest. It never outlives handoffd.
 */
#ifndef HANDOFF_COPIER_H
#define HANDOFF_COPIER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct service;

struct copier {
	struct event *end;       /* of the child; NULL: there is none */
	pid_t pid;
	int pidfd;
	int status;              /* wait status, once reaped; -1 unknown */
	bool ended;              /* it was killed: what it leaves does not count */
	bool late;               /* and that because it took too long */
	bool old;                /* it copies the previous one */
	uint64_t number;
	struct event *again;     /* it has failed, and is tried again: 1 s later, 2 s, ... 1 h */
	unsigned tries;
};

/* Starts, or ends, the child as the state of the service asks for. */
void copier_settle(struct service *s);
/* A child of this process has ended. True: it was the copier. */
bool copier_reaped(struct service *s, pid_t pid, int status);
/* At the supervisor's end. */
void copier_close(struct service *s);

#endif
