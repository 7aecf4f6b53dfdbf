/* The directories: where they are for whom, and what is there already when they are made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "fault.h"
#include "handoffd/conf.h"
#include "leak.h"
#include "suite.h"

#define NOBODY 65534

static char dir[64], path[5000], err[600];

static void setup(void)
{
	static const char *const variables[] = {
		"HANDOFF_RUNTIME_DIR", "HANDOFF_STATE_DIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR",
		"XDG_STATE_HOME", "HOME",
	};

	leak_setup();
	strcpy(dir, "/tmp/test_dirs.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
}

static void teardown(void)
{
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

static const char *at(const char *name)
{
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

/* ---- where they are ---- */

static const char *runtime_of(bool use_systemd)
{
	return dirs_runtime("kvd", use_systemd, path, sizeof path, err, sizeof err) ? err : path;
}

static const char *state_of(bool use_systemd)
{
	return dirs_state("kvd", use_systemd, path, sizeof path, err, sizeof err) ? err : path;
}

START_TEST(of_root)
{
	ck_assert_str_eq(runtime_of(true), "/run/handoff/kvd");
	ck_assert_str_eq(state_of(false), "/var/lib/handoff/kvd");
}
END_TEST

static void others(void)
{
	ck_assert_ptr_nonnull(strstr(runtime_of(true), "no runtime directory"));
	ck_assert_ptr_nonnull(strstr(state_of(true), "no state directory"));
	setenv("HOME", "/home/u", 1);
	ck_assert_ptr_nonnull(strstr(runtime_of(true), "no runtime directory"));
	ck_assert_str_eq(state_of(true), "/home/u/.local/state/handoff/kvd");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	setenv("XDG_STATE_HOME", "", 1);   /* as if it were not set */
	ck_assert_str_eq(runtime_of(true), "/run/user/7/handoff/kvd");
	ck_assert_str_eq(state_of(true), "/home/u/.local/state/handoff/kvd");
	setenv("XDG_STATE_HOME", "/xdg", 1);
	ck_assert_str_eq(state_of(true), "/xdg/handoff/kvd");
	setenv("STATE_DIRECTORY", "/first:/second", 1);
	ck_assert_str_eq(state_of(false), "/xdg/handoff/kvd");
	ck_assert_str_eq(state_of(true), "/first");
	setenv("HANDOFF_STATE_DIR", "/ours", 1);
	ck_assert_str_eq(state_of(true), "/ours/kvd");
	ck_assert_int_eq(dirs_state("kvd", true, path, 9, err, sizeof err), -ENAMETOOLONG);
	ck_assert_ptr_nonnull(strstr(err, "longer than 8 bytes"));
}

START_TEST(of_a_user)
{
	const bool root = geteuid() == 0;

	if (root)
		ck_assert_int_eq(seteuid(NOBODY), 0);
	others();
	if (root)
		ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* ---- made ---- */

START_TEST(what_is_there)
{
	char target[100];
	FILE *f;

	ck_assert_int_eq(dirs_make(at("a/b/c"), 0751, err, sizeof err), 0);
	ck_assert_int_eq(dirs_make(at("a/b/c"), 0700, err, sizeof err), 0);
	ck_assert_int_eq(rmdir(at("a/b/c")), 0);
	snprintf(target, sizeof target, "%s/a", dir);
	ck_assert_int_eq(symlink(target, at("a/b/c")), 0);
	ck_assert_int_eq(dirs_make(path, 0700, err, sizeof err), -ENOTDIR);
	ck_assert_ptr_nonnull(strstr(err, "a symlink is not followed"));
	unlink(path);
	ck_assert_ptr_nonnull(f = fopen(path, "w"));
	fclose(f);
	ck_assert_int_eq(dirs_make(path, 0700, err, sizeof err), -ENOTDIR);
	ck_assert_int_eq(dirs_make(at("a/b/c/d/e"), 0700, err, sizeof err), -ENOTDIR);
	unlink(at("a/b/c"));
	memset(path, 'x', sizeof path - 1);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	ck_assert_int_eq(dirs_make(path, 0700, err, sizeof err), -ENAMETOOLONG);
	if (geteuid() == 0) {
		ck_assert_int_eq(dirs_make_owned(at("a/b/o"), 0700, NOBODY, NOBODY, err, sizeof err), 0);
		ck_assert_int_eq(dirs_make_owned(path, 0700, NOBODY, NOBODY, err, sizeof err), 0);
		ck_assert_int_eq(dirs_make_owned(path, 0700, (uid_t)-1, (gid_t)-1, err, sizeof err), -EPERM);
		ck_assert_int_eq(dirs_make(path, 0700, err, sizeof err), -EPERM);
		ck_assert_ptr_nonnull(strstr(err, "belongs to another user"));
		ck_assert_int_eq(rmdir(path), 0);
	}
	ck_assert_int_eq(dirs_make_owned(at("a/b/o"), 0700, (uid_t)-1, (gid_t)-1, err, sizeof err), 0);
	ck_assert_int_eq(rmdir(path) | rmdir(at("a/b")) | rmdir(at("a")), 0);
}
END_TEST

static int make(bool owned, const char *name)
{
	return owned ? dirs_make_owned(at(name), 0700, NOBODY, NOBODY, err, sizeof err)
	       : dirs_make(at(name), 0700, err, sizeof err);
}

/* Each is told, with the path; only parents that cannot be made may be there all the same. */
START_TEST(each_call_fails)
{
	const char *name = _i ? "o" : "a/b";
	int calls, failed = 0;

	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(make(_i, name), 0);
	calls = fault_off();
	for (int n = 0; n < calls; n++) {
		rmdir(at(name));
		err[0] = '\0';
		fault_set(SYS_C_COUNT, n, -EIO);
		failed += make(_i, name) == -EIO && strstr(err, "/tmp");
		fault_off();
	}
	ck_assert_int_eq(failed, calls);
	rmdir(at(name));
	rmdir(at("a"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dirs");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	if (geteuid() == 0)
		tcase_add_test(t, of_root);
	tcase_add_test(t, of_a_user);
	tcase_add_test(t, what_is_there);
	tcase_add_loop_test(t, each_call_fails, 0, 2);
	suite_add_tcase(s, t);
	return suite_run(s);
}
