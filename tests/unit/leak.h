/* leak: a checked fixture that no test may leave a descriptor or a child behind. */
#ifndef TESTS_UNIT_LEAK_H
#define TESTS_UNIT_LEAK_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>

static int leak_before;

static inline int leak_count(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline void leak_setup(void)
{
	leak_before = leak_count();
}

static inline void leak_teardown(void)
{
	ck_assert_int_eq(leak_count(), leak_before);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}

#endif
