/* Who a process is: pid, start time and boot. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

static pid_t child;
static int hold;

/* A child that lives until hold is closed, with a name of our choice. */
static void start(const char *name)
{
	int p[2], named[2];

	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(named, O_CLOEXEC), 0);
	if ((child = fork()) == 0) {
		close(p[1]);
		prctl(PR_SET_NAME, name);
		close(named[1]);
		_exit(read(p[0], &(char){ 0 }, 1) == 0 ? 0 : 1);
	}
	close(p[0]);
	close(named[1]);
	ck_assert_int_eq(read(named[0], &(char){ 0 }, 1), 0);
	close(named[0]);
	hold = p[1];
}

static void end(void)
{
	close(hold);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
}

static void teardown(void)
{
	sys_fault = NULL;
	leak_teardown();
}

START_TEST(boot_id)
{
	char a[BOOT_ID_SIZE], b[BOOT_ID_SIZE];

	proc_boot_id(a);
	proc_boot_id(b);
	ck_assert_uint_eq(strlen(a), BOOT_ID_SIZE - 1);
	ck_assert_str_eq(a, b);
	fault_set(SYS_C_OPEN, 0, -ENOENT);
	proc_boot_id(b);
	ck_assert_str_eq(b, "");
	fault_set(SYS_C_READ, 0, -EIO);
	proc_boot_id(b);
	ck_assert_str_eq(b, "");
	fault_set(SYS_C_READ, 0, 5);   /* comes short: it is read on */
	proc_boot_id(b);
	ck_assert_str_eq(b, a);
}
END_TEST

/* The name may hold what looks like the end of the name. */
START_TEST(start_time)
{
	static const char *const names[] = { "plain", "a) R 1 2 3", ") ) (", "two words" };
	uint64_t mine, first = 0, again;

	ck_assert_int_eq(proc_start_time(getpid(), &mine), 0);
	for (unsigned i = 0; i < 4; i++) {
		start(names[i]);
		ck_assert_int_eq(proc_start_time(child, &first), 0);
		ck_assert_uint_ge(first, mine);
		ck_assert_uint_le(first, mine + 6000);   /* ticks: a minute */
		ck_assert_int_eq(proc_start_time(child, &again), 0);
		ck_assert_uint_eq(first, again);
		end();
		ck_assert_int_eq(proc_start_time(child, &again), -ESRCH);
	}
}
END_TEST

START_TEST(opens_exactly_that_one)
{
	uint64_t when = 0;
	struct pollfd p = { .events = POLLIN };

	start("x");
	ck_assert_int_eq(proc_start_time(child, &when), 0);
	p.fd = proc_open(child, when);
	ck_assert_int_ge(p.fd, 0);
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_int_eq(proc_open(child, when + 1), -ESRCH);   /* another of that pid */
	end();
	ck_assert_int_eq(poll(&p, 1, 0), 1);
	close(p.fd);
	ck_assert_int_eq(proc_open(child, when), -ESRCH);
	ck_assert_int_lt(proc_open(0, when), 0);
	ck_assert_int_lt(proc_open(-1, when), 0);
}
END_TEST

START_TEST(every_call_fails)
{
	uint64_t when = 0;

	start("x");
	ck_assert_int_eq(proc_start_time(child, &when), 0);
	fault_set(SYS_C_COUNT, -1, 0);
	int fd = proc_open(child, when), calls = fault_off();
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(calls, 4);
	for (int at = 0; at < calls; at++) {
		fault_set(SYS_C_COUNT, at, -EMFILE);
		ck_assert_int_eq(proc_open(child, when), -EMFILE);
		fault_off();
	}
	for (int cut = 1; cut < 40; cut++) {   /* before the field */
		uint64_t again = 0;
		fault_set(SYS_C_READ, 0, cut);
		ck_assert_int_eq(proc_start_time(child, &again), 0);
		ck_assert_uint_eq(again, when);
	}
	end();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { boot_id, start_time, opens_exactly_that_one,
	                               every_call_fails };
	Suite *suite = suite_create("proc");
	TCase *t = tcase_create("proc");

	tcase_add_checked_fixture(t, leak_setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
