/*
 * spawn: starting a daemon. The child waits at a pipe (the gate) until its pid is
 * in the journal; when the gate closes without a byte (the supervisor died) it
 * exits, so that no life or death of the supervisor leaves an unknown child.
 */
#ifndef HANDOFF_SPAWN_H
#define HANDOFF_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "handoffd/conf.h"
#include "proto/msg.h"

/* By what a file is known again, after a reboot too (where its device may bear another number).
 * Who writes into it in place changes the times; all 0: unknown. */
struct exe_id { uint64_t ino, size, mtime, ctime; };   /* times in ns */

/* The executable: its path, and the inode that was resolved, kept open. */
struct exe {
	char path[4096];
	int fd;                 /* O_PATH, of a pinned copy O_RDONLY; O_CLOEXEC; -1: none */
	dev_t dev; ino_t ino;   /* of fd */
	struct exe_id id;       /* of what lay at path when it was resolved */
	uint64_t copy;          /* the number of its kept copy (keep.h); 0: none */
	bool script;            /* starts with #!: its interpreter opens it again */
	bool pinned;            /* only the copy is run: its bytes are the ones that were asked for */
	struct fprint with;     /* what else it was started with (sums_look()); all 0: not known */
};

/*
 * Resolves path (a name without '/' through PATH of the daemon's environment) and
 * checks it: exists, a regular file, executable by uid/gid, of this machine's
 * architecture or a script. 0, or -errno with one line in err that says which of
 * these it is and what to do. *ret untouched on failure; exe_close it.
 */
int exe_open(const struct conf *c, const char *path, struct exe *ret, char *err, size_t err_size);
/* The executable of a running process, by /proc/PID/exe; of a script: what lies at path
 * (the process is its interpreter). 0 or -errno; -ENOENT also if the process runs another
 * program than path: a launcher's, which would not take the arguments of the configuration. */
int exe_of_pid(pid_t pid, const char *path, struct exe *ret);
/* Its bytes, with the rights of c's user: a descriptor for reading, the caller's, or -errno. */
int exe_read(const struct conf *c, const struct exe *e);
/* What pid runs, whatever its path is by now: a descriptor (O_PATH), the caller's, or -errno. */
int exe_fd_of_pid(pid_t pid);
void exe_close(struct exe *e);  /* and sets fd to -1 */
/* Its file's name, without the directory. */
static inline const char *exe_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}
struct exe_id exe_id(const struct stat *st);
/* The same file, and nobody has written to it, not even to give it its old time again; false
 * if one of them is unknown. */
bool exe_id_same(const struct exe_id *a, const struct exe_id *b);
/* The same for a file that a process runs, which cannot be written to: it may have been
 * linked, renamed or removed. */
bool exe_id_alike(const struct exe_id *a, const struct exe_id *b);

/* Is e open, and that file, started from that path? */
bool exe_is(const struct exe *e, const char *path, const struct exe_id *id);

struct spawn_args {
	const struct conf *conf;
	const struct exe *exe;  /* run by its path while that is the file that was resolved, else
	                         * from dir, else by its descriptor */
	int dir;                /* where a copy of it lies, by its own base name; borrowed; -1: none */
	int channel;            /* the child's end of the channel; borrowed: the caller closes it */
	const char *runtime_dir;
	const char *lock_dir;   /* NULL where conf->data_dir is set */
	const char *role;       /* "first" or "successor" */
	const char *generation; /* by which what it starts is told from what others start */
};

struct child {
	pid_t pid;
	int pidfd;
	int gate;               /* write end; spawn_release or close it */
};

/*
 * Forks. In the child, while it waits for the gate (so that a release is followed by
 * exec at once): own session (setsid), stdin from /dev/null, signal mask and all
 * dispositions reset (SIGPIPE: as configured), stdout and stderr as output.h says, umask,
 * cwd, rlimits, nice, oom_score_adj, groups, gid, uid, clean environment (handoffd's own
 * without NOTIFY_SOCKET, WATCHDOG_*, LISTEN_*, JOURNAL_STREAM, SYSTEMD_EXEC_PID,
 * RUNTIME_DIRECTORY, STATE_DIRECTORY, HANDOFF_*; plus conf's; or only conf's), then
 * HANDOFF_FD=3, HANDOFF_ROLE, HANDOFF_DIR=runtime_dir, HANDOFF_SERVICE, HANDOFF_GENERATION,
 * HANDOFF_LOCK_DIR, and JOURNAL_STREAM if its stderr is one; every descriptor above 3 closed
 * (close_range); then exec with argv[0] = exe->path. A step that
 * fails is written as one line to stderr with its reason, and the child exits with 126 (127:
 * exec found no such file). With output set, exec's own failure goes there.
 * All that the child needs is prepared before the fork (no malloc after it).
 * 0 and *ret, or -errno (-EAGAIN, -ENOMEM, -EMFILE) with a sentence in err. Never blocks.
 */
int spawn_daemon(const struct spawn_args *a, struct child *ret, char *err, size_t err_size);
/* Opens the gate and closes it: the child goes on to exec. 0 or -errno (-EPIPE: the
 * child is gone; SIGPIPE must be ignored). */
int spawn_release(struct child *c);

#endif
