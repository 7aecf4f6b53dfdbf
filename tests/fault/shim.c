/*
 * shim: an LD_PRELOAD library that counts the system calls and allocations of handoffd, of
 * its daemons and of handoffctl, and fails a chosen one. What to fail, and what was counted,
 * lies in a file that all of them map (FAULT_SHIM=PATH): the test arms it, then looks.
 *
 * Counted is what the project's own code asks for, and the libraries that work for it; not
 * what libc does by itself, nor the daemon's own code, which is not what is tested. The
 * library's calls of sys are hidden in it, but what they call is libc's, and that is here.
 *
 * Also counted are the blocks of memory that are not free yet, for what leaks.
 * Other things that it does: with FAULT_CLOCK set the wall clock jumps, and with FAULT_LATE a signal comes
 * late.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* The order is that of the counters; the names are written into the control file. */
#define CALLS(C) \
	C(read) C(write) C(pread) C(pwrite) C(open) C(openat) C(close) C(fcntl) C(dup2) \
	C(close_range) C(ftruncate) C(fallocate) C(fdatasync) C(fstat) C(stat) C(lstat) \
	C(fstatat) C(faccessat) C(fstatfs) C(fgetxattr) C(readlink) C(realpath) C(opendir) \
	C(fdopendir) C(mkdir) C(mkdirat) C(unlink) C(unlinkat) C(chmod) C(fchmod) C(fchown) \
	C(lchown) C(rename) C(flock) C(socket) C(socketpair) C(bind) C(listen) C(connect) \
	C(accept4) C(sendmsg) C(recvmsg) C(shutdown) C(setsockopt) C(getsockopt) C(getsockname) \
	C(pipe2) C(fork) C(pidfd_open) C(waitid) C(waitpid) C(epoll_create1) C(epoll_ctl) \
	C(epoll_wait) C(timerfd_create) C(eventfd) C(poll) C(unshare) C(chdir) C(fchdir) \
	C(setrlimit) C(setpriority) C(setgroups) C(setresgid) C(setresuid) C(execveat) \
	C(pthread_create) C(open_memstream) C(memfd_create) C(pidfd_signal) \
	C(malloc) C(calloc) C(realloc) C(strdup) C(strndup) C(asprintf)

enum call {
#define C(name) CALL_##name,
	CALLS(C)
#undef C
	CALL_COUNT
};

/* Who: S handoffd; C its child before the exec, and the next handoffd that is asked whether it
 * can go on; O the daemon that served when it was armed; N any other daemon; T handoffctl. */
enum role { ROLE_NONE, ROLE_S, ROLE_C, ROLE_O, ROLE_N, ROLE_T, ROLE_COUNT };

#define CUT 10000        /* an "error": one byte is transferred, and said so */
#define TRUNCATED 10001  /* an "error": the descriptors did not fit (MSG_CTRUNC) */

#define MEMORIES 64

struct memory {          /* of one process: blocks that it has and has not freed */
	_Atomic int32_t pid, blocks;
};

struct control {         /* fault.py knows this layout */
	uint32_t armed;  /* 0: nothing is counted */
	int32_t o_pid;
	uint32_t role, call, nth;  /* the nth, from 1, is failed, 0: each; role 0: none */
	int32_t error;
	_Atomic uint32_t hits;
	uint32_t ncalls;
	_Atomic uint32_t daemons;          /* that have begun: where the next one counts */
	struct memory memory[MEMORIES];    /* the first is handoffd's */
	_Atomic uint32_t count[ROLE_COUNT][CALL_COUNT];
	char name[CALL_COUNT][16];
	char where[512];           /* who called it, for people */
};

static struct control *ctl;
static struct memory *memory;
static pid_t loaded_by;
static enum role base_role;
static __thread bool inside;

#define MAX_OURS 8
static struct { uintptr_t from, to; bool event; } ours[MAX_OURS];
static unsigned nours;

static int note_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	const bool first = !*(bool *)arg;
	const char *name = info->dlpi_name;

	(void)size;
	*(bool *)arg = true;
	/* of a daemon only the library; of the others the program and what it stands on, but
	 * libconfuse, which dies without memory: handoffd makes sure before that there is some */
	if (base_role == ROLE_N ? !strstr(name, "libhandoff") && !strstr(name, "libcbor")
	    : !first && !strstr(name, "libevent") && !strstr(name, "libcbor") &&
	      !strstr(name, "libjansson"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && nours < MAX_OURS; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		ours[nours].event = strstr(name, "libevent");
		ours[nours].from = info->dlpi_addr + p->p_vaddr;
		ours[nours++].to = info->dlpi_addr + p->p_vaddr + p->p_memsz;
	}
	return 0;
}

