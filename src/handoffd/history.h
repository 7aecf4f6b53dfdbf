/*
 * history: what is remembered of each handoff, in the state directory, over reboots. A
 * record is written twice in the same place: when the attempt begins, so that a supervisor
 * that follows this one knows who had asked for it, and when it has ended. The second time
 * it is made durable, and that only when all who wait have their answer: no client and no
 * operator waits for this disk. A disk that is full or broken costs the record alone.
 */
#ifndef HANDOFF_HISTORY_H
#define HANDOFF_HISTORY_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/ring.h"
#include "handoffd/disruption.h"
#include "handoffd/history_file.h"
#include "proto/super.h"

struct service;
struct peer;

#define HISTORY_STEPS     64u

struct history_step { char what[64]; uint64_t us; };   /* us: since the request */

/* Of a daemon, as long as it was known. */
struct history_daemon { pid_t pid; char build[129], software[65]; };

struct history {
	int fd;                        /* -1: there is none */
	struct ring ring;
	bool begun;                    /* the newest record is of an attempt that has not ended */
	bool unsettled;                /* of one that is decided; history_settle() ends it */
	bool complained;               /* of the disk, once */
	uint64_t base_us;              /* monotonic: what the steps count from */
	unsigned nsteps;
	struct history_step steps[HISTORY_STEPS];
	bool silent;                   /* the incumbent was; a step says so */
	const struct s_row *failed;    /* the row that ended it; NULL: none */
	char cause[1025];              /* in words; a cold start that follows forgets its own */
	off_t mark;                    /* what the daemons have written before it ends here: tail.h; -1: not known */
	struct history_daemon from, to;
	struct event *write;           /* made active by hand: it runs behind what is under way */
	uint8_t *item;                 /* to be written then, as a frame; NULL: nothing */
	size_t item_size;
};

/* Times of an attempt in us, 0: not known. */
struct times { uint64_t pause, serving, total, stall; };

/* Opens the file, and settles what an earlier supervisor left begun. Without it goes on. */
void history_open(struct service *s);
void history_close(struct service *s);

/* Whether somebody serves is known: ends the record that waited for it. Nothing else: nothing. */
void history_settle(struct service *s);
/* What was to be written later, now. */
void history_flush(struct service *s);

/* An attempt begins; plans are not remembered. */
void history_begin(struct service *s);
/* A phase, or what becomes of the supervisor: "phase" "drain". */
void history_step(struct service *s, const char *who, const char *what);
/* A message that a daemon has sent in it. */
void history_message(struct service *s, const struct peer *p, enum msg_type type);
/* ... and its end. */
void history_gone(struct service *s, const struct peer *p, const char *end);
/* All that the incumbent has sent was read: if it says nothing for as long as it would wait itself. */
void history_silence(struct service *s);
/* The successor, as far as it is known by now; none in a cold start. */
void history_successor(struct service *s);
/* What it came to is decided, and why. */
void history_cause(struct service *s);
/* The attempt has ended. */
void history_end(struct service *s, int code, const char *outcome, const char *message,
                 const struct times *t);

/* A record that can be encoded again; m borrows from the rest. */
struct history_record {
	struct msg m;
	struct span steps[HISTORY_STEPS], queues[DISRUPTION_QUEUES];
	uint64_t numbers[4][HISTORY_STEPS];
	uint8_t buf[HISTORY_SLOT_SIZE];
};
/* The newest one with a number below before (0: of all). False: there is none. */
bool history_read(struct service *s, uint64_t before, struct history_record *ret);
/* That of a handoff that has ended, among the last few. False: it is not there. */
bool history_find(struct service *s, const struct hid *id, struct history_record *ret);
/* The shortest stall of those among the last few that committed with the build of the incumbent in the
 * same place, in us; 0: none is known. */
uint64_t history_least_stall(struct service *s);

#endif
