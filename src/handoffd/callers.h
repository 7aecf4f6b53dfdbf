/*
 * callers: the connections of control.sock. Anybody may connect, so this is where a local
 * user without rights is kept small: places and requests for each user, a limit of time for a
 * request and for the reading of its answer, nothing read from who does not read, no
 * descriptors, few lines in the log. Those with rights (root, handoffd's user, operators)
 * have places that no others get, and are not counted.
 */
#ifndef HANDOFF_CALLERS_H
#define HANDOFF_CALLERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/chan.h"
#include "handoffd/bucket.h"
#include "handoffd/carry.h"
#include "handoffd/door.h"
#include "handoffd/log.h"

#define CALLERS_MAX     64
#define STRANGERS_MAX   32   /* of these at most so many without rights, */
#define STRANGER_PLACES 16   /* and of one user */

struct service;
struct callers;

/* What a connection waits for: the business of ops.c. */
enum waits { WAITS_NOT, WAITS_ATTEMPT, WAITS_ABORT, WAITS_RESTART, WAITS_STOP, WAITS_WATCH,
	WAITS_REEXEC };   /* by number in CarryCaller */

/* The requests of a user without rights; it outlives their connections. */
struct quota {
	uid_t uid;
	struct bucket requests;
};

struct caller {
	struct caller *next;
	struct callers *all;
	struct chan chan;
	struct event *read, *write, *late;
	struct ucred who;
	bool may;               /* upgrade, abort, ...: not only look */
	struct quota *quota;    /* NULL: may */
	bool held;              /* has asked too much, and is not read for a while */
	bool broken;            /* to be closed by callers_sweep */
	bool again;             /* its last request is for later, and nothing is read behind it */
	enum waits waits;
	struct hid id;          /* of the handoff that it waits for */
	uint64_t missed;        /* events that it has not been offered: an earlier one was not read yet */
};

struct callers {
	struct door door;
	struct service *service;
	/* a request came; caller_end is the way to refuse it without an answer */
	void (*serve)(struct caller *c, const struct msg *m);
	struct caller *list;
	unsigned n;
	struct quota quotas[STRANGERS_MAX];
	struct log_limit strangers;
};

/* Opens control.sock; fd: the socket that an earlier life has bound there (consumed), -1: none.
 * 0 or -errno, a sentence in err. */
int callers_open(struct callers *a, struct service *s, int fd, char *err, size_t err_size);
void callers_close(struct callers *a);

/* An answer, or an event before it; who does not read it is closed. */
void caller_send(struct caller *c, const struct msg *m);
/* An event for who watches, dropped if an earlier one was not read yet: how many is told in place of
 * them when that has been read. */
void caller_offer(struct caller *c, const struct msg *m);
/* It is not waited for any more: the time limit for its next request begins. */
void caller_expect(struct caller *c);
/* Says in the log what it did wrong: "uid 1 (pid 2) " and this; it is closed. */
void caller_end(struct caller *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Closes what broke; not at once, since lists are being walked where it shows. */
void callers_sweep(struct callers *a);


/* Its request, which is being served, is to be served again, by callers_now: perhaps by another
 * life of this process. */
void caller_later(struct caller *c);
void callers_now(struct callers *a);
/* Each of them, for another life of this process; and there, until callers_now. */
void callers_carry(const struct callers *a, struct carry *to);
void callers_carried(struct callers *a, const struct msg_carry_caller *m);
/* What its channel had in hand. Bytes that are none of a frame cost who has sent them its connection. */
void callers_restore(struct callers *a, const struct msg_carry_bytes *m);

#endif