static bool is_asked(int argc, char **argv)
{
	return argc > 1 && !strcmp(argv[argc - 2], "--check-carried");
}

/* (glibc gives it what main() gets) */
static void __attribute__((constructor)) load(int argc, char **argv)
{
	static const char *const name[CALL_COUNT] = {
#define C(x) [CALL_##x] = #x,
		CALLS(C)
#undef C
	};
	const char *path = getenv("FAULT_SHIM"), *me = program_invocation_short_name;
	void *dummy[1], *map;
	bool seen = false;
	int fd;

	if (!path || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		return;
	map = mmap(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return;
	base_role = !strcmp(me, "handoffctl") ? ROLE_T : strcmp(me, "handoffd") ? ROLE_N
	            : is_asked(argc, argv) ? ROLE_C : ROLE_S;
	loaded_by = getpid();
	dl_iterate_phdr(note_object, &seen);
	backtrace(dummy, 1);   /* loads what it needs: not when memory is short */
	ctl = map;
	for (int i = 0; i < CALL_COUNT; i++)
		strncpy(ctl->name[i], name[i], sizeof ctl->name[i] - 1);
	ctl->ncalls = CALL_COUNT;
	/* `handoffd --check` runs beside the one whose memory is counted; behind a re-exec it is itself */
	if (base_role == ROLE_S && (!ctl->memory[0].pid || ctl->memory[0].pid == loaded_by ||
	                            kill(ctl->memory[0].pid, 0)))
		memory = &ctl->memory[0];
	else if (base_role == ROLE_N)
		memory = &ctl->memory[1 + atomic_fetch_add(&ctl->daemons, 1) % (MEMORIES - 1)];
	if (memory) {
		memory->blocks = 0;
		memory->pid = loaded_by;
	}
}

static bool is_ours(const void *caller, enum call call)
{
	const uintptr_t at = (uintptr_t)caller;
	/* what libevent does with its own descriptors cannot fail but for these */
	const bool of_event = call == CALL_epoll_ctl || call == CALL_epoll_create1 || call >= CALL_malloc;

	for (unsigned i = 0; i < nours; i++)
		if (at >= ours[i].from && at < ours[i].to && (!ours[i].event || of_event))
			return true;
	return false;
}

static enum role role(void)
{
	const pid_t pid = getpid();

	if (base_role == ROLE_S)
		return pid == loaded_by ? ROLE_S : ROLE_C;
	if (base_role == ROLE_N && pid == ctl->o_pid)
		return ROLE_O;
	return base_role;
}

/* The callers, as "handoffd+0x123 ...", outermost last. */
static void note_where(void)
{
	void *frame[12];
	const int n = backtrace(frame, 12);
	size_t at = 0;

	for (int i = 2; i < n && at < sizeof ctl->where - 80; i++) {
		Dl_info d;
		if (!dladdr(frame[i], &d) || !d.dli_fname)
			continue;
		const char *base = strrchr(d.dli_fname, '/');
		at += (size_t)snprintf(ctl->where + at, sizeof ctl->where - at, "%.30s+0x%lx ",
		                       base ? base + 1 : d.dli_fname,
		                       (unsigned long)((char *)frame[i] - (char *)d.dli_fbase - 1));
	}
}

/* 0: it may happen; else the error. possible: whether this very call can come to that error; if not, it is counted and succeeds. */
static int fault_if(enum call call, const void *caller, bool possible)
{
	enum role r;

	if (!ctl || !ctl->armed || inside || !is_ours(caller, call))
		return 0;
	r = role();
	const uint32_t n = atomic_fetch_add(&ctl->count[r][call], 1) + 1;
	if (ctl->role != r || ctl->call != (uint32_t)call || (ctl->nth && ctl->nth != n) || !possible)
		return 0;
	inside = true;
	if (!atomic_fetch_add(&ctl->hits, 1))
		note_where();
	inside = false;
	return ctl->error;
}

static int fault(enum call call, const void *caller)
{
	return fault_if(call, caller, true);
}

static void *real(const char *name)
{
	void *p;

	inside = true;
	p = dlsym(RTLD_NEXT, name);
	inside = false;
	return p;
}

#define FAIL(name) FAIL_IF(name, true)
#define FAIL_IF(name, possible) \
	const int e = fault_if(CALL_##name, __builtin_return_address(0), possible); \
	static __typeof__(name) *next; \
	if (e && e < CUT) { errno = e; return -1; } \
	if (!next) next = real(#name)

#define ARGS(...) __VA_ARGS__
#define WRAP(type, name, params, args) \
	EXPORT type name(params) { FAIL(name); return next(args); }
/* The same with a transfer of *n bytes that can be cut. */
#define WRAP_CUT(type, name, params, args) \
	EXPORT type name(params) { FAIL(name); if (e == CUT && n > 1) n = 1; return next(args); }

WRAP_CUT(ssize_t, read, ARGS(int fd, void *p, size_t n), ARGS(fd, p, n))
/* eventfd(2): it fails only when its counter is full, and then who waits for it is awake anyway. */
static bool write_can(int fd)
{
	static const char counter[] = "anon_inode:[eventfd]";
	char path[32], target[sizeof counter];

	if (!ctl || !ctl->error)
		return true;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return syscall(SYS_readlink, path, target, sizeof target) != sizeof counter - 1 ||
	       memcmp(target, counter, sizeof counter - 1);   /* readlink(3) is counted */
}

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
	FAIL_IF(write, write_can(fd));
	return next(fd, p, e == CUT && n > 1 ? 1 : n);
}

WRAP_CUT(ssize_t, pread, ARGS(int fd, void *p, size_t n, off_t at), ARGS(fd, p, n, at))
WRAP_CUT(ssize_t, pwrite, ARGS(int fd, const void *p, size_t n, off_t at), ARGS(fd, p, n, at))
WRAP(int, dup2, ARGS(int a, int b), ARGS(a, b))
WRAP(int, close_range, ARGS(unsigned a, unsigned b, int f), ARGS(a, b, f))
WRAP(int, ftruncate, ARGS(int fd, off_t n), ARGS(fd, n))
WRAP(int, fallocate, ARGS(int fd, int mode, off_t at, off_t n), ARGS(fd, mode, at, n))
WRAP(int, fdatasync, ARGS(int fd), ARGS(fd))
WRAP(int, fstat, ARGS(int fd, struct stat *s), ARGS(fd, s))
WRAP(int, stat, ARGS(const char *p, struct stat *s), ARGS(p, s))
WRAP(int, lstat, ARGS(const char *p, struct stat *s), ARGS(p, s))
WRAP(int, fstatat, ARGS(int d, const char *p, struct stat *s, int f), ARGS(d, p, s, f))
WRAP(int, faccessat, ARGS(int d, const char *p, int m, int f), ARGS(d, p, m, f))
WRAP(int, fstatfs, ARGS(int fd, struct statfs *s), ARGS(fd, s))
WRAP(ssize_t, readlink, ARGS(const char *p, char *b, size_t n), ARGS(p, b, n))
ssize_t fgetxattr(int fd, const char *name, void *v, size_t n);
WRAP(ssize_t, fgetxattr, ARGS(int fd, const char *name, void *v, size_t n), ARGS(fd, name, v, n))
WRAP(int, mkdirat, ARGS(int d, const char *p, mode_t m), ARGS(d, p, m))
WRAP(int, mkdir, ARGS(const char *p, mode_t m), ARGS(p, m))
WRAP(int, unlink, ARGS(const char *p), ARGS(p))
WRAP(int, unlinkat, ARGS(int d, const char *p, int f), ARGS(d, p, f))
WRAP(int, chmod, ARGS(const char *p, mode_t m), ARGS(p, m))
WRAP(int, fchmod, ARGS(int fd, mode_t m), ARGS(fd, m))
WRAP(int, fchown, ARGS(int fd, uid_t u, gid_t g), ARGS(fd, u, g))
WRAP(int, lchown, ARGS(const char *p, uid_t u, gid_t g), ARGS(p, u, g))
WRAP(int, rename, ARGS(const char *a, const char *b), ARGS(a, b))
int flock(int fd, int how);   /* sys/file.h would bring fcntl's constants twice */
WRAP(int, flock, ARGS(int fd, int how), ARGS(fd, how))
WRAP(int, socket, ARGS(int a, int b, int c), ARGS(a, b, c))
WRAP(int, socketpair, ARGS(int a, int b, int c, int f[2]), ARGS(a, b, c, f))
WRAP(int, bind, ARGS(int fd, const struct sockaddr *a, socklen_t n), ARGS(fd, a, n))
WRAP(int, listen, ARGS(int fd, int n), ARGS(fd, n))
WRAP(int, connect, ARGS(int fd, const struct sockaddr *a, socklen_t n), ARGS(fd, a, n))
WRAP(int, accept4, ARGS(int fd, struct sockaddr *a, socklen_t *n, int f), ARGS(fd, a, n, f))
WRAP(int, shutdown, ARGS(int fd, int how), ARGS(fd, how))
WRAP(int, setsockopt, ARGS(int fd, int l, int o, const void *v, socklen_t n), ARGS(fd, l, o, v, n))
WRAP(int, getsockopt, ARGS(int fd, int l, int o, void *v, socklen_t *n), ARGS(fd, l, o, v, n))
WRAP(int, getsockname, ARGS(int fd, struct sockaddr *a, socklen_t *n), ARGS(fd, a, n))
WRAP(int, pipe2, ARGS(int p[2], int f), ARGS(p, f))
int pidfd_open(pid_t pid, unsigned f);
WRAP(int, pidfd_open, ARGS(pid_t pid, unsigned f), ARGS(pid, f))
WRAP(int, waitid, ARGS(idtype_t t, id_t id, siginfo_t *s, int o), ARGS(t, id, s, o))
WRAP(pid_t, waitpid, ARGS(pid_t pid, int *s, int o), ARGS(pid, s, o))
int epoll_create1(int f);
WRAP(int, epoll_create1, ARGS(int f), ARGS(f))
struct epoll_event;
#define EPOLL_CTL_ADD_ 1
int epoll_ctl(int ep, int op, int fd, struct epoll_event *e);
int epoll_wait(int ep, struct epoll_event *v, int n, int ms);
WRAP(int, epoll_wait, ARGS(int ep, struct epoll_event *v, int n, int ms), ARGS(ep, v, n, ms))
int timerfd_create(int clock, int f);
WRAP(int, timerfd_create, ARGS(int clock, int f), ARGS(clock, f))
int eventfd(unsigned n, int f);
WRAP(int, eventfd, ARGS(unsigned n, int f), ARGS(n, f))
WRAP(int, poll, ARGS(struct pollfd *p, nfds_t n, int ms), ARGS(p, n, ms))
int memfd_create(const char *name, unsigned f);
WRAP(int, memfd_create, ARGS(const char *name, unsigned f), ARGS(name, f))
int unshare(int f);
WRAP(int, unshare, ARGS(int f), ARGS(f))
WRAP(int, chdir, ARGS(const char *p), ARGS(p))
WRAP(int, fchdir, ARGS(int fd), ARGS(fd))
WRAP(int, setrlimit, ARGS(__rlimit_resource_t r, const struct rlimit *l), ARGS(r, l))
WRAP(int, setpriority, ARGS(__priority_which_t w, id_t who, int n), ARGS(w, who, n))
int setgroups(size_t n, const gid_t *g);
WRAP(int, setgroups, ARGS(size_t n, const gid_t *g), ARGS(n, g))
WRAP(int, setresgid, ARGS(gid_t a, gid_t b, gid_t c), ARGS(a, b, c))
WRAP(int, setresuid, ARGS(uid_t a, uid_t b, uid_t c), ARGS(a, b, c))
WRAP(int, execveat, ARGS(int d, const char *p, char *const a[], char *const v[], int f),
     ARGS(d, p, a, v, f))

/* A close that fails has closed all the same. */
EXPORT int close(int fd)
{
	const int e = fault(CALL_close, __builtin_return_address(0));
	static __typeof__(close) *next;
	int r;

	if (!next)
		next = real("close");
	r = next(fd);
	return e ? errno = e, -1 : r;
}

/* A child is nobody whose memory is counted. */
EXPORT pid_t fork(void)
{
	FAIL(fork);
	const pid_t pid = next();

	if (pid == 0)
		memory = NULL;
	return pid;
}

#define FAIL_NULL(name) \
	const int e = fault(CALL_##name, __builtin_return_address(0)); \
	static __typeof__(name) *next; \
	if (e) { errno = e; return NULL; } \
	if (!next) next = real(#name)

EXPORT DIR *opendir(const char *p) { FAIL_NULL(opendir); return next(p); }
EXPORT DIR *fdopendir(int fd) { FAIL_NULL(fdopendir); return next(fd); }
EXPORT char *realpath(const char *restrict p, char *restrict to)
{
	FAIL_NULL(realpath);
	return next(p, to);
}

EXPORT FILE *open_memstream(char **p, size_t *n) { FAIL_NULL(open_memstream); return next(p, n); }

/* FORTIFY's name of it */
char *__realpath_chk(const char *restrict p, char *restrict to, size_t n);
EXPORT char *__realpath_chk(const char *restrict p, char *restrict to, size_t n)
{
	static __typeof__(__realpath_chk) *next;
	const int e = fault(CALL_realpath, __builtin_return_address(0));

	if (!next)
		next = real("__realpath_chk");
	return e ? errno = e, NULL : next(p, to, n);
}

/* Only something new needs memory. */
EXPORT int epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	static __typeof__(epoll_ctl) *next;
	const int e = op == EPOLL_CTL_ADD_ ? fault(CALL_epoll_ctl, __builtin_return_address(0)) : 0;

	if (!next)
		next = real("epoll_ctl");
	return e ? errno = e, -1 : next(ep, op, fd, ev);
}

/* Room is needed where a file is made, a disk that can be written where it is opened for that. */
static bool open_can(int flags)
{
	const bool makes = flags & (O_CREAT | __O_TMPFILE);

	switch (ctl ? ctl->error : 0) {
	case ENOSPC: return makes;
	case EROFS: return makes || (flags & O_ACCMODE) != O_RDONLY;
	default: return true;
	}
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	FAIL_IF(open, open_can(flags));
	return next(path, flags, mode);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	FAIL_IF(openat, open_can(flags));
	return next(dir, path, flags, mode);
}

/* Only a copy can fail, and seals. */
EXPORT int fcntl(int fd, int cmd, ...)
{
	static __typeof__(fcntl) *next;
	va_list ap;

	va_start(ap, cmd);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	const int e = cmd == F_DUPFD_CLOEXEC || cmd == F_ADD_SEALS ? fault(CALL_fcntl, __builtin_return_address(0)) : 0;
	if (!next)
		next = real("fcntl");
	return e ? errno = e, -1 : next(fd, cmd, arg);
}

static struct msghdr shorter(const struct msghdr *m, struct iovec *one)
{
	struct msghdr copy = *m;

	for (size_t i = 0; i < m->msg_iovlen; i++)
		if (m->msg_iov[i].iov_len) {
			*one = (struct iovec){ m->msg_iov[i].iov_base, 1 };
			copy.msg_iov = one;
			copy.msg_iovlen = 1;
			break;
		}
	return copy;
}

/* EPIPE and ECONNRESET say that the other end was closed: then this one reads its end, too. */
EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	static __typeof__(sendmsg) *next;
	const int e = fault(CALL_sendmsg, __builtin_return_address(0));
	struct msghdr copy;
	struct iovec one;

	if (!next)
		next = real("sendmsg");
	if (e == EPIPE || e == ECONNRESET)
		syscall(SYS_shutdown, fd, SHUT_RDWR);
	if (e && e < CUT)
		return errno = e, -1;
	if (e == CUT) {
		copy = shorter(m, &one);
		m = &copy;
	}
	return next(fd, m, flags);
}

/* In the control file a name has 15 letters. */
int pidfd_send_signal(int fd, int sig, siginfo_t *s, unsigned f);
EXPORT int pidfd_send_signal(int fd, int sig, siginfo_t *s, unsigned f)
{
	const int e = fault(CALL_pidfd_signal, __builtin_return_address(0));
	static __typeof__(pidfd_send_signal) *next;

	if (!next)
		next = real("pidfd_send_signal");
	return e ? errno = e, -1 : next(fd, sig, s, f);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	struct msghdr copy;
	struct iovec one;
	ssize_t r;

	FAIL(recvmsg);
	if (e == TRUNCATED)   /* as without descriptors to receive them in */
		m->msg_controllen = 0;
	if (e != CUT)
		return next(fd, m, flags);
	copy = shorter(m, &one);
	r = next(fd, &copy, flags);
	m->msg_namelen = copy.msg_namelen;
	m->msg_controllen = copy.msg_controllen;
	m->msg_flags = copy.msg_flags;
	return r;
}

EXPORT int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
	const int e = fault(CALL_pthread_create, __builtin_return_address(0));
	static __typeof__(pthread_create) *next;

	if (!next)
		next = real("pthread_create");
	return e ? e : next(t, a, f, arg);
}

/* ---------------------------------------------------------------- signals --- */

/* FAULT_LATE: a process gets each signal that it has handled as soon as it handles it no more. */
EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	static __typeof__(sigaction) *next;
	static pid_t handled_by[NSIG];   /* a fork of that one is another */

	if (!next)
		next = real("sigaction");
	const int r = next(sig, act, old);
	if (r || !act || !getenv("FAULT_LATE"))
		return r;
	if (act->sa_handler == SIG_DFL && handled_by[sig] == getpid())
		raise(sig);
	else if (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN)
		handled_by[sig] = getpid();
	return r;
}

/* ------------------------------------------------------------------ clock --- */

/* FAULT_CLOCK: the wall clock is set at each look at it, years back and forth. */
static time_t jump(void)
{
	static _Atomic uint32_t looks;
	const time_t year = 31557600;

	if (!getenv("FAULT_CLOCK"))
		return 0;
	return atomic_fetch_add(&looks, 1) % 2 ? 7 * year : -9 * year;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *t)
{
	static __typeof__(clock_gettime) *next;

	if (!next)
		next = real("clock_gettime");
	const int r = next(clock, t);
	if (!r && clock == CLOCK_REALTIME)
		t->tv_sec += jump();
	return r;
}

EXPORT int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec now;
	const int r = clock_gettime(CLOCK_REALTIME, &now);

	(void)zone;
	*t = (struct timeval){ now.tv_sec, now.tv_nsec / 1000 };
	return r;
}

