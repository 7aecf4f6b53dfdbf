/* peer: what cannot be sent, read or waited for now is later, or the channel ends; nobody is left
 * deaf. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "handoffd/peer.h"
#include "fault.h"
#include "leak.h"
#include "starved.h"
#include "suite.h"

static struct peer_owner owner;
static struct peer *peer;
static struct chan daemon_;     /* the other end of its channel */
static int life[2];             /* in the pidfd's place: it has ended when [1] is closed */
static unsigned came, lost, dying, gone;
static int lost_with;

static void on_message(void *arg, struct peer *p, const struct msg *m)
{
	(void)arg, (void)p, (void)m;
	came++;
}

static void on_lost(void *arg, struct peer *p, int error)
{
	(void)arg, (void)p;
	lost++;
	lost_with = error;
}

static void on_dying(void *arg, struct peer *p)
{
	(void)arg, (void)p;
	ck_assert_uint_eq(gone, 0);
	dying++;
}

static void on_gone(void *arg, struct peer *p)
{
	(void)arg;
	ck_assert(!peer_connected(p) && p->pidfd < 0);
	gone++;
}

static void on_settled(void *arg)
{
	(void)arg;
}

static void turn(void)
{
	ck_assert_int_eq(event_base_loop(owner.base, EVLOOP_ONCE), 0);   /* 1: nothing is waited for */
}

static void setup(void)
{
	int pair[2];

	leak_setup();
	starved_setup();
	owner = (struct peer_owner){ .base = event_base_new(), .message = on_message, .lost = on_lost,
	                             .dying = on_dying, .gone = on_gone, .settled = on_settled };
	came = lost = dying = gone = 0;
	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, pair), 0);
	ck_assert_int_eq(sys_socketpair(SOCK_STREAM, life), 0);
	ck_assert_ptr_nonnull(peer = peer_new(&owner, 1, 1, life[0]));
	ck_assert_int_eq(peer_attach(peer, pair[0]), 0);
	chan_init(&daemon_, pair[1]);
}

static void teardown(void)
{
	fault_off();
	peer_free(peer);
	chan_close(&daemon_);
	sys_closep(&life[1]);
	event_base_free(owner.base);
	leak_teardown();
}

/* ---- sent ---- */

static const struct msg beat = { .type = MSG_heartbeat };

/* Until its socket takes no more; how many. */
static unsigned fill(void)
{
	unsigned n = 0;

	while (!chan_pending(&peer->chan)) {
		ck_assert_int_eq(peer_send(peer, &beat, NULL, 0), 0);
		n++;
	}
	return n;
}

START_TEST(what_does_not_fit_is_sent_later)
{
	unsigned sent = fill(), got = 0;
	struct msg m;

	while (got < sent) {
		while (chan_recv(&daemon_, &m) == 1)
			got++;
		if (chan_pending(&peer->chan))
			turn();
	}
	ck_assert_uint_eq(got, sent);
	ck_assert(!event_pending(peer->write, EV_WRITE, NULL));   /* or the loop would turn for ever */
	ck_assert_uint_eq(lost, 0);
}
END_TEST

/* 1: what waits cannot be sent any more, and its other end does not know of it. */
START_TEST(it_goes_while_something_waits)
{
	struct msg m;

	fill();
	if (_i)
		fault_set(SYS_C_SENDMSG, 0, -ETOOMANYREFS);
	else
		chan_close(&daemon_);
	while (_i && chan_recv(&daemon_, &m) == 1)
		;
	while (!lost)
		turn();
	if (_i)
		ck_assert_int_lt(chan_recv(&daemon_, &m), 0);
	ck_assert(!peer_connected(peer));
	ck_assert_int_eq(peer_send(peer, &beat, NULL, 0), -EPIPE);
}
END_TEST

