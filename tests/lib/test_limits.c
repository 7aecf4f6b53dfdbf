/* The library's limits: of time, when the supervisor is silent, and of use. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/suite.h"
#include "handoff.h"
#include "stage.h"

#define SILENT "the supervisor was silent, or the deadline has passed"

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

/* ------------------------------------------------------------------ time --- */

/* S is there and silent: an incumbent acts on its own, a successor gives up. */
START_TEST(fenced_incumbent)
{
	bool by_deadline = _i / 2;
	int listener = stage_listen();

	stage_timers.heartbeat = 30;
	*(by_deadline ? &stage_timers.deadline : &stage_timers.fence) = 400;
	scene_serve(&p, "");
	if (_i % 2 == 0) {
		scene_drained(&p, 1);
		ASK(&p, "loop 30000",
		    "1 resume reopen=0 reason=" SILENT "*");
		ASK(&p, "resumed", "0");
	} else {
		scene_sealed(&p, 1);
		ASK(&p, "loop 30000",
		    "1 resume reopen=1 reason=" SILENT "*");
		ASK(&p, "resumed", "0");
	}
	stage_get(&p, MSG_status);
	ck_assert(!stage_lock_is_free());
	close(listener);
	puppet_end(&p);
}
END_TEST

START_TEST(fenced_successor)
{
	stage_timers.heartbeat = 30;
	stage_timers.fence = 400;
	if (_i == 0) {
		puppet_start(&p, "successor");
		ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
		puppet_say(&p, "begin");
		stage_get(&p, MSG_hello);
		stage_ack(&p, 1);
	} else {
		scene_successor(&p, 1);
		puppet_say(&p, "ready");
		stage_get(&p, MSG_ready);
	}
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "the supervisor was silent, or the deadline has passed");
	stage_eof(&p);
	ck_assert(_i == 0 || stage_lock_is_free());
	puppet_end(&p);
}
END_TEST

/* Heartbeats come while a hook keeps the daemon's thread, and in no other time. */
START_TEST(heartbeats)
{
	stage_timers.heartbeat = 20;
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	for (int i = 0; i < 3; i++)
		stage_get(&p, MSG_heartbeat);   /* it waits for Begin */
	stage_begin(&p, 1, 5);
	puppet_heard(&p);
	puppet_say(&p, "sleep 1000");           /* opens its state */
	for (int i = 0; i < 3; i++)
		stage_get(&p, MSG_heartbeat);
	puppet_heard(&p);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 1);
	stage_get(&p, MSG_status);
	puppet_heard(&p);
	while (stage_any(&p, 200))
		ck_assert_int_eq(p.m.type, MSG_heartbeat);   /* one may have been on its way */
	ck_assert(!stage_any(&p, 300));
	stage_prepare(&p, 2);
	ASK(&p, "loop 30000", "1 drain*");
	puppet_say(&p, "sleep 1000");
	for (int i = 0; i < 3; i++)
		stage_get(&p, MSG_heartbeat);
	puppet_heard(&p);
	puppet_kill(&p);
}
END_TEST

/* ----------------------------------------------------------------- misuse --- */

static const struct { const char *line, *answer, *error; } misuse[] = {
	{ "ready", "-22", "handoff_ready: handoff_begin comes first" },
	{ "begin null", "-22", "handoff_begin: called twice, or without ret->size" },
	{ "begin size=8", "-22", "handoff_begin: called twice, or without ret->size" },
	{ "next size=8", "-22", "handoff_next: without ret->size" },
	{ "take x", "-2", "no listener is called x" },
	{ "drained", "-22", "an answer that was not asked for (the state is start)" },
	{ "sealed", "-22", "an answer that was not asked for (the state is start)" },
	{ "sealed null", "-22", "handoff_sealed: a state of an unknown shape" },
	{ "sealed shards=1025", "-22", "handoff_sealed: a state of an unknown shape" },
	{ "sealed shards=1 norev", "-22", "handoff_sealed: a state of an unknown shape" },
	{ "seal_failed", "-22", "an answer that was not asked for (the state is start)" },
	{ "resumed", "-22", "an answer that was not asked for (the state is start)" },
	{ "progress", "-22", "no seal is under way" },
};

START_TEST(wrong_use)
{
	puppet_start(&p, _i % 2 ? "first" : NULL);
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	ASK(&p, "error", "");
	for (unsigned i = 0; i < sizeof misuse / sizeof *misuse; i++) {
		ASK(&p, misuse[i].line, misuse[i].answer);
		ASK(&p, "error", misuse[i].error);
	}
	puppet_end(&p);
}
END_TEST

/* Of a caller that was built with the first header: nothing behind its structures is written. */
START_TEST(older_callers)
{
	char line[100];

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s nonblock", stage_dir), "0");
	ASK(&p, "begin", "-11");
	stage_get(&p, MSG_hello);
	stage_ack(&p, 1);
	stage_begin(&p, 1, 41);
	ASK(&p, "loop 30000", "1 begin*");
	snprintf(line, sizeof line, "begin size=%zu", offsetof(struct handoff_sealed, reason) - 1);
	ASK(&p, line, "-22");
	snprintf(line, sizeof line, "begin size=%zu", offsetof(struct handoff_sealed, reason));
	ASK(&p, line, "0 sealed=1 shards=3 first=41 *");
	ASK(&p, "context", "reason=- trace=- corr=- tenant=-");
	puppet_kill(&p);
	scene_serve(&p, "");
	stage_prepare(&p, 1);
	ASK(&p, "poll 20000", "1");
	ASK(&p, "dispatch", "1");
	snprintf(line, sizeof line, "next size=%zu", offsetof(struct handoff_event, can_give) - 1);
	ASK(&p, line, "-22");
	snprintf(line, sizeof line, "next size=%zu", offsetof(struct handoff_event, can_give));
	puppet_ask(&p, "%s", line);
	snprintf(line, sizeof line, "te size=%zu give=-1", offsetof(struct handoff_event, can_give));
	ck_assert_str_eq(p.line, line);
	puppet_kill(&p);
}
END_TEST

START_TEST(wrong_use_while_serving)
{
	scene_serve(&p, "");
	ASK(&p, "begin", "-22");
	ASK(&p, "ready null", "0");
	scene_drained(&p, 1);
	ASK(&p, "drained", "-22");
	ASK(&p, "error", "an answer that was not asked for (the state is drained)");
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
	ASK(&p, "progress done=3 total=2", "-22");
	ASK(&p, "error", "handoff_seal_progress: 3 of 2 shards");
	ASK(&p, "progress done=1 total=1025", "-22");
	ASK(&p, "drained", "-22");
	puppet_kill(&p);
}
END_TEST

START_TEST(wrong_state_for_ready)
{
	scene_successor(&p, 1);
	ASK(&p, "ready null", "-22");
	ASK(&p, "error", "handoff_ready: a state of an unknown shape");
	ASK(&p, "ready shards=1025", "-22");
	ASK(&p, "ready size=4", "-22");
	puppet_kill(&p);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { heartbeats, older_callers, wrong_use_while_serving, wrong_state_for_ready };
	const struct { const TTest *test; int n; } loops[] = {
		{ fenced_incumbent, 4 }, { fenced_successor, 2 }, { wrong_use, 2 },
	};
	Suite *suite = suite_create("limits");
	TCase *t = tcase_create("limits");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
		tcase_add_loop_test(t, loops[i].test, 0, loops[i].n);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
