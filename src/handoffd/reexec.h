/*
 * reexec: another binary of handoffd goes on in this very process: exec, with the same pid. What
 * it needs to know is in carry.h; what it needs to have stays open.
 *
 * First the binary at the path by which this one was started reads all of it in a child, and says
 * whether it can go on: one that is of another version, crashes or hangs is refused, and nothing
 * has happened. Meanwhile requests wait that are for more than a look. Then the machine is asked (S_E_REEXEC), and
 * its action is the exec. If the new one dies behind that, it is as if this one had died: its
 * service manager starts it again, and the daemon registers.
 */
#ifndef HANDOFF_REEXEC_H
#define HANDOFF_REEXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "handoffd/answerer.h"
#include "handoffd/carry.h"
#include "handoffd/spawn.h"

struct peer;
struct service;

struct reexec {
	struct answerer child;   /* what it says is for people */
	bool late;
	bool answered;           /* it has, or is late: reexec_turn() is next */
	struct exe_id file;      /* which one was asked */
	char why[400];           /* why this one goes on */
};

/* At the beginning of main: by what path and arguments another one is started. */
void reexec_arguments(int argc, char **argv);
/* Whether an earlier life of this process goes on in this one. 1 and *ret; 0: no; -errno, with a sentence in
 * err: it cannot be read, and the descriptors are lost. */
int reexec_receive(struct carried *ret, char *err, size_t err_size);

/* 0: it is on its way, and ops_reexeced() follows; else the exit code of a refusal, a sentence in err. */
int reexec_begin(struct service *s, char *err, size_t err_size);
/* Behind each turn of the loop, and outside of it: the exec, if it is the time. */
void reexec_turn(struct service *s);
/* The machine's action. It returns only if it has failed, with s->reexec.why. */
void reexec_now(struct service *s);
/* At the supervisor's end. */
void reexec_close(struct service *s);

/* The daemon that serves, of an earlier life; NULL: no memory. */
struct peer *reexec_peer(struct service *s, const struct carried *c);
/* Totals, listeners, executables, callers; all of it belongs to s then. 0 or -errno, a sentence in err. */
int reexec_take(struct service *s, const struct carried *c, char *err, size_t err_size);

#endif
