/* Starting a daemon: what it gets, what it does not get, and what is said when it fails. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/spawn.h"
#include "leak.h"
#include "suite.h"

static char dir[64], out[96], exe_path[96], err[8192], said[8192], text[16384];
static struct conf conf;
static char *argv[8];

static void setup(void)
{
	strcpy(dir, "/tmp/test_spawn.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(out, sizeof out, "%s/out", dir);
	snprintf(exe_path, sizeof exe_path, "%s/exe", dir);
	conf = (struct conf){ .name = (char *)"kvd",
			      .file = (char *)"kvd.conf",
			      .command = argv,
			      .uid = -1,
			      .gid = -1,
			      .umask = 022,
			      .output = out };
	signal(SIGPIPE, SIG_IGN);
	leak_setup();
}

static void teardown(void)
{
	leak_teardown();
	unlink(out);
	unlink(exe_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void put(const char *path, const void *bytes, size_t n, mode_t mode)
{
	int fd;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(write(fd, bytes, n), n);
	close(fd);
}

static void copy(const char *from, const char *to)
{
	static char bytes[1 << 20];
	int fd = open(from, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, bytes, sizeof bytes);

	ck_assert_int_gt(n, 0);
	ck_assert_int_lt(n, sizeof bytes);
	close(fd);
	put(to, bytes, n, 0755);
}

/* What lies in the output file. */
static const char *output(void)
{
	int fd = open(out, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);

	if (fd >= 0)
		close(fd);
	text[n] = '\0';
	return text;
}

static struct exe resolve(void)
{
	struct exe e;

	ck_assert_msg(exe_open(&conf, argv[0], &e, err, sizeof err) == 0, "%s", err);
	return e;
}

static int start(const struct exe *e, struct child *c)
{
	int pair[2], r;
	struct spawn_args a = {
		.conf = &conf, .exe = e, .dir = -1, .runtime_dir = "/run/kvd", .role = "first"
	};

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	a.channel = pair[1];
	r = spawn_daemon(&a, c, err, sizeof err);
	close(pair[0]);
	close(pair[1]);
	return r;
}

/* The exit status; 1000 + signal. */
static int finish(struct child *c)
{
	siginfo_t si;

	ck_assert_int_eq(sys_waitpidfd(c->pidfd, &si, WEXITED), 0);
	sys_closep(&c->pidfd);
	return si.si_code == CLD_EXITED ? si.si_status : 1000 + si.si_status;
}

static int run(const struct exe *e)
{
	struct child c;
	int r;

	ck_assert_msg(start(e, &c) == 0, "%s", err);
	r = spawn_release(&c);
	ck_assert(r == 0 || r == -EPIPE);   /* it has failed before it came to its gate, and ended */
	ck_assert_int_eq(c.gate, -1);
	return finish(&c);
}

static void set_argv(const char *a, const char *b, const char *c)
{
	argv[0] = (char *)a;
	argv[1] = (char *)b;
	argv[2] = (char *)c;
	argv[3] = NULL;
}

static int run_command(const char *a, const char *b, const char *c)
{
	struct exe e;
	int r;

	set_argv(a, b, c);
	e = resolve();
	r = run(&e);
	exe_close(&e);
	ck_assert_int_eq(e.fd, -1);
	return r;
}

#define SH(script) ck_assert_int_eq(run_command("/bin/sh", "-c", script), 0)

/* ---- what it gets ---- */

