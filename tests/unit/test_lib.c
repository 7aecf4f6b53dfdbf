/* The library's conversation with a supervisor, state by state. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handoff.h"
#include "proto/daemon.h"
#include "stage.h"
#include "suite.h"

static struct puppet p;
static int before;

static void setup(void)
{
	before = stage_fds();
	memset(&p, 0, sizeof p);
	stage_setup();
}

static void teardown(void)
{
	stage_teardown();
	ck_assert_int_eq(stage_fds(), before);
}

/* ----------------------------------------------------------------- start --- */

START_TEST(cold_start)
{
	scene_serve(&p, _i ? "nonblock" : "");
	ASK(&p, "role", "1");
	ASK(&p, "epoch", "1");
	ck_assert(!stage_lock_is_free());
	ASK(&p, "poll 0", "0");
	stage_final(&p);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "dispatch", "1");
	ASK(&p, "next", "1 final*");
	ASK(&p, "next", "0");
	ASK(&p, "poll 0", "0");
	puppet_end(&p);
	ck_assert(stage_lock_is_free());
}
END_TEST

START_TEST(hello_says_who)
{
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s build=abc version=2.5", stage_dir), "0");
	ASK(&p, "role", "2");
	puppet_say(&p, "begin");
	struct msg *m = stage_get(&p, MSG_hello);
	ck_assert_uint_eq(m->hello.role, 1);
	ck_assert_uint_eq(m->hello.pid, p.pid);
	ck_assert_uint_eq(m->hello.build.n, 3);
	ck_assert(!memcmp(m->hello.build.p, "abc", 3));
	ck_assert(!memcmp(m->hello.software.p, "2.5", 3));
	ck_assert_uint_eq(m->hello.version_min, 1);
	ck_assert_uint_eq(m->hello.version_max, 1);
	ck_assert(MSG_HAS(m, hello, ino) && MSG_HAS(m, hello, dev) && !MSG_HAS(m, hello, phase));
	chan_close(&p.c);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "the supervisor is gone");
	puppet_end(&p);
}
END_TEST

static const unsigned socket_counts[] = { 0, 1, 64, 65, 1000 };

/* Batches of 64, each acknowledged; a copy of each stays with the library. */
START_TEST(sockets)
{
	unsigned n = socket_counts[_i], batch = 0;
	struct msg m = { .type = MSG_sockets };
	char text[64][16], question[40];
	struct span names[64];
	int fds[64], one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	for (int i = 0; i < 64; i++)
		fds[i] = one;
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s %s", stage_dir, _i % 2 ? "nonblock" : ""),
	                 "0");
	puppet_say(&p, "begin");
	if (_i % 2) {
		ck_assert_str_eq(puppet_heard(&p), "-11");
		puppet_say(&p, "loop 30000");
	}
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	for (unsigned sent = 0; sent < n; ) {
		unsigned k = 0;
		for (; k < 64 && sent < n; k++, sent++) {
			snprintf(text[k], sizeof text[k], "s%u", sent);
			names[k] = SPAN(text[k]);
		}
		m.sockets.batch = ++batch;
		m.sockets.of = (n + 63) / 64;
		m.sockets.names = (struct texts){ .n = k, .v = names };
		stage_put_fds(&p, &m, fds, k);
		ck_assert_uint_eq(stage_get(&p, MSG_sockets_ack)->sockets_ack.batch, batch);
	}
	close(one);
	stage_begin(&p, 1, 5);
	if (_i % 2) {
		ck_assert(!strncmp(puppet_heard(&p), "1 begin", 7));
		puppet_say(&p, "begin");
	}
	ck_assert(!strncmp(puppet_heard(&p), "0 sealed=1", 10));
	ASK(&p, "context", "reason=why trace=tp corr=- tenant=te");
	ASK(&p, "take nothing", "-2");
	ASK(&p, "error", "no listener is called nothing");
	if (n) {
		ASK(&p, "take s0", "0 ino=*");
		ASK(&p, "name 0", "s0");
		snprintf(question, sizeof question, "take s%u", n - 1);
		ASK(&p, question, "0 ino=*");
		snprintf(question, sizeof question, "name %u", n - 1);
		snprintf(text[0], sizeof text[0], "s%u", n - 1);
		ASK(&p, question, text[0]);
	}
	snprintf(question, sizeof question, "name %u", n);
	ASK(&p, question, "-");
	puppet_say(&p, "ready rev=5");
	ck_assert_uint_eq(stage_get(&p, MSG_ready)->ready.listening.n, n == 0 ? 0 : n == 1 ? 1 : 2);
	stage_simple(&p, MSG_commit, 1);
	if (!strcmp(puppet_heard(&p), "-11")) {
		ASK(&p, "loop 30000", "1 decided*");
		puppet_ask(&p, "ready null");
	}
	ck_assert_str_eq(p.line, "0");
	stage_get(&p, MSG_status);
	puppet_end(&p);
}
END_TEST

