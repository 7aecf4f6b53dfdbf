/*
 * puppet: a daemon that does what it is told, one call of the library for each line of its
 * standard input; one line of answer for each. The tests are its supervisor.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "handoff.h"

static handoff *h;
static char *args[40];
static int nargs, start_fds, in_chroot;
static char last_log[400] = "";
static int tracing;      /* the steps of the protocol go to stderr */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void keep_log(void *arg, int level, const char *line)
{
	if (level != HANDOFF_LOG_DEBUG)
		snprintf(last_log, sizeof last_log, "%s%d %s", (const char *)arg, level, line);
	else if (tracing)
		fprintf(stderr, "%s\n", line);
}

static int has(const char *word)
{
	for (int i = 1; i < nargs; i++)
		if (!strcmp(args[i], word))
			return 1;
	return 0;
}

/* The value of word=value. */
static const char *value(const char *word)
{
	size_t n = strlen(word);

	for (int i = 1; i < nargs; i++)
		if (!strncmp(args[i], word, n) && args[i][n] == '=')
			return args[i] + n + 1;
	return NULL;
}

static long number(const char *word, long otherwise)
{
	const char *v = value(word);

	return v ? strtol(v, NULL, 0) : otherwise;
}

static unsigned count(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static unsigned count_fds(void) { return count("/proc/self/fd"); }

/*
 * A line of the status of the library's thread, behind its name; "" if there is no such
 * thread. A sanitizer may have a thread of its own.
 */
static const char *thread_status(const char *name)
{
	static char line[200];
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	bool ours = false, found = false;

	while (!found && (e = readdir(d))) {
		char path[300];
		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		for (ours = false; f && !found && fgets(line, sizeof line, f); ) {
			ours |= !strcmp(line, "Name:\tlibhandoff\n");
			found = ours && !strncmp(line, name, strlen(name));
		}
		if (f)
			fclose(f);
	}
	closedir(d);
	return found ? line + strlen(name) : "";
}

/* ----------------------------------------------------------------- calls --- */

static void do_open(void)
{
	struct handoff_options o = {
		.size = (size_t)number("size", sizeof o),
		.data_dir = value("data"), .build_id = value("build"),
		.version = value("version"), .log = keep_log, .log_arg = (void *)"",
		.flags = (unsigned)number("flags", (has("nonblock") ? HANDOFF_NONBLOCK : 0) |
		                                   (has("moves") ? HANDOFF_CONNECTIONS : 0)),
		.reserved = (unsigned)number("reserved", 0),
	};

	tracing = has("trace");
	int e = handoff_open(has("null") ? NULL : &o, &h);
	/* the tests look at the thread, which names itself */
	for (int i = 0; !e && handoff_role(h) && !thread_status("Name:")[0] && i < 10000; i++)
		poll(NULL, 0, 1);
	say("%d", e);
}

static char context[300];   /* of the last begin */

static const char *text(const char *s)
{
	return s ? s : "-";
}

static void do_context(void)
{
	say("%s", context);
}

static void do_begin(void)
{
	struct handoff_sealed s = { .size = (size_t)number("size", sizeof s) };
	int e = handoff_begin(h, has("null") ? NULL : &s);

	if (e)
		say("%d", e);
	else
		say("0 sealed=%d shards=%u first=%llu print=%02x epoch=%llu", s.sealed, s.shards,
		    s.shards ? (unsigned long long)s.revisions[0] : 0, s.fingerprint[0],
		    (unsigned long long)s.epoch);
	if (!e)
		snprintf(context, sizeof context, "reason=%s trace=%s corr=%s tenant=%s", text(s.reason),
		         text(s.trace_parent), text(s.correlation_id), text(s.tenant));
}

static struct handoff_state *state(void)
{
	static uint64_t revisions[2000];
	static struct handoff_state s;

	s = (struct handoff_state){
		.size = (size_t)number("size", sizeof s),
		.revisions = has("norev") ? NULL : revisions,
		.shards = (unsigned)number("shards", 1),
		.healthy = !has("unhealthy"), .reason = value("reason"),
	};
	revisions[0] = (uint64_t)number("rev", 7);
	s.fingerprint[0] = 0xab;
	return has("null") ? NULL : &s;
}

static void do_take(void)
{
	int fd = handoff_take_fd(h, args[1]);
	struct stat st;

	if (fd < 0)
		say("%d", fd);
	else if (fstat(fd, &st) || !(fcntl(fd, F_GETFD) & FD_CLOEXEC))
		say("not close-on-exec");
	else
		say("0 ino=%llu", (unsigned long long)st.st_ino);
}

static void say_event(int r, const struct handoff_event *e)
{
	static const char *const names[] = { "?", "begin", "decided", "drain", "seal",
	                                     "resume", "commit", "final", "lost" };

	if (r <= 0)
		say("%d", r);
	else
		say("%d %s reopen=%d reason=%s trace=%s corr=%s tenant=%s ms=%u", r, names[e->type],
		    e->reopen,
		    e->reason ? e->reason : "-", e->trace_parent ? e->trace_parent : "-",
		    e->correlation_id ? e->correlation_id : "-",
		    e->tenant ? e->tenant : "-", e->deadline_ms);
}

static void do_next(void)
{
	struct handoff_event e = { .size = (size_t)number("size", sizeof e), .can_give = -1 };
	int r = handoff_next(h, &e);

	if (r > 0 && value("size"))
		say("%s size=%zu give=%d", e.tenant, e.size, e.can_give);
	else
		say_event(r, &e);
}

static void do_wait(void)
{
	struct handoff_event e = { .size = sizeof e };
	int r = handoff_wait(h, atoi(args[1]), &e);

	say_event(r, &e);
}

static void do_poll(void)
{
	struct pollfd p = { .fd = handoff_fd(h), .events = POLLIN };

	say("%d", poll(&p, 1, atoi(args[1])));
}

/* The same loop as a daemon's: poll, dispatch, next until 0; says the first event. */
static void do_loop(void)
{
	struct handoff_event e = { .size = sizeof e };
	struct pollfd p = { .fd = handoff_fd(h), .events = POLLIN };
	int left = atoi(args[1]);
	struct timespec a, b;

	for (clock_gettime(CLOCK_MONOTONIC, &a); left > 0 && poll(&p, 1, left) > 0; ) {
		clock_gettime(CLOCK_MONOTONIC, &b);
		left = atoi(args[1]) - (int)((b.tv_sec - a.tv_sec) * 1000) -
		       (int)((b.tv_nsec - a.tv_nsec) / 1000000);
		if (handoff_dispatch(h) > 0 && handoff_next(h, &e) == 1) {
			say_event(1, &e);
			return;
		}
	}
	say("0");
}

static void do_answer(void)
{
	const char *c = args[0];

	if (!strcmp(c, "ready"))
		say("%d", handoff_ready(h, state()));
	else if (!strcmp(c, "sealed"))
		say("%d", handoff_sealed(h, state()));
	else if (!strcmp(c, "drained"))
		say("%d", handoff_drained(h, (unsigned)number("open", 0)));
	else if (!strcmp(c, "resumed"))
		say("%d", handoff_resumed(h));
	else if (!strcmp(c, "seal_failed"))
		say("%d", handoff_seal_failed(h, nargs > 1 ? args[1] : NULL));
	else if (!strcmp(c, "dispatch"))
		say("%d", handoff_dispatch(h));
	else
		say("%d", handoff_seal_progress(h, (unsigned)number("done", 1),
		                                (unsigned)number("total", 2), 9));
}

/* ----------------------------------------------------------- connections --- */

static int conn[1024], client[1024], nconns;
static struct handoff_connection got = { .fd = -1 };

static void do_conn(void)
{
	int n = atoi(args[1]), sv[2];

	for (; n-- && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv); nconns++) {
		conn[nconns] = sv[0];
		client[nconns] = sv[1];
	}
	say("%d", nconns);
}