EXPORT time_t time(time_t *ret)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (ret)
		*ret = now.tv_sec;
	return now.tv_sec;
}

/* ------------------------------------------------------------ allocations --- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

/* Of handoffd all blocks are counted, of a daemon what its library has: the rest is its data. */
static void counted(const void *caller, int more)
{
	if (memory && (base_role == ROLE_S || is_ours(caller, CALL_malloc)))
		atomic_fetch_add(&memory->blocks, more);
}

#define CALLER __builtin_return_address(0)
#define NO_MEMORY(name) \
	if (fault(CALL_##name, CALLER)) { errno = ENOMEM; return NULL; }

static void *got(const void *caller, void *p)
{
	counted(caller, p != NULL);
	return p;
}

EXPORT void *malloc(size_t n) { NO_MEMORY(malloc); return got(CALLER, __libc_malloc(n)); }
EXPORT void *calloc(size_t n, size_t size)
{
	NO_MEMORY(calloc);
	return got(CALLER, __libc_calloc(n, size));
}

EXPORT void *realloc(void *p, size_t n)
{
	NO_MEMORY(realloc);
	return p ? __libc_realloc(p, n) : got(CALLER, __libc_malloc(n));
}
EXPORT void free(void *p)
{
	counted(CALLER, p ? -1 : 0);
	__libc_free(p);
}

static char *copy_of(const void *caller, const char *s, size_t n)
{
	char *p = got(caller, __libc_malloc(n + 1));

	if (p) {
		memcpy(p, s, n);
		p[n] = '\0';
	}
	return p;
}

EXPORT char *strdup(const char *s)
{
	NO_MEMORY(strdup);
	return copy_of(CALLER, s, strlen(s));
}

EXPORT char *strndup(const char *s, size_t n)
{
	NO_MEMORY(strndup);
	return copy_of(CALLER, s, strnlen(s, n));
}

int __vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap);
int __asprintf_chk(char **ret, int flag, const char *fmt, ...);
EXPORT int __asprintf_chk(char **ret, int flag, const char *fmt, ...)
{
	const int e = fault(CALL_asprintf, __builtin_return_address(0));
	static __typeof__(__vasprintf_chk) *next;
	va_list ap;
	int n;

	if (!next)
		next = real("__vasprintf_chk");
	if (e)
		return errno = ENOMEM, -1;
	va_start(ap, fmt);
	n = next(ret, flag, fmt, ap);
	va_end(ap);
	return n;
}
