/*
 * keep: the right bytes. A copy of the current and one of the previous executable lie in
 * the state directory as exe/NUMBER/BASENAME, for the time when another file, or none, lies
 * at the path: for a crash, a reboot, a rollback.
 *
 * A copy is written by a short-lived child (copier.h) and counts only from when the file
 * `current` names it, which is after the fsync of all of it. What that file does not name is
 * a leftover, and removed. A number is never one of those that are named. A script has no copy: in
 * another place it would find other things beside it.
 */
#ifndef HANDOFF_KEEP_H
#define HANDOFF_KEEP_H

#include "base/proc.h"
#include "handoffd/spawn.h"
#include "handoffd/sums.h"

/* An executable that has served. */
struct kept {
	char path[4096];        /* "": none */
	bool named;             /* given with --binary */
	bool held;              /* by a rollback: also a start that is asked for runs it */
	struct exe_id id;       /* of the file at path when it was started */
	uint64_t copy;          /* the number of its copy; 0: none */
	struct fprint with;     /* what else it was started with; all 0: not known */
	struct fprint sum, rest;   /* SHA-256 of it and of that (sums.h); all 0: not known */
};

/* What the file `current` says. */
struct current {
	struct kept now, before;
	char boot[BOOT_ID_SIZE];   /* in which it was written last */
};

struct keep {
	int dir;                /* exe/; -1: it cannot be had */
	struct current c;       /* as on disk, but if dirty */
	bool dirty;             /* c could not be written: again at the next change */
	bool litter;            /* a copy may lie there that c does not name */
	bool stray;             /* what lies there nobody knows, and could not be set aside yet */
	char why[300];          /* why a copy is missing; "" */
};

/* k: zero but for c, why, dirty and stray. Opens the directory, removes what neither c, unless that is dirty,
 * nor a handoff under way names: the copy number spare, 0 none. */
void keep_open(struct keep *k, const char *state_dir, uint64_t spare);
/* Nobody knows any more which copies these are; they are not removed: people may. 0, also if there are none;
 * -errno: where some have been set aside before, those stay, and these. */
int keep_set_aside(const char *state_dir);
/* Opens the directory, where that has failed; what is stray is set aside first. 0, or -errno: there are no
 * copies, and why. */
int keep_reopen(struct keep *k, const char *state_dir, char *why, size_t size);
void keep_close(struct keep *k);

/*
 * What a cold start runs: the file at the path of binary, or of c's command if that is ""; its
 * copy, if another file lies there by now or none. With asked, somebody has asked for this
 * start: another file that can be run is run then, unless a rollback holds the copy. As
 * exe_open.
 */
int keep_cold(const struct keep *k, const struct conf *c, const char *binary, bool asked,
              struct exe *ret, char *err, size_t err_size);
/* The previous executable: at its path if it still is there, else its copy. As exe_open;
 * -ENOENT: there is none, or it is gone. */
int keep_before(const struct keep *k, const struct conf *c, struct exe *ret, char *err,
                size_t err_size);
/* The executable of pid, if it is one of the two, or its copy. 0 or -errno. */
int keep_of_pid(const struct keep *k, pid_t pid, struct exe *ret);
/* The copy number of path, which `current` does not name yet, as an executable: *ret, as far as
 * it is known, and only the copy is run. 0 or -errno. */
int keep_pinned(const struct keep *k, const char *path, uint64_t number, struct exe *ret);
/* e, which has been adopted, has served: what it was started with is on record. */
void keep_recall(const struct keep *k, struct exe *e);
/* What was hashed is what e was started with: now it is on record. False: it is other by now. */
bool keep_sums(struct keep *k, const struct exe *e, const struct sums *sums);

/* e serves, started as binary, or as command if that is "". The one before becomes the
 * previous one, if it is another. A handoff, which is a rollback or not, decides whether it
 * is held; a start changes that only with the executable. True: c has changed. */
enum keep_how { KEEP_STARTED, KEEP_UPGRADED, KEEP_ROLLED_BACK };
bool keep_serves(struct keep *k, struct exe *e, const char *binary, const char *command,
                 enum keep_how how);

/* The directory of e's copy, for spawn_daemon: a descriptor, the caller's; -ENOENT: none;
 * -EIO: it is not whole. */
int keep_copy_dir(const struct keep *k, const struct exe *e);
/* A number for a new copy. */
uint64_t keep_number(const struct keep *k);

/*
 * The child's part. Removes what c does not name, then copies e, whose bytes from reads, to
 * dir/NUMBER/. 0, or -errno: -ESTALE: somebody has written to it since it was started;
 * -EACCES: the directory's file system is mounted noexec; -ENOSPC, ...
 */
int keep_write(int dir, const struct current *c, const struct exe *e, int from, uint64_t number);
/* Its bytes, for reading: a descriptor or -errno. */
int keep_read(int dir, const struct exe *e, uint64_t number);
/* Removes what c does not name. */
void keep_sweep(int dir, const struct current *c);

#endif