/* The limit on open files is met in the warm-up: the attempt ends, and says why. */
START_TEST(sockets_over_the_limit)
{
	struct rlimit was, low;
	struct msg m = { .type = MSG_sockets };
	char text[64][16];
	struct span names[64];
	int fds[64];

	for (int i = 0; i < 64; i++) {
		snprintf(text[i], sizeof text[i], "s%d", i);
		names[i] = SPAN(text[i]);
		fds[i] = 1;
	}
	getrlimit(RLIMIT_NOFILE, &was);
	low = was;
	low.rlim_cur = 40;
	setrlimit(RLIMIT_NOFILE, &low);
	puppet_start(&p, "successor");
	setrlimit(RLIMIT_NOFILE, &was);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	m.sockets.batch = m.sockets.of = 1;
	m.sockets.names = (struct texts){ .n = 64, .v = names };
	stage_put_fds(&p, &m, fds, 64);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error",
	    "the supervisor sent what is not the protocol: descriptors were lost on the way "
	    "(too many, or the limit on open files)");
	stage_eof(&p);
	puppet_end(&p);
}
END_TEST

START_TEST(commit_of_a_successor)
{
	scene_successor(&p, 1);
	puppet_say(&p, "ready rev=41 shards=3");
	struct msg *m = stage_get(&p, MSG_ready);
	ck_assert(m->ready.healthy);
	ck_assert_uint_eq(m->ready.revisions.n, 3);
	ck_assert_uint_eq(m->ready.fingerprint.b[0], 0xab);
	stage_simple(&p, MSG_commit, 2);   /* of another handoff: dropped */
	ck_assert(!stage_any(&p, 100));
	stage_simple(&p, MSG_commit, 1);
	m = stage_get(&p, MSG_status);
	struct hid id = stage_id(1);
	ck_assert(m->status.serving && hid_equal(&m->status.id, &id));
	ck_assert_uint_eq(m->status.epoch, 1);
	ck_assert_str_eq(puppet_heard(&p), "0");
	puppet_end(&p);
}
END_TEST

START_TEST(unhealthy)
{
	scene_successor(&p, 1);
	puppet_say(&p, "ready unhealthy reason=disk");
	struct msg *m = stage_get(&p, MSG_ready);
	ck_assert(!m->ready.healthy);
	ck_assert(m->ready.why.n == 4 && !memcmp(m->ready.why.p, "disk", 4));
	stage_simple(&p, MSG_abort, 1);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "the supervisor ended it: no longer wanted");
	ck_assert(stage_lock_is_free());
	stage_eof(&p);
	puppet_end(&p);
}
END_TEST

/* Abort, the end of the channel and garbage, each in each state of a successor: it lets go
 * of lock and listeners, says -ECANCELED from then on, and why. */
static const char *const endings[] = {
	"the supervisor ended it: no longer wanted", "the supervisor is gone",
	"the supervisor sent what is not the protocol: "
	"a frame length that no frame can have (not this protocol?)",
};

static void end_it(int how)
{
	if (how == 0)
		stage_simple(&p, MSG_abort, 1);
	else if (how == 1)
		chan_close(&p.c);
	else
		ck_assert_int_eq(write(p.c.fd, "garbage", 7), 7);
}

