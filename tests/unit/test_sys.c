#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "leak.h"
#include "suite.h"

static unsigned calls[SYS_C_COUNT];
static int answer;

static int count(enum sys_call call)
{
	calls[call]++;
	return answer;
}

START_TEST(names_are_complete)
{
	for (int i = 0; i < SYS_C_COUNT; i++)
		ck_assert(sys_call_name[i] && *sys_call_name[i]);
	ck_assert_str_eq(sys_call_name[SYS_C_READ], "READ");
	ck_assert_str_eq(sys_call_name[SYS_C_EXEC], "EXEC");
}
END_TEST

START_TEST(errors_are_negative)
{
	struct stat st;
	char c;

	ck_assert_int_eq(sys_open("/nonexistent/x", O_RDONLY, 0), -ENOENT);
	ck_assert_int_eq(sys_close(-1), -EBADF);
	ck_assert_int_eq(sys_read(-1, &c, 1), -EBADF);
	ck_assert_int_eq(sys_stat("/nonexistent", &st), -ENOENT);
	ck_assert_int_eq(sys_setfsuid(geteuid()), 0);
}
END_TEST

START_TEST(descriptors_are_close_on_exec)
{
	int pair[2], pipe[2], fds[16], n = 0;

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	ck_assert_int_eq(sys_pipe(pipe), 0);
	fds[n++] = pair[0];
	fds[n++] = pair[1];
	fds[n++] = pipe[0];
	fds[n++] = pipe[1];
	fds[n++] = sys_open("/dev/null", O_RDONLY, 0);
	fds[n++] = sys_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0);
	fds[n++] = sys_dup(pipe[0], 20);
	fds[n++] = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	fds[n++] = sys_epoll_create();
	fds[n++] = sys_timerfd();
	fds[n++] = sys_eventfd();
	fds[n++] = sys_pidfd_open(getpid());
	for (int i = 0; i < n; i++) {
		ck_assert_int_ge(fds[i], 0);
		ck_assert_int_eq(sys_fcntl(fds[i], F_GETFD, 0), FD_CLOEXEC);
		sys_closep(&fds[i]);
		ck_assert_int_eq(fds[i], -1);
	}
}
END_TEST

START_TEST(hook_fails_a_call_before_it_happens)
{
	int pipe[2] = { -7, -7 };

	sys_fault = count;
	answer = -EMFILE;
	ck_assert_int_eq(sys_pipe(pipe), -EMFILE);
	ck_assert_int_eq(sys_fork(), -EMFILE);
	sys_fault = NULL;
	ck_assert_int_eq(pipe[0], -7);
	ck_assert_uint_eq(calls[SYS_C_PIPE], 1);
	ck_assert_uint_eq(calls[SYS_C_FORK], 1);
}
END_TEST

