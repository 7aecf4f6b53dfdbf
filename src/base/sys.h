/*
 * sys: the one narrow file of system calls that can fail. Everything else in
 * the project calls these, so that a test can count them and fail each in turn
 * (sys_fault). They return 0 or more, or a negative errno; EINTR is retried
 * here wherever a retry is right. Descriptors are close-on-exec from birth.
 */
#ifndef HANDOFF_BASE_SYS_H
#define HANDOFF_BASE_SYS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

/* One line for each call: the names index sys_fault's argument and its text. */
#define SYS_CALLS(C) \
	C(READ) C(WRITE) C(PREAD) C(PWRITE) C(OPEN) C(CLOSE) C(DUP) C(FCNTL) C(FTRUNCATE) \
	C(FALLOCATE) C(FDATASYNC) C(FSTAT) C(STAT) C(FSTATFS) C(GETXATTR) C(MKDIR) C(UNLINK) C(CHMOD) \
	C(RENAME) C(FLOCK) C(FICLONE) C(PIPE_USED) C(MEMFD) \
	C(SOCKET) C(SOCKETPAIR) C(BIND) C(LISTEN) C(CONNECT) C(ACCEPT) C(SENDMSG) C(RECVMSG) \
	C(SHUTDOWN) C(SETSOCKOPT) C(GETSOCKOPT) C(GETSOCKNAME) C(PIPE) C(FORK) C(PIDFD_OPEN) C(PIDFD_SIGNAL) \
	C(WAITID) C(PRCTL) C(EPOLL_CREATE) C(EPOLL_CTL) C(EPOLL_WAIT) C(TIMERFD) C(EVENTFD) \
	C(POLL) C(UNSHARE) C(FCHDIR) C(GETRLIMIT) \
	C(SETRLIMIT) C(SETPRIORITY) C(SETGROUPS) C(SETGID) C(SETUID) C(EXEC)

enum sys_call {
#define C(name) SYS_C_##name,
	SYS_CALLS(C)
#undef C
	SYS_C_COUNT
};
extern const char *const sys_call_name[SYS_C_COUNT];

/*
 * A test's hook, NULL in real life: called before each call; 0 lets it happen, a
 * negative errno is returned instead of it. For READ, WRITE, SENDMSG and RECVMSG
 * (PREAD and PWRITE too) a positive number shortens the transfer to that many bytes.
 * CLOSE closes in any case, as the kernel does.
 */
extern int (*sys_fault)(enum sys_call call);

/* A test's answer of sys_fs_type (there is no NFS at hand); 0 in real life: the truth. */
extern uint64_t sys_fs_type_override;

ssize_t sys_read(int fd, void *buf, size_t n);
/* The first bytes of a file, fewer than size only if it ends there. A single read(2) may come short
 * before that. flags: beside O_RDONLY | O_CLOEXEC. */
ssize_t sys_read_file(const char *path, int flags, void *buf, size_t size);
ssize_t sys_write(int fd, const void *buf, size_t n);
int sys_write_all(int fd, const void *buf, size_t n);                 /* 0 or -errno */
ssize_t sys_pread(int fd, void *buf, size_t n, off_t at);
ssize_t sys_pwrite(int fd, const void *buf, size_t n, off_t at);
int sys_open(const char *path, int flags, mode_t mode);              /* + O_CLOEXEC */
int sys_openat(int dir, const char *path, int flags, mode_t mode);   /* + O_CLOEXEC */
int sys_close(int fd);   /* never retried: Linux frees the descriptor on EINTR too */
int sys_close_own(int fd);   /* of a socket in which nobody else can have left one: see sys_never_linger */
/*
 * The last close(2) of a socket waits as long as its SO_LINGER says, which whoever sent us that
 * socket has chosen, O_NONBLOCK or not. Only a signal ends that wait: from here on one does
 * (SIGALRM, after 50 us and then later and later). For a program with one thread, never for a
 * library. (So does a recvmsg(2) without msg_control that drops what came along: chan.c does not
 * let it come to that.)
 */