START_TEST(successor_ends)
{
	int how = _i % 3, state = _i / 3 % 4;
	bool nonblock = _i / 12;

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s %s", stage_dir, nonblock ? "nonblock" : ""),
	                 "0");
	if (state == 0)
		end_it(how);   /* in the warm-up */
	puppet_say(&p, "begin");
	if (state > 0) {
		stage_get(&p, MSG_hello);
		if (state > 1)
			stage_ack(&p, 1);
		if (state > 1)
			stage_begin(&p, 1, 5);
		else
			end_it(how);
	}
	puppet_heard(&p);
	if (nonblock && !strcmp(p.line, "-11")) {
		ASK(&p, "loop 30000", state > 1 ? "1 begin*" : "1 decided*");
		ASK(&p, "begin", state > 1 ? "0 *" : "-125");
	} else {
		ck_assert(state > 1 ? !strncmp(p.line, "0 ", 2) : !strcmp(p.line, "-125"));
	}
	if (state == 2) {
		end_it(how);
		puppet_say(&p, "ready");
		/* Ready may have met the end of the channel or not */
		if (nonblock && !strcmp(puppet_heard(&p), "-11")) {
			ASK(&p, "loop 30000", "1 decided*");
			ASK(&p, "ready", "-125");
		} else {
			if (!nonblock)
				puppet_heard(&p);
			ck_assert_str_eq(p.line, "-125");
		}
	} else if (state == 3) {
		puppet_say(&p, "ready");
		stage_get(&p, MSG_ready);
		end_it(how);
		if (nonblock && !strcmp(puppet_heard(&p), "-11")) {
			ASK(&p, "loop 30000", "1 decided*");
			ASK(&p, "ready null", "-125");
		} else {
			if (!nonblock)
				puppet_heard(&p);
			ck_assert_str_eq(p.line, "-125");
		}
	}
	ASK(&p, "error", endings[how]);
	ASK(&p, "take x", "-125");
	ASK(&p, "ready", "-125");
	ASK(&p, "begin", "-125");
	ASK(&p, "error", endings[how]);
	ASK(&p, "poll 50", "0");
	ASK(&p, "next", "0");
	if (state > 1)
		ck_assert(stage_lock_is_free());
	puppet_end(&p);
}
END_TEST

START_TEST(lock_held_after_a_seal)
{
	int lock = stage_hold_lock();

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	stage_begin(&p, 1, 5);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "another process holds the lock, although the incumbent has sealed");
	stage_eof(&p);
	close(lock);
	puppet_end(&p);
}
END_TEST

/* A successor says so before its Hello: the incumbent has not stopped for it. */
START_TEST(lock_is_a_directory)
{
	char path[128];

	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	puppet_start(&p, _i ? "successor" : NULL);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	ck_assert_str_eq(puppet_heard(&p), "-21");
	ASK(&p, "error", ".handoff.lock: cannot be opened: Is a directory");
	puppet_end(&p);
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

START_TEST(lock_held_by_a_helper_of_the_dead)
{
	int lock = stage_hold_lock();

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, _i);   /* a cold start's successor too */
	stage_begin(&p, _i, -1);
	ck_assert(!stage_any(&p, 200));
	close(lock);
	ck_assert_str_eq(puppet_heard(&p), "0 sealed=0 shards=0 first=0 print=00 epoch=1");
	puppet_kill(&p);
}
END_TEST

START_TEST(version_not_offered)
{
	struct msg m = { .type = MSG_hello_ack };

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	m.hello_ack.version = 256;
	stage_put(&p, &m);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "the supervisor sent what is not the protocol: HelloAck chooses protocol "
	    "version 256, which was not offered");
	stage_eof(&p);
	puppet_end(&p);
}
END_TEST

START_TEST(stale_begin)
{
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	stage_begin(&p, 9, 8);
	stage_begin(&p, 1, 5);
	stage_begin(&p, 9, 6);
	ck_assert_str_eq(puppet_heard(&p), "0 sealed=1 shards=3 first=5 print=cd epoch=1");
	ASK(&p, "begin", "0 sealed=1 shards=3 first=5 print=cd epoch=1");
	puppet_kill(&p);
}
END_TEST

