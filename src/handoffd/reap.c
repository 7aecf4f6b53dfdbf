#include "handoffd/reap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/cgroup.h"
#include "handoffd/conf.h"
#include "handoffd/log.h"
#include "handoffd/sdnotify.h"

#define SYSTEMCTL  "/bin/systemctl"
#define ANSWER_MS  30000   /* for systemd to answer */
#define KILL_MS    10000   /* for the kernel to end what was killed */
#define DEPTH_MAX  16      /* of directories: the daemon's user owns some of them */

/* -------------------------------------------------------------- systemd --- */

static pid_t run_systemctl(const char *name, int output)
{
	char unit[CONF_MAX_NAME + 32];
	const char *argv[] = { SYSTEMCTL, "show", "-p", "ActiveState", "-p", "ControlGroup", unit, NULL };
	const pid_t pid = sys_fork();

	if (pid)
		return pid;
	snprintf(unit, sizeof unit, "handoff@%s.service", name);
	if (sys_dup2(output, STDOUT_FILENO) >= 0)
		sys_execveat(AT_FDCWD, SYSTEMCTL, (char **)argv, environ, 0);
	_exit(127);
}

/* All that comes until the end; 0, or -errno. */
static int read_answer(int fd, char *out, size_t size)
{
	const uint64_t until = sys_now_ms() + ANSWER_MS;
	size_t got = 0;
	ssize_t n = 1;

	while (n > 0 && got < size - 1) {
		const uint64_t now = sys_now_ms();
		struct pollfd p = { .fd = fd, .events = POLLIN };

		n = now < until ? sys_poll(&p, 1, (int)(until - now)) : 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (n > 0)
			n = sys_read(fd, out + got, size - 1 - got);
		else if (n == -EINTR)
			n = 1;
		else
			return (int)n;
		got += n > 0 ? (size_t)n : 0;
	}
	out[got] = '\0';
	return n < 0 ? (int)n : 0;
}

/* What systemd says of the unit, "ActiveState=...\nControlGroup=...\n" in any order. */
static int ask_systemd(const char *name, char *out, size_t size)
{
	int pipe[2], status = 0, e = sys_pipe(pipe);
	pid_t pid;

	if (e)
		return e;
	pid = run_systemctl(name, pipe[1]);
	sys_close(pipe[1]);
	e = pid < 0 ? pid : read_answer(pipe[0], out, size);
	sys_close(pipe[0]);
	if (pid < 0)
		return e;
	kill(pid, SIGKILL);   /* it has answered, or it hangs */
	sys_waitpid(pid, &status, 0);
	return e;
}

static bool property(const char *answer, const char *name, char *out, size_t size)
{
	const size_t n = strlen(name);

	for (const char *p = answer; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (strncmp(p, name, n) || p[n] != '=')
			continue;
		snprintf(out, size, "%.*s", (int)strcspn(p + n + 1, "\n"), p + n + 1);
		return true;
	}
	return false;
}

/* --------------------------------------------------------------- cgroup --- */

struct target { int group, sig; unsigned depth; };

/* The pidfd first, then whether it still is there: the pid may be another's since it was listed. */
static void signal_one(void *arg, pid_t pid)
{
	const struct target *t = arg;
	const int fd = sys_pidfd_open(pid);

	if (fd < 0)
		return;
	if (cgroup_has(t->group, pid)) {
		log_info("pid %d was left behind: signal %d", (int)pid, t->sig);
		sys_pidfd_signal(fd, t->sig);
		sys_pidfd_signal(fd, SIGCONT);   /* a stopped one would not hear the other */
	}
	sys_close(fd);
}

static void signal_below(void *arg, const char *name)
{
	const struct target *t = arg;
	struct target next = { cgroup_open(t->group, name), t->sig, t->depth + 1 };

	if (next.group < 0)
		return;
	cgroup_each(next.group, signal_one, &next);
	if (next.depth < DEPTH_MAX)
		cgroup_list(next.group, signal_below, &next);
	sys_close(next.group);
}

static void signal_all(int group, int sig)
{
	struct target t = { group, sig, 0 };

	cgroup_each(group, signal_one, &t);
	cgroup_list(group, signal_below, &t);
}

/* Until nobody is in the group or below it: 0; -ETIMEDOUT, or -errno: it is not known. */
static int wait_empty(int group, uint64_t ms)
{
	const uint64_t until = sys_now_ms() + ms;
	const int fd = sys_openat(group, "cgroup.events", O_RDONLY, 0);
	char text[256];
	int r = fd == -ENOENT || fd == -ENODEV ? 0 : fd < 0 ? fd : -ETIMEDOUT;

	while (fd >= 0) {
		const uint64_t now = sys_now_ms();
		struct pollfd p = { .fd = fd, .events = POLLPRI };
		const ssize_t n = sys_pread(fd, text, sizeof text - 1, 0);

		text[n > 0 ? n : 0] = '\0';
		if (n == -ENODEV || strstr(text, "populated 0"))
			r = 0;   /* or it has been removed */
		if (!r || now >= until)
			break;
		sys_poll(&p, 1, (int)(until - now));
	}
	if (fd >= 0)
		sys_close(fd);
	return r;
}

