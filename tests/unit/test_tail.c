/* What the daemons have said last, for people who ask why a handoff failed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/tail.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

#define OWN "2026-11-21T08:45:01.123Z handoffd[7]: "

static char path[64], out[200];
static struct conf conf;
static FILE *f;

static void setup(void)
{
	int fd;

	leak_setup();
	strcpy(path, "/tmp/test_tail.XXXXXX");
	ck_assert_int_ge(fd = mkstemp(path), 0);
	f = fdopen(fd, "w");
	conf = (struct conf){ .output = path, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	strcpy(out, "?");
}

static void teardown(void)
{
	fault_off();
	fclose(f);
	unlink(path);
	leak_teardown();
}

static const char *tail(off_t mark, pid_t but, size_t size)
{
	fflush(f);
	tail_read(&conf, mark, but, out, size);
	return out;
}

START_TEST(lines)
{
	off_t mark;

	fputs("before\n", f);
	fflush(f);
	mark = tail_mark(&conf);
	ck_assert_int_eq(mark, 7);
	ck_assert_str_eq(tail(mark, 0, sizeof out), "");
	fputs(OWN "handoffd's\n\none [12] says\nanother [13] says\n", f);
	ck_assert_str_eq(tail(mark, 0, sizeof out), "one [12] says\nanother [13] says\n");
	ck_assert_str_eq(tail(mark, 12, sizeof out), "another [13] says\n");
	ck_assert_str_eq(tail(mark, 0, 19), "another [13] says\n");
	ck_assert_str_eq(tail(mark, 0, 18), "");   /* whole lines */
	fputs("handoffd[7] is named, behind its beginning: not " "handoffd's own handoffd[7]\n", f);
	ck_assert_ptr_nonnull(strstr(tail(mark, 0, sizeof out), "not handoffd's own"));
}
END_TEST

/* Of nobody else: then what that one said is better than nothing. */
START_TEST(nobody_else_speaks)
{
	fputs("only [12] says\n", f);
	ck_assert_str_eq(tail(0, 12, sizeof out), "only [12] says\n");
}
END_TEST

START_TEST(is_no_text)
{
	fwrite("a\0b\xff" "c\n", 1, 6, f);
	ck_assert_str_eq(tail(0, 0, sizeof out), "a?b?c\n");
}
END_TEST

/* More than is looked at: it begins with a whole line of it, or with nothing. */
START_TEST(a_lot)
{
	for (unsigned i = 0; i < 300 * 1024; i++)
		fputc(_i ? 'x' : i % 10 ? 'x' : '\n', f);
	fputs("\nlast\n", f);
	ck_assert_ptr_nonnull(strstr(tail(0, 0, sizeof out), "xxx\nlast\n" + (_i ? 4 : 0)));
	ck_assert_int_eq(strncmp(out, _i ? "last\n" : "xxxxxxxxx\n", 5), 0);
}
END_TEST

/* Nothing is said then, nothing waited for, and nothing stays open. */
START_TEST(cannot_be_read)
{
	static const enum sys_call call[] = { SYS_C_OPEN, SYS_C_FSTAT, SYS_C_PREAD };

	fputs("line\n", f);
	fflush(f);
	for (unsigned i = 0; i < sizeof call / sizeof *call; i++) {
		fault_set(call[i], 0, -EIO);
		ck_assert_str_eq(tail(0, 0, sizeof out), "");
		ck_assert_int_eq(fault_off(), 1);
	}
	fault_set(SYS_C_OPEN, 0, -EIO);
	ck_assert_int_eq(tail_mark(&conf), 0);
	fault_off();
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_str_eq(tail(0, 0, sizeof out), "");
	ck_assert_int_eq(tail_mark(&conf), 0);
}
END_TEST

/* Without an option `output` they write where handoffd does. */
START_TEST(of_stderr)
{
	const int before = dup(STDERR_FILENO);

	conf.output = NULL;
	fputs("to stderr\n", f);
	fflush(f);
	dup2(fileno(f), STDERR_FILENO);
	tail(0, 0, sizeof out);
	dup2(before, STDERR_FILENO);
	close(before);
	ck_assert_str_eq(out, "to stderr\n");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tail");
	TCase *t = tcase_create("tail");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, lines);
	tcase_add_test(t, nobody_else_speaks);
	tcase_add_test(t, is_no_text);
	tcase_add_loop_test(t, a_lot, 0, 2);
	tcase_add_test(t, cannot_be_read);
	tcase_add_test(t, of_stderr);
	suite_add_tcase(s, t);
	return suite_run(s);
}