int sys_never_linger(void);
int sys_dup(int fd, int from);                                       /* F_DUPFD_CLOEXEC */
int sys_dup2(int fd, int to);                                        /* to survives an exec */
int sys_close_range(unsigned first, unsigned last);
int sys_fcntl(int fd, int cmd, long arg);
int sys_nonblock(int fd);                                            /* O_NONBLOCK, if it is not set */
int sys_ftruncate(int fd, off_t size);
int sys_fallocate(int fd, off_t size);                               /* mode 0, from 0 */
int sys_fdatasync(int fd);
int sys_fstat(int fd, struct stat *ret);
int sys_stat(const char *path, struct stat *ret);
int sys_lstat(const char *path, struct stat *ret);
int sys_fstatat(int dir, const char *path, struct stat *ret, int flags);
int sys_faccessat(int dir, const char *path, int mode, int flags);
int sys_fs_type(int fd, uint64_t *ret_magic);                        /* fstatfs's f_type */
int sys_fgetxattr(int fd, const char *name, void *v, size_t n);
int sys_mkdir(const char *path, mode_t mode);
int sys_mkdirat(int dir, const char *path, mode_t mode);
int sys_ficlone(int to, int from);                                   /* the bytes are shared */
int sys_pipe_used(int fd);                                           /* bytes that lie in it */
int sys_unlink(const char *path);
int sys_unlinkat(int dir, const char *path, int flags);
int sys_chmod(const char *path, mode_t mode);
int sys_fchmod(int fd, mode_t mode);
int sys_lchown(const char *path, uid_t uid, gid_t gid);
int sys_fchown(int fd, uid_t uid, gid_t gid);
int sys_rename(const char *from, const char *to);
int sys_flock(int fd, int how);
int sys_memfd(const char *name);                                     /* CLOEXEC, can be sealed */
int sys_socket(int domain, int type, int protocol);                  /* + CLOEXEC, NONBLOCK */
int sys_socketpair(int type, int ret[2]);                            /* AF_UNIX; + CLOEXEC */
int sys_bind(int fd, const struct sockaddr *sa, socklen_t n);
int sys_listen(int fd, int backlog);
int sys_connect(int fd, const struct sockaddr *sa, socklen_t n);     /* -EINPROGRESS passes */
int sys_accept(int fd);                                              /* CLOEXEC, NONBLOCK */
ssize_t sys_sendmsg(int fd, const struct msghdr *m, int flags);      /* + MSG_NOSIGNAL */
ssize_t sys_recvmsg(int fd, struct msghdr *m, int flags);            /* + MSG_CMSG_CLOEXEC */
int sys_shutdown(int fd);                                             /* both directions */
int sys_setsockopt(int fd, int level, int name, const void *v, socklen_t n);
int sys_getsockopt(int fd, int level, int name, void *v, socklen_t *n);
int sys_getsockname(int fd, struct sockaddr *sa, socklen_t *n);
int sys_pipe(int ret[2]);                                            /* CLOEXEC */
pid_t sys_fork(void);
int sys_pidfd_open(pid_t pid);
int sys_pidfd_signal(int pidfd, int sig);
int sys_waitpidfd(int pidfd, siginfo_t *ret, int options);           /* waitid(P_PIDFD) */
int sys_waitpid(pid_t pid, int *ret_status, int options);           /* a child without pidfd */
int sys_wait_any(siginfo_t *ret);                                     /* waitid(P_ALL), WNOHANG; -ECHILD */
int sys_prctl(int option, unsigned long a);
int sys_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags);
int sys_epoll_create(void);
int sys_epoll_ctl(int ep, int op, int fd, uint32_t events);          /* data.fd = fd */
struct epoll_event;
int sys_epoll_wait(int ep, struct epoll_event *ret, int max, int timeout_ms);  /* -EINTR passes */
int sys_timerfd(void);                                               /* CLOCK_MONOTONIC, NONBLOCK */
int sys_timerfd_set(int fd, uint64_t at_ms);                         /* absolute; 0: off */
int sys_eventfd(void);                                               /* NONBLOCK */
struct pollfd;
int sys_poll(struct pollfd *p, unsigned n, int timeout_ms);          /* -EINTR passes */
int sys_unshare(int flags);
int sys_chdir(const char *path);
int sys_fchdir(int fd);
int sys_getrlimit(int what, struct rlimit *ret);
int sys_setrlimit(int what, const struct rlimit *limit);
int sys_setpriority(int nice);                                       /* this process */
int sys_ioprio_idle(void);                                           /* this process */
int sys_setgroups(size_t n, const gid_t *gids);
int sys_setgid(gid_t gid);                                           /* real, effective, saved */
int sys_setuid(uid_t uid);
int sys_setfsgid(gid_t gid);                                         /* -EPERM: it did not take */
int sys_setfsuid(uid_t uid);

/* CLOCK_MONOTONIC in ms and us; time since boot, suspended or not, in us; wall time in ms, for
 * people only. Cannot fail. */
uint64_t sys_now_ms(void);
uint64_t sys_now_us(void);
uint64_t sys_boot_us(void);
uint64_t sys_wall_ms(void);

/* Where 0, 1 or 2 were closed by who started this program: nothing else becomes one of them. What
 * is written there fails with EBADF, as before. */
void sys_fill_standard(void);

/* Closes *fd if it is one, and sets it to -1. */
void sys_closep(int *fd);

#endif