/* The call is asked for under this name, and does not happen. */
#define ASKED(name, call) do { \
	const unsigned before_ = calls[SYS_C_##name]; \
	ck_assert_int_eq(call, -EXDEV); \
	ck_assert_uint_eq(calls[SYS_C_##name], before_ + 1); \
} while (0)

/* A wrapper that forgot the hook, or asked for another call, would hide from every test of faults. */
START_TEST(files_are_asked_for)
{
	struct stat st, was;
	uint64_t magic;
	char c = 'x';
	int fd = sys_open("/dev/null", O_RDWR, 0);

	ck_assert_int_eq(sys_fstat(fd, &was), 0);
	sys_fault = count;
	answer = -EXDEV;
	ASKED(READ, sys_read(fd, &c, 1));
	ASKED(WRITE, sys_write(fd, &c, 1));
	ASKED(PREAD, sys_pread(fd, &c, 1, 0));
	ASKED(PWRITE, sys_pwrite(fd, &c, 1, 0));
	ASKED(OPEN, sys_open("/dev/null", O_RDONLY, 0));
	ASKED(OPEN, sys_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0));
	ASKED(DUP, sys_dup(fd, 3));
	ASKED(DUP, sys_dup2(fd, 40));
	ASKED(CLOSE, sys_close_range(3, 3000));
	ASKED(FCNTL, sys_fcntl(fd, F_GETFD, 0));
	ASKED(FCNTL, sys_nonblock(fd));
	ASKED(FTRUNCATE, sys_ftruncate(fd, 1));
	ASKED(FALLOCATE, sys_fallocate(fd, 1));
	ASKED(FDATASYNC, sys_fdatasync(fd));
	ASKED(FSTAT, sys_fstat(fd, &st));
	ASKED(STAT, sys_stat("/", &st));
	ASKED(STAT, sys_lstat("/", &st));
	ASKED(STAT, sys_fstatat(AT_FDCWD, "/", &st, 0));
	ASKED(STAT, sys_faccessat(AT_FDCWD, "/", F_OK, 0));
	ASKED(FSTATFS, sys_fs_type(fd, &magic));
	ASKED(GETXATTR, sys_fgetxattr(fd, "user.x", &c, 1));
	ASKED(MKDIR, sys_mkdir("/tmp/test_sys.never", 0700));
	ASKED(MKDIR, sys_mkdirat(AT_FDCWD, "/tmp/test_sys.never", 0700));
	ASKED(FICLONE, sys_ficlone(fd, fd));
	ASKED(UNLINK, sys_unlink("/tmp/test_sys.never"));
	ASKED(UNLINK, sys_unlinkat(AT_FDCWD, "/tmp/test_sys.never", 0));
	ASKED(CHMOD, sys_chmod("/dev/null", 0));
	ASKED(CHMOD, sys_fchmod(fd, 0));
	ASKED(CHMOD, sys_fchown(fd, 1, 1));
	ASKED(CHMOD, sys_lchown("/dev/null", 1, 1));
	ASKED(RENAME, sys_rename("/tmp/test_sys.never", "/tmp/test_sys.nor"));
	ASKED(FLOCK, sys_flock(fd, LOCK_EX));
	ASKED(MEMFD, sys_memfd("x"));
	sys_fault = NULL;
	ck_assert_int_eq(sys_fstat(fd, &st), 0);
	ck_assert(st.st_mode == was.st_mode && st.st_uid == was.st_uid);
	ck_assert_int_eq(sys_close(fd), 0);
}
END_TEST

START_TEST(sockets_are_asked_for)
{
	const struct sockaddr any = { .sa_family = AF_UNIX };
	struct sockaddr sa;
	struct msghdr m = { 0 };
	socklen_t n = sizeof sa;
	int pair[2], none[2], v = 1;

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	sys_fault = count;
	answer = -EXDEV;
	ASKED(SOCKET, sys_socket(AF_UNIX, SOCK_STREAM, 0));
	ASKED(SOCKETPAIR, sys_socketpair(SOCK_STREAM, none));
	ASKED(BIND, sys_bind(pair[0], &any, sizeof any));
	ASKED(LISTEN, sys_listen(pair[0], 1));
	ASKED(CONNECT, sys_connect(pair[0], &any, sizeof any));
	ASKED(ACCEPT, sys_accept(pair[0]));
	ASKED(SENDMSG, sys_sendmsg(pair[0], &m, 0));
	ASKED(RECVMSG, sys_recvmsg(pair[0], &m, 0));
	ASKED(SHUTDOWN, sys_shutdown(pair[0]));
	ASKED(SETSOCKOPT, sys_setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &v, sizeof v));
	ASKED(GETSOCKOPT, sys_getsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &v, &n));
	ASKED(GETSOCKNAME, sys_getsockname(pair[0], &sa, &n));
	sys_fault = NULL;
	ck_assert_int_eq(sys_write(pair[0], "x", 1), 1);   /* nobody has shut it down */
	sys_close(pair[0]);
	sys_close(pair[1]);
}
END_TEST

START_TEST(processes_are_asked_for)
{
	char *const none[] = { NULL };
	struct epoll_event e;
	struct rlimit r;
	siginfo_t si;
	const uid_t me = geteuid();
	int status, ep = sys_epoll_create();

	sys_fault = count;
	answer = -EXDEV;
	ASKED(PIDFD_OPEN, sys_pidfd_open(getpid()));
	ASKED(PIDFD_SIGNAL, sys_pidfd_signal(ep, SIGKILL));
	ASKED(WAITID, sys_waitpidfd(ep, &si, WEXITED));
	ASKED(WAITID, sys_wait_any(&si));
	ASKED(WAITID, sys_waitpid(-1, &status, 0));
	ASKED(PRCTL, sys_prctl(PR_SET_PDEATHSIG, SIGKILL));
	ASKED(EXEC, sys_execveat(AT_FDCWD, "/bin/false", none, none, 0));
	ASKED(EPOLL_CREATE, sys_epoll_create());
	ASKED(EPOLL_CTL, sys_epoll_ctl(ep, EPOLL_CTL_ADD, 0, EPOLLIN));
	ASKED(EPOLL_WAIT, sys_epoll_wait(ep, &e, 1, -1));
	ASKED(TIMERFD, sys_timerfd());
	ASKED(TIMERFD, sys_timerfd_set(ep, 1));
	ASKED(EVENTFD, sys_eventfd());
	ASKED(POLL, sys_poll(NULL, 0, -1));
	ASKED(UNSHARE, sys_unshare(CLONE_FS));
	ASKED(FCHDIR, sys_chdir("/"));
	ASKED(FCHDIR, sys_fchdir(ep));
	ASKED(GETRLIMIT, sys_getrlimit(RLIMIT_NOFILE, &r));
	ASKED(SETRLIMIT, sys_setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }));
	ASKED(SETPRIORITY, sys_setpriority(19));
	ASKED(SETPRIORITY, sys_ioprio_idle());
	ASKED(SETGROUPS, sys_setgroups(0, NULL));
	ASKED(SETGID, sys_setgid(65534));
	ASKED(SETUID, sys_setuid(65534));
	ASKED(SETGID, sys_setfsgid(65534));
	ASKED(SETUID, sys_setfsuid(65534));
	sys_fault = NULL;
	ck_assert_uint_eq(geteuid(), me);
	sys_close(ep);
}
END_TEST