/* give FROM TO: the connections (or fd=), with a state of size= bytes that begins with the number. */
static void do_give(void)
{
	int from = atoi(args[1]), to = atoi(args[2]), r = 0;
	size_t size = (size_t)number("size", 3);
	char *state = calloc(1, size + 1);

	for (int i = from; i < to && r >= 0; i++) {
		struct handoff_connection c = {
			.size = sizeof c, .fd = (int)number("fd", conn[i]), .name = value("name"),
			.state = state, .state_size = size,
		};
		snprintf(state, size + 1, "%d", i);
		r = handoff_give(h, &c);
	}
	free(state);
	say("%d", r);
}

static void do_gone(void)
{
	say("%d", handoff_gone(h, (unsigned)atoi(args[1])));
}

static void do_receive(void)
{
	int r;

	got.size = (size_t)number("size", sizeof got);
	r = handoff_receive(h, &got);
	if (r <= 0)
		say("%d", r);
	else
		say("1 name=%s size=%zu state=%.*s", got.name, got.state_size,
		    got.state_size < 40 ? (int)got.state_size : 40, (const char *)got.state);
}

/* What a daemon does with what it has taken, once it serves: a byte to the client. */
static void do_touch(void)
{
	say("%d", (int)write(got.fd, "!", 1));
}

static void do_reject(void)
{
	say("%d", handoff_reject(h, got.fd));
}