START_TEST(environment)
{
	static char *given[] = { (char *)"A=1", (char *)"B=2", (char *)"A=3", (char *)"KEPT=new",
				 NULL };
	int n = 0;

	clearenv();
	setenv("KEPT", "old", 1);
	setenv("OTHER", "x", 1);
	setenv("LISTENER", "stays", 1);
	setenv("NOTIFY_SOCKET_OF_MINE", "stays", 1);
	setenv("HANDOFF_RUNTIME_DIR", "x", 1);
	conf.environment = given;
	ck_assert_int_eq(run_command("/usr/bin/env", NULL, NULL), 0);
	ck_assert_str_eq(
		output(),
		"OTHER=x\nLISTENER=stays\nNOTIFY_SOCKET_OF_MINE=stays\nB=2\nA=3\nKEPT=new\nHANDOFF_FD=3\nHANDOFF_ROLE=first\n"
		"HANDOFF_DIR=/run/kvd\nHANDOFF_SERVICE=kvd\n");
	unlink(out);
	conf.clear_environment = true;
	ck_assert_int_eq(run_command("/usr/bin/env", NULL, NULL), 0);
	for (const char *p = output(); *p; p++)
		n += *p == '\n';
	ck_assert_int_eq(n, 3 + 4);
}
END_TEST

/* systemd.exec(5), Environment Variables Set or Propagated by the Service Manager, and
 * systemd.socket(5): all but those that say who the user is and how he likes it. */
START_TEST(nothing_of_systemd)
{
	static const char *const systemds[] = {
		"INVOCATION_ID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY",
		"CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY", "MAINPID", "MAINPIDFDID", "MANAGERPID",
		"MANAGERPIDFDID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "NOTIFY_SOCKET",
		"WATCHDOG_PID", "WATCHDOG_USEC", "SYSTEMD_EXEC_PID", "LOG_NAMESPACE", "JOURNAL_STREAM",
		"SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "MONITOR_SERVICE_RESULT", "MONITOR_EXIT_CODE",
		"MONITOR_EXIT_STATUS", "MONITOR_INVOCATION_ID", "MONITOR_UNIT", "PIDFILE", "REMOTE_ADDR",
		"REMOTE_PORT", "TRIGGER_UNIT", "TRIGGER_PATH", "TRIGGER_TIMER_REALTIME_USEC",
		"TRIGGER_TIMER_MONOTONIC_USEC", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE",
	};
	static const char *const users[] = {
		"PATH", "LANG", "USER", "LOGNAME", "HOME", "SHELL", "TERM", "TZ", "XDG_RUNTIME_DIR",
	};
	static char *given[] = { (char *)"CREDENTIALS_DIRECTORY=asked for", NULL };
	char expected[512] = "";

	clearenv();
	for (size_t i = 0; i < sizeof systemds / sizeof *systemds; i++)
		setenv(systemds[i], "x", 1);
	for (size_t i = 0; i < sizeof users / sizeof *users; i++) {
		setenv(users[i], "x", 1);
		strcat(strcat(expected, users[i]), "=x\n");
	}
	strcat(expected, "CREDENTIALS_DIRECTORY=asked for\nHANDOFF_FD=3\nHANDOFF_ROLE=first\n"
	       "HANDOFF_DIR=/run/kvd\nHANDOFF_SERVICE=kvd\n");
	conf.environment = given;
	ck_assert_int_eq(run_command("/usr/bin/env", NULL, NULL), 0);
	ck_assert_str_eq(output(), expected);
}
END_TEST

START_TEST(lock_dir)
{
	struct spawn_args a = {
		.conf = &conf, .runtime_dir = "/r", .lock_dir = "/r/lock", .role = "successor",
		.generation = "7",
	};
	struct child c;
	struct exe e;

	conf.clear_environment = true;
	set_argv("/usr/bin/env", NULL, NULL);
	e = resolve();
	a.exe = &e;
	a.channel = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(spawn_daemon(&a, &c, err, sizeof err), 0);
	ck_assert_int_eq(spawn_release(&c), 0);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_str_eq(
		output(),
		"HANDOFF_FD=3\nHANDOFF_ROLE=successor\nHANDOFF_DIR=/r\nHANDOFF_SERVICE=kvd\n"
		"HANDOFF_GENERATION=7\nHANDOFF_LOCK_DIR=/r/lock\n");
	close(a.channel);
	exe_close(&e);
}
END_TEST

