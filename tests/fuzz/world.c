/*
 * Calls that are answered here instead of by the operating system, by the linker's --wrap: time,
 * processes, who connects. So a whole supervisor runs in this process, and starts and kills nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/sys.h"
#include "fuzz.h"
#include "handoffd/spawn.h"

struct world world;
struct fake fakes[FAKES];

#define WRAP(type, name, ...) type __real_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

/* ------------------------------------------------------------------ time --- */

WRAP(uint64_t, sys_now_us, void)
{
	return world.now_us ? world.now_us : __real_sys_now_us();
}

WRAP(uint64_t, sys_now_ms, void)
{
	return world.now_us ? world.now_us / 1000 : __real_sys_now_ms();
}

/* Who waits for what does not come has waited, at once. */
WRAP(int, sys_poll, struct pollfd *p, unsigned n, int timeout_ms)
{
	if (!world.now_us)
		return __real_sys_poll(p, n, timeout_ms);
	const int r = __real_sys_poll(p, n, 0);
	if (!r && timeout_ms > 0)
		world.now_us += (uint64_t)timeout_ms * 1000;
	return r;
}

/* ----------------------------------------------------------------- files --- */

WRAP(int, sys_open, const char *path, int flags, mode_t mode)
{
	if (world.proc && !strncmp(path, "/proc/", 6))
		path = world.proc;
	return __real_sys_open(path, flags, mode);
}

WRAP(int, sys_close, int fd)
{
	return world.keeps_fds && fd < world.first_own_fd ? 0 : __real_sys_close(fd);
}

/* Within sys.c the calls are not the linker's to exchange. */
WRAP(ssize_t, sys_read_file, const char *path, int flags, void *buf, size_t size)
{
	const int fd = __wrap_sys_open(path, flags, 0);
	const ssize_t n = fd < 0 ? fd : sys_pread(fd, buf, size, 0);

	if (fd >= 0)
		__real_sys_close(fd);
	return n;
}

WRAP(void, sys_closep, int *fd)
{
	if (*fd >= 0)
		__wrap_sys_close(*fd);
	*fd = -1;
}

/* --------------------------------------------------------------- sockets --- */

WRAP(int, sys_connect, int fd, const struct sockaddr *sa, socklen_t n)
{
	int other;

	if (!world.connect)
		return __real_sys_connect(fd, sa, n);
	if ((other = world.connect()) < 0)
		return other;
	dup3(other, fd, O_CLOEXEC);
	close(other);
	return 0;
}

WRAP(int, sys_getsockopt, int fd, int level, int name, void *v, socklen_t *n)
{
	const int r = __real_sys_getsockopt(fd, level, name, v, n);

	if (!r && world.visitor && level == SOL_SOCKET && name == SO_PEERCRED) {
		((struct ucred *)v)->pid = world.visitor;
		((struct ucred *)v)->uid = world.visitor_uid;
	}
	return r;
}

/* ------------------------------------------------------------- processes --- */

struct fake *fake_of(pid_t pid)
{
	for (unsigned i = 0; i < FAKES; i++)
		if (pid && fakes[i].pid == pid)
			return &fakes[i];
	return NULL;
}

unsigned fakes_alive(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FAKES; i++)
		n += fakes[i].pid && fakes[i].life >= 0;
	return n;
}

/* Its last words stay in the socket, as in the kernel. */
void fake_dies(struct fake *f)
{
	if (f->channel >= 0)
		close(f->channel);
	if (f->life >= 0)
		close(f->life);
	f->channel = f->life = -1;
}

static struct fake *place(void)
{
	for (unsigned i = 0; i < FAKES; i++)
		if (!fakes[i].pid || fakes[i].life < 0)
			return &fakes[i];
	return NULL;
}

WRAP(int, spawn_daemon, const struct spawn_args *a, struct child *ret, char *err, size_t size)
{
	static pid_t last = FAKE_PID;
	struct fake *f = place();
	int life[2], gate[2];

	if (!world.daemons || !f)
		return __real_spawn_daemon(a, ret, err, size);
	if (pipe2(life, O_CLOEXEC) || pipe2(gate, O_CLOEXEC))
		return -EMFILE;
	close(gate[0]);
	fake_dies(f);
	*f = (struct fake){ .pid = ++last, .channel = fcntl(a->channel, F_DUPFD_CLOEXEC, 3), .life = life[1] };
	*ret = (struct child){ .pid = f->pid, .pidfd = life[0], .gate = gate[1] };
	return 0;
}

WRAP(int, proc_start_time, pid_t pid, uint64_t *ret)
{
	if (pid < FAKE_PID)
		return __real_proc_start_time(pid, ret);
	*ret = (uint64_t)pid;
	return 0;
}

WRAP(int, proc_open, pid_t pid, uint64_t start)
{
	return pid < FAKE_PID ? __real_proc_open(pid, start) : -ESRCH;
}

WRAP(int, proc_children, void (*fn)(void *arg, pid_t pid), void *arg)
{
	return world.daemons ? 0 : __real_proc_children(fn, arg);
}

WRAP(int, proc_all, void (*fn)(void *arg, pid_t pid), void *arg)
{
	return world.daemons ? 0 : __real_proc_all(fn, arg);
}

/* By the pipe that stands for the pidfd: it is found by its inode. */
WRAP(int, sys_pidfd_signal, int pidfd, int sig)
{
	struct stat mine, its;

	for (unsigned i = 0; i < FAKES; i++)
		if (fakes[i].pid && fakes[i].life >= 0 && !fstat(pidfd, &mine) && !fstat(fakes[i].life, &its) &&
		    mine.st_ino == its.st_ino) {
			fakes[i].told_to_end = true;
			if (sig == SIGKILL)
				fake_dies(&fakes[i]);
			return 0;
		}
	return -ESRCH;
}

WRAP(int, sys_wait_any, siginfo_t *ret)
{
	return world.daemons ? -ECHILD : __real_sys_wait_any(ret);
}

/* Executables are not copied. */
WRAP(pid_t, sys_fork, void)
{
	return world.daemons ? -EAGAIN : __real_sys_fork();
}
