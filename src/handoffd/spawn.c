#include "handoffd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/output.h"
#include "handoffd/transient.h"

#define CHANNEL 3                 /* HANDOFF_FD: the child's end of the channel */

/* All that the child needs, made before the fork: there it only makes system calls. */
struct plan {
	const struct spawn_args *a;
	char **argv, **envp;
	char *own[6];              /* the HANDOFF_ variables, which envp borrows */
	unsigned nenv;
	int nice;                  /* to set, absolute */
	char oom[16];
	char journal[64];          /* JOURNAL_STREAM=, if its stderr is one: filled in by the child */
	int gate[2];
	int output;                /* in the child */
	bool at_exec;
};

/* ---- before the fork: the environment ---- */

/* What systemd.exec(5) says of the unit and its main process, which a daemon is not; its stderr is
 * another stream to the journal, too. PATH, LANG, TERM, XDG_ and the user's are not systemd's own. */
static const char *const not_for_daemons[] = {
	"HANDOFF_*",
	"SYSTEMD_*", "INVOCATION_ID", "MANAGERPID", "MANAGERPIDFDID", "MAINPID", "MAINPIDFDID", "PIDFILE",
	"NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_*", "FDSTORE", "REMOTE_ADDR", "REMOTE_PORT",
	"MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "JOURNAL_STREAM", "LOG_NAMESPACE",
	"RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY",
	"CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY",
	"SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "MONITOR_SERVICE_RESULT", "MONITOR_EXIT_CODE",
	"MONITOR_EXIT_STATUS", "MONITOR_INVOCATION_ID", "MONITOR_UNIT", "TRIGGER_UNIT", "TRIGGER_PATH",
	"TRIGGER_TIMER_REALTIME_USEC", "TRIGGER_TIMER_MONOTONIC_USEC",
};

static bool is_ours(const char *variable)
{
	for (size_t i = 0; i < sizeof not_for_daemons / sizeof *not_for_daemons; i++) {
		const char *name = not_for_daemons[i];
		const size_t n = strcspn(name, "*");

		if (!strncmp(variable, name, n) && (name[n] || variable[n] == '='))
			return true;
	}
	return false;
}

/* getenv finds the first of a name: what list says again is left out before it. */
static bool is_in(char *const *list, const char *variable)
{
	const size_t n = strcspn(variable, "=") + 1;

	for (; list && *list; list++)
		if (!strncmp(*list, variable, n))
			return true;
	return false;
}

static int add_own(struct plan *p, const char *name, const char *value)
{
	char **own = p->own;

	while (*own)
		own++;
	if (asprintf(own, "%s=%s", name, value) < 0) {
		*own = NULL;
		return -ENOMEM;
	}
	p->envp[p->nenv++] = *own;
	return 0;
}

static int make_env(struct plan *p)
{
	char **const inherited = p->a->conf->clear_environment ? NULL : environ;
	char **const given = p->a->conf->environment;
	size_t n = sizeof p->own / sizeof *p->own + 2;   /* the journal's, and the end */

	for (char **e = inherited; e && *e; e++)
		n++;
	for (char **e = given; e && *e; e++)
		n++;
	p->envp = calloc(n, sizeof *p->envp);
	if (!p->envp)
		return -ENOMEM;
	for (char **e = inherited; e && *e; e++)
		if (!is_ours(*e) && !is_in(given, *e))
			p->envp[p->nenv++] = *e;
	for (char **e = given; e && *e; e++)
		if (!is_in(e + 1, *e))
			p->envp[p->nenv++] = *e;
	if (log_to_journal() && !p->a->conf->output && !is_in(given, "JOURNAL_STREAM="))
		p->envp[p->nenv++] = p->journal;
	if (add_own(p, "HANDOFF_FD", "3") < 0 || add_own(p, "HANDOFF_ROLE", p->a->role) < 0 ||
	    add_own(p, "HANDOFF_DIR", p->a->runtime_dir) < 0 ||
	    add_own(p, "HANDOFF_SERVICE", p->a->conf->name) < 0 ||
	    (p->a->generation && add_own(p, "HANDOFF_GENERATION", p->a->generation) < 0) ||
	    (p->a->lock_dir && add_own(p, "HANDOFF_LOCK_DIR", p->a->lock_dir) < 0))
		return -ENOMEM;
	return 0;
}

