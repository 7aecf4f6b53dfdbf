/* One wrapper for each call; no logic, so that nothing here needs a test of its own. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

const char *const sys_call_name[SYS_C_COUNT] = {
#define C(name) [SYS_C_##name] = #name,
	SYS_CALLS(C)
#undef C
};

int (*sys_fault)(enum sys_call call);
uint64_t sys_fs_type_override;

/* Asks the test's hook, if there is one; a negative answer is the wrapper's result. */
#define FAULT(name) \
	const int fault = sys_fault ? sys_fault(SYS_C_##name) : 0; \
	if (fault < 0) \
		return fault

static inline ssize_t result(ssize_t r)
{
	return r < 0 ? -errno : r;
}

static inline size_t cut(size_t n, int fault)
{
	return fault > 0 && (size_t)fault < n ? (size_t)fault : n;
}

ssize_t sys_read(int fd, void *buf, size_t n)
{
	FAULT(READ);
	return result(TEMP_FAILURE_RETRY(read(fd, buf, cut(n, fault))));
}

ssize_t sys_read_file(const char *path, int flags, void *buf, size_t size)
{
	const int fd = sys_open(path, O_RDONLY | flags, 0);
	size_t got = 0;
	ssize_t n = fd;

	while (fd >= 0 && got < size && (n = sys_read(fd, (char *)buf + got, size - got)) > 0)
		got += (size_t)n;
	if (fd >= 0)
		sys_close(fd);
	return n < 0 ? n : (ssize_t)got;
}

ssize_t sys_write(int fd, const void *buf, size_t n)
{
	FAULT(WRITE);
	return result(TEMP_FAILURE_RETRY(write(fd, buf, cut(n, fault))));
}

int sys_write_all(int fd, const void *buf, size_t n)
{
	for (size_t at = 0; at < n;) {
		const ssize_t w = sys_write(fd, (const char *)buf + at, n - at);

		if (w <= 0)
			return w < 0 ? (int)w : -EIO;
		at += (size_t)w;
	}
	return 0;
}

ssize_t sys_pread(int fd, void *buf, size_t n, off_t at)
{
	FAULT(PREAD);
	return result(TEMP_FAILURE_RETRY(pread(fd, buf, cut(n, fault), at)));
}

ssize_t sys_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	FAULT(PWRITE);
	return result(TEMP_FAILURE_RETRY(pwrite(fd, buf, cut(n, fault), at)));
}

int sys_open(const char *path, int flags, mode_t mode)
{
	FAULT(OPEN);
	return result(TEMP_FAILURE_RETRY(open(path, flags | O_CLOEXEC, mode)));
}

int sys_openat(int dir, const char *path, int flags, mode_t mode)
{
	FAULT(OPEN);
	return result(TEMP_FAILURE_RETRY(openat(dir, path, flags | O_CLOEXEC, mode)));
}

/* A close that fails has closed all the same, so the hook's failure closes too. */
static bool never_linger;
static volatile sig_atomic_t hurry_us;   /* until the next SIGALRM; 0: there shall be none */

/* Once: a timer that repeats itself would leave no time to a process that is slower than it is (one
 * that is traced), not even for the call that stops it. */
static void set_alarm(void)
{
	const struct itimerval t = { .it_value.tv_usec = hurry_us };

	setitimer(ITIMER_REAL, &t, NULL);   /* on Linux a system call and nothing else */
}

static void on_alarm(int sig)
{
	(void)sig;
	if (!hurry_us)
		return;
	hurry_us = hurry_us < 250000 ? 2 * hurry_us : hurry_us;
	set_alarm();
}

int sys_never_linger(void)
{
	const struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

	never_linger = true;
	return result(sigaction(SIGALRM, &sa, NULL));
}

/* Again and again, since one alone could come before the call that it is meant for. */
static void hurry(bool on)
{
	hurry_us = on ? 50 : 0;
	set_alarm();
}

/* Nothing but a socket does; the timer takes longer than all else that a close(2) does. */
static bool may_linger(int fd)
{
	int domain;
	socklen_t n = sizeof domain;

	return never_linger && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) && domain != AF_NETLINK;
}

static int close_it(int fd, bool guard)
{
	const int fault = sys_fault ? sys_fault(SYS_C_CLOSE) : 0;
	int r;

	if (guard)
		hurry(true);
	r = result(close(fd));
	if (guard)
		hurry(false);
	return fault < 0 ? fault : r;
}

