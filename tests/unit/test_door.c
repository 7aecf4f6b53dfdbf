/* door, peer: what waits for an event that the kernel had no memory for comes to its turn later. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/door.h"
#include "handoffd/peer.h"
#include "fault.h"
#include "leak.h"

static char dir[64], err[200];
static struct event_base *base;
static unsigned failing, failed, came;
static int memory_left = -1;   /* allocations of libevent that succeed; -1: all */

static bool starved(void)
{
	return memory_left >= 0 && memory_left-- <= 0;
}

static void *allocate(size_t n)
{
	return starved() ? NULL : malloc(n);
}

static void *reallocate(void *p, size_t n)
{
	return starved() ? NULL : realloc(p, n);
}

/* In place of the C library's, for libevent. */
__attribute__((visibility("default"))) int epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
	if (op == EPOLL_CTL_ADD && failing) {
		failing--;
		failed++;
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, e);
}

static void setup(void)
{
	leak_setup();
	strcpy(dir, "/tmp/handoff-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	event_set_mem_functions(allocate, reallocate, free);
	base = event_base_new();
	failing = failed = came = 0;
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
	failing = 2;
	while (came <= DOOR_AT_ONCE)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);   /* 1: nothing is waited for */
	ck_assert_uint_eq(failed, 2);
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

static void on_message(void *arg, struct peer *p, const struct msg *m)
{
	(void)arg;
	(void)p;
	(void)m;
	came++;
}

static void on_settled(void *arg)
{
	(void)arg;
}

START_TEST(no_memory_for_a_peer)
{
	const struct peer_owner owner = { .base = base, .message = on_message, .settled = on_settled };
	struct peer *p = NULL;
	int pair[2], life[2], n;

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, life), 0);
	for (n = 0; !p && n < 20; n++) {
		memory_left = n;
		p = peer_new(&owner, 1, 1, life[0]);
		memory_left = -1;
	}
	ck_assert(p && n > 1);
	for (n = 0; n < 20; n++) {
		int e;

		ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
		memory_left = n;
		e = peer_attach(p, pair[0]);
		memory_left = -1;
		close(pair[1]);
		ck_assert(e ? e == -ENOMEM && !peer_connected(p) : peer_connected(p));
		if (!e)
			break;
	}
	ck_assert(n >= 3 && n < 20);
	peer_free(p);
	close(life[1]);
}
END_TEST

/* Who sends more than it may is read more slowly, and not never. */
START_TEST(a_peer_is_read_again)
{
	const struct peer_owner owner = { .base = base, .message = on_message, .settled = on_settled };
	struct msg m = { .type = MSG_heartbeat };
	struct chan c;
	struct peer *p;
	int pair[2], life[2];

	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, life), 0);
	p = peer_new(&owner, 1, 1, life[0]);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(peer_attach(p, pair[0]), 0);
	chan_init(&c, pair[1]);
	while (!evtimer_pending(p->again, NULL)) {
		chan_offer(&c, &m);
		event_base_loop(base, EVLOOP_ONCE);
	}
	came = 0;
	failing = 2;
	while (!came)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_eq(failed, 2);
	chan_close(&c);
	peer_free(p);
	close(life[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("door");
	TCase *t = tcase_create("door");
	SRunner *sr;
	int bad;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_door_opens_again);
	tcase_add_test(t, no_door);
	tcase_add_test(t, a_door_without_descriptors);
	tcase_add_test(t, no_memory_for_a_peer);
	tcase_add_test(t, a_peer_is_read_again);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	bad = srunner_ntests_failed(sr);
	srunner_free(sr);
	return bad != 0;
}