static int make_plan(struct plan *p)
{
	const struct conf *c = p->a->conf;
	size_t n = 0;

	while (c->command[n])
		n++;
	p->argv = calloc(n + 1, sizeof *p->argv);
	if (!p->argv)
		return -ENOMEM;
	memcpy(p->argv, c->command, n * sizeof *p->argv);
	p->argv[0] = (char *)p->a->exe->path;
	if (c->nice) {
		const int nice = getpriority(PRIO_PROCESS, 0) + c->nice;

		p->nice = nice < -20 ? -20 : nice > 19 ? 19 : nice;
	}
	snprintf(p->oom, sizeof p->oom, "%d", c->oom_score_adj);
	return make_env(p);
}

static void free_plan(struct plan *p)
{
	for (size_t i = 0; i < sizeof p->own / sizeof *p->own; i++)
		free(p->own[i]);
	free(p->argv);
	free(p->envp);
}

/* ---- the child ---- */

static void __attribute__((noreturn, format(printf, 3, 4)))
die(const struct plan *p, int error, const char *fmt, ...)
{
	char line[512];
	int n = snprintf(line, sizeof line, "handoffd[%s]: ", p->a->conf->name);
	va_list ap;

	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof line - n, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof line - 100)
		n = sizeof line - 100;
	n += snprintf(line + n, sizeof line - n, ": %s\n", strerrordesc_np(-error));
	sys_write(STDERR_FILENO, line, n);
	_exit(error == -ENOENT && p->at_exec ? 127 : 126);
}

static void want(const struct plan *p, int r, const char *what)
{
	if (r < 0)
		die(p, r, "cannot %s", what);
}

/*
 * exec keeps what is ignored and what is blocked; handlers run until then. SIGPIPE stays
 * ignored unless the configuration says otherwise: the reader of its stderr (a journal, a
 * pipe's other end) may die, and a line of a log must not end the daemon.
 */
