/*
 * follow: a request whose events are shown until its result has come, over a connection
 * that is made again when it was lost, and with Ctrl-C as the wish to abort.
 */
#ifndef HANDOFF_CTL_FOLLOW_H
#define HANDOFF_CTL_FOLLOW_H

#include "handoffctl/ctl.h"

struct follow_how {
	const char *what;          /* "handoff", "restart": for messages */
	const struct hid *id;      /* NULL: it has none */
	bool again;                /* after a lost connection the outcome is asked for by id */
	bool abort;                /* Ctrl-C asks for the abort of id; else it only leaves */
};

/*
 * Finds the supervisor that c means, sends the request, shows what comes. Blocks until
 * there is a result, or nobody who could give one. Returns the exit code; all is said.
 */
int follow(struct ctl *c, const struct msg *request, const struct follow_how *how);

#endif
