/* The library and the process around it: parents, forks, users, roots, restarted supervisors,
 * wake-ups, descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/suite.h"
#include "handoff.h"
#include "proto/daemon.h"
#include "stage.h"

static struct puppet p;
static int before;

static void setup(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);   /* grandchildren are reaped here */
	before = stage_fds();
	memset(&p, 0, sizeof p);
	stage_setup();
}

static void teardown(void)
{
	stage_teardown();
	ck_assert_int_eq(stage_fds(), before);
}

static bool not_root(const char *test)
{
	if (geteuid() == 0)
		return false;
	printf("skipped: %s: needs root\n", test);
	return true;
}

/* -------------------------------------------------------------- standalone --- */

START_TEST(standalone)
{
	struct puppet q = { 0 };
	char want[80];

	puppet_start(&p, NULL);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	ASK(&p, "role", "0");
	ASK(&p, "threads", "0");
	ASK(&p, "begin", "0 sealed=0 shards=0 first=0 print=00 epoch=1");
	ASK(&p, "take http", "-2");
	ASK(&p, "name 0", "-");
	ASK(&p, "ready", "0");
	ASK(&p, "poll 0", "0");
	ASK(&p, "dispatch", "0");
	ASK(&p, "next", "0");
	ASK(&p, "wait 10", "0");
	puppet_start(&q, NULL);
	ck_assert_str_eq(puppet_ask(&q, "open data=%s", stage_dir), "0");
	ASK(&q, "begin", "-16");
	snprintf(want, sizeof want, "the data directory is in use by pid %d", (int)p.pid);
	ASK(&q, "error", want);
	puppet_end(&p);
	ASK(&q, "begin", "0 sealed=0 shards=0 first=0 print=00 epoch=2");
	ASK(&q, "ready unhealthy reason=x", "-125");
	ASK(&q, "error", "unhealthy: x");
	puppet_end(&q);
}
END_TEST

START_TEST(standalone_without_data)
{
	puppet_start(&p, NULL);
	ASK(&p, "open", "0");
	ASK(&p, "begin", "0 sealed=0 shards=0 first=0 print=00 epoch=0");
	ASK(&p, "ready", "0");
	puppet_end(&p);
}
END_TEST

#define TEXT_65 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
static const struct { const char *open, *answer, *log; } wrong[] = {
	{ "open null", "-22", "" },
	{ "open size=0", "-22", "" },
	{ "open size=8", "-22", "" },
	{ "open flags=4", "-22", "0 handoff_open: an unknown flag, or reserved is not 0" },
	{ "open reserved=1", "-22", "0 handoff_open: an unknown flag, or reserved is not 0" },
	{ "open build=" TEXT_65, "-22",
	  "0 handoff_open: build_id and version have 64 bytes at most" },
	{ "open version=" TEXT_65, "-22",
	  "0 handoff_open: build_id and version have 64 bytes at most" },
	{ "open data=/nowhere/at/all", "-2",
	  "0 data directory /nowhere/at/all: No such file or directory" },
	{ "open data=/etc/passwd", "-20", "0 data directory /etc/passwd: Not a directory" },
	{ "open", "-9", "0 HANDOFF_FD=3 is not the supervisor's channel (unset it to run alone)" },
};

/* Nothing is left of an open that failed, and an older or newer caller's size is taken. */
START_TEST(open_fails)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	puppet_start_with(&p, _i == 9 ? "first" : NULL, null);
	chan_init(&p.c, -1);
	if (null >= 0)
		close(null);
	ASK(&p, wrong[_i].open, wrong[_i].answer);
	ASK(&p, "log", wrong[_i].log);
	ASK(&p, "fds", _i == 9 ? "1" : "0");   /* what is not a channel is not touched */
	ASK(&p, "threads", "0");
	if (_i != 9) {
		ASK(&p, _i % 2 ? "open size=500" : "open size=60", "0");
		ASK(&p, "close", "0");
	}
	puppet_end(&p);
}
END_TEST