START_TEST(only_its_descriptors)
{
	int leaky[4];

	for (int i = 0; i < 4; i++)
		leaky[i] = open("/dev/null", O_RDONLY);       /* not close-on-exec */
	ck_assert_int_eq(run_command("/bin/ls", "/proc/self/fd", NULL), 0);
	ck_assert_str_eq(output(), "0\n1\n2\n3\n4\n");        /* 4 is ls's own */
	for (int i = 0; i < 4; i++)
		close(leaky[i]);
	unlink(out);
	SH("readlink /proc/self/fd/0; readlink /proc/self/fd/3 | cut -c1-7");
	ck_assert_str_eq(output(), "/dev/null\nsocket:\n");
}
END_TEST

static void handler(int sig)
{
	(void)sig;
}

START_TEST(signals_are_reset)
{
	unsigned long long blocked, ignored;
	sigset_t set;

	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, handler);
	signal(SIGRTMIN + 3, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	SH("grep -E '^Sig(Blk|Ign)' /proc/self/status");
	ck_assert_int_eq(sscanf(output(), "SigBlk:\t%llx\nSigIgn:\t%llx\n", &blocked, &ignored), 2);
	ck_assert_uint_eq(blocked, 0);
	/* 32 and 33 are glibc's own: its posix_spawn leaves them ignored, as below make, and
	 * its sigaction touches them for nobody */
	ck_assert_uint_eq(ignored & ~(3ull << 31), 0);
	sigprocmask(SIG_BLOCK, NULL, &set);
	ck_assert_int_eq(sigismember(&set, SIGUSR1), 1); /* the parent's own are as they were */
	ck_assert_int_eq(sigismember(&set, SIGTERM), 0);
}
END_TEST

START_TEST(sigpipe_as_configured)
{
	ck_assert_int_eq(run_command("/bin/sh", "-c", "kill -PIPE $$"), 1000 + SIGPIPE);
	conf.ignore_sigpipe = true;
	ck_assert_int_eq(run_command("/bin/sh", "-c", "kill -PIPE $$"), 0);
}
END_TEST

START_TEST(place_and_limits)
{
	struct conf_rlimit limits[] = {
		{ "limit-nofile", RLIMIT_NOFILE, { 99, 100 } },
		{ "limit-core", RLIMIT_CORE, { 0, 0 } },
	};

	conf.umask = 027;
	conf.working_dir = (char *)"/proc";
	conf.nice = 3;
	conf.has_oom = true;
	conf.oom_score_adj = 321;
	conf.rlimits = limits;
	conf.nrlimits = 2;
	SH("umask; pwd; nice; cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn; ulimit -c;"
	   "read a b c d e session rest </proc/$$/stat; test $session = $$ && echo leads");
	snprintf(said, sizeof said, "0027\n/proc\n%d\n321\n99\n100\n0\nleads\n",
		 getpriority(PRIO_PROCESS, 0) + 3);
	ck_assert_str_eq(output(), said);
}
END_TEST

START_TEST(another_user)
{
	gid_t gids[] = { 65534, 7 };

	if (geteuid() != 0)
		return;
	conf.uid = conf.gid = 65534;
	conf.gids = gids;
	conf.ngids = 2;
	ck_assert_int_eq(chmod(dir, 0777), 0);
	SH("id -u; id -g; id -G; grep -E '^(Uid|Gid)' /proc/self/status");
	ck_assert_str_eq(output(), "65534\n65534\n65534 7\nUid:\t65534\t65534\t65534\t65534\n"
			 "Gid:\t65534\t65534\t65534\t65534\n");
}
END_TEST

START_TEST(named_after_its_path)
{
	copy("/bin/sleep", exe_path);
	set_argv(exe_path, "0", NULL);
	ck_assert_int_eq(run_command(exe_path, "0", NULL), 0);
	put(exe_path, "#!/bin/sh\necho $0 $1; cat /proc/$$/comm\n", 40, 0755);
	ck_assert_int_eq(run_command(exe_path, "x", NULL), 0);
	snprintf(said, sizeof said, "%s x\nexe\n", exe_path);
	ck_assert_str_eq(output(), said);
}
END_TEST

