/*
 * lockfile: <data_dir>/.handoff.lock, the flock that makes one process the writer, and
 * the record of its owner with the epoch.
 *
 * Never unlinked (two processes would lock two inodes); device and inode are compared
 * with the path's after locking; refused on NFS, whose flock is a byte-range lock.
 */
#ifndef HANDOFF_BASE_LOCKFILE_H
#define HANDOFF_BASE_LOCKFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/proc.h"
#include "base/slots.h"
#include "proto/msg.h"

#define LOCKFILE_NAME ".handoff.lock"

struct lockfile {
	int dir;              /* the directory, borrowed */
	int fd;               /* the file; -1: not open */
	bool held;            /* fd holds the flock */
	uint64_t dev, ino;    /* of fd */
	uint64_t epoch;       /* of this ownership; 0: none */
	char error[200];      /* after a failure: a sentence */
	int record_error;     /* the owner's record could not be written: -errno, else 0 */
	bool unsynced;        /* it was written, and may not last */
	struct slots slots;   /* of fd, while it is held */
	pid_t pid;            /* whose boot and start these are, by lockfile_prepare; 0: none */
	uint64_t start;
	char boot[BOOT_ID_SIZE];
};

struct lock_owner {
	uint64_t pid, start;  /* 0 from lockfile_read: the owner was a process of another boot */
	uint64_t epoch;
	char build[129];
	char boot[BOOT_ID_SIZE];
};

void lockfile_init(struct lockfile *l, int dir);
/* Opens the file without locking it, so that a lack of descriptors, or of rights, is met before
 * the lock is asked for. 0, or what lockfile_try returns. */
int lockfile_open(struct lockfile *l);
/* Reads ahead what lockfile_try would read of /proc, for who is not waited for yet. */
void lockfile_prepare(struct lockfile *l);

/*
 * Tries once. 0: held, the record names this process, epoch = the last one + 1 (if the
 * record could not be written, record_error says so: the flock is held all the same).
 * -EWOULDBLOCK: another has it. -EREMOTE: NFS. -EISDIR, -ELOOP, -EACCES, ...: a sentence
 * in error. The record lasts when lockfile_sync has returned.
 */
int lockfile_try(struct lockfile *l, const void *build, size_t build_size);
/* 0, or record_error. Blocks for one fdatasync, if there is something to do. */
int lockfile_sync(struct lockfile *l);

/* Ends the writer's right by LOCK_UN: a forked helper may hold a copy of the descriptor, and then
 * a close ends nothing (flock(2)). The file stays open, for who may have to lock it again and may
 * have no descriptor then. Safe if not held. */
void lockfile_release(struct lockfile *l);
/* The same, and closes the file. */
void lockfile_close(struct lockfile *l);

/* Who owned it last, read without a lock. 0, -ENODATA, -EBADMSG, -ENOENT, ... */
int lockfile_read(int dir, struct lock_owner *ret);

/*
 * The process that holds the flock, as the kernel says (/proc/locks, proc(5)); 0: nobody does, or it was
 * missed, while others let go of more than a page of locks; -errno: it cannot be asked. The record alone proves nothing: it survives its owner, is copied with
 * the directory, and whoever may write the directory may write it. Who has ended is named still
 * while another has a copy of its descriptor.
 */
pid_t lockfile_holder(int dir);
/*
 * The same for who only wants to tell of it: -E2BIG if it is not among the first LOCKFILE_GLANCE bytes.
 * A read of /proc/locks gives a page, and goes through all locks before it again: of the 100,000 that any
 * user may have, all of them take many seconds.
 */
#define LOCKFILE_GLANCE (256 * 1024u)
pid_t lockfile_glance(int dir);
/*
 * Is it this process? 1, 0, or -errno: it cannot be asked (-ENOENT: there may be no such process). Nobody
 * is missed: where the glance does not tell it is looked for at the descriptors of pid.
 */
int lockfile_held_by(int dir, pid_t pid);

/* 0, or -EREMOTE with nothing else looked at: dir lies on NFS. */
int lockfile_check_fs(int dir);

#endif
