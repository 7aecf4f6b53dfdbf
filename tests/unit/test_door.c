/* door: what waits for an event that the kernel had no memory for comes to its turn later. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/door.h"
#include "fault.h"
#include "leak.h"
#include "starved.h"
#include "suite.h"

static char dir[64], err[200];
static struct event_base *base;
static unsigned came;

static void setup(void)
{
	leak_setup();
	strcpy(dir, "/tmp/handoff-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	starved_setup();
	base = event_base_new();
	came = 0;
}

static void teardown(void)
{
	event_base_free(base);
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

static bool on_stranger(void *arg, int fd, const struct ucred *who)
{
	(void)arg;
	(void)who;
	sys_close(fd);
	came++;
	return false;
}

static void knock(const struct door *d)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const int fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, d->path);
	ck_assert_int_eq(sys_connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	close(fd);
}

START_TEST(a_door_opens_again)
{
	struct door d = { .visitor = on_stranger, .pause_ms = 1 };

	ck_assert_msg(!door_open(&d, base, dir, "s", 0600, (uid_t)-1, err, sizeof err), "%s", err);
	for (unsigned i = 0; i <= DOOR_AT_ONCE; i++)
		knock(&d);
	while (came < DOOR_AT_ONCE)
		event_base_loop(base, EVLOOP_ONCE);
	epoll_failing = 2;
	while (came <= DOOR_AT_ONCE)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);   /* 1: nothing is waited for */
	ck_assert_uint_eq(epoll_failed, 2);
	door_close(&d);
}
END_TEST

/* 0, or the error, which is said; nothing is left of a door that is none. */
static int try_door(void)
{
	struct door d = { .visitor = on_stranger, .pause_ms = 1 };
	int e;

	err[0] = '\0';
	e = door_open(&d, base, dir, "s", 0600, (uid_t)-1, err, sizeof err);
	memory_left = -1;
	fault_off();
	ck_assert(e ? *err : !*err);
	door_close(&d);
	return e;
}

START_TEST(no_door)
{
	struct door d;
	char deep[110];
	int calls, n = 0;

	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(try_door(), 0);
	calls = fault_seen;
	for (int i = 0; i < calls; i++) {
		fault_set(SYS_C_COUNT, i, -ENOBUFS);
		ck_assert(try_door() == -ENOBUFS || fault_hit == SYS_C_UNLINK);
	}
	do
		memory_left = n;
	while (try_door() == -ENOMEM && ++n < 20);
	ck_assert(n >= 2 && n < 20);
	memset(deep, 'x', sizeof deep - 1);
	deep[sizeof deep - 1] = '\0';
	ck_assert_int_eq(door_open(&d, base, deep, "s", 0600, (uid_t)-1, err, sizeof err), -ENAMETOOLONG);
	ck_assert_ptr_nonnull(strstr(err, "longer than a socket's path may be"));
}
END_TEST

/* Who cannot be let in now is later; who it is must be known. */
START_TEST(a_door_without_descriptors)
{
	struct door d = { .visitor = on_stranger, .pause_ms = 1 };

	ck_assert_msg(!door_open(&d, base, dir, "s", 0600, (uid_t)-1, err, sizeof err), "%s", err);
	knock(&d);
	fault_set(SYS_C_ACCEPT, 0, -EMFILE);
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(fault_off(), 1);
	ck_assert_uint_eq(came, 0);
	while (!came)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	knock(&d);
	knock(&d);
	fault_set(SYS_C_GETSOCKOPT, 0, -ENOBUFS);
	while (came < 2)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	fault_off();
	door_close(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("door");
	TCase *t = tcase_create("door");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_door_opens_again);
	tcase_add_test(t, no_door);
	tcase_add_test(t, a_door_without_descriptors);
	suite_add_tcase(s, t);
	return suite_run(s);
}