static void reset_signals(const struct conf *c)
{
	const struct sigaction def = { .sa_handler = SIG_DFL }, ign = { .sa_handler = SIG_IGN };
	sigset_t none;

	for (int sig = 1; sig <= SIGRTMAX; sig++)
		sigaction(sig, sig == SIGPIPE && c->ignore_sigpipe ? &ign : &def, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The channel becomes 3; what lies there already moves up first. */
static void place_channel(const struct plan *p, int *gate, int *exe, int *dir)
{
	int *const in_the_way[] = { gate, exe, dir };

	for (size_t i = 0; i < 3; i++)
		if (*in_the_way[i] == CHANNEL && p->a->channel != CHANNEL) {
			*in_the_way[i] = sys_dup(CHANNEL, CHANNEL + 1);
			want(p, *in_the_way[i], "make room for the channel");
		}
	if (p->a->channel == CHANNEL)
		want(p, sys_fcntl(CHANNEL, F_SETFD, 0), "keep the channel");
	else
		want(p, sys_dup2(p->a->channel, CHANNEL), "place the channel");
}

static void take_stdin(const struct plan *p)
{
	const int fd = sys_open("/dev/null", O_RDONLY, 0);

	want(p, fd, "open /dev/null");
	if (fd == STDIN_FILENO) {  /* handoffd had none */
		want(p, sys_fcntl(fd, F_SETFD, 0), "keep stdin");
		return;
	}
	want(p, sys_dup2(fd, STDIN_FILENO), "take /dev/null as stdin");
	sys_close(fd);
}

/* While it still is handoffd's user: these need its rights. */
static void set_limits(const struct plan *p)
{
	const struct conf *c = p->a->conf;
	int fd;

	umask(c->umask);
	for (unsigned i = 0; i < c->nrlimits; i++) {
		const int r = sys_setrlimit(c->rlimits[i].resource, &c->rlimits[i].limit);

		if (r < 0)
			die(p, r, "cannot set %s (%s:%d)", c->rlimits[i].option, c->file,
			    conf_line(c, c->rlimits[i].option));
	}
	if (c->nice)
		want(p, sys_setpriority(p->nice), "set nice");
	if (!c->has_oom)
		return;
	fd = sys_open("/proc/self/oom_score_adj", O_WRONLY, 0);
	want(p, fd, "open /proc/self/oom_score_adj");
	want(p, sys_write(fd, p->oom, strlen(p->oom)), "set oom-score-adj");
	sys_close(fd);
}

static bool is_me(const struct conf *c)
{
	return geteuid() != 0 && c->uid == geteuid() &&
	       (c->gid == (gid_t)-1 || c->gid == getegid()) && !c->groups;
}

static void become_user(const struct plan *p)
{
	const struct conf *c = p->a->conf;

	if (is_me(c))
		return;
	if (c->gids)
		want(p, sys_setgroups(c->ngids, c->gids), "set the groups");
	if (c->gid != (gid_t)-1)
		want(p, sys_setgid(c->gid), "set the group");
	if (c->uid != (uid_t)-1)
		want(p, sys_setuid(c->uid), "set the user");
}

/* As the user, so that a link in a directory of theirs leads nowhere that they cannot go. */
static void enter_place(struct plan *p)
{
	const struct conf *c = p->a->conf;
	int r = sys_chdir(c->working_dir ? c->working_dir : "/");

	if (r < 0)
		die(p, r, "cannot change to working-dir %s", c->working_dir ? c->working_dir : "/");
	r = output_open(c, p->a->exe->path, &p->output);
	if (r < 0)
		die(p, r, "cannot open output %s", c->output);
}

/* systemd.exec(5): a program may compare this with its stderr, and leave out time and name. */
static void name_stream(struct plan *p)
{
	struct stat st;

	want(p, sys_fstat(p->output >= 0 ? p->output : STDERR_FILENO, &st), "look at stderr");
	snprintf(p->journal, sizeof p->journal, "JOURNAL_STREAM=%ju:%ju", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino);
}

/* Closes all above the channel but the n descriptors of keep (-1: none). */
static void close_others(const struct plan *p, int *keep, int n)
{
	unsigned from = CHANNEL + 1;

	for (int i = 0; i < n; i++)        /* four at most: put the smallest first */
		for (int j = i + 1; j < n; j++)
			if (keep[j] < keep[i]) {
				const int k = keep[i];

				keep[i] = keep[j];
				keep[j] = k;
			}
	for (int i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		if ((unsigned)keep[i] > from)
			want(p, sys_close_range(from, keep[i] - 1), "close descriptors");
		from = keep[i] + 1;
	}
	want(p, sys_close_range(from, ~0u), "close descriptors");
}

/*
 * A path below a descriptor: the state directory above it need not be open to the daemon's
 * user, and the kernel names the process after the file, not after the descriptor.
 */
static void __attribute__((noreturn)) run_copy(const struct plan *p, int dir)
{
	const char *name = exe_name(p->a->exe->path);

	die(p, sys_execveat(dir, name, p->argv, p->envp, 0), "cannot run the kept copy of %s",
	    p->a->exe->path);
}

static void __attribute__((noreturn)) run(struct plan *p, int gate, int exe, int dir)
{
	char go;

	/* no byte: handoffd died, or changed its mind, before this pid was in its journal */
	if (sys_read(gate, &go, 1) != 1)
		_exit(0);
	if (p->output >= 0) {
		want(p, sys_dup2(p->output, STDOUT_FILENO), "take output as stdout");
		want(p, sys_dup2(p->output, STDERR_FILENO), "take output as stderr");
	}
	p->at_exec = true;
	if (dir >= 0)
		run_copy(p, dir);
	if (exe < 0)
		die(p, sys_execveat(AT_FDCWD, p->a->exe->path, p->argv, p->envp, 0),
		    "cannot run %s", p->a->exe->path);
	/* the interpreter of a script opens it again, through /dev/fd */
	if (p->a->exe->script)
		want(p, sys_fcntl(exe, F_SETFD, 0), "keep the script open");
	die(p, sys_execveat(exe, "", p->argv, p->envp, AT_EMPTY_PATH), "cannot run %s",
	    p->a->exe->path);
}

/* Does its path still lead to it? A write in place shows only in the times, which a chmod
 * changes, too: where there is no copy that does not count. */
static bool by_path(const struct exe *e, int dir)
{
	struct stat st;
	struct exe_id id;

	if (e->pinned || sys_stat(e->path, &st) < 0)
		return false;
	id = exe_id(&st);
	return dir >= 0 ? exe_id_same(&id, &e->id) : st.st_dev == e->dev && st.st_ino == e->ino;
}

static void __attribute__((noreturn)) child(struct plan *p)
{
	int keep[4], gate = p->gate[0], exe = p->a->exe->fd, dir = p->a->dir;

	/* its own copy of the write end would keep EOF from it */
	sys_close(p->gate[1]);
	setsid();
	reset_signals(p->a->conf);
	place_channel(p, &gate, &exe, &dir);
	take_stdin(p);
	set_limits(p);
	become_user(p);
	enter_place(p);
	if (log_to_journal())
		name_stream(p);
	/* a process that is started from a descriptor is named after its number */
	if (by_path(p->a->exe, dir))
		exe = dir = -1;
	keep[0] = gate;
	keep[1] = exe;
	keep[2] = p->output;
	keep[3] = dir;
	close_others(p, keep, 4);
	run(p, gate, exe, dir);
}

/* ---- the parent ---- */

static int parent(struct plan *p, pid_t pid, struct child *ret)
{
	const int pidfd = sys_pidfd_open(pid);

	sys_closep(&p->gate[0]);
	if (pidfd < 0) {
		/* the gate closes, so it exits at once */
		sys_closep(&p->gate[1]);
		sys_waitpid(pid, NULL, 0);
		return pidfd;
	}
	*ret = (struct child){ .pid = pid, .pidfd = pidfd, .gate = p->gate[1] };
	return 0;
}

static int fork_child(struct plan *p, struct child *ret)
{
	sigset_t all, old;
	int r = sys_pipe(p->gate);
	pid_t pid;

	if (r < 0)
		return r;
	/* no handler of handoffd's may run in the child: they share its signal sockets */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = sys_fork();
	if (pid == 0)
		child(p);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid > 0)
		return parent(p, pid, ret);
	sys_closep(&p->gate[0]);
	sys_closep(&p->gate[1]);
	return pid;
}

int spawn_daemon(const struct spawn_args *a, struct child *ret, char *err, size_t err_size)
{
	struct plan p = { .a = a, .gate = { -1, -1 } };
	int r = make_plan(&p);

	if (r >= 0)
		r = fork_child(&p, ret);
	free_plan(&p);
	if (r == -EAGAIN)
		snprintf(err, err_size,
			 "cannot start a process: the limit of processes is reached; "
			 "raise TasksMax= or LimitNPROC=");
	else if (r < 0)
		snprintf(err, err_size, "cannot start a process: %s%s", strerror(-r),
			 transient_hint(r));
	return r;
}

int spawn_release(struct child *c)
{
	const ssize_t r = sys_write(c->gate, "", 1);

	sys_closep(&c->gate);
	return r < 0 ? (int)r : 0;
}
