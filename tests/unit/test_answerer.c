/* A child that is asked something: it answers, is late, or cannot be had; it never stays. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/sys.h"
#include "handoffd/answerer.h"
#include "fault.h"
#include "leak.h"
#include "starved.h"
#include "suite.h"

static struct event_base *base;
static struct answerer a;
static short ended;   /* what on_end was told */

static void setup(void)
{
	leak_setup();
	starved_setup();
	base = event_base_new();
	ended = 0;
}

static void teardown(void)
{
	event_base_free(base);
	leak_teardown();
}

static void says_yes(void *arg, pid_t parent, int out)
{
	(void)arg, (void)parent;
	_exit(sys_write(out, "yes", 3) == 3 ? 7 : 1);
}

static void hangs(void *arg, pid_t parent, int out)
{
	(void)arg, (void)parent, (void)out;
	for (;;)
		pause();
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	ck_assert_ptr_eq(arg, &a);
	ended = what;
}

static void await(void)
{
	while (!ended)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);   /* 1: nothing is waited for */
}

static void reap(void)
{
	int status;

	ck_assert_int_eq(waitpid(a.pid, &status, 0), a.pid);
	ck_assert(!answerer_reaped(&a, a.pid + 1, status));
	ck_assert(answerer_reaped(&a, a.pid, status));
}

START_TEST(it_answers)
{
	char text[10] = "";

	ck_assert_int_eq(answerer_start(&a, base, says_yes, NULL, 60000, on_end, &a), 0);
	await();
	ck_assert_int_eq(ended, EV_READ);
	reap();
	ck_assert_int_eq(WEXITSTATUS(a.status), 7);
	ck_assert_int_eq(sys_read(a.out, text, sizeof text), 3);
	ck_assert_str_eq(text, "yes");
	answerer_forget(&a);
	ck_assert(!answerer_reaped(&a, a.pid, 0));
}
END_TEST

START_TEST(it_is_late)
{
	char c;

	ck_assert_int_eq(answerer_start(&a, base, hangs, NULL, 1, on_end, &a), 0);
	await();
	ck_assert_int_eq(ended, EV_TIMEOUT);
	ck_assert_int_eq(sys_read(a.out, &c, 1), -EAGAIN);   /* nobody waits for what it does not say */
	answerer_kill(&a);
	reap();
	ck_assert_int_eq(WTERMSIG(a.status), SIGKILL);
	answerer_forget(&a);
}
END_TEST

/* Then no child is left, which nobody would hear of. */
static int try_it(void)
{
	const int e = answerer_start(&a, base, hangs, NULL, 60000, on_end, &a);

	memory_left = -1;
	fault_off();
	if (e)
		return e;
	answerer_kill(&a);
	reap();
	answerer_forget(&a);
	return 0;
}

START_TEST(it_cannot_be_had)
{
	static const enum sys_call call[] = { SYS_C_PIPE, SYS_C_FORK, SYS_C_PIDFD_OPEN };
	int n = 0;

	for (unsigned i = 0; i < sizeof call / sizeof *call; i++) {
		fault_set(call[i], 0, -EMFILE);
		ck_assert_int_eq(try_it(), -EMFILE);
	}
	do
		memory_left = n;
	while (try_it() == -ENOMEM && ++n < 20);
	ck_assert(n >= 2 && n < 20);
	epoll_failing = 1;
	ck_assert_int_eq(try_it(), -ENOMEM);
}
END_TEST

/* Between fork(2) and prctl(2) the parent may end, of which no signal comes then. */
START_TEST(its_parent_has_ended)
{
	const pid_t pid = fork();
	int status;

	if (!pid) {
		answerer_tie(getpid());
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), ECANCELED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("answerer");
	TCase *t = tcase_create("answerer");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, it_answers);
	tcase_add_test(t, it_is_late);
	tcase_add_test(t, it_cannot_be_had);
	tcase_add_test(t, its_parent_has_ended);
	suite_add_tcase(s, t);
	return suite_run(s);
}