/* With nothing more to ask for, nothing is left to hear. */
START_TEST(nonblock_answers_once)
{
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s nonblock", stage_dir), "0");
	ASK(&p, "begin", "-11");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	stage_begin(&p, 1, 5);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "begin", "0 sealed=1*");   /* asked again before the event was taken */
	ASK(&p, "next", "0");
	ASK(&p, "poll 0", "0");
	ASK(&p, "ready", "-11");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 1);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "ready null", "0");
	ASK(&p, "next", "0");
	ASK(&p, "poll 0", "0");
	stage_get(&p, MSG_status);
	puppet_end(&p);
}
END_TEST

/* --------------------------------------------------------------- the seal --- */

START_TEST(drain_seal_commit)
{
	scene_serve(&p, "");
	stage_prepare(&p, 1);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "dispatch", "1");
	ASK(&p, "next", "1 drain reopen=0 reason=why trace=tp corr=ci tenant=te ms=*");
	ASK(&p, "next", "0");
	ASK(&p, "drained open=3", "0");
	stage_get(&p, MSG_drained);
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "wait 30000", "1 seal*");
	ASK(&p, "progress done=1 total=2", "0");
	ck_assert_uint_eq(stage_get(&p, MSG_seal_progress)->seal_progress.total, 2);
	ck_assert(!stage_lock_is_free());
	ASK(&p, "sealed rev=7", "0");
	stage_get(&p, MSG_seal_complete);
	ck_assert(stage_lock_is_free());
	stage_simple(&p, MSG_commit, 1);
	ASK(&p, "wait 30000", "1 commit*");
	puppet_end(&p);
}
END_TEST

/* What came while handoff_ready waited is not forgotten: the descriptor says so. */
START_TEST(events_behind_the_decision)
{
	puppet_start(&p, "first");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 0);
	stage_begin(&p, 0, -1);
	puppet_heard(&p);
	stage_simple(&p, MSG_commit, 0);   /* too early: not asked for */
	stage_simple(&p, MSG_heartbeat, 0);
	puppet_say(&p, "sleep 0");
	puppet_heard(&p);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	kill(p.pid, SIGSTOP);   /* so that all is read in one turn */
	stage_simple(&p, MSG_commit, 0);
	stage_final(&p);
	stage_prepare(&p, 1);
	kill(p.pid, SIGCONT);
	ck_assert_str_eq(puppet_heard(&p), "0");
	stage_get(&p, MSG_status);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "dispatch", "2");
	ASK(&p, "next", "1 final*");
	ASK(&p, "next", "1 drain*");
	ASK(&p, "next", "0");
	ASK(&p, "poll 0", "0");
	puppet_kill(&p);
}
END_TEST

/* handoff_wait takes one event of several: the others still are announced. */
START_TEST(wait_takes_one)
{
	scene_serve(&p, "");
	stage_final(&p);
	stage_prepare(&p, 1);
	ASK(&p, "wait 30000", "1 final*");
	ASK(&p, "poll 0", "1");
	ASK(&p, "wait 0", "1 drain*");
	ASK(&p, "poll 0", "0");
	ASK(&p, "wait 0", "0");
	ASK(&p, "wait 30", "0");
	puppet_kill(&p);
}
END_TEST

/* Resume, or the end of S, at each point. After it: Status, and it serves. */
START_TEST(resume_of_the_drained)
{
	bool answered = _i & 1, eof = _i & 2;
	int listener = stage_listen();

	scene_serve(&p, "");
	stage_prepare(&p, 1);
	ASK(&p, "loop 30000", "1 drain*");
	if (answered) {
		ASK(&p, "drained", "0");
		stage_get(&p, MSG_drained);
	}
	if (eof)
		chan_close(&p.c);
	else
		stage_simple(&p, MSG_resume, 1);
	ASK(&p, "loop 30000", eof ? "1 resume reopen=0 reason=the supervisor went away*" :
	    "1 resume reopen=0 reason=it-ended*");
	ASK(&p, "drained", "-125");
	ASK(&p, "error", "the attempt has ended, HANDOFF_RESUME follows");
	ASK(&p, "sealed", "-125");
	ASK(&p, "resumed", "0");
	ASK(&p, "resumed", "-22");
	if (eof) {
		stage_accept(&p, listener);
		ASK(&p, "poll 30000", "1");
		ASK(&p, "dispatch", "0");
		struct msg *m = stage_get(&p, MSG_hello);
		ck_assert_uint_eq(m->hello.role, 2);
		ck_assert_uint_eq(m->hello.phase, D_SERVE);
		ck_assert(m->hello.locked);
	} else {
		stage_get(&p, MSG_status);
	}
	scene_sealed(&p, 2);   /* and the next attempt is as good as the first */
	stage_simple(&p, MSG_commit, 2);
	ASK(&p, "loop 30000", "1 commit*");
	close(listener);
	puppet_end(&p);
}
END_TEST

