/* What one handoffd hands to the next: whole, of this version, or refused with a reason. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/carry.h"
#include "handoffd/version.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

static struct carry carry;
static struct carried carried;
static char err[300];

static void setup(void)
{
	leak_setup();
	*err = '\0';
}

static void teardown(void)
{
	sys_fault = NULL;
	sys_closep(&carry.fd);
	leak_teardown();
}

static void put_head(uint64_t version, uint64_t fd)
{
	struct msg m = { .type = MSG_carry };

	m.carry.version = version;
	m.carry.software = SPAN("1.2");
	m.carry.lock = m.carry.control = m.carry.daemon = fd;
	carry_put(&carry, &m);
}

static void put_peer(uint64_t fd)
{
	struct msg m = { .type = MSG_carry_peer };

	m.carry_peer.pid = 4711;
	m.carry_peer.pidfd = m.carry_peer.channel = fd;
	carry_put(&carry, &m);
}

static void put_listener(const char *name, uint64_t fd)
{
	const struct msg m = { .type = MSG_carry_listener, .carry_listener = { .name = SPAN(name), .fd = fd } };

	carry_put(&carry, &m);
}

static int write_all(void)
{
	int e = carry_begin(&carry);

	if (e)
		return e;
	put_head(carry_version, 0);
	put_peer(0);
	put_listener("a", 1);
	put_listener("b", 2);
	return carry_end(&carry);
}

static int names(void *arg, const struct msg *m)
{
	char *all = arg;

	strncat(all, m->carry_listener.name.p, m->carry_listener.name.n);
	return *m->carry_listener.name.p == 'x' ? -EINVAL : 0;
}

START_TEST(comes_as_it_went)
{
	char all[20] = "";

	ck_assert_int_eq(write_all(), 0);
	ck_assert_int_eq(carry_read(carry.fd, &carried, err, sizeof err), 0);
	ck_assert_uint_eq(carried.peer.carry_peer.pid, 4711);
	ck_assert_int_eq(carry_each(&carried, MSG_carry_listener, names, all), 0);
	ck_assert_str_eq(all, "ab");
	carry_free(&carried);
	/* again, for who looks twice; and nobody can write to it any more */
	ck_assert_int_eq(carry_read(carry.fd, &carried, err, sizeof err), 0);
	carry_free(&carried);
	ck_assert_int_eq(write(carry.fd, "", 1), -1);
}
END_TEST

START_TEST(another_version)
{
	ck_assert_int_eq(carry_begin(&carry), 0);
	put_head(carry_version + 1, 0);
	ck_assert_int_eq(carry_end(&carry), 0);
	ck_assert_int_eq(carry_read(carry.fd, &carried, err, sizeof err), -EPROTONOSUPPORT);
	ck_assert_ptr_nonnull(strstr(err, "what handoffd 1.2 hands over is of version 2, handoffd "));
}
END_TEST

/* 0: nothing; 1: no peer; 2: a head alone; 3: torn; 4: no memfd at all. */
START_TEST(not_whole)
{
	ck_assert_int_eq(carry_begin(&carry), 0);
	if (_i == 1)
		put_listener("a", 0);
	if (_i == 2 || _i == 3)
		put_head(carry_version, 0);
	if (_i == 3)
		put_peer(0);
	if (_i == 3)
		ck_assert_int_eq(ftruncate(carry.fd, lseek(carry.fd, 0, SEEK_CUR) - 1), 0);
	if (_i == 4) {
		sys_closep(&carry.fd);
		ck_assert_int_ge(carry.fd = open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	}
	ck_assert_int_lt(carry_read(carry.fd, &carried, err, sizeof err), 0);
	ck_assert_ptr_nonnull(strstr(err, "what an earlier handoffd hands over cannot be read: "));
}
END_TEST

START_TEST(descriptors_survive_or_not)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(carry_begin(&carry), 0);
	put_head(carry_version, (uint64_t)fd);
	put_peer((uint64_t)fd);
	put_listener("a", _i ? 999 : (uint64_t)fd);
	ck_assert_int_eq(carry_end(&carry), 0);
	ck_assert_int_eq(carry_read(carry.fd, &carried, err, sizeof err), 0);
	ck_assert_int_eq(carry_keep(&carried, true), _i ? -EBADF : 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), 0);
	ck_assert_int_eq(carry_keep(&carried, false), _i ? -EBADF : 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	carry_free(&carried);
	close(fd);
}
END_TEST

/* Each call fails in turn: said, and nothing stays open. */
START_TEST(calls_fail)
{
	int calls;

	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(write_all(), 0);
	ck_assert_int_eq(carry_read(carry.fd, &carried, err, sizeof err), 0);
	calls = fault_off();
	carry_free(&carried);
	sys_closep(&carry.fd);
	ck_assert_int_gt(calls, 6);
	for (int i = 0; i < calls; i++) {
		fault_set(SYS_C_COUNT, i, -EIO);
		int e = write_all();
		if (!e)
			e = carry_read(carry.fd, &carried, err, sizeof err);
		fault_off();
		ck_assert_int_eq(e, -EIO);
		sys_closep(&carry.fd);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("carry");
	TCase *t = tcase_create("carry");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, comes_as_it_went);
	tcase_add_test(t, another_version);
	tcase_add_loop_test(t, not_whole, 0, 5);
	tcase_add_loop_test(t, descriptors_survive_or_not, 0, 2);
	tcase_add_test(t, calls_fail);
	suite_add_tcase(s, t);
	return suite_run(s);
}
