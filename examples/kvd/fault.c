#include "fault.h"

#include "util.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const point_name[FAULT_POINTS] = {
	[FAULT_START] = "start", [FAULT_WARMUP] = "warmup", [FAULT_HELLO] = "hello",
	[FAULT_BEGIN] = "begin", [FAULT_OPEN] = "open", [FAULT_READY] = "ready",
	[FAULT_TAKE] = "take", [FAULT_COMMIT] = "commit", [FAULT_DRAIN] = "drain",
	[FAULT_RECEIVE] = "receive", [FAULT_GIVE] = "give", [FAULT_GIVEN] = "given",
	[FAULT_SEAL] = "seal", [FAULT_RESUME] = "resume", [FAULT_EXIT] = "exit",
};

static void sleep_ms(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) < 0)
		;
}

static void do_hang(int ms)
{
	(void)ms;
	for (;;)
		pause();
}

static void do_stop(int ms)
{
	(void)ms;
	raise(SIGSTOP);
}

static void do_die(int ms)
{
	(void)ms;
	kill(getpid(), SIGKILL);
}

static void do_exit0(int ms)
{
	(void)ms;
	_exit(0);
}

static void do_exit1(int ms)
{
	(void)ms;
	_exit(1);
}

/* Into the background, as daemons do that were written for another init. */
static void do_fork(int ms)
{
	(void)ms;
	if (fork() > 0)
		_exit(0);
}