/* The channel is there for a second call, once the daemon has made its directory. */
START_TEST(opened_again)
{
	char path[100], lock[120], answer[200];

	snprintf(path, sizeof path, "%s/data", stage_dir);
	snprintf(lock, sizeof lock, "%s/.handoff.lock", path);
	snprintf(answer, sizeof answer, "0 data directory %s: No such file or directory", path);
	puppet_start(&p, "first");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", path), "-2");
	ASK(&p, "log", answer);
	ASK(&p, "fds", "1");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", path), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	puppet_kill(&p);
	unlink(lock);
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* No thread can be had: nothing of the open is left, the channel neither. */
START_TEST(no_thread)
{
	const struct rlimit none = { 0, 0 };

	if (not_root("no_thread"))
		return;
	puppet_start(&p, "first");
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NPROC, &none, NULL), 0);
	ASK(&p, "user 61004", "0");
	ASK(&p, "open", "-11");
	ASK(&p, "log", "0 the library's thread could not be started: Resource temporarily unavailable");
	ASK(&p, "fds", "0");
	stage_eof(&p);
	puppet_kill(&p);   /* LeakSanitizer would want a thread at its end */
}
END_TEST

START_TEST(build_id_is_the_program_s)
{
	char line[300], want[200] = "", got[140];

	puppet_start(&p, "first");
	snprintf(line, sizeof line, "readelf -n /proc/%d/exe 2>/dev/null", (int)p.pid);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	FILE *f = popen(line, "r");
	while (fgets(line, sizeof line, f))
		sscanf(line, " Build ID: %199s", want);
	pclose(f);
	puppet_say(&p, "begin");
	struct msg *m = stage_get(&p, MSG_hello);
	for (size_t i = 0; i < m->hello.build.n; i++)
		sprintf(got + 2 * i, "%02x", (unsigned char)m->hello.build.p[i]);
	ck_assert_uint_ge(m->hello.build.n, 8);
	ck_assert_str_eq(got, want);
	puppet_kill(&p);
}
END_TEST

/* --------------------------------------------------------------- resources --- */

START_TEST(nothing_stays_after_close)
{
	struct msg m = { .type = MSG_sockets };
	struct span name = SPAN("a");

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	ASK(&p, "threads", "1");
	ASK(&p, "signals", "blocked open");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	m.sockets.batch = m.sockets.of = 1;
	m.sockets.names = (struct texts){ .n = 1, .v = &name };
	stage_put_fds(&p, &m, &(int){ 1 }, 1);
	stage_get(&p, MSG_sockets_ack);
	stage_begin(&p, 1, 5);
	puppet_heard(&p);
	ASK(&p, "take a", "0 ino=*");
	ASK(&p, "fork", "1");        /* in a worker: what was given out is the daemon's */
	ASK(&p, "close", "0");
	ASK(&p, "fds", "1");
	ASK(&p, "threads", "0");
	stage_eof(&p);
	puppet_end(&p);
}
END_TEST

/* A worker that is forked without exec dies; its parent's lock and channel are unharmed. */
START_TEST(fork_leaves_the_lock)
{
	struct puppet q = { 0 };

	scene_serve(&p, "");
	ASK(&p, "fork", "0");
	ASK(&p, "fork", "0");
	puppet_start(&q, NULL);
	ck_assert_str_eq(puppet_ask(&q, "open data=%s", stage_dir), "0");
	ASK(&q, "begin", "-16");
	puppet_end(&q);
	scene_sealed(&p, 1);
	puppet_end(&p);
}
END_TEST

/* Nothing happens, nobody wakes: neither the library's thread nor the daemon. */
START_TEST(idle_is_silent)
{
	long a, b;
	int listener = stage_listen();

	stage_timers.heartbeat = 10;
	stage_timers.fence = 100;
	scene_serve(&p, "");
	ASK(&p, "loop 100", "0");
	chan_close(&p.c);            /* and after a reconnect just so */
	ASK(&p, "loop 20000", "1 lost*");
	stage_accept(&p, listener);
	ASK(&p, "loop 1000", "0");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 0);
	ASK(&p, "loop 200", "0");
	a = atol(puppet_ask(&p, "switches"));
	ASK(&p, "poll 3000", "0");
	b = atol(puppet_ask(&p, "switches"));
	ck_assert_int_eq(a, b);
	close(listener);
	puppet_end(&p);
}
END_TEST

