/* A daemon's stream to the journal, against a journal of the test's own. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/output.h"
#include "leak.h"
#include "suite.h"

static char dir[64], path[96];
static int journal;

static void setup(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	leak_setup();
	strcpy(dir, "/tmp/test_output.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/stdout", dir);
	strcpy(sa.sun_path, path);
	journal = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(journal, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(journal, 0), 0);
}

static void teardown(void)
{
	close(journal);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

/* All that comes until the other end is closed. */
static const char *hear(int fd)
{
	static char text[2000];
	ssize_t n, all = 0;

	while ((n = read(fd, text + all, sizeof text - 1 - all)) > 0)
		all += n;
	text[all] = '\0';
	return text;
}

START_TEST(header_then_lines)
{
	int fd = output_to_journal(path, "kvd"), heard;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);   /* a full one must not lose lines */
	ck_assert_int_eq(write(fd, "<4>line\n", 8), 8);
	close(fd);
	heard = accept(journal, NULL, NULL);
	ck_assert_str_eq(hear(heard), "kvd\n\n6\n1\n0\n0\n0\n<4>line\n");
	close(heard);
}
END_TEST

/* Each line of the header has a meaning: a name must not bring lines of its own. */
START_TEST(odd_names)
{
	char longer[500];
	int fd = output_to_journal(path, "k\n\n0\nv"), heard;

	ck_assert_int_ge(fd, 0);
	close(fd);
	heard = accept(journal, NULL, NULL);
	ck_assert_str_eq(hear(heard), "k\n\n6\n1\n0\n0\n0\n");
	close(heard);
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	fd = output_to_journal(path, longer);
	ck_assert_int_ge(fd, 0);
	close(fd);
	heard = accept(journal, NULL, NULL);
	ck_assert_uint_eq(strspn(hear(heard), "x"), 255);
	close(heard);
}
END_TEST

/* The kernel notes who connects, and the journal asks it. */
START_TEST(the_pid_is_the_callers)
{
	struct ucred who;
	socklen_t n = sizeof who;
	int heard;
	pid_t child = fork();

	if (child == 0)
		_exit(output_to_journal(path, "kvd") < 0);
	heard = accept(journal, NULL, NULL);
	ck_assert_int_eq(getsockopt(heard, SOL_SOCKET, SO_PEERCRED, &who, &n), 0);
	ck_assert_int_eq(who.pid, child);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(heard);
}
END_TEST

/* One that hangs has a full queue: a blocking connect would wait for it. */
START_TEST(a_journal_that_hangs)
{
	int one = output_to_journal(path, "kvd");

	ck_assert_int_ge(one, 0);
	ck_assert_int_eq(output_to_journal(path, "kvd"), -EAGAIN);
	close(one);
}
END_TEST

START_TEST(no_journal)
{
	char longer[200];

	close(journal);
	ck_assert_int_eq(output_to_journal(path, "kvd"), -ECONNREFUSED);
	unlink(path);
	ck_assert_int_eq(output_to_journal(path, "kvd"), -ENOENT);
	memset(longer, '/', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	ck_assert_int_eq(output_to_journal(longer, "kvd"), -ENAMETOOLONG);
	journal = -1;
}
END_TEST

static enum sys_call failing;
static int fault(enum sys_call call)
{
	return call != failing ? 0 : call == SYS_C_SENDMSG ? 3 : -EMFILE;
}

START_TEST(each_call_fails)
{
	static const enum sys_call each[] = { SYS_C_SOCKET, SYS_C_CONNECT, SYS_C_FCNTL };

	fcntl(journal, F_SETFL, O_NONBLOCK);
	sys_fault = fault;
	for (size_t i = 0; i < 3; i++) {
		failing = each[i];
		ck_assert_int_eq(output_to_journal(path, "kvd"), -EMFILE);
		close(accept(journal, NULL, NULL));   /* room for the next */
	}
	failing = SYS_C_SENDMSG;     /* half a header: the rest would be read from the daemon */
	ck_assert_int_eq(output_to_journal(path, "kvd"), -EIO);
	sys_fault = NULL;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("output");
	TCase *t = tcase_create("output");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, header_then_lines);
	tcase_add_test(t, odd_names);
	tcase_add_test(t, the_pid_is_the_callers);
	tcase_add_test(t, a_journal_that_hangs);
	tcase_add_test(t, no_journal);
	tcase_add_test(t, each_call_fails);
	suite_add_tcase(s, t);
	return suite_run(s);
}