int sys_close(int fd)
{
	return close_it(fd, may_linger(fd));
}

int sys_close_own(int fd)
{
	return close_it(fd, false);
}

int sys_dup(int fd, int from)
{
	FAULT(DUP);
	return result(fcntl(fd, F_DUPFD_CLOEXEC, from));
}

int sys_dup2(int fd, int to)
{
	FAULT(DUP);
	return result(TEMP_FAILURE_RETRY(dup2(fd, to)));
}

int sys_close_range(unsigned first, unsigned last)
{
	FAULT(CLOSE);
	return result(close_range(first, last, 0));
}

int sys_fcntl(int fd, int cmd, long arg)
{
	FAULT(FCNTL);
	return result(TEMP_FAILURE_RETRY(fcntl(fd, cmd, arg)));
}

int sys_nonblock(int fd)
{
	const int flags = sys_fcntl(fd, F_GETFL, 0);

	return flags < 0 || flags & O_NONBLOCK ? (flags < 0 ? flags : 0) : sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int sys_ftruncate(int fd, off_t size)
{
	FAULT(FTRUNCATE);
	return result(TEMP_FAILURE_RETRY(ftruncate(fd, size)));
}

int sys_fallocate(int fd, off_t size)
{
	FAULT(FALLOCATE);
	return result(TEMP_FAILURE_RETRY(fallocate(fd, 0, 0, size)));
}

int sys_fdatasync(int fd)
{
	FAULT(FDATASYNC);
	return result(TEMP_FAILURE_RETRY(fdatasync(fd)));
}

int sys_fstat(int fd, struct stat *ret)
{
	FAULT(FSTAT);
	return result(fstat(fd, ret));
}

int sys_stat(const char *path, struct stat *ret)
{
	FAULT(STAT);
	return result(stat(path, ret));
}

int sys_lstat(const char *path, struct stat *ret)
{
	FAULT(STAT);
	return result(lstat(path, ret));
}

int sys_fstatat(int dir, const char *path, struct stat *ret, int flags)
{
	FAULT(STAT);
	return result(fstatat(dir, path, ret, flags));
}

int sys_faccessat(int dir, const char *path, int mode, int flags)
{
	FAULT(STAT);
	return result(faccessat(dir, path, mode, flags));
}

int sys_fs_type(int fd, uint64_t *ret_magic)
{
	struct statfs s;
	int r;

	FAULT(FSTATFS);
	r = result(TEMP_FAILURE_RETRY(fstatfs(fd, &s)));
	if (r >= 0)
		*ret_magic = sys_fs_type_override ? sys_fs_type_override : (uint32_t)s.f_type;
	return r;
}

int sys_fgetxattr(int fd, const char *name, void *v, size_t n)
{
	FAULT(GETXATTR);
	return result(fgetxattr(fd, name, v, n));
}

int sys_mkdirat(int dir, const char *path, mode_t mode)
{
	FAULT(MKDIR);
	return result(mkdirat(dir, path, mode));
}

int sys_mkdir(const char *path, mode_t mode)
{
	FAULT(MKDIR);
	return result(mkdir(path, mode));
}

int sys_ficlone(int to, int from)
{
	FAULT(FICLONE);
	return result(ioctl(to, FICLONE, from));
}

int sys_pipe_used(int fd)
{
	int n;

	FAULT(PIPE_USED);
	return result(ioctl(fd, FIONREAD, &n)) < 0 ? -errno : n;
}

int sys_unlink(const char *path)
{
	FAULT(UNLINK);
	return result(unlink(path));
}

int sys_unlinkat(int dir, const char *path, int flags)
{
	FAULT(UNLINK);
	return result(unlinkat(dir, path, flags));
}

int sys_chmod(const char *path, mode_t mode)
{
	FAULT(CHMOD);
	return result(chmod(path, mode));
}

int sys_fchmod(int fd, mode_t mode)
{
	FAULT(CHMOD);
	return result(fchmod(fd, mode));
}

int sys_fchown(int fd, uid_t uid, gid_t gid)
{
	FAULT(CHMOD);
	return result(fchown(fd, uid, gid));
}

int sys_lchown(const char *path, uid_t uid, gid_t gid)
{
	FAULT(CHMOD);
	return result(lchown(path, uid, gid));
}

int sys_rename(const char *from, const char *to)
{
	FAULT(RENAME);
	return result(rename(from, to));
}

int sys_flock(int fd, int how)
{
	FAULT(FLOCK);
	return result(TEMP_FAILURE_RETRY(flock(fd, how)));
}

int sys_memfd(const char *name)
{
	FAULT(MEMFD);
	return result(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
}

int sys_socket(int domain, int type, int protocol)
{
	FAULT(SOCKET);
	return result(socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
}

int sys_socketpair(int type, int ret[2])
{
	FAULT(SOCKETPAIR);
	return result(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret));
}

int sys_bind(int fd, const struct sockaddr *sa, socklen_t n)
{
	FAULT(BIND);
	return result(bind(fd, sa, n));
}

int sys_listen(int fd, int backlog)
{
	FAULT(LISTEN);
	return result(listen(fd, backlog));
}

int sys_connect(int fd, const struct sockaddr *sa, socklen_t n)
{
	FAULT(CONNECT);
	return result(TEMP_FAILURE_RETRY(connect(fd, sa, n)));
}

int sys_accept(int fd)
{
	FAULT(ACCEPT);
	return result(TEMP_FAILURE_RETRY(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)));
}

/* The first max bytes of m, for a test's shortened transfer. */
static const struct msghdr *shorten(const struct msghdr *m, struct msghdr *copy,
				    struct iovec iov[4], size_t max)
{
	*copy = *m;
	copy->msg_iov = iov;
	copy->msg_iovlen = 0;
	for (size_t i = 0; i < 4 && i < m->msg_iovlen && max > 0; i++) {
		iov[i] = m->msg_iov[i];
		if (iov[i].iov_len > max)
			iov[i].iov_len = max;
		max -= iov[i].iov_len;
		copy->msg_iovlen++;
	}
	return copy;
}

ssize_t sys_sendmsg(int fd, const struct msghdr *m, int flags)
{
	struct iovec iov[4];
	struct msghdr copy;

	FAULT(SENDMSG);
	if (fault > 0)
		m = shorten(m, &copy, iov, fault);
	return result(TEMP_FAILURE_RETRY(sendmsg(fd, m, flags | MSG_NOSIGNAL)));
}

ssize_t sys_recvmsg(int fd, struct msghdr *m, int flags)
{
	struct iovec iov[4];
	struct msghdr copy;
	ssize_t r;

	FAULT(RECVMSG);
	if (fault <= 0)
		return result(TEMP_FAILURE_RETRY(recvmsg(fd, m, flags | MSG_CMSG_CLOEXEC)));
	shorten(m, &copy, iov, fault);
	r = result(TEMP_FAILURE_RETRY(recvmsg(fd, &copy, flags | MSG_CMSG_CLOEXEC)));
	m->msg_namelen = copy.msg_namelen;
	m->msg_controllen = copy.msg_controllen;
	m->msg_flags = copy.msg_flags;
	return r;
}

int sys_shutdown(int fd)
{
	FAULT(SHUTDOWN);
	return result(shutdown(fd, SHUT_RDWR));
}

int sys_setsockopt(int fd, int level, int name, const void *v, socklen_t n)
{
	FAULT(SETSOCKOPT);
	return result(setsockopt(fd, level, name, v, n));
}

int sys_getsockopt(int fd, int level, int name, void *v, socklen_t *n)
{
	FAULT(GETSOCKOPT);
	return result(getsockopt(fd, level, name, v, n));
}

int sys_getsockname(int fd, struct sockaddr *sa, socklen_t *n)
{
	FAULT(GETSOCKNAME);
	return result(getsockname(fd, sa, n));
}

int sys_pipe(int ret[2])
{
	FAULT(PIPE);
	return result(pipe2(ret, O_CLOEXEC));
}

pid_t sys_fork(void)
{
	pid_t pid;

	FAULT(FORK);
	pid = fork();
	if (pid == 0)
		never_linger = false;   /* a signal that is left of it would kill what is executed */
	return result(pid);
}

int sys_pidfd_open(pid_t pid)
{
	FAULT(PIDFD_OPEN);
	return result(pidfd_open(pid, 0));
}

int sys_pidfd_signal(int pidfd, int sig)
{
	FAULT(PIDFD_SIGNAL);
	return result(pidfd_send_signal(pidfd, sig, NULL, 0));
}

int sys_waitpidfd(int pidfd, siginfo_t *ret, int options)
{
	FAULT(WAITID);
	return result(TEMP_FAILURE_RETRY(waitid(P_PIDFD, pidfd, ret, options)));
}

int sys_wait_any(siginfo_t *ret)
{
	FAULT(WAITID);
	return result(TEMP_FAILURE_RETRY(waitid(P_ALL, 0, ret, WEXITED | WNOHANG)));
}

int sys_waitpid(pid_t pid, int *ret_status, int options)
{
	FAULT(WAITID);
	return result(TEMP_FAILURE_RETRY(waitpid(pid, ret_status, options)));
}

int sys_prctl(int option, unsigned long a)
{
	FAULT(PRCTL);
	return result(prctl(option, a, 0UL, 0UL, 0UL));
}

int sys_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	FAULT(EXEC);
	return result(execveat(dir, path, argv, envp, flags));
}

