/*
 * store: what the supervisor remembers beyond its own life: the journal in the runtime
 * directory, and the executables in the state directory (tmpfs dies with the host).
 */
#ifndef HANDOFF_STORE_H
#define HANDOFF_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/proc.h"
#include "base/slots.h"
#include "handoffd/generation.h"
#include "handoffd/keep.h"
#include "proto/super.h"

#define PAST_MAX 16

struct process { pid_t pid; uint64_t start; };   /* pid 0: none */

struct journal {
	int phase;                     /* s_boot.phase */
	struct hid id;                 /* of the handoff under way, or of the last one */
	bool plan;                     /* that one is a plan: it leaves no outcome */
	struct hid last_id;            /* of the last one that ended */
	enum s_outcome outcome;        /* its outcome */
	bool served;                   /* the incumbent has served; false: nobody does yet */
	struct process incumbent, successor;
	char binary[4096];             /* the incumbent's; "" as configured */
	char new_binary[4096];         /* the successor's */
	bool back;                     /* the attempt is a rollback */
	uint64_t new_copy;             /* its kept copy, in a rollback or where it was pinned; 0: none */
	char message[1025];            /* of that outcome */
	uint64_t since;                /* wall ms: when the incumbent began to serve */
	uint64_t at;                   /* ticks: when it was written, those that it names lived */
	struct past past[PAST_MAX];    /* of whom something may be left */
	unsigned npast;
};

struct store {
	int lock, journal_fd, current_fd;
	struct slots journal, current;
	char boot[BOOT_ID_SIZE];
	bool dirty;                    /* the last write failed: repaired at the next */
	bool fresh;                    /* there was no journal, or it was empty */
	bool stray;                    /* the copies that a damaged record named are still in exe/ */
	int unread;                    /* why what is remembered of the executables could not be read; 0 */
};

/*
 * Takes the supervisor's lock in the runtime directory, unless lock is the descriptor by which this
 * process has it already (-1: it has not), and opens both files, creating
 * what is missing. *ret_j and *ret_c come zeroed; *ret_j stays so after a first start and after a
 * boot, *ret_c after a first start and if that file is damaged or could not be read; 0. Blocks for a
 * second at most while somebody has the lock. Errors, a sentence in err: -EWOULDBLOCK another supervisor runs for this service;
 * -EBADMSG the journal is damaged (everything else is usable then); -EACCES, -ENOSPC, ...
 */
int store_open(struct store *s, const char *runtime_dir, const char *state_dir, int lock,
               struct journal *ret_j, struct current *ret_c, char *err, size_t err_size);
/* Durable when it returns 0. Blocks on the disk (tmpfs: not). */
int store_journal(struct store *s, const struct journal *j);
/* Where that could not be read: 0, *c is what it says; -ENODATA, -EBADMSG: it says nothing; else it is as
 * before. */
int store_read_again(struct store *s, struct current *c);
/* The same, of the executables; survives a reboot. Blocks on the disk. What could not be read is not
 * written over: then that error. */
int store_current(struct store *s, const struct current *c);
/* This was the last handoff, and nobody serves now: both daemons died in it, or a start behind it
 * has not come to its end. */
static inline bool store_waits(const struct journal *j, const struct hid *id)
{
	return j->phase == BOOT_IDLE && j->outcome != OUTCOME_NONE && !j->served && hid_equal(id, &j->last_id);
}
/* The exit code of the last handoff, for who asks later: 5 if nobody served when it had ended. */
static inline int store_code(const struct journal *j)
{
	return !j->served ? 5 : j->outcome == OUTCOME_COMMITTED ? 0 : 1;
}
void store_close(struct store *s);

/* Opens dir/name, made if it is not there, mode 0600. A descriptor, or -errno and a sentence. */
int store_open_in(const char *dir, const char *name, char *err, size_t err_size);

#endif