/* What the kernel says comes back, negative. */
START_TEST(errors_of_the_kernel)
{
	struct msghdr m = { 0 };
	struct epoll_event e;
	struct stat st;
	uint64_t magic;
	siginfo_t si;
	int status;
	char c = 'x';

	ck_assert_int_eq(sys_write(-1, &c, 1), -EBADF);
	ck_assert_int_eq(sys_write_all(-1, &c, 1), -EBADF);
	ck_assert_int_eq(sys_pread(-1, &c, 1, 0), -EBADF);
	ck_assert_int_eq(sys_pwrite(-1, &c, 1, 0), -EBADF);
	ck_assert_int_eq(sys_openat(-1, "x", O_RDONLY, 0), -EBADF);
	ck_assert_int_eq(sys_read_file("/nonexistent", 0, &c, 1), -ENOENT);
	ck_assert_int_eq(sys_read_file("/", 0, &c, 1), -EISDIR);
	ck_assert_int_eq(sys_dup2(-1, 40), -EBADF);
	ck_assert_int_eq(sys_fcntl(-1, F_GETFD, 0), -EBADF);
	ck_assert_int_eq(sys_nonblock(-1), -EBADF);
	ck_assert_int_eq(sys_ftruncate(-1, 1), -EBADF);
	ck_assert_int_eq(sys_fallocate(-1, 1), -EBADF);
	ck_assert_int_eq(sys_fdatasync(-1), -EBADF);
	ck_assert_int_eq(sys_fstat(-1, &st), -EBADF);
	ck_assert_int_eq(sys_fs_type(-1, &magic), -EBADF);
	ck_assert_int_eq(sys_flock(-1, LOCK_EX), -EBADF);
	ck_assert_int_eq(sys_connect(-1, NULL, 0), -EBADF);
	ck_assert_int_eq(sys_accept(-1), -EBADF);
	ck_assert_int_eq(sys_sendmsg(-1, &m, 0), -EBADF);
	ck_assert_int_eq(sys_recvmsg(-1, &m, 0), -EBADF);
	ck_assert_int_eq(sys_epoll_wait(-1, &e, 1, 0), -EBADF);
	ck_assert_int_eq(sys_waitpidfd(-1, &si, WEXITED), -EINVAL);
	ck_assert_int_eq(sys_wait_any(&si), -ECHILD);
	ck_assert_int_eq(sys_waitpid(-1, &status, 0), -ECHILD);
}
END_TEST

START_TEST(hook_cannot_keep_a_descriptor_open)
{
	int fd = sys_open("/dev/null", O_RDONLY, 0);

	sys_fault = count;
	answer = -EIO;
	ck_assert_int_eq(sys_close(fd), -EIO);
	sys_fault = NULL;
	ck_assert_int_eq(sys_close(fd), -EBADF);
}
END_TEST

START_TEST(hook_shortens_transfers)
{
	char a[8] = "abcdefgh", b[8] = "", c[8] = "";
	struct iovec out[] = { { a, 4 }, { a + 4, 4 } }, in[] = { { b, 2 }, { c, 6 } };
	struct msghdr m = { .msg_iov = out, .msg_iovlen = 2 };
	int pair[2];

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	sys_fault = count;
	answer = 5;
	ck_assert_int_eq(sys_sendmsg(pair[0], &m, 0), 5);
	ck_assert_int_eq(sys_write(pair[0], a + 5, 3), 3);
	answer = 3;
	m.msg_iov = in;
	ck_assert_int_eq(sys_recvmsg(pair[1], &m, 0), 3);
	ck_assert_mem_eq(b, "ab", 2);
	ck_assert_mem_eq(c, "c\0", 2);
	ck_assert_int_eq(sys_read(pair[1], b, sizeof b), 3);
	ck_assert_mem_eq(b, "def", 3);
	answer = 0;
	ck_assert_int_eq(sys_read(pair[1], b, sizeof b), 2);
	sys_fault = NULL;
	sys_close(pair[0]);
	sys_close(pair[1]);
}
END_TEST