/* Events that the daemon has not looked at yet are overtaken, not skipped. */
START_TEST(resume_before_the_drain_is_seen)
{
	scene_serve(&p, "");
	stage_prepare(&p, 1);
	stage_simple(&p, MSG_resume, 1);
	stage_simple(&p, MSG_resume, 1);
	stage_prepare(&p, 2);            /* not now */
	stage_simple(&p, MSG_resume, 7);
	ASK(&p, "poll 30000", "1");
	ASK(&p, "dispatch", "2");
	ASK(&p, "next", "1 drain reopen=0 reason=why*");
	ASK(&p, "drained", "-125");
	ASK(&p, "next", "1 resume reopen=0 reason=it-ended*");
	ASK(&p, "resumed", "0");
	ASK(&p, "poll 0", "0");
	stage_get(&p, MSG_status);
	puppet_end(&p);
}
END_TEST

START_TEST(resume_during_the_seal)
{
	bool failed = _i & 1, eof = _i & 2;
	int listener = stage_listen();

	scene_serve(&p, "");
	scene_drained(&p, 1);
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
	if (eof)
		chan_close(&p.c);
	else
		stage_simple(&p, MSG_resume, 1);
	ASK(&p, "loop 200", "0");
	ASK(&p, "progress", "-125");
	if (failed) {
		ASK(&p, "seal_failed no-space", "0");
	} else {
		ASK(&p, "sealed", "0");
		ck_assert(!stage_lock_is_free());   /* it was never given up */
		ASK(&p, "poll 30000", "1");
		ASK(&p, "next", eof ? "1 resume reopen=1 reason=the supervisor went away*" :
		    "1 resume reopen=1 reason=it-ended*");
		ASK(&p, "resumed", "0");
	}
	if (eof) {
		stage_accept(&p, listener);
		ASK(&p, "loop 500", "0");
		/* it connected while it sealed, or after it */
		stage_get(&p, MSG_hello);
		if (p.m.hello.phase != D_SERVE)
			stage_get(&p, MSG_status);
	} else {
		stage_get(&p, MSG_status);
	}
	ck_assert(!stage_lock_is_free());
	close(listener);
	puppet_end(&p);
}
END_TEST

START_TEST(resume_of_the_sealed)
{
	scene_serve(&p, "");
	scene_sealed(&p, 1);
	int lock = stage_hold_lock();
	stage_simple(&p, MSG_resume, 9);   /* another handoff's */
	stage_simple(&p, MSG_resume, 1);
	ASK(&p, "loop 200", "0");          /* waits for the flock */
	close(lock);
	ASK(&p, "loop 30000", "1 resume reopen=1 reason=it-ended*");
	ck_assert(!stage_lock_is_free());
	ASK(&p, "epoch", "2");
	ASK(&p, "resumed", "0");
	stage_get(&p, MSG_status);
	puppet_end(&p);
}
END_TEST

START_TEST(end_of_s_when_sealed)
{
	int listener = stage_listen(), lock;

	scene_serve(&p, "");
	scene_sealed(&p, 1);
	lock = stage_hold_lock();
	chan_close(&p.c);
	puppet_say(&p, "loop 30000");
	stage_accept(&p, listener);
	struct msg *m = stage_get(&p, MSG_hello);
	struct hid id = stage_id(1);
	ck_assert_uint_eq(m->hello.phase, D_SEALED);
	ck_assert(!m->hello.locked && hid_equal(&m->hello.id, &id));
	stage_ack(&p, 0);
	if (_i) {   /* S goes on: the handoff is finished */
		stage_simple(&p, MSG_commit, 1);
		ck_assert(!strncmp(puppet_heard(&p), "1 commit", 8));
	} else {    /* nobody took over: the lock decides */
		close(lock);
		ck_assert(!strncmp(puppet_heard(&p), "1 resume reopen=1", 17));
		ASK(&p, "resumed", "0");
		stage_get(&p, MSG_status);
	}
	if (_i)
		close(lock);
	close(listener);
	puppet_end(&p);
}
END_TEST

