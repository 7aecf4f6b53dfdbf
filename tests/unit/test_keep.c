/* Copies of executables: which bytes run, and what is left when a call fails. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "handoffd/keep.h"
#include "handoffd/log.h"
#include "leak.h"
#include "suite.h"

static char dir[64], path[96], err[8192];
static struct conf conf;
static char *argv[2];
static struct keep k;

static void __attribute__((format(printf, 1, 2))) shell(const char *fmt, ...)
{
	char command[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof command, fmt, ap);
	va_end(ap);
	ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
	strcpy(dir, "/tmp/test_keep.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/daemon", dir);
	argv[0] = path;
	conf = (struct conf){ .name = (char *)"kvd", .file = (char *)"kvd.conf", .command = argv,
	                      .uid = -1, .gid = -1 };
	log_open("test", LOG_L_ERROR);
	shell("cp /bin/true %s", path);
	leak_setup();
	k = (struct keep){ .dir = -1 };
	keep_open(&k, dir, 0);
	ck_assert_int_ge(k.dir, 0);
}

static void teardown(void)
{
	sys_fault = NULL;
	keep_close(&k);
	leak_teardown();
	shell("rm -r %s", dir);
}

static struct exe open_exe(const char *p)
{
	struct exe e;

	ck_assert_msg(exe_open(&conf, p, &e, err, sizeof err) == 0, "%s", err);
	return e;
}

static int copy(struct exe *e, uint64_t number)
{
	int from = exe_read(&conf, e), r;

	ck_assert_int_ge(from, 0);
	r = keep_write(k.dir, &k.c, e, from, number);
	close(from);
	return r;
}

/* What lies at the path serves, and is copied. */
static void serve(void)
{
	struct exe e = open_exe(path);
	const uint64_t number = keep_number(&k);

	ck_assert(keep_serves(&k, &e, "", path, KEEP_UPGRADED));
	ck_assert_int_eq(copy(&e, number), 0);
	k.c.now.copy = number;
	exe_close(&e);
}

/* The bytes that a cold start would run, as a word. */
static const char *cold(bool asked)
{
	struct exe e;
	int r = keep_cold(&k, &conf, "", asked, &e, err, sizeof err), fd;
	struct stat st, there;
	const char *what = "path";

	if (r)
		return "none";
	fd = keep_copy_dir(&k, &e);
	ck_assert_int_eq(fstat(e.fd, &st), 0);
	if (stat(path, &there) || there.st_ino != st.st_ino)
		what = fd >= 0 ? "copy" : "lost";
	sys_closep(&fd);
	exe_close(&e);
	return what;
}

static unsigned entries(void)
{
	char sub[100];
	struct stat st;

	snprintf(sub, sizeof sub, "%s/exe", dir);
	ck_assert_int_eq(stat(sub, &st), 0);
	return st.st_nlink - 2;   /* its directories */
}

static void replace(void)
{
	shell("cp /bin/false %s.new", path);
	shell("mv %s.new %s", path, path);
}

START_TEST(nothing_yet)
{
	struct exe e;

	ck_assert_str_eq(cold(false), "path");
	ck_assert_int_eq(keep_before(&k, &conf, &e, err, sizeof err), -ENOENT);
	ck_assert_str_eq(err, "there is no previous executable: none but the current one has served here");
	unlink(path);
	ck_assert_str_eq(cold(false), "none");
}
END_TEST

START_TEST(cold_start)
{
	serve();
	ck_assert_str_eq(cold(false), "path");
	shell("mv %s %s.away", path, path);
	ck_assert_str_eq(cold(false), "copy");
	ck_assert_str_eq(cold(true), "copy");      /* nothing else is there */
	shell("cp /bin/false %s", path);
	ck_assert_str_eq(cold(false), "copy");
	ck_assert_str_eq(cold(true), "path");      /* somebody means it */
	k.c.now.held = true;
	ck_assert_str_eq(cold(true), "copy");
	shell("rm -r %s/exe/1", dir);
	ck_assert_str_eq(cold(false), "path");
}
END_TEST

/* The same inode with other bytes, and the old time set again. */
START_TEST(overwritten)
{
	struct stat st;

	serve();
	ck_assert_int_eq(stat(path, &st), 0);
	shell("cat /bin/false > %s", path);
	ck_assert_int_eq(utimensat(AT_FDCWD, path, (struct timespec[]){ st.st_atim, st.st_mtim }, 0), 0);
	ck_assert_int_eq(truncate(path, st.st_size), 0);
	ck_assert_int_eq(utimensat(AT_FDCWD, path, (struct timespec[]){ st.st_atim, st.st_mtim }, 0), 0);
	ck_assert_str_eq(cold(true), "path");
	struct exe e;
	ck_assert_int_eq(keep_cold(&k, &conf, "", false, &e, err, sizeof err), 0);
	ck_assert_int_eq(fstat(e.fd, &st), 0);
	ck_assert_uint_ne(st.st_ino, k.c.now.id.ino);
	exe_close(&e);
}
END_TEST