START_TEST(file_system_type_can_be_replaced)
{
	int fd = sys_open("/proc", O_RDONLY | O_DIRECTORY, 0);
	uint64_t magic = 0;

	ck_assert_int_eq(sys_fs_type(fd, &magic), 0);
	ck_assert_uint_eq(magic, 0x9fa0);
	sys_fs_type_override = 0x6969;
	ck_assert_int_eq(sys_fs_type(fd, &magic), 0);
	ck_assert_uint_eq(magic, 0x6969);
	sys_close(fd);
}
END_TEST

START_TEST(a_child_by_pidfd)
{
	siginfo_t si;
	pid_t pid = sys_fork();
	int fd;

	if (pid == 0)
		_exit(7);
	fd = sys_pidfd_open(pid);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(sys_waitpidfd(fd, &si, WEXITED), 0);
	ck_assert_int_eq(si.si_pid, pid);
	ck_assert_int_eq(si.si_status, 7);
	ck_assert_int_eq(sys_pidfd_signal(fd, SIGTERM), -ESRCH);
	sys_close(fd);
}
END_TEST

START_TEST(timer_fires)
{
	int t = sys_timerfd(), ep = sys_epoll_create();
	const uint64_t start = sys_now_ms();
	struct epoll_event e;

	ck_assert_int_eq(sys_epoll_ctl(ep, EPOLL_CTL_ADD, t, EPOLLIN), 0);
	ck_assert_int_eq(sys_timerfd_set(t, start + 20), 0);
	ck_assert_int_eq(sys_epoll_wait(ep, &e, 1, 10000), 1);
	ck_assert_int_eq(e.data.fd, t);
	ck_assert_uint_ge(sys_now_ms(), start + 20);
	ck_assert_int_eq(sys_timerfd_set(t, 0), 0);
	ck_assert_int_eq(sys_epoll_wait(ep, &e, 1, 0), 0);
	sys_close(t);
	sys_close(ep);
}
END_TEST

/* A socket whose last close(2) waits for a minute: what it has sent is never read. */
static int lingering_socket(int *peer)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 60 };
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof at;
	const int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	char buf[65536] = { 0 };

	ck_assert(!bind(listener, (struct sockaddr *)&at, n) && !listen(listener, 1));
	ck_assert(!getsockname(listener, (struct sockaddr *)&at, &n));
	ck_assert(!connect(fd, (struct sockaddr *)&at, n));
	*peer = accept(listener, NULL, NULL);
	close(listener);
	ck_assert(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	while (send(fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
		;
	return fd;
}

/* In slow motion, as below strace(1): each step of it takes longer than the first alarms. */
static int traced(void)
{
	const pid_t pid = fork();
	unsigned stops = 0;
	int peer, status = 0;

	if (!pid) {
		const int fd = lingering_socket(&peer);
		sys_never_linger();
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(77);
		raise(SIGSTOP);
		_exit(sys_close(fd) ? 1 : 0);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		const int sig = WSTOPSIG(status);
		ck_assert_msg(stops++ < 2000, "alarms, and nothing between them");
		usleep(300);
		ptrace(PTRACE_SYSCALL, pid, NULL, sig == SIGTRAP || sig == SIGSTOP ? 0L : (long)sig);
	}
	return status;
}

START_TEST(a_close_that_would_linger)
{
	int peer;
	const int fd = lingering_socket(&peer);
	const uint64_t start = sys_now_ms();
	int status;

	ck_assert_int_eq(sys_never_linger(), 0);
	ck_assert_int_eq(sys_close(fd), 0);
	ck_assert_uint_lt(sys_now_ms(), start + 50000);
	close(peer);
	status = traced();
	ck_assert(WIFEXITED(status));
	ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);   /* no ptrace(2) here */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sys");
	TCase *t = tcase_create("sys");

	tcase_add_checked_fixture(t, leak_setup, leak_teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, names_are_complete);
	tcase_add_test(t, errors_are_negative);
	tcase_add_test(t, descriptors_are_close_on_exec);
	tcase_add_test(t, hook_fails_a_call_before_it_happens);
	tcase_add_test(t, files_are_asked_for);
	tcase_add_test(t, sockets_are_asked_for);
	tcase_add_test(t, processes_are_asked_for);
	tcase_add_test(t, errors_of_the_kernel);
	tcase_add_test(t, hook_cannot_keep_a_descriptor_open);
	tcase_add_test(t, hook_shortens_transfers);
	tcase_add_test(t, file_system_type_can_be_replaced);
	tcase_add_test(t, a_child_by_pidfd);
	tcase_add_test(t, timer_fires);
	tcase_add_test(t, a_close_that_would_linger);
	suite_add_tcase(s, t);
	return suite_run(s);
}