/* ------------------------------------------------------------ the parent dies --- */

/*
 * A supervisor that is a process of its own: it starts the puppet, tells its pid, and dies
 * when it is told to. We keep a copy of its end, so that no end of the stream tells of it.
 */
static struct chan kept;
static int says_die;
static pid_t parent;

static void start_below_another(const char *role, const char *launcher)
{
	int sv[2], die[2], told[2];

	/* the socket pair is the parent's own, as its credentials say */
	ck_assert_int_eq(pipe2(die, O_CLOEXEC), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, told), 0);
	p.launcher = (char *)(uintptr_t)launcher;
	if ((parent = fork()) == 0) {
		struct puppet q = p;
		struct chan t;
		struct msg m = { .type = MSG_sockets };
		struct span name = SPAN("c");
		close(die[1]);
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
			_exit(1);
		puppet_start_with(&q, role, sv[1]);
		chan_init(&t, told[1]);
		m.sockets.names = (struct texts){ .n = 1, .v = &name };
		m.sockets.batch = 1;
		m.sockets.of = 1;
		int fds[] = { sv[0], q.to, q.from };
		for (int i = 0; i < 3; i++)
			chan_send(&t, &m, &fds[i], 1);
		_exit(write(told[1], &q.pid, sizeof q.pid) < 0 ||
		      read(die[0], &(char){ 0 }, 1) < 0);
	}
	close(die[0]);
	close(told[1]);
	says_die = die[1];
	int got[3];
	chan_init(&kept, told[0]);
	for (int i = 0; i < 3; i++) {
		struct msg m;
		struct pollfd f = { .fd = told[0], .events = POLLIN };
		int fds[FRAME_MAX_FDS], e;
		while (!(e = chan_recv(&kept, &m)))
			poll(&f, 1, LIMIT_MS);
		ck_assert_int_eq(e, 1);
		ck_assert_uint_eq(chan_take_fds(&kept, fds), 1);
		got[i] = fds[0];
	}
	struct pollfd f = { .fd = told[0], .events = POLLIN };
	poll(&f, 1, LIMIT_MS);
	ck_assert_int_eq(read(told[0], &p.pid, sizeof p.pid), sizeof p.pid);
	chan_close(&kept);
	chan_init(&p.c, got[0]);
	p.to = got[1];
	p.from = got[2];
}

static void parent_dies(void)
{
	close(says_die);
	ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
}

/* Gone within the limit: its output has ended. It is our grandchild: reaped by us. */
static bool gone(int ms)
{
	struct pollfd f = { .fd = p.from, .events = 0 };

	return poll(&f, 1, ms) == 1;
}

static void clean_up(void)
{
	close(p.to);
	ck_assert(gone(LIMIT_MS));
	close(p.from);
	chan_close(&p.c);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void to_ready(int user)
{
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	if (user) {
		char path[128], question[40];
		snprintf(path, sizeof path, "%s", stage_dir);
		ck_assert_int_eq(chown(path, (uid_t)user, (gid_t)user), 0);
		snprintf(question, sizeof question, "user %d", user);
		ASK(&p, question, "0");
	}
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	stage_begin(&p, 1, 5);
	ck_assert(!strncmp(puppet_heard(&p), "0 sealed=1", 10));
	ASK(&p, "signals", "blocked open");
}

/* Tied by its first act, as the same user or as another since; without a word of the stream. */
START_TEST(successor_dies_with_its_supervisor)
{
	if (_i == 1 && not_root("successor_dies_with_its_supervisor, as another user"))
		return;
	start_below_another("successor", NULL);
	if (_i == 2) {          /* still in its warm-up */
		ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
		ASK(&p, "sleep 200", "0");
	} else {
		to_ready(_i == 1 ? 65534 : 0);
		ASK(&p, "sleep 200", "0");
	}
	ck_assert(!gone(0));
	parent_dies();
	ck_assert(gone(LIMIT_MS));
	clean_up();
}
END_TEST

START_TEST(incumbent_outlives_its_supervisor)
{
	if (_i && not_root("incumbent_outlives_its_supervisor, as another user"))
		return;
	start_below_another("successor", NULL);
	to_ready(_i ? 65534 : 0);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 1);
	ck_assert_str_eq(puppet_heard(&p), "0");
	parent_dies();
	ck_assert(!gone(500));
	ASK(&p, "role", "2");
	clean_up();
}
END_TEST

