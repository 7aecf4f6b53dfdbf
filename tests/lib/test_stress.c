/* The daemon's thread and the library's through many reconnects, heartbeats and handoffs: a
 * test for ThreadSanitizer and valgrind, and for what only shows after a while. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/suite.h"
#include "proto/daemon.h"
#include "stage.h"

#define ROUNDS 60

static struct puppet p;
static int listener;

static void setup(void)
{
	memset(&p, 0, sizeof p);
	stage_setup();
	stage_timers.heartbeat = 5;
	listener = stage_listen();
}

static void teardown(void)
{
	close(listener);
	stage_teardown();
}

/* S dies and is back; the puppet registers. */
static void reconnect(void)
{
	chan_close(&p.c);
	stage_accept(&p, listener);
	puppet_ask(&p, "poll 20000");
	puppet_ask(&p, "loop 20");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 0);
	puppet_ask(&p, "loop 20");
}

/* It serves again and registers; or the other way round, heartbeats and all. */
static void resume_and_register(bool registers_first)
{
	if (!registers_first)
		ASK(&p, "resumed", "0");
	ASK(&p, "poll 20000", "1");
	ASK(&p, "loop 20", "0");
	stage_get(&p, MSG_hello);
	ck_assert_int_eq(p.m.hello.phase == D_SERVE, !registers_first);
	if (registers_first)
		stage_get(&p, MSG_heartbeat);
	stage_ack(&p, 0);
	ASK(&p, "loop 20", "0");
	if (registers_first) {
		ASK(&p, "resumed", "0");
		stage_get(&p, MSG_status);
	}
}

START_TEST(rounds)
{
	scene_serve(&p, _i ? "nonblock" : "");
	puppet_ask(&p, "fds");
	int fds = atoi(p.line);
	for (int id = 1; id <= ROUNDS; id++) {
		if (id % 3 == 0)
			scene_drained(&p, id);
		else
			scene_sealed(&p, id);
		puppet_ask(&p, "sleep %d", id % 12);   /* heartbeats meanwhile */
		if (id % 4 == 0) {
			chan_close(&p.c);
			ASK(&p, "loop 20000", "1 resume*");
			stage_accept(&p, listener);
			resume_and_register(id % 8 == 0);
			continue;
		}
		stage_simple(&p, MSG_resume, id);
		ASK(&p, "loop 20000", "1 resume*");
		ASK(&p, "resumed", "0");
		stage_get(&p, MSG_status);
		if (id % 5 == 0) {
			chan_close(&p.c);
			ASK(&p, "loop 20000", "1 lost*");
			reconnect();
		}
	}
	puppet_ask(&p, "fds");
	ck_assert_int_eq(atoi(p.line), fds);
	ASK(&p, "threads", "1");
	scene_sealed(&p, 100);
	stage_simple(&p, MSG_commit, 100);
	ASK(&p, "loop 20000", "1 commit*");
	puppet_end(&p);
}
END_TEST

/* Opened and closed at all moments of the thread's start, tie and connects. */
START_TEST(open_and_close)
{
	for (int i = 0; i < 30; i++) {
		puppet_start(&p, i % 2 ? "first" : "successor");
		ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
		if (i % 3 == 0)
			chan_close(&p.c);
		if (i % 5 == 0)
			ASK(&p, "fork", "0");
		ASK(&p, "close", "0");
		ASK(&p, "fds", "0");
		puppet_end(&p);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stress");
	TCase *t = tcase_create("stress");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, rounds, 0, 2);
	tcase_add_test(t, open_and_close);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
