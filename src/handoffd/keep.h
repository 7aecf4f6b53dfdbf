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

#include "handoffd/spawn.h"

/* An executable that has served. */
struct kept {
	char path[4096];        /* "": none */
	bool named;             /* given with --binary */
	struct exe_id id;       /* of the file at path when it was started */
	uint64_t copy;          /* the number of its copy; 0: none */
};

/* What the file `current` says. */
struct current { struct kept now, before; };

struct keep {
	int dir;                /* exe/; -1: it cannot be had */
	struct current c;       /* as on disk, but if dirty */
	bool dirty;             /* c could not be written: again at the next change */
	char why[300];          /* why there is no copy of the current one; "" */
};

/* Takes *c, opens the directory, removes what it does not name. Without a directory there
 * are no copies, and why says it. */
void keep_open(struct keep *k, const char *state_dir, const struct current *c);
void keep_close(struct keep *k);

/*
 * What a cold start runs: the file at the path of binary, or of c's command if that is "";
 * its copy, if another file lies there by now or none, but not with at_path. As exe_open.
 */
int keep_cold(const struct keep *k, const struct conf *c, const char *binary, bool at_path,
              struct exe *ret, char *err, size_t err_size);
/* The previous executable: at its path if it still is there, else its copy. As exe_open;
 * -ENOENT: there is none, or it is gone. */
int keep_before(const struct keep *k, const struct conf *c, struct exe *ret, char *err,
                size_t err_size);
/* Would keep_before find it? A look, no more. */
bool keep_has_before(const struct keep *k);
/* The executable of pid, if it is one of the two, or its copy. 0 or -errno. */
int keep_of_pid(const struct keep *k, pid_t pid, struct exe *ret);
/* Another file lies at the path than the one that was started from there. */
bool keep_changed(const struct exe *e);

/* e serves, started as binary, or as command if that is "". The one before becomes the
 * previous one, if it is another. True: c has changed. */
bool keep_serves(struct keep *k, struct exe *e, const char *binary, const char *command);

/* The directory of e's copy, for spawn_daemon: a descriptor, the caller's; -ENOENT: none;
 * -EIO: it is not whole. */
int keep_copy_dir(const struct keep *k, const struct exe *e);
/* A number for a new copy. */
uint64_t keep_number(const struct keep *k);

/*
 * The child's part. Removes what c does not name, then copies e, read through its
 * descriptor, to dir/NUMBER/. 0, or -errno: -ESTALE: somebody has written to it since it was
 * started; -EACCES: the directory's file system is mounted noexec, or e cannot be read.
 */
int keep_write(int dir, const struct current *c, const struct exe *e, uint64_t number);

#endif