/* ---- the gate ---- */

START_TEST(gate_holds_it)
{
	struct child c;
	struct exe e;
	struct pollfd p = { .events = POLLIN };

	set_argv("/bin/echo", "ran", NULL);
	e = resolve();
	ck_assert_int_eq(start(&e, &c), 0);
	p.fd = c.pidfd;
	ck_assert_int_eq(poll(&p, 1, 200), 0);
	ck_assert_str_eq(output(), "");
	ck_assert_int_eq(spawn_release(&c), 0);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_str_eq(output(), "ran\n");
	exe_close(&e);
}
END_TEST

START_TEST(closed_gate_ends_it)
{
	struct child c;
	struct exe e;

	set_argv("/bin/echo", "ran", NULL);
	e = resolve();
	ck_assert_int_eq(start(&e, &c), 0);
	sys_closep(&c.gate);
	ck_assert_int_eq(finish(&c), 0);
	ck_assert_str_eq(output(), "");
	/* and one that is gone before the release */
	ck_assert_int_eq(start(&e, &c), 0);
	ck_assert_int_eq(sys_pidfd_signal(c.pidfd, SIGKILL), 0);
	ck_assert_int_eq(finish(&c), 1000 + SIGKILL);
	ck_assert_int_eq(spawn_release(&c), -EPIPE);
	exe_close(&e);
}
END_TEST

/* A dead supervisor closes the gate, whatever else it had open: the child goes too. */
START_TEST(dead_supervisor_ends_it)
{
	int pipe[2];
	struct exe e;
	char byte;
	pid_t pid;

	set_argv("/bin/echo", "ran", NULL);
	e = resolve();
	ck_assert_int_eq(pipe2(pipe, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		struct child c;

		/* the child inherits pipe[1] as its stderr, and holds it until it exits */
		dup2(pipe[1], 2);
		raise(start(&e, &c) == 0 ? SIGKILL : SIGTERM);
	}
	close(pipe[1]);
	ck_assert_int_eq(read(pipe[0], &byte, 1), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_str_eq(output(), "");
	close(pipe[0]);
	exe_close(&e);
}
END_TEST

/* In a process where nothing but the channel and the executable is open. */
static int crowded(int channel_at, int exe_at)
{
	struct spawn_args a = { .conf = &conf, .runtime_dir = "/r", .role = "first" };
	struct child c;
	struct exe e;
	int status;

	close_range(3, ~0u, 0);                /* check's own too: no assertion from here on */
	if (exe_open(&conf, argv[0], &e, err, sizeof err) < 0)
		return 98;
	if (e.fd != exe_at) {
		const int at = fcntl(e.fd, F_DUPFD_CLOEXEC, exe_at);

		close(e.fd);
		e.fd = at;
	}
	e.ino++;                               /* so that it is run by its descriptor */
	a.exe = &e;
	a.channel = fcntl(1, F_DUPFD_CLOEXEC, channel_at);
	if (a.channel != channel_at || spawn_daemon(&a, &c, err, sizeof err) < 0 ||
	    spawn_release(&c) < 0)
		return 99;
	return waitpid(c.pid, &status, 0) == c.pid ? status : 97;
}

START_TEST(any_numbers)
{
	/* what the kernel gives for the gate: 4, 4, 3, 5, 5 */
	static const int at[][2] = { { 3, 10 }, { 10, 3 }, { 10, 11 }, { 4, 3 }, { 3, 4 } };

	set_argv("/bin/ls", "/proc/self/fd", NULL);
	for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(crowded(at[i][0], at[i][1]));
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
		ck_assert_str_eq(output(), "0\n1\n2\n3\n4\n");
		unlink(out);
	}
}
END_TEST

/* ---- the executable ---- */

START_TEST(replaced_while_it_waits)
{
	struct exe e;

	copy("/bin/echo", exe_path);
	set_argv(exe_path, "old", NULL);
	e = resolve();
	copy("/bin/false", exe_path);
	ck_assert_int_eq(run(&e), 0);
	ck_assert_str_eq(output(), "old\n");
	exe_close(&e);
	unlink(out);
	put(exe_path, "#!/bin/sh\necho first\n", 21, 0755);
	e = resolve();
	ck_assert(e.script);
	put(exe_path, "#!/bin/sh\necho second\n", 22, 0755);
	ck_assert_int_eq(run(&e), 0);
	ck_assert_str_eq(output(), "first\n");
	exe_close(&e);
	unlink(out);
	put(exe_path, "#!/bin/sh\necho first\n", 21, 0755);
	e = resolve();
	unlink(exe_path);
	ck_assert_int_eq(run(&e), 0);
	ck_assert_str_eq(output(), "first\n");
	exe_close(&e);
}
END_TEST

static void refused(const char *command, int error, const char *line)
{
	struct exe e = { .fd = -77 };

	ck_assert_int_eq(exe_open(&conf, command, &e, err, sizeof err), error);
	ck_assert_str_eq(err, line);
	ck_assert_int_eq(e.fd, -77);           /* untouched */
}

#define REFUSED(error, rest) do { \
	snprintf(said, sizeof said, "%s: %s", exe_path, rest); \
	refused(exe_path, error, said); \
} while (0)