START_TEST(there_and_back)
{
	struct exe e;

	serve();
	replace();
	serve();
	ck_assert_uint_eq(k.c.now.copy, 2);
	ck_assert_uint_eq(k.c.before.copy, 1);
	ck_assert_int_eq(keep_before(&k, &conf, &e, err, sizeof err), 0);
	ck_assert_uint_eq(e.copy, 1);
	ck_assert(keep_serves(&k, &e, "", path, KEEP_ROLLED_BACK));
	exe_close(&e);
	ck_assert(k.c.now.held);
	ck_assert(!k.c.before.held);
	ck_assert_uint_eq(k.c.now.copy, 1);
	ck_assert_uint_eq(k.c.before.copy, 2);
	ck_assert_str_eq(cold(true), "copy");
	/* the other one is still there: it is started from its path */
	ck_assert_int_eq(keep_before(&k, &conf, &e, err, sizeof err), 0);
	ck_assert_str_eq(e.path, path);
	ck_assert_uint_eq(e.copy, 2);
	exe_close(&e);
	/* an upgrade to it ends what the rollback holds */
	e = open_exe(path);
	ck_assert(keep_serves(&k, &e, "", path, KEEP_UPGRADED));
	exe_close(&e);
	ck_assert(!k.c.now.held);
}
END_TEST

START_TEST(sweeps)
{
	serve();
	replace();
	serve();
	ck_assert_uint_eq(entries(), 2);
	shell("mkdir %s/exe/9 && touch %s/exe/9/x", dir, dir);
	k.c.before = (struct kept){ .path = "" };
	keep_close(&k);
	keep_open(&k, dir, 0);
	ck_assert_uint_eq(entries(), 1);
	ck_assert_str_eq(cold(false), "path");
}
END_TEST

/* Copies that nobody knows are never swept: they stay until there is room to set them aside. */
START_TEST(strays)
{
	serve();
	keep_close(&k);
	shell("mkdir -p %s/exe.damaged/1", dir);
	k = (struct keep){ .stray = true };
	keep_open(&k, dir, 0);
	ck_assert_int_eq(k.dir, -1);
	ck_assert_ptr_nonnull(strstr(k.why, "/exe.damaged: "));
	ck_assert_uint_eq(entries(), 1);
	shell("rmdir %s/exe.damaged/1", dir);
	ck_assert_int_eq(keep_reopen(&k, dir, err, sizeof err), 0);
	ck_assert_str_eq(k.why, "");
	ck_assert_uint_eq(entries(), 0);
	shell("test -d %s/exe.damaged/1", dir);
	shell("rm -r %s/exe.damaged %s/exe", dir, dir);
	ck_assert_int_eq(keep_set_aside(dir), 0);   /* there is nothing */
}
END_TEST

START_TEST(changed_since_it_was_started)
{
	struct exe e = open_exe(path);

	shell("cat /bin/false > %s", path);
	ck_assert(keep_serves(&k, &e, "", path, KEEP_UPGRADED));
	ck_assert_int_eq(copy(&e, 1), -ESTALE);
	ck_assert_uint_eq(entries(), 0);
	exe_close(&e);
}
END_TEST

/* Nothing lies at the path, and whether there is a copy cannot be found out for the moment: that is
 * no reason to give the service up. */
START_TEST(a_copy_out_of_reach)
{
	struct exe e;

	serve();
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_str_eq(cold(false), "copy");
	fault_set(SYS_C_OPEN, 1, -EMFILE);
	ck_assert_int_eq(keep_cold(&k, &conf, "", false, &e, err, sizeof err), -EMFILE);
	fault_off();
}
END_TEST

/* Each call of the child's fails in turn: there is a whole copy, or an error and none. */
START_TEST(each_call_fails)
{
	struct exe e;
	int calls, failed = 0;

	serve();
	replace();
	e = open_exe(path);
	ck_assert(keep_serves(&k, &e, "", path, KEEP_UPGRADED));
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(copy(&e, 2), 0);
	calls = fault_off();
	ck_assert_int_gt(calls, 10);
	for (int at = 0; at < calls; at++) {
		int from, r;

		fault_set(SYS_C_COUNT, at, -EIO);
		from = exe_read(&conf, &e);
		r = from < 0 ? from : keep_write(k.dir, &k.c, &e, from, 2);
		fault_off();
		sys_closep(&from);
		/* what a sweep could not remove is in the way, and then removed */
		ck_assert(r == 0 || r == -EIO || r == -EEXIST);
		failed += r != 0;
		if (r == -EEXIST || (r && from < 0 && at > 0))
			ck_assert_uint_eq(entries(), 1);
		if (!r) {
			int fd;
			e.copy = 2;
			ck_assert_int_ge(fd = keep_copy_dir(&k, &e), 0);
			close(fd);
		}
	}
	ck_assert_int_gt(failed, 5);
	exe_close(&e);
	ck_assert_str_eq(cold(false), "path");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		nothing_yet, cold_start, overwritten, there_and_back, sweeps, strays, changed_since_it_was_started,
		a_copy_out_of_reach, each_call_fails,
	};
	Suite *suite = suite_create("keep");
	TCase *t = tcase_create("keep");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
