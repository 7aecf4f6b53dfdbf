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

/* ---------------------------------------------------------- directories --- */

typedef void (*entry_fn)(int dir, const char *name, unsigned depth, void *arg);

/* Calls f for each entry of dir; f may remove it. */
static void each(int dir, unsigned depth, entry_fn f, void *arg)
{
	const int again = depth < DEPTH_MAX ? sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0) : -EMLINK;
	DIR *d = again < 0 ? NULL : fdopendir(again);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			f(dir, e->d_name, depth, arg);
	if (d)
		closedir(d);
	else if (again >= 0)
		sys_close(again);
}

static int open_dir(int at, const char *name)
{
	return sys_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* --------------------------------------------------------------- cgroup --- */

struct target { const char *cgroup; int sig; };

/* Whether a process is in that cgroup or below it. */
static bool is_in(pid_t pid, const char *cgroup)
{
	char path[64], line[PATH_MAX + 64];
	const size_t n = strlen(cgroup);
	bool found = false;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
	if (!(f = fopen(path, "re")))
		return false;
	while (!found && fgets(line, sizeof line, f))
		found = !strncmp(line, "0::", 3) && !strncmp(line + 3, cgroup, n) && strchr("/\n", line[3 + n]);
	fclose(f);
	return found;
}

/* The pidfd first, then where it is: the pid may be another's since it was listed. */
static void signal_one(pid_t pid, const struct target *t)
{
	const int fd = pid > 0 ? sys_pidfd_open(pid) : -ESRCH;

	if (fd < 0)
		return;
	if (is_in(pid, t->cgroup)) {
		log_info("pid %d was left behind: signal %d", (int)pid, t->sig);
		sys_pidfd_signal(fd, t->sig);
		sys_pidfd_signal(fd, SIGCONT);   /* a stopped one would not hear the other */
	}
	sys_close(fd);
}

static void signal_all(int dir, unsigned depth, void *arg);

static void signal_below(int at, const char *name, unsigned depth, void *arg)
{
	const int dir = open_dir(at, name);

	if (dir < 0)
		return;   /* one of the cgroup's files */
	signal_all(dir, depth + 1, arg);
	sys_close(dir);
}

static void signal_all(int dir, unsigned depth, void *arg)
{
	const int fd = sys_openat(dir, "cgroup.procs", O_RDONLY, 0);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	int pid;

	while (f && fscanf(f, "%d", &pid) == 1)
		signal_one(pid, arg);
	if (f)
		fclose(f);
	else if (fd >= 0)
		sys_close(fd);
	each(dir, depth, signal_below, arg);
}

/* Until nobody is in dir or below it: 0, or -ETIMEDOUT. */
static int wait_empty(int dir, uint64_t ms)
{
	const uint64_t until = sys_now_ms() + ms;
	const int fd = sys_openat(dir, "cgroup.events", O_RDONLY, 0);
	char text[256];
	int r = 0;

	while (fd >= 0) {
		const uint64_t now = sys_now_ms();
		struct pollfd p = { .fd = fd, .events = POLLPRI };
		const ssize_t n = sys_pread(fd, text, sizeof text - 1, 0);

		text[n > 0 ? n : 0] = '\0';
		if (!strstr(text, "populated 1"))   /* -ENODEV, too: it has been removed */
			break;
		if (now >= until) {
			r = -ETIMEDOUT;
			break;
		}
		sys_poll(&p, 1, (int)(until - now));
	}
	if (fd >= 0)
		sys_close(fd);
	return r;
}

static void kill_all(int dir, struct target *t)
{
	const int fd = sys_openat(dir, "cgroup.kill", O_WRONLY, 0);   /* from Linux 5.14 on */

	if (fd >= 0)
		sys_write(fd, "1", 1);
	if (fd >= 0)
		sys_close(fd);
	t->sig = SIGKILL;
	signal_all(dir, 0, t);
}

static int end_all(int dir, const char *cgroup, uint32_t stop_ms)
{
	struct target t = { cgroup, SIGTERM };

	if (!wait_empty(dir, 0))
		return 0;
	signal_all(dir, 0, &t);
	if (!wait_empty(dir, stop_ms))
		return 0;
	log_warning("what was left behind did not end within %u ms: it is killed", (unsigned)stop_ms);
	kill_all(dir, &t);
	if (!wait_empty(dir, KILL_MS))
		return 0;
	log_error("processes in %s cannot be killed", cgroup);
	return 1;
}

/* -------------------------------------------------------------- removal --- */

/* What cannot be removed stays, and keeps the directories above it. No link is followed. */
static void remove_entry(int at, const char *name, unsigned depth, void *arg)
{
	int dir;

	if (!sys_unlinkat(at, name, 0) || (dir = open_dir(at, name)) < 0)
		return;
	each(dir, depth + 1, remove_entry, arg);
	sys_close(dir);
	sys_unlinkat(at, name, AT_REMOVEDIR);
}

static int remove_dir(const char *path)
{
	const int dir = open_dir(AT_FDCWD, path);
	int e = dir;

	if (dir >= 0) {
		each(dir, 0, remove_entry, NULL);
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

static int end_cgroup(const char *cgroup, uint32_t stop_ms)
{
	static const char *const root[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	char path[PATH_MAX];
	int dir, r;

	if (!*cgroup)
		return 0;
	for (size_t i = 0; i < sizeof root / sizeof *root; i++) {
		snprintf(path, sizeof path, "%s%s", root[i], cgroup);
		dir = sys_open(path, O_RDONLY | O_DIRECTORY, 0);
		if (dir >= 0)
			break;
	}
	if (dir < 0)
		return 0;   /* systemd has removed it: it was empty */
	r = end_all(dir, cgroup, stop_ms);
	/*
	 * Those below it are handoffd's. The unit's own is systemd's, which may believe that it is
	 * there when it starts the unit again: that start would fail with 219/CGROUP.
	 */
	each(dir, 0, remove_entry, NULL);
	sys_close(dir);
	return r;
}

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