START_TEST(not_executable)
{
	unsigned char elf[64] = { 0x7f, 'E', 'L', 'F', 2, 1, 1 };
	static char *path_env[] = { (char *)"PATH=/nonexistent:/bin", NULL };

	REFUSED(-ENOENT, "no such file; install it, or correct command");
	ck_assert_int_eq(mkdir(exe_path, 0755), 0);
	REFUSED(-EACCES, "a directory, not a file; name the executable itself");
	rmdir(exe_path);
	refused("/dev/null", -EACCES,
		"/dev/null: a special file, not a file; name the executable itself");
	put(exe_path, "#!/bin/sh\n", 10, 0644);
	REFUSED(-EACCES, "not executable by the daemon's user: Permission denied; chmod +x it, and "
			 "look for noexec mounts");
	put(exe_path, "#!/nonexistent/sh -e\n", 21, 0755);
	REFUSED(-ENOENT,
		"its interpreter '/nonexistent/sh' cannot be run: No such file or directory; "
		"correct its first line");
	put(exe_path, "#!\n", 3, 0755);
	REFUSED(-ENOEXEC,
		"its interpreter '' cannot be run: Exec format error; correct its first line");
	put(exe_path, "", 0, 0755);
	REFUSED(-ENOEXEC,
		"neither an ELF executable nor a script with #!; was it copied completely?");
	put(exe_path, "echo x\n", 7, 0755);
	REFUSED(-ENOEXEC,
		"neither an ELF executable nor a script with #!; was it copied completely?");
	elf[18] = 0xf3;                        /* RISC-V */
	put(exe_path, elf, sizeof elf, 0755);
	ck_assert_int_eq(exe_open(&conf, exe_path, &(struct exe){ 0 }, err, sizeof err), -ENOEXEC);
	ck_assert_ptr_nonnull(
		strstr(err, "/exe: built for another architecture (ELF machine 243, this one is "));
	conf.environment = path_env;
	refused("no-such-daemon", -ENOENT,
		"no-such-daemon: not found in the daemon's PATH (/nonexistent:/bin); "
		"install it, or write its path");
	ck_assert_int_eq(run_command("sh", "-c", "echo $0"), 0);
	ck_assert_str_eq(output(), "/bin/sh\n");
}
END_TEST

static int no_groups(enum sys_call call)
{
	return call == SYS_C_SETGROUPS ? -ENOMEM : 0;
}