/* Below a launcher the parent is not the supervisor: its exit means nothing. */
START_TEST(not_tied_to_a_launcher)
{
	start_below_another("successor", "sh");
	to_ready(0);
	ASK(&p, "sleep 100", "0");
	kill(p.pid, SIGKILL);   /* the shell */
	ck_assert(!gone(500));
	ASK(&p, "role", "2");
	parent_dies();
	clean_up();
}
END_TEST

/* ---------------------------------------------------- a supervisor comes back --- */

static void give_sockets(unsigned n, int fd)
{
	struct msg m = { .type = MSG_sockets };
	char text[64][16];
	struct span names[64];
	int fds[64];

	for (unsigned sent = 0, batch = 0; sent < n; ) {
		unsigned k = 0;
		for (; k < 64 && sent < n; k++, sent++) {
			snprintf(text[k], sizeof text[k], "s%u", sent);
			names[k] = SPAN(text[k]);
			fds[k] = fd;
		}
		m.sockets.batch = ++batch;
		m.sockets.of = (n + 63) / 64;
		m.sockets.names = (struct texts){ .n = k, .v = names };
		stage_put_fds(&p, &m, fds, k);
		stage_get(&p, MSG_sockets_ack);
	}
}

static void get_sockets(unsigned n, int like)
{
	struct msg ack = { .type = MSG_sockets_ack };
	struct stat want, got;

	fstat(like, &want);
	for (unsigned seen = 0; seen < n; ) {
		int fds[FRAME_MAX_FDS];
		stage_get(&p, MSG_sockets);
		seen += p.m.sockets.names.n;
		ack.sockets_ack.batch = p.m.sockets.batch;
		ck_assert_uint_eq(p.m.sockets.of, (n + 63) / 64);
		for (unsigned i = chan_take_fds(&p.c, fds); i--; close(fds[i])) {
			fstat(fds[i], &got);
			ck_assert_uint_eq(got.st_ino, want.st_ino);
		}
		stage_put(&p, &ack);
		puppet_ask(&p, "loop 50");
	}
}

static const unsigned counts[] = { 0, 1, 65, 130 };

/* It finds it in whatever root, as whatever user, and hands the sockets over. */
START_TEST(registers_again)
{
	unsigned n = counts[_i % 4];
	int how = _i / 4, listener, sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (how && not_root(how == 1 ? "registers_again, from a chroot" :
	                    "registers_again, as another user")) {
		close(sock);
		return;
	}
	puppet_start(&p, "first");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 0);
	give_sockets(n, sock);
	stage_begin(&p, 0, -1);
	puppet_heard(&p);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 0);
	stage_get(&p, MSG_status);
	puppet_heard(&p);
	if (how == 1)
		ASK(&p, "chroot /usr/share", "0");
	if (how == 2)
		ASK(&p, "user 65534", "0");
	for (int round = 0; round < 3; round++) {
		chan_close(&p.c);
		ASK(&p, "loop 20000", "1 lost*");
		ASK(&p, "loop 50", "0");        /* nobody is there yet */
		listener = stage_listen();
		stage_accept(&p, listener);
		close(listener);
		ASK(&p, "poll 20000", "1");
		ASK(&p, "loop 50", "0");
		struct msg *m = stage_get(&p, MSG_hello);
		ck_assert_uint_eq(m->hello.role, 2);
		ck_assert_uint_eq(m->hello.phase, D_SERVE);
		ck_assert(m->hello.locked);
		ck_assert_uint_eq(m->hello.sockets, n);
		ck_assert_uint_eq(m->hello.epoch, 1);
		stage_ack(&p, 0);
		puppet_ask(&p, "loop 50");
		get_sockets(n, sock);
		ASK(&p, "poll 0", "0");
	}
	scene_sealed(&p, 1);
	stage_simple(&p, MSG_commit, 1);
	ASK(&p, "loop 20000", "1 commit*");
	close(sock);
	puppet_end(&p);
}
END_TEST

