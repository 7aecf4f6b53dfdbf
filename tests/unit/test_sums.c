/* What a daemon is started with: which files that is, their sums, and when they count. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "handoffd/keep.h"
#include "leak.h"
#include "suite.h"

static char dir[64], program[96], file[96], option[112];
static char *argv[4];
static struct conf conf;

static void __attribute__((format(printf, 2, 3))) put(const char *path, const char *fmt, ...)
{
	FILE *f = fopen(path, "w");
	va_list ap;

	ck_assert_ptr_nonnull(f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	ck_assert_int_eq(fclose(f), 0);
}

static void setup(void)
{
	strcpy(dir, "/tmp/test_sums.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(program, sizeof program, "%s/daemon", dir);
	snprintf(file, sizeof file, "%s/file", dir);
	snprintf(option, sizeof option, "--config=%s", file);
	put(program, "abc");
	put(file, "one");
	argv[0] = program;
	argv[1] = option;
	argv[2] = argv[3] = NULL;
	conf = (struct conf){ .name = (char *)"kvd", .command = argv, .uid = -1, .gid = -1, .sum = 7 };
	leak_setup();
}

static void teardown(void)
{
	sys_fault = NULL;
	leak_teardown();
	unlink(program);
	unlink(file);
	ck_assert_int_eq(rmdir(dir), 0);
}

static int take(struct sums *ret)
{
	int fd = open(program, O_RDONLY | O_CLOEXEC), r;

	memset(ret, 0, sizeof *ret);
	ck_assert_int_ge(fd, 0);
	if (!(r = sums_exe(fd, NULL, ret)))
		sums_rest(&conf, ret);
	close(fd);
	return r;
}

START_TEST(known)
{
	struct sums s;
	struct fprint with;
	char text[65];

	ck_assert_int_eq(take(&s), 0);
	fprint_format(&s.exe, text);
	ck_assert_str_eq(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sums_look(&conf, &with);
	ck_assert(sum_known(&with));
	ck_assert(sum_same(&with, &s.with));
}
END_TEST

/* Each of these is another: the option's file, its absence, its place, the configuration. */
START_TEST(what_counts)
{
	struct sums first, s;

	ck_assert_int_eq(take(&first), 0);
	put(file, "two!");
	ck_assert_int_eq(take(&s), 0);
	ck_assert(sum_same(&first.exe, &s.exe));
	ck_assert(!sum_same(&first.rest, &s.rest));
	ck_assert(!sum_same(&first.with, &s.with));
	put(file, "one");   /* the same bytes, and not the same file any more */
	ck_assert_int_eq(take(&s), 0);
	ck_assert(sum_same(&first.rest, &s.rest));
	unlink(file);
	ck_assert_int_eq(take(&s), 0);
	ck_assert(!sum_same(&first.rest, &s.rest));
	put(file, "one");
	argv[1] = dir;
	argv[2] = option;
	ck_assert_int_eq(take(&s), 0);
	ck_assert(!sum_same(&first.rest, &s.rest));
	argv[1] = file;
	argv[2] = NULL;
	ck_assert_int_eq(take(&s), 0);
	ck_assert(sum_same(&first.rest, &s.rest));
	conf.sum = 8;
	ck_assert_int_eq(take(&s), 0);
	ck_assert(!sum_same(&first.rest, &s.rest));
}
END_TEST

START_TEST(relative)
{
	struct sums s, t;

	argv[1] = (char *)"file";
	conf.working_dir = dir;
	ck_assert_int_eq(take(&s), 0);
	conf.working_dir = NULL;   /* below / there is none */
	ck_assert_int_eq(take(&t), 0);
	ck_assert(!sum_same(&s.rest, &t.rest));
}
END_TEST

START_TEST(too_large)
{
	struct sums s;

	ck_assert_int_eq(truncate(file, (off_t)SUMS_FILE_MAX + 1), 0);   /* data: nobody pins that */
	ck_assert_int_eq(take(&s), 0);
	ck_assert(sum_known(&s.exe) && !sum_known(&s.rest) && !sum_known(&s.with));
	ck_assert_int_eq(truncate(program, (off_t)SUMS_FILE_MAX + 1), 0);
	ck_assert_int_eq(take(&s), -EFBIG);
}
END_TEST