/* A call that cannot succeed any more: its end is read, with what the peer has sent before. */
START_TEST(what_cannot_be_sent_ends_the_channel)
{
	ck_assert_int_eq(chan_send(&daemon_, &beat, NULL, 0), 0);
	if (_i == 0) {
		fault_set(SYS_C_SENDMSG, 0, -ETOOMANYREFS);
		ck_assert_int_eq(peer_send(peer, &beat, NULL, 0), -ETOOMANYREFS);
		ck_assert_int_eq(peer->send_error, -ETOOMANYREFS);
	} else if (_i == 1) {
		fault_set(SYS_C_SENDMSG, 0, -EPIPE);
		ck_assert_int_eq(peer_send(peer, &beat, NULL, 0), -EPIPE);
		ck_assert_int_eq(peer->send_error, 0);   /* it was not this process */
	} else {
		fault_set(SYS_C_SENDMSG, 0, -EAGAIN);
		event_del(peer->read);   /* it is being read more slowly: else the kernel knows the socket */
		epoll_failing = 1;
		ck_assert_int_eq(peer_send(peer, &beat, NULL, 0), -ENOMEM);
		ck_assert_int_eq(peer->send_error, -ENOMEM);
		event_add(peer->read, NULL);
	}
	fault_off();
	while (!lost)
		turn();
	ck_assert_uint_eq(came, 1);
	ck_assert_int_eq(lost_with, -ENODATA);
}
END_TEST

/* ---- read ---- */

START_TEST(no_memory)
{
	struct peer *p = NULL;
	int pair[2], n, end;

	ck_assert_int_ge(end = sys_dup(life[0], 0), 0);
	for (n = 0; !p && n < 20; n++) {
		memory_left = n;
		p = peer_new(&owner, 1, 1, end);
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
}
END_TEST

/* Who sends more than it may is read more slowly, and not never. */
START_TEST(it_is_read_again)
{
	while (!evtimer_pending(peer->again, NULL)) {
		chan_offer(&daemon_, &beat);
		event_base_loop(owner.base, EVLOOP_ONCE);
	}
	came = 0;
	epoll_failing = 2;
	while (!came)
		turn();
	ck_assert_uint_eq(epoll_failed, 2);
}
END_TEST

/* Without memory for the timer that would read it again, it is read at once. */
START_TEST(no_memory_to_read_it_more_slowly)
{
	memory_left = 0;
	while (came < 10000) {
		chan_offer(&daemon_, &beat);
		turn();
	}
	memory_left = -1;
}
END_TEST

/* What cannot be received now lies in the socket. */
START_TEST(nothing_to_receive_it_in)
{
	static const int lack[] = { -EMFILE, -ENFILE, -ENOMEM };

	ck_assert_int_eq(chan_send(&daemon_, &beat, NULL, 0), 0);
	fault_set(SYS_C_RECVMSG, 0, lack[_i]);
	turn();
	ck_assert_int_gt(fault_off(), 0);
	ck_assert_uint_eq(came + lost, 0);
	turn();
	ck_assert_uint_eq(came, 1);
}
END_TEST

/* ---- its end ---- */

/* A helper of it may have its socket open still. */
START_TEST(what_it_said_last_is_heard)
{
	ck_assert_int_eq(chan_send(&daemon_, &beat, NULL, 0), 0);
	event_del(peer->read);   /* its death is seen first */
	sys_closep(&life[1]);
	while (!gone)
		turn();
	ck_assert_uint_eq(came, 1);
	ck_assert_uint_eq(dying, 1);
	ck_assert_uint_eq(lost, 0);
	ck_assert_int_eq(peer_signal(peer, SIGKILL), -ESRCH);
	ck_assert(peer_dead(peer));
}
END_TEST

START_TEST(how_it_ended)
{
	static const struct { int status; bool cut; const char *text; } end[] = {
		{ -1, false, "is gone" },
		{ 3 << 8, true, "exited with 3" },
		{ SIGKILL, false, "was killed by signal 9 (KILL)" },
		{ SIGKILL, true, "closed its channel and was killed" },
		{ SIGSEGV, true, "was killed by signal 11 (SEGV)" },
		{ 34, false, "was killed by signal 34" },   /* of real time: it has no name */
	};
	char text[64];

	for (unsigned i = 0; i < sizeof end / sizeof *end; i++) {
		peer->status = end[i].status;
		peer->cut = end[i].cut;
		ck_assert_str_eq(peer_end(peer, text), end[i].text);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("peer");
	TCase *t = tcase_create("peer");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, what_does_not_fit_is_sent_later);
	tcase_add_loop_test(t, it_goes_while_something_waits, 0, 2);
	tcase_add_loop_test(t, what_cannot_be_sent_ends_the_channel, 0, 3);
	tcase_add_test(t, no_memory);
	tcase_add_test(t, it_is_read_again);
	tcase_add_test(t, no_memory_to_read_it_more_slowly);
	tcase_add_loop_test(t, nothing_to_receive_it_in, 0, 3);
	tcase_add_test(t, what_it_said_last_is_heard);
	tcase_add_test(t, how_it_ended);
	suite_add_tcase(s, t);
	return suite_run(s);
}