/* What SIGTERM does to a child: kvd's own handler is none of its business. */
static void on_sigterm(void (*handler)(int))
{
	sigset_t set;

	signal(SIGTERM, handler);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void linger(int ms)
{
	sleep_ms(ms ? ms : 3000);
	_exit(0);
}

/* A child that keeps every descriptor, as a careless helper does. */
static void do_helper(int ms)
{
	if (fork())
		return;
	on_sigterm(SIG_DFL);
	linger(ms);
}

static void do_deaf(int ms)
{
	if (fork())
		return;
	on_sigterm(SIG_IGN);
	linger(ms);
}

/* With a session of its own, and no parent: what a helper does that becomes a daemon. */
static void do_stray(int ms)
{
	pid_t pid = fork();

	if (pid) {
		waitpid(pid, NULL, 0);
		return;
	}
	setsid();
	if (fork())
		_exit(0);
	on_sigterm(SIG_DFL);
	linger(ms);
}

static int brood_ms;

static void hatch(int sig)
{
	(void)sig;
	if (fork())
		_exit(0);
	linger(brood_ms);   /* in a handler of SIGTERM: deaf to it */
}

/* Twenty; each that is told to end leaves one more. */
static void do_brood(int ms)
{
	int i;

	brood_ms = ms;
	for (i = 0; i < 20; i++) {
		if (fork())
			continue;
		on_sigterm(hatch);
		linger(ms);
	}
}

#define AT(point) (1u << (point))
#define ANYWHERE  (AT(FAULT_POINTS) - 1)

static const struct action {
	const char *name;
	unsigned where;           /* points where it means something */
	int takes_ms;             /* 1: may, 2: must */
	void (*fn)(int ms);
	enum fault_lie lie;
	const char *help;
} table[] = {
	{ "hang", ANYWHERE, 0, do_hang, LIE_NONE, "the main thread does nothing more" },
	{ "stop", ANYWHERE, 0, do_stop, LIE_NONE, "SIGSTOP: no thread does anything more" },
	{ "die", ANYWHERE, 0, do_die, LIE_NONE, "SIGKILL" },
	{ "exit0", ANYWHERE, 0, do_exit0, LIE_NONE, "exits as if all were well" },
	{ "exit1", ANYWHERE, 0, do_exit1, LIE_NONE, "exits with 1" },
	{ "delay", ANYWHERE, 2, sleep_ms, LIE_NONE, "=MS: sleeps, then goes on" },
	{ "helper", ANYWHERE, 1, do_helper, LIE_NONE,
	  "[=MS]: forks a child that keeps all descriptors (3000 ms)" },
	{ "deaf", ANYWHERE, 1, do_deaf, LIE_NONE, "[=MS]: the same, and it ignores SIGTERM" },
	{ "stray", ANYWHERE, 1, do_stray, LIE_NONE,
	  "[=MS]: the same, with a session of its own and no parent" },
	{ "brood", ANYWHERE, 1, do_brood, LIE_NONE,
	  "[=MS]: twenty, each of which leaves another at SIGTERM" },
	{ "fork", AT(FAULT_START), 0, do_fork, LIE_NONE, "goes into the background" },
	{ "unhealthy", AT(FAULT_READY), 0, NULL, LIE_UNHEALTHY, "says that it is not healthy" },
	{ "badrev", AT(FAULT_READY) | AT(FAULT_SEAL), 0, NULL, LIE_BADREV,
	  "says a revision that is one too high" },
	{ "badfp", AT(FAULT_READY) | AT(FAULT_SEAL), 0, NULL, LIE_BADFP,
	  "says a fingerprint with one bit wrong" },
	{ "fail", AT(FAULT_DRAIN) | AT(FAULT_SEAL), 0, NULL, LIE_FAIL, "it fails; the seal says so" },
	{ "fail-once", AT(FAULT_SEAL), 0, NULL, LIE_FAIL_ONCE, "the same, the first time" },
	{ "progress", AT(FAULT_SEAL), 0, NULL, LIE_PROGRESS, "says how far it is, then seals" },
	{ "keep", AT(FAULT_SEAL), 0, NULL, LIE_KEEP, "says that it has sealed, and writes on" },
	{ "forget", AT(FAULT_COMMIT), 0, NULL, LIE_FORGET, "serves without the keys of one shard" },
	{ "reject", AT(FAULT_RECEIVE), 0, NULL, LIE_REJECT, "does not want every other one" },
};
#define COUNT (sizeof(table) / sizeof(table[0]))

static void list_points(char *to, size_t n, unsigned where)
{
	unsigned i;

	*to = '\0';
	for (i = 0; i < FAULT_POINTS; i++)
		if (where & AT(i))
			snprintf(to + strlen(to), n - strlen(to), "%s%s", *to ? ", " : "",
				 point_name[i]);
}

static void list_actions(char *to, size_t n)
{
	size_t i;

	*to = '\0';
	for (i = 0; i < COUNT; i++)
		snprintf(to + strlen(to), n - strlen(to), "%s%s", i ? ", " : "", table[i].name);
}

static int find_point(const char *text, size_t n)
{
	int i;

	for (i = 0; i < FAULT_POINTS; i++)
		if (strlen(point_name[i]) == n && !strncmp(point_name[i], text, n))
			return i;
	return -1;
}

static int find_action(const char *text, size_t n)
{
	size_t i;

	for (i = 0; i < COUNT; i++)
		if (strlen(table[i].name) == n && !strncmp(table[i].name, text, n))
			return (int)i;
	return -1;
}

int fault_add(struct faults *f, const char *text, char *why, size_t n)
{
	const char *colon = strchr(text, ':'), *eq = strchr(text, '=');
	char list[256];
	long long ms = 0;
	int point, action;

	point = find_point(text, colon ? (size_t)(colon - text) : strlen(text));
	list_points(list, sizeof(list), ANYWHERE);
	if (!colon || point < 0)
		return snprintf(why, n, "POINT:ACTION is needed, POINT one of %s", list), -1;
	action = find_action(colon + 1, eq ? (size_t)(eq - colon - 1) : strlen(colon + 1));
	list_actions(list, sizeof(list));
	if (action < 0)
		return snprintf(why, n, "no such action; there are %s", list), -1;
	list_points(list, sizeof(list), table[action].where);
	if (!(table[action].where & AT(point)))
		return snprintf(why, n, "%s goes only with %s", table[action].name, list), -1;
	if ((eq && (!table[action].takes_ms || !parse_ll(eq + 1, strlen(eq + 1), &ms) || ms < 0 ||
		    ms > 3600000)) || (!eq && table[action].takes_ms == 2))
		return snprintf(why, n, "%s%s", table[action].name, table[action].takes_ms ?
				"=MS is needed, up to 3600000" : " takes no value"), -1;
	if (f->n == MAX_FAULTS)
		return snprintf(why, n, "at most %d faults", MAX_FAULTS), -1;
	f->fault[f->n++] = (struct fault){ (enum fault_point)point, action, (int)ms };
	return 0;
}

enum fault_lie fault_at(const struct faults *f, enum fault_point point)
{
	enum fault_lie lie = LIE_NONE;
	const struct action *a;
	unsigned i;

	for (i = 0; i < f->n; i++) {
		if (f->fault[i].point != point)
			continue;
		a = &table[f->fault[i].action];
		log_line("fault: %s at %s", a->name, point_name[point]);
		if (a->fn)
			a->fn(f->fault[i].ms);
		else
			lie = a->lie;
	}
	return lie;
}

void fault_print(FILE *to)
{
	char list[256];
	size_t i;

	list_points(list, sizeof(list), ANYWHERE);
	fprintf(to, "  points: %s\n", list);
	for (i = 0; i < COUNT; i++) {
		list_points(list, sizeof(list), table[i].where);
		fprintf(to, "  %-10s %s%s%s\n", table[i].name, table[i].help,
			table[i].where == ANYWHERE ? "" : "; only at ",
			table[i].where == ANYWHERE ? "" : list);
	}
}