/* A script that was written to since it was started is not what runs. */
START_TEST(another_by_now)
{
	struct sums s;
	struct stat st;
	struct exe_id id;
	int fd = open(program, O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(fstat(fd, &st), 0);
	id = exe_id(&st);
	ck_assert_int_eq(sums_exe(fd, &id, &s), 0);
	id.mtime--;
	ck_assert_int_eq(sums_exe(fd, &id, &s), -ESTALE);
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(sums_exe(fd, NULL, &s), -ESTALE);
	close(fd);
}
END_TEST

/* A sum, or an error: never the sum of something else. */
START_TEST(each_call_fails)
{
	struct sums good, s;
	int calls, failed = 0;

	ck_assert_int_eq(take(&good), 0);
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(take(&s), 0);
	calls = fault_off();
	ck_assert_int_gt(calls, 5);
	for (int at = 0; at < calls; at++) {
		int r;

		fault_set(SYS_C_COUNT, at, -EIO);
		r = take(&s);
		fault_off();
		failed += r == -EIO || !sum_known(&s.rest);
		/* what cannot be looked at is no file: then it is not what was there at the start */
		ck_assert(r == -EIO || !sum_same(&s.with, &good.with) || !memcmp(&s, &good, sizeof s));
	}
	ck_assert_int_gt(failed, 5);
}
END_TEST

/* Sums count for what serves, if it was started with these files. */
START_TEST(on_record)
{
	struct keep k = { .dir = -1 };
	struct exe e = { .fd = 0, .id = { 1, 2, 3, 4 } };
	struct sums s;

	strcpy(e.path, program);
	ck_assert_int_eq(take(&s), 0);
	ck_assert(keep_serves(&k, &e, "", program, KEEP_STARTED));
	ck_assert(!keep_sums(&k, &e, &s));          /* nobody knows with what */
	e.with = s.with;
	ck_assert(keep_serves(&k, &e, "", program, KEEP_STARTED));
	ck_assert(keep_sums(&k, &e, &s));
	ck_assert(sum_same(&k.c.now.sum, &s.exe));
	ck_assert(!keep_serves(&k, &e, "", program, KEEP_UPGRADED));   /* the same again */
	ck_assert(sum_known(&k.c.now.sum));
	e.with = (struct fprint){ { 0 } };          /* adopted, and then it serves */
	keep_recall(&k, &e);
	ck_assert(!keep_serves(&k, &e, "", program, KEEP_STARTED));
	ck_assert(sum_known(&k.c.now.sum));
	e.with.b[0] ^= 1;                           /* other files */
	ck_assert(keep_serves(&k, &e, "", program, KEEP_UPGRADED));
	ck_assert(!sum_known(&k.c.now.sum));
	ck_assert(!keep_sums(&k, &e, &s));
	e.id.ino = 9;                               /* another executable */
	e.with = s.with;
	ck_assert(!keep_sums(&k, &e, &s));
}
END_TEST

/* The same file, pinned: its new copy is kept, and the previous executable stays the previous one. */
START_TEST(pinned_again)
{
	struct keep k = { .dir = -1 };
	struct exe e = { .fd = 0, .id = { 1, 2, 3, 4 }, .copy = 5, .pinned = true };

	strcpy(e.path, program);
	strcpy(k.c.now.path, "/before");
	ck_assert(keep_serves(&k, &e, "", program, KEEP_UPGRADED));
	ck_assert_str_eq(k.c.before.path, "/before");
	ck_assert_uint_eq(k.c.now.copy, 5);
	e.copy = 6;
	ck_assert(keep_serves(&k, &e, "", program, KEEP_UPGRADED));
	ck_assert_str_eq(k.c.before.path, "/before");
	ck_assert_uint_eq(k.c.now.copy, 6);
	ck_assert(k.litter);
	e.id.ino = 9;   /* another */
	e.copy = 7;
	ck_assert(keep_serves(&k, &e, "", program, KEEP_UPGRADED));
	ck_assert_uint_eq(k.c.before.copy, 6);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { known, what_counts, relative, too_large, another_by_now,
	                               each_call_fails, on_record, pinned_again };
	Suite *suite = suite_create("sums");
	TCase *t = tcase_create("sums");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