static void do_give_end(void)
{
	say("%d", handoff_give_end(h));
}

/* ------------------------------------------------------------- the inside --- */

static void do_switches(void)
{
	say("%ld", atol(thread_status("voluntary_ctxt_switches:")));
}

/* What can be blocked is blocked in the library's thread, and only there. */
static void do_signals(void)
{
	unsigned long long mask = strtoull(thread_status("SigBlk:"), NULL, 16);
	unsigned long long want = 1ull << (SIGTERM - 1) | 1ull << (SIGUSR1 - 1) |
	    1ull << (SIGCHLD - 1);
	sigset_t mine;

	sigprocmask(SIG_SETMASK, NULL, &mine);
	say("%s %s", (mask & want) == want ? "blocked" : "open",
	    sigismember(&mine, SIGTERM) ? "blocked" : "open");
}

/* A worker that goes on without exec: says how many descriptors more than at the start it
 * has, and dies. */
static void do_fork(void)
{
	int p[2], n = -1;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC))
		return;
	if ((pid = fork()) == 0) {
		handoff_after_fork(h);
		n = (int)count_fds() - start_fds - 2;   /* the pipe */
		_exit(write(p[1], &n, sizeof n) != sizeof n);
	}
	close(p[1]);
	if (read(p[0], &n, sizeof n) != sizeof n)
		n = -1;
	close(p[0]);
	waitpid(pid, NULL, 0);
	say("%d", n);
}

static void do_user(void)
{
	int id = atoi(args[1]);

	say("%d", setgroups(0, NULL) || setresgid((gid_t)id, (gid_t)id, (gid_t)id) ||
	          setresuid((uid_t)id, (uid_t)id, (uid_t)id));
}

/* Stays away from the library for a while, as a slow hook does. */
static void do_sleep(void)
{
	poll(NULL, 0, atoi(args[1]));
	say("0");
}

static const struct { const char *name; void (*f)(void); } calls[] = {
	{ "open", do_open }, { "begin", do_begin }, { "context", do_context }, { "take", do_take },
	{ "next", do_next }, { "wait", do_wait },
	{ "poll", do_poll }, { "loop", do_loop }, { "ready", do_answer }, { "sealed", do_answer },
	{ "drained", do_answer }, { "resumed", do_answer }, { "seal_failed", do_answer },
	{ "dispatch", do_answer }, { "progress", do_answer }, { "switches", do_switches },
	{ "conn", do_conn }, { "give", do_give }, { "give_end", do_give_end }, { "gone", do_gone },
	{ "receive", do_receive }, { "reject", do_reject }, { "touch", do_touch },
	{ "signals", do_signals }, { "fork", do_fork }, { "user", do_user }, { "sleep", do_sleep },
};

static int simple(void)
{
	const char *c = args[0];

	if (!strcmp(c, "role"))
		say("%d", handoff_role(h));
	else if (!strcmp(c, "error"))
		say("%s", handoff_error(h));
	else if (!strcmp(c, "log"))
		say("%s", last_log);
	else if (!strcmp(c, "epoch"))
		say("%llu", (unsigned long long)handoff_epoch(h));
	else if (!strcmp(c, "name"))
		say("%s", handoff_fd_name(h, (unsigned)atoi(args[1])) ?
		    handoff_fd_name(h, (unsigned)atoi(args[1])) : "-");
	else if (!strcmp(c, "close"))
		say("%s", handoff_close(h) ? "not NULL" : "0"), h = NULL;
	else if (!strcmp(c, "fds"))
		say("%d", (int)count_fds() - start_fds);
	else if (!strcmp(c, "threads"))
		say("%d", thread_status("Name:")[0] != '\0');
	else if (!strcmp(c, "chroot"))
		say("%d", (in_chroot = 1, chroot(args[1]) || chdir("/")));
	else if (!strcmp(c, "chdir"))
		say("%d", chdir(args[1]));
	else
		return 0;
	return 1;
}

static void run(char *line)
{
	nargs = 0;
	for (char *p = strtok(line, " \n"); p && nargs < 39; p = strtok(NULL, " \n"))
		args[nargs++] = p;
	args[nargs] = NULL;
	if (!nargs || simple())
		return;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(args[0], calls[i].name)) {
			calls[i].f();
			return;
		}
	say("no such command");
}

int main(void)
{
	char line[4096];
	const char *fd = getenv("HANDOFF_FD");

	start_fds = (int)count_fds() - (fd && fcntl(atoi(fd), F_GETFD) >= 0);
	while (fgets(line, sizeof line, stdin) && strcmp(line, "quit\n"))
		run(line);
	handoff_close(h);
	if (in_chroot)
		_exit(0);   /* LeakSanitizer would miss /proc */
	return 0;
}