START_TEST(a_path_too_long)
{
	char path[5000], wanted[200];

	memset(path, '/', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	snprintf(wanted, sizeof wanted, "%.64s...: the path is too long; use a shorter one", path);
	refused(path, -ENAMETOOLONG, wanted);
}
END_TEST

START_TEST(as_the_daemons_user)
{
	static gid_t group = 65534;

	if (geteuid() != 0)
		return;
	conf.uid = conf.gid = 65534;
	copy("/bin/true", exe_path);
	REFUSED(-EACCES, "cannot be opened: Permission denied; let the daemon's user search its "
			 "directories");
	ck_assert_int_eq(chmod(dir, 0755), 0);
	ck_assert_int_eq(chmod(exe_path, 0700), 0);
	REFUSED(-EACCES, "not executable by the daemon's user: Permission denied; chmod +x it, and "
			 "look for noexec mounts");
	conf.gids = &group;
	conf.ngids = 1;
	sys_fault = no_groups;
	REFUSED(-ENOMEM, "cannot look at it as the daemon's user: Cannot allocate memory; "
			 "free memory, or raise MemoryMax=");
	sys_fault = NULL;
}
END_TEST

START_TEST(of_a_running_process)
{
	struct exe own, e;

	set_argv("/proc/self/exe", NULL, NULL);
	own = resolve();
	ck_assert_int_eq(exe_of_pid(getpid(), "/somewhere", &e), -ENOENT);   /* a launcher, then */
	ck_assert_int_eq(exe_of_pid(getpid(), "/proc/self/exe", &e), 0);
	ck_assert_str_eq(e.path, "/proc/self/exe");
	ck_assert(e.ino == own.ino && e.dev == own.dev && !e.script);
	exe_close(&e);
	exe_close(&own);
	put(exe_path, "#!/bin/sh\n", 10, 0755);
	ck_assert_int_eq(exe_of_pid(getpid(), exe_path, &e), 0);
	ck_assert(e.script && e.ino != own.ino);
	exe_close(&e);
	ck_assert_int_eq(exe_of_pid(999999999, "/x", &e), -ENOENT);
}
END_TEST

/* ---- what fails ---- */

/* Runs with stderr in err; what the child said is there afterwards. */
static int run_heard(const struct exe *e)
{
	int saved = fcntl(2, F_DUPFD_CLOEXEC, 10), heard = memfd_create("stderr", MFD_CLOEXEC), r;
	ssize_t n;

	dup2(heard, 2);
	r = run(e);
	dup2(saved, 2);
	n = pread(heard, err, sizeof err - 1, 0);
	err[n < 0 ? 0 : n] = '\0';
	close(heard);
	close(saved);
	return r;
}

START_TEST(steps_that_fail)
{
	struct conf_rlimit limit = { "limit-rtprio", RLIM_NLIMITS + 5, { 0, 0 } };
	struct exe e;

	set_argv("/bin/true", NULL, NULL);
	e = resolve();
	conf.working_dir = (char *)"/nonexistent";
	ck_assert_int_eq(run_heard(&e), 126);
	ck_assert_str_eq(err, "handoffd[kvd]: cannot change to working-dir /nonexistent: No such "
			      "file or directory\n");
	conf.working_dir = NULL;
	conf.output = (char *)"/nonexistent/x";
	ck_assert_int_eq(run_heard(&e), 126);
	ck_assert_str_eq(
		err,
		"handoffd[kvd]: cannot open output /nonexistent/x: No such file or directory\n");
	conf.output = NULL;
	conf.rlimits = &limit;
	conf.nrlimits = 1;
	conf.line = 9;
	ck_assert_int_eq(run_heard(&e), 126);
	ck_assert_str_eq(err,
			 "handoffd[kvd]: cannot set limit-rtprio (kvd.conf:9): Invalid argument\n");
	conf.nrlimits = 0;
	exe_close(&e);
	put(exe_path, "#!/nonexistent\n", 15, 0755);
	snprintf(e.path, sizeof e.path, "%s", exe_path);
	e.fd = open(exe_path, O_PATH | O_CLOEXEC);
	ck_assert_int_eq(run_heard(&e), 127);
	ck_assert_ptr_nonnull(strstr(err, "handoffd[kvd]: cannot run "));
	exe_close(&e);
}
END_TEST

static pid_t parent;
static unsigned calls, fail_at;

/* The n-th call of the child fails. */
static int nth_in_child(enum sys_call call)
{
	if (getpid() == parent || call == SYS_C_CLOSE)
		return 0;
	return ++calls == fail_at ? -EIO : 0;
}

START_TEST(each_call_of_the_child_fails)
{
	struct conf_rlimit limit = { "limit-core", RLIMIT_CORE, { 0, 0 } };
	unsigned ran = 0, refusals = 0, silent = 0;
	struct exe e;

	conf.has_oom = true;
	conf.oom_score_adj = 500;
	conf.nice = 1;
	conf.rlimits = &limit;
	conf.nrlimits = 1;
	set_argv("/bin/echo", "ran", NULL);
	e = resolve();
	parent = getpid();
	/* the last of its calls is exec; past it nothing fails any more */
	for (fail_at = 1; fail_at < 40; fail_at++) {
		int r;

		unlink(out);
		sys_fault = nth_in_child;
		r = run_heard(&e);
		sys_fault = NULL;
		ran += r == 0 && !strcmp(output(), "ran\n");
		silent += r == 0 && !*output();
		refusals += r == 126 && (!strncmp(err, "handoffd[kvd]: cannot ", 22) ||
					 !strncmp(output(), "handoffd[kvd]: cannot ", 22));
		ck_assert_uint_eq(ran + silent + refusals, fail_at);
	}
	ck_assert_uint_eq(silent, 1);          /* the gate's read: as if the supervisor had died */
	ck_assert_uint_ge(refusals, 10);
	exe_close(&e);
}
END_TEST

static enum sys_call failing;
static int fail_one(enum sys_call call)
{
	return getpid() == parent && call == failing ? -EMFILE : 0;
}

START_TEST(each_call_of_the_parent_fails)
{
	static const enum sys_call each[] = { SYS_C_PIPE, SYS_C_FORK, SYS_C_PIDFD_OPEN };
	struct child c = { .pid = -77 };
	struct exe e;

	set_argv("/bin/echo", "ran", NULL);
	e = resolve();
	parent = getpid();
	for (size_t i = 0; i < 3; i++) {
		int r;

		failing = each[i];
		sys_fault = fail_one;
		r = start(&e, &c);
		sys_fault = NULL;
		ck_assert_int_eq(r, -EMFILE);
		ck_assert_str_eq(err,
				 "cannot start a process: Too many open files; raise LimitNOFILE=");
		ck_assert_int_eq(c.pid, -77);
		ck_assert_str_eq(output(), "");
	}
	exe_close(&e);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("spawn");
	TCase *t = tcase_create("spawn");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, environment);
	tcase_add_test(t, nothing_of_systemd);
	tcase_add_test(t, lock_dir);
	tcase_add_test(t, only_its_descriptors);
	tcase_add_test(t, signals_are_reset);
	tcase_add_test(t, sigpipe_as_configured);
	tcase_add_test(t, place_and_limits);
	tcase_add_test(t, another_user);
	tcase_add_test(t, named_after_its_path);
	tcase_add_test(t, gate_holds_it);
	tcase_add_test(t, closed_gate_ends_it);
	tcase_add_test(t, dead_supervisor_ends_it);
	tcase_add_test(t, any_numbers);
	tcase_add_test(t, replaced_while_it_waits);
	tcase_add_test(t, not_executable);
	tcase_add_test(t, a_path_too_long);
	tcase_add_test(t, as_the_daemons_user);
	tcase_add_test(t, of_a_running_process);
	tcase_add_test(t, steps_that_fail);
	tcase_add_test(t, each_call_of_the_child_fails);
	tcase_add_test(t, each_call_of_the_parent_fails);
	suite_add_tcase(s, t);
	return suite_run(s);
}