int sys_epoll_create(void)
{
	FAULT(EPOLL_CREATE);
	return result(epoll_create1(EPOLL_CLOEXEC));
}

int sys_epoll_ctl(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	FAULT(EPOLL_CTL);
	return result(epoll_ctl(ep, op, fd, &e));
}

int sys_epoll_wait(int ep, struct epoll_event *ret, int max, int timeout_ms)
{
	FAULT(EPOLL_WAIT);
	return result(epoll_wait(ep, ret, max, timeout_ms));
}

int sys_timerfd(void)
{
	FAULT(TIMERFD);
	return result(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

int sys_timerfd_set(int fd, uint64_t at_ms)
{
	const struct itimerspec at = {
		.it_value = { .tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000 },
	};

	FAULT(TIMERFD);
	return result(timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL));
}

int sys_eventfd(void)
{
	FAULT(EVENTFD);
	return result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

int sys_poll(struct pollfd *p, unsigned n, int timeout_ms)
{
	FAULT(POLL);
	return result(poll(p, n, timeout_ms));
}

int sys_unshare(int flags)
{
	FAULT(UNSHARE);
	return result(unshare(flags));
}

int sys_chdir(const char *path)
{
	FAULT(FCHDIR);
	return result(chdir(path));
}

int sys_fchdir(int fd)
{
	FAULT(FCHDIR);
	return result(fchdir(fd));
}

int sys_getrlimit(int what, struct rlimit *ret)
{
	FAULT(GETRLIMIT);
	return result(getrlimit(what, ret));
}

int sys_setrlimit(int what, const struct rlimit *limit)
{
	FAULT(SETRLIMIT);
	return result(setrlimit(what, limit));
}

int sys_setpriority(int nice)
{
	FAULT(SETPRIORITY);
	return result(setpriority(PRIO_PROCESS, 0, nice));
}

/* ioprio_set(2) has no wrapper in the C library. */
int sys_ioprio_idle(void)
{
	enum { WHO_PROCESS = 1, CLASS_IDLE = 3, CLASS_SHIFT = 13 };

	FAULT(SETPRIORITY);
	return result(syscall(SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT));
}

int sys_setgroups(size_t n, const gid_t *gids)
{
	FAULT(SETGROUPS);
	return result(setgroups(n, gids));
}

int sys_setgid(gid_t gid)
{
	FAULT(SETGID);
	return result(setresgid(gid, gid, gid));
}

int sys_setuid(uid_t uid)
{
	FAULT(SETUID);
	return result(setresuid(uid, uid, uid));
}

/* These two report no error: the id that a second call finds tells. */
int sys_setfsgid(gid_t gid)
{
	FAULT(SETGID);
	setfsgid(gid);
	return (gid_t)setfsgid(-1) == gid ? 0 : -EPERM;
}

int sys_setfsuid(uid_t uid)
{
	FAULT(SETUID);
	setfsuid(uid);
	return (uid_t)setfsuid(-1) == uid ? 0 : -EPERM;
}

static uint64_t now_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t sys_now_ms(void)
{
	return now_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t sys_now_us(void)
{
	return now_us(CLOCK_MONOTONIC);
}

uint64_t sys_boot_us(void)
{
	return now_us(CLOCK_BOOTTIME);
}

uint64_t sys_wall_ms(void)
{
	return now_us(CLOCK_REALTIME) / 1000;
}

void sys_closep(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

void sys_fill_standard(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);   /* open(2): the lowest that is free */
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}