/* In each state of a handoff: what it says of itself. */
START_TEST(registers_in_each_state)
{
	static const unsigned phase[] = { D_UNDRAIN, D_UNDRAIN, D_UNSEAL, D_SEALED, D_REOPEN };
	int listener = stage_listen(), lock = -1;
	char path[128];

	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	scene_serve(&p, "");
	if (_i == 0) {
		stage_prepare(&p, 1);
		ASK(&p, "loop 20000", "1 drain*");
	} else if (_i < 3) {
		scene_drained(&p, 1);
	} else {
		scene_sealed(&p, 1);
	}
	if (_i == 2) {
		stage_simple(&p, MSG_seal_request, 1);
		ASK(&p, "loop 20000", "1 seal*");
	}
	if (_i == 3) {
		lock = open(path, O_RDWR | O_CLOEXEC);
		struct puppet q = { 0 };
		puppet_start(&q, NULL);      /* another has the lock */
		ck_assert_str_eq(puppet_ask(&q, "open data=%s", stage_dir), "0");
		ASK(&q, "begin", "0 *");
		chan_close(&p.c);
		ASK(&p, "loop 300", "0");
		stage_accept(&p, listener);
		ASK(&p, "poll 20000", "1");
		ASK(&p, "loop 300", "0");
		ck_assert_uint_eq(stage_get(&p, MSG_hello)->hello.phase, D_SEALED);
		ck_assert(!p.m.hello.locked);
		puppet_end(&q);
		ASK(&p, "loop 20000", "1 resume reopen=1*");
		close(lock);
	} else {
		chan_close(&p.c);
		if (_i != 2)
			ASK(&p, "loop 20000", "1 resume*");
		else
			ASK(&p, "loop 300", "0");
		stage_accept(&p, listener);
		if (_i != 2)   /* in a seal the thread says it */
			ASK(&p, "poll 20000", "1");
		ASK(&p, "loop 300", "0");
		ck_assert_uint_eq(stage_get(&p, MSG_hello)->hello.phase, phase[_i]);
		ck_assert(p.m.hello.locked);
		if (_i == 2) {
			ASK(&p, "sealed", "0");
			ASK(&p, "next", "1 resume reopen=1*");
		}
	}
	ASK(&p, "resumed", "0");
	stage_get(&p, MSG_status);
	stage_ack(&p, 0);
	ASK(&p, "loop 100", "0");
	scene_sealed(&p, 2);
	close(listener);
	puppet_kill(&p);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		standalone, standalone_without_data, opened_again, no_thread, build_id_is_the_program_s,
		nothing_stays_after_close, fork_leaves_the_lock, idle_is_silent,
		not_tied_to_a_launcher,
	};
	const struct { const TTest *test; int n; } loops[] = {
		{ open_fails, (int)(sizeof wrong / sizeof *wrong) },
		{ successor_dies_with_its_supervisor, 3 }, { incumbent_outlives_its_supervisor, 2 },
		{ registers_again, 12 }, { registers_in_each_state, 5 },
	};
	Suite *suite = suite_create("process");
	TCase *t = tcase_create("process");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
		tcase_add_loop_test(t, loops[i].test, 0, loops[i].n);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
