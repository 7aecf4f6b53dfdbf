/* What a daemon leaves behind is ended, also when there is a lack of something just then. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/generation.h"
#include "fault.h"
#include "leak.h"
#include "starved.h"
#include "suite.h"

#define HELPERS_MAX 100   /* more than are ended at once */

static struct event_base *base;
static struct generations *g;
static bool settled;
static pid_t daemon_, helper[HELPERS_MAX];
static unsigned helpers;
static int alive[2];      /* what the test alone has open: who was started ends with it, however it ends */

static void on_settled(void *arg)
{
	ck_assert_ptr_eq(arg, &base);
	settled = true;
}

static void setup(void)
{
	leak_setup();
	starved_setup();
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	base = event_base_new();
	ck_assert_ptr_nonnull(g = generations_new(base, "kvd", on_settled, &base));
	ck_assert_int_eq(pipe(alive), 0);
	settled = false;
	helpers = 0;
}

static void teardown(void)
{
	fault_off();
	generations_free(g);
	event_base_free(base);
	close(alive[0]);
	close(alive[1]);
	leak_teardown();
}

static void stay(void)
{
	char c;

	while (read(alive[0], &c, 1) < 0)
		;
	_exit(0);
}

/* In the daemon's session: n processes that stay, whose numbers it says. */
static void be_daemon(int out, unsigned n, void (*at_term)(int))
{
	close(alive[1]);
	setsid();
	for (unsigned i = 0; i < n; i++) {
		const pid_t pid = fork();

		if (!pid) {
			signal(SIGTERM, at_term);
			if (write(out, &(pid_t){ getpid() }, sizeof pid) != sizeof pid)
				_exit(1);
			stay();
		}
	}
	stay();
}

static void start_daemon(unsigned n, void (*at_term)(int))
{
	int says[2];
	uint64_t start;

	ck_assert_int_eq(pipe(says), 0);
	if (!(daemon_ = fork()))
		be_daemon(says[1], n, at_term);
	for (; helpers < n; helpers++)
		ck_assert_int_eq(read(says[0], &helper[helpers], sizeof *helper), sizeof *helper);
	close(says[0]);
	close(says[1]);
	ck_assert_int_eq(proc_start_time(daemon_, &start), 0);
	generation_begin(g, daemon_, start, "name");
}

static void end_daemon(void)
{
	kill(daemon_, SIGKILL);
	ck_assert_int_eq(waitpid(daemon_, NULL, 0), daemon_);
	generation_ended(g, daemon_);
	ck_assert(!generations_settled(g, 0));
	ck_assert(generations_settled(g, daemon_));
}

/* All of them have ended, by this signal. */
static void await(int sig)
{
	while (!settled)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);   /* 1: nobody looks any more */
	for (unsigned i = 0; i < helpers; i++) {
		int status;

		ck_assert_int_eq(waitpid(helper[i], &status, WNOHANG), helper[i]);
		ck_assert_int_eq(WIFSIGNALED(status) ? WTERMSIG(status) : 0, sig);
	}
	helpers = 0;
	ck_assert_uint_eq(generations_left(g), 0);
}

START_TEST(nothing_is_left)
{
	start_daemon(0, SIG_DFL);
	end_daemon();
	await(0);
}
END_TEST

START_TEST(helpers_are_ended)
{
	start_daemon(_i, SIG_DFL);
	end_daemon();
	await(SIGTERM);
}
END_TEST

/* A supervisor that is being stopped has no time left. */
START_TEST(killed_at_a_stop)
{
	start_daemon(2, SIG_DFL);
	generations_stop(g, sys_now_ms());
	end_daemon();
	await(SIGKILL);
}
END_TEST

START_TEST(the_deaf_are_killed_at_a_stop)
{
	start_daemon(2, SIG_IGN);
	end_daemon();
	while (generations_left(g) < 2)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	generations_stop(g, sys_now_ms());
	await(SIGKILL);
}
END_TEST

/* It is looked again for the one for whom there was no descriptor, or no memory of the kernel's. */
START_TEST(a_lack_passes)
{
	start_daemon(1, SIG_DFL);
	end_daemon();
	if (_i)
		epoll_failing = 2;
	else
		fault_set(SYS_C_PIDFD_OPEN, 0, -EMFILE);
	await(SIGTERM);
	ck_assert_uint_eq(epoll_failed, _i ? 2 : 0);
	ck_assert_int_eq(fault_off(), _i ? 0 : 2);
}
END_TEST

START_TEST(no_memory)
{
	memory_left = 0;
	ck_assert_ptr_null(generations_new(base, "kvd", on_settled, &base));
	memory_left = -1;
	generations_free(NULL);
}
END_TEST

/* One that handoffd has not started, and that lives, is nobody who was left. */
START_TEST(who_lives_is_left_alone)
{
	struct past past = { 0 };
	uint64_t start;

	start_daemon(1, SIG_DFL);
	ck_assert_int_eq(proc_start_time(daemon_, &start), 0);
	generation_past(g, &(struct past){ daemon_, start, start });   /* known already, as alive */
	ck_assert(generations_settled(g, 0));
	ck_assert_uint_eq(generations_past(g, &past, 1), 0);
	end_daemon();
	ck_assert_uint_eq(generations_past(g, &past, 1), 1);
	ck_assert_int_eq(past.pid, daemon_);
	generation_ended(g, daemon_);   /* told twice */
	await(SIGTERM);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("generation");
	TCase *t = tcase_create("generation");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, nothing_is_left);
	tcase_add_loop_test(t, helpers_are_ended, 1, 3);
	tcase_add_loop_test(t, helpers_are_ended, HELPERS_MAX, HELPERS_MAX + 1);
	tcase_add_test(t, killed_at_a_stop);
	tcase_add_test(t, the_deaf_are_killed_at_a_stop);
	tcase_add_loop_test(t, a_lack_passes, 0, 2);
	tcase_add_test(t, no_memory);
	tcase_add_test(t, who_lives_is_left_alone);
	suite_add_tcase(s, t);
	return suite_run(s);
}