static void remove_group(void *arg, const char *name)
{
	cgroup_remove(*(int *)arg, name);
}

/* All of a group: 0, or 1 if something does not end. */
static int end_all(int group, const char *name, uint32_t stop_ms)
{
	signal_all(group, SIGTERM);
	if (!wait_empty(group, stop_ms))
		return 0;
	log_warning("what was left behind did not end within %u ms: it is killed", (unsigned)stop_ms);
	if (cgroup_kill(group))   /* before Linux 5.14: one after the other */
		signal_all(group, SIGKILL);
	if (!wait_empty(group, KILL_MS))
		return 0;
	log_error("what is left in the cgroup %s cannot be killed: it hangs in the kernel", name);
	return 1;
}

static int end_cgroup(const char *path, uint32_t stop_ms)
{
	int group = *path ? cgroup_find(path) : -ENOENT, r;

	if (group == -ENOENT)   /* systemd has removed it: it was empty */
		return 0;
	if (group < 0) {
		log_error("the cgroup %s cannot be looked at: %s; what is left in it is not ended", path,
		          strerror(-group));
		return 1;
	}
	r = end_all(group, path, stop_ms);
	/*
	 * Those below it are handoffd's. The unit's own is systemd's, which may believe that it is
	 * there when it starts the unit again: that start would fail with 219/CGROUP.
	 */
	cgroup_list(group, remove_group, &group);
	sys_close(group);
	return r;
}

/* ---------------------------------------------------- runtime directory --- */

static int open_dir(int at, const char *name)
{
	return sys_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

static void remove_entry(int at, const char *name, unsigned depth);

static void remove_below(int dir, unsigned depth)
{
	const int again = depth < DEPTH_MAX ? open_dir(dir, ".") : -EMLINK;
	DIR *d = again < 0 ? NULL : fdopendir(again);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			remove_entry(dir, e->d_name, depth);
	if (d)
		closedir(d);
	else if (again >= 0)
		sys_close(again);
}

/* What cannot be removed stays, and keeps the directories above it. No link is followed. */
static void remove_entry(int at, const char *name, unsigned depth)
{
	int dir;

	if (!sys_unlinkat(at, name, 0) || (dir = open_dir(at, name)) < 0)
		return;
	remove_below(dir, depth + 1);
	sys_close(dir);
	sys_unlinkat(at, name, AT_REMOVEDIR);
}

static int remove_dir(const char *path)
{
	const int dir = open_dir(AT_FDCWD, path);
	int e = dir;

	if (dir >= 0) {
		remove_below(dir, 0);
		sys_close(dir);
		e = sys_unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
	}
	if (!e || e == -ENOENT)
		return 0;
	log_error("%s cannot be removed: %s", path, strerror(-e));
	return 1;
}

/* systemd has removed it in general; not one in which a supervisor runs that is not its own. */
static int remove_runtime(const char *name)
{
	char path[4096], file[4200], err[200];
	int lock, r;

	if (dirs_runtime(name, false, path, sizeof path, err, sizeof err))
		return 0;
	snprintf(file, sizeof file, "%s/supervisor.lock", path);
	lock = sys_open(file, O_RDWR | O_NOFOLLOW, 0);
	if (lock >= 0 && sys_flock(lock, LOCK_EX | LOCK_NB) == -EWOULDBLOCK) {
		log_warning("%s stays: a supervisor that is not handoff@%s runs there", path, name);
		sys_close(lock);
		return 0;
	}
	r = remove_dir(path);
	if (lock >= 0)
		sys_close(lock);
	return r;
}

/* ----------------------------------------------------------------- reap --- */

int reap(const char *name, uint32_t stop_ms)
{
	char answer[PATH_MAX + 256], state[64], cgroup[PATH_MAX] = "", more[64];
	const int e = ask_systemd(name, answer, sizeof answer);

	if (e || !property(answer, "ActiveState", state, sizeof state)) {
		log_error("systemd does not say how handoff@%s is%s%s: nothing is ended", name, e ? ": " : "",
		          e ? strerror(-e) : "");
		return 1;
	}
	if (strcmp(state, "inactive") && strcmp(state, "failed")) {
		log_error("handoff@%s is %s: nothing is ended; 'systemctl stop handoff@%s' ends it", name,
		          state, name);
		return 1;
	}
	property(answer, "ControlGroup", cgroup, sizeof cgroup);
	if (sdnotify_open() == 1) {
		snprintf(more, sizeof more, "EXTEND_TIMEOUT_USEC=%llu", (stop_ms + 2ull * KILL_MS) * 1000);
		sdnotify(more, NULL, 0);
		sdnotify_close();
	}
	return end_cgroup(cgroup, stop_ms) | remove_runtime(name);
}