START_TEST(seal_failed)
{
	scene_serve(&p, "");
	scene_drained(&p, 1);
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
	ASK(&p, _i ? "seal_failed" : "seal_failed no-space", "0");
	struct msg *m = stage_get(&p, MSG_seal_failed);
	struct span want = SPAN(_i ? "the daemon gave no reason" : "no-space");
	ck_assert(!MSG_HAS(m, seal_failed, by_successor));
	ck_assert(m->seal_failed.error.n == want.n &&
	          !memcmp(m->seal_failed.error.p, want.p, want.n));
	ck_assert(!stage_lock_is_free());
	stage_simple(&p, MSG_resume, 1);   /* S's answer to it */
	ASK(&p, "loop 200", "0");
	stage_get(&p, MSG_status);
	ASK(&p, "sealed", "-22");
	ASK(&p, "error", "an answer that was not asked for (the state is serving)");
	puppet_end(&p);
}
END_TEST

/* Who serves refuses what is meant for who has sealed. */
START_TEST(refused_while_serving)
{
	scene_serve(&p, "");
	stage_simple(&p, MSG_commit, 1);
	ASK(&p, "loop 200", "0");
	struct msg *m = stage_get(&p, MSG_status);
	struct hid id = stage_id(1);
	ck_assert(m->status.serving && hid_equal(&m->status.id, &id));
	stage_simple(&p, MSG_seal_request, 2);
	ASK(&p, "loop 200", "0");
	m = stage_get(&p, MSG_seal_failed);
	struct span want = SPAN("not asked to seal: it serves");
	ck_assert(m->seal_failed.error.n == want.n &&
	          !memcmp(m->seal_failed.error.p, want.p, want.n));
	stage_simple(&p, MSG_abort, 1);
	ASK(&p, "loop 50", "0");
	puppet_end(&p);
}
END_TEST

START_TEST(stale_ids)
{
	scene_serve(&p, "");
	stage_prepare(&p, 1);
	ASK(&p, "loop 30000", "1 drain*");
	stage_simple(&p, MSG_resume, 2);
	stage_simple(&p, MSG_seal_request, 2);
	stage_simple(&p, MSG_commit, 2);
	ASK(&p, "loop 100", "0");
	ASK(&p, "drained", "0");
	stage_get(&p, MSG_drained);
	stage_simple(&p, MSG_seal_request, 2);
	ASK(&p, "loop 100", "0");
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
	ASK(&p, "sealed", "0");
	stage_get(&p, MSG_seal_complete);
	stage_simple(&p, MSG_commit, 2);
	stage_simple(&p, MSG_resume, 2);
	ASK(&p, "loop 100", "0");
	ck_assert(stage_lock_is_free());
	puppet_kill(&p);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		hello_says_who, sockets_over_the_limit, commit_of_a_successor, unhealthy,
		lock_held_after_a_seal, version_not_offered, stale_begin, nonblock_answers_once, drain_seal_commit,
		events_behind_the_decision, wait_takes_one, resume_before_the_drain_is_seen,
		resume_of_the_sealed, refused_while_serving, stale_ids,
	};
	const struct { const TTest *test; int n; } loops[] = {
		{ cold_start, 2 }, { sockets, 5 }, { successor_ends, 24 },
		{ lock_held_by_a_helper_of_the_dead, 2 }, { lock_is_a_directory, 2 },
		{ resume_of_the_drained, 4 },
		{ resume_during_the_seal, 4 }, { end_of_s_when_sealed, 2 }, { seal_failed, 2 },
	};
	Suite *suite = suite_create("lib");
	TCase *t = tcase_create("lib");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
		tcase_add_loop_test(t, loops[i].test, 0, loops[i].n);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
