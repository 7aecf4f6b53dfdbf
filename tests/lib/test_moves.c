/* Live connections through the library: the test is the supervisor, and the other daemon. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/suite.h"
#include "handoff.h"
#include "proto/daemon.h"
#include "proto/move.h"
#include "stage.h"

static struct puppet p;
static struct chan t;       /* the other daemon's end of the transfer channel */
static struct msg got;
static int before;

static void setup(void)
{
	before = stage_fds();
	memset(&p, 0, sizeof p);
	chan_init(&t, -1);
	stage_setup();
}

static void teardown(void)
{
	chan_close(&t);
	stage_teardown();
	ck_assert_int_eq(stage_fds(), before);
}

/* The puppet's end of a new transfer channel. */
static int open_transfer(void)
{
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	chan_init(&t, sv[0]);
	return sv[1];
}

/* The next message on it. */
static struct msg *hear(enum msg_type type)
{
	struct pollfd f = { .fd = t.fd, .events = POLLIN };
	int e;

	while (!(e = chan_recv(&t, &got)))
		if (poll(&f, 1, LIMIT_MS) != 1)
			ck_abort_msg("%s did not come", msg_name(type));
	ck_assert_msg(e == 1, "%s: %s %s", msg_name(type), strerror(-e), t.error);
	ck_assert_msg(got.type == type, "%s came, not %s", msg_name(got.type), msg_name(type));
	return &got;
}

static void hear_nothing(void)
{
	ck_assert_int_eq(chan_recv(&t, &got), 0);
}

static void answer(uint32_t batch, uint64_t kept)
{
	struct msg m = { .type = MSG_answer };

	m.answer.batch = batch;
	m.answer.kept = kept;
	ck_assert_int_eq(chan_send(&t, &m, NULL, 0), 0);
}

static void simple(enum msg_type type)
{
	struct msg m = { .type = type };
	ck_assert_int_eq(chan_send(&t, &m, NULL, 0), 0);
}

/* ------------------------------------------------------------- the incumbent --- */

/* A puppet in its seal, with n connections to give; end is its end of the transfer channel. */
static void sealing_with(unsigned n, uint64_t limit, int end)
{
	char count[20];

	scene_serve(&p, "moves");
	puppet_ask(&p, "conn %u", n);
	snprintf(count, sizeof count, "%u", n);
	ck_assert_str_eq(p.line, count);
	stage_prepare_with(&p, 1, end, limit);
	ASK(&p, "loop 30000", "1 drain*");
	ASK(&p, "drained open=3", "0");
	stage_get(&p, MSG_drained);
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
}

static void sealing(unsigned n, uint64_t limit)
{
	sealing_with(n, limit, open_transfer());
}

/* It has given two, of which the other daemon has kept the first, and sealed. */
static void two_given(void)
{
	sealing(2, 1000);
	ASK(&p, "give 0 2", "1");
	puppet_say(&p, "give_end");
	hear(MSG_batch);
	ck_assert_uint_eq(t.nfds, 2);
	answer(1, 1);
	ck_assert_uint_eq(hear(MSG_end)->end.batch, 2);
	ck_assert_uint_eq(got.end.connections, 2);
	answer(2, 0);
	ck_assert_str_eq(puppet_heard(&p), "1");
	ASK(&p, "gone 0", "1");
	ASK(&p, "gone 1", "0");
	ASK(&p, "gone 2", "0");
	ASK(&p, "sealed", "0");
	stage_get(&p, MSG_seal_complete);
}

START_TEST(given_and_committed)
{
	two_given();
	stage_simple(&p, MSG_commit, 1);
	ASK(&p, "loop 30000", "1 commit*");
	ASK(&p, "gone 0", "1");
	puppet_end(&p);
}
END_TEST

START_TEST(in_batches)
{
	struct span name[MOVE_BATCH];
	uint64_t size[MOVE_BATCH];
	unsigned all = 0;

	sealing(200, 1u << 20);
	puppet_say(&p, "give 0 200 size=5 name=resp");
	for (unsigned n = 1; n <= 3; n++) {   /* full ones, before the end is said */
		ck_assert_uint_eq(hear(MSG_batch)->batch.batch, n);
		ck_assert_uint_eq(texts_copy(&got.batch.names, name, MOVE_BATCH), MOVE_BATCH);
		ck_assert_uint_eq(uints_copy(&got.batch.sizes, size, MOVE_BATCH), MOVE_BATCH);
		ck_assert(name[63].n == 4 && !memcmp(name[63].p, "resp", 4) && size[63] == 5);
		ck_assert_int_eq(atoi(got.batch.states.p + 63 * 5), (int)all + 63);
		all += 64;
		answer(n, UINT64_MAX);
	}
	ck_assert_str_eq(puppet_heard(&p), "199");
	puppet_say(&p, "give_end");
	ck_assert_uint_eq(hear(MSG_batch)->batch.names.n, 8);
	answer(4, 0xfe);
	hear(MSG_end);
	answer(5, 0);
	ck_assert_str_eq(puppet_heard(&p), "1");
	ASK(&p, "gone 191", "1");
	ASK(&p, "gone 192", "0");
	ASK(&p, "gone 199", "1");
	ASK(&p, "sealed", "0");
	puppet_end(&p);
}
END_TEST

/* No more than MOVE_WINDOW are on their way: what lies in the channel counts against a limit. */
START_TEST(waits_for_answers)
{
	sealing(64 * (MOVE_WINDOW + 2), 1u << 20);
	puppet_say(&p, "give 0 %u", 64 * (MOVE_WINDOW + 2));
	for (unsigned n = 1; n <= MOVE_WINDOW; n++)
		ck_assert_uint_eq(hear(MSG_batch)->batch.batch, n);
	poll(NULL, 0, 20);
	hear_nothing();
	answer(1, 0);
	ck_assert_uint_eq(hear(MSG_batch)->batch.batch, MOVE_WINDOW + 1);
	answer(2, 0);
	ck_assert_str_eq(puppet_heard(&p), "639");
	ck_assert_uint_eq(MOVE_WINDOW, 8);
	puppet_kill(&p);
}
END_TEST

START_TEST(large_states_lie_beside)
{
	const unsigned size = 3 * MOVE_INLINE;
	struct stat st;
	char byte[2];

	sealing(40, 200u << 20);
	ck_assert_str_eq(puppet_ask(&p, "give 0 33 size=%u", size), "32");   /* two descriptors each */
	hear(MSG_batch);
	ck_assert(got.batch.names.n == 32 && t.nfds == 64 && got.batch.states.n == 0);
	ck_assert_int_eq(fstat(t.fds[32 + 7], &st), 0);
	ck_assert_int_eq(st.st_size, size);
	ck_assert_int_eq(pread(t.fds[32 + 7], byte, 2, 0), 2);
	ck_assert(byte[0] == '7' && byte[1] == '\0');
	ck_assert_int_eq(fcntl(t.fds[32 + 7], F_GET_SEALS),
	                 F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	ck_assert_int_eq(pwrite(t.fds[32 + 7], "x", 1, 0), -1);
	ck_assert_str_eq(puppet_ask(&p, "give 34 35 size=%u", MOVE_INLINE), "33");
	puppet_kill(&p);
}
END_TEST

START_TEST(too_much_stays)
{
	sealing(4, 100);
	ASK(&p, "give 0 1 size=60", "0");
	ASK(&p, "give 1 2 size=41", "-7");
	ASK(&p, "error", "the states of all connections are over the limit (connection-state)");
	ASK(&p, "give 2 3 size=40", "1");
	ASK(&p, "give 3 4 size=0", "2");
	puppet_say(&p, "give_end");
	ck_assert_uint_eq(hear(MSG_batch)->batch.names.n, 3);
	answer(1, 7);
	hear(MSG_end);
	answer(2, 0);
	ck_assert_str_eq(puppet_heard(&p), "0");
	puppet_kill(&p);
}
END_TEST

static void limit_files(rlim_t max)
{
	const struct rlimit r = { max, RLIM_INFINITY };

	ck_assert_int_eq(prlimit(p.pid, RLIMIT_FSIZE, &r, NULL), 0);
}

/* RLIMIT_FSIZE holds for the memory beside a batch: such a state stays, and SIGXFSZ kills nobody. */
START_TEST(larger_than_a_file_may_be)
{
	sealing(3, 4 * MOVE_INLINE);
	limit_files(2 * MOVE_INLINE);
	ck_assert_str_eq(puppet_ask(&p, "give 0 1 size=%u", 2 * MOVE_INLINE + 1), "-27");
	ck_assert_str_eq(puppet_ask(&p, "give 0 1 size=%u", 2 * MOVE_INLINE), "0");
	/* what is over the limit in all is not even copied */
	ck_assert_str_eq(puppet_ask(&p, "give 1 2 size=%u", 2 * MOVE_INLINE + 1), "-7");
	ck_assert_str_eq(puppet_ask(&p, "give 2 3 size=%u", 2 * MOVE_INLINE), "1");
	puppet_kill(&p);
}
END_TEST

/* Whatever the reason: who is not moved is counted as one who stays. */
START_TEST(those_who_stay_are_counted)
{
	struct rlimit r, old;
	struct msg *m;

	sealing(6, 8 * MOVE_INLINE);
	limit_files(2 * MOVE_INLINE);
	ck_assert_str_eq(puppet_ask(&p, "give 0 1 size=%u", 2 * MOVE_INLINE + 1), "-27");
	ck_assert_str_eq(puppet_ask(&p, "give 1 2 size=%u", 9 * MOVE_INLINE), "-7");
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, NULL, &old), 0);
	r = old;
	r.rlim_cur = 4;   /* fewer than it has: no memfd */
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &r, NULL), 0);
	ck_assert_str_eq(puppet_ask(&p, "give 2 3 size=%u", 2 * MOVE_INLINE), "-24");
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &old, NULL), 0);
	ASK(&p, "give 3 6", "2");
	puppet_say(&p, "give_end");
	hear(MSG_batch);
	answer(1, 5);   /* the one in the middle is not wanted */
	hear(MSG_end);
	answer(2, 0);
	ck_assert_str_eq(puppet_heard(&p), "1");
	ASK(&p, "sealed", "0");
	m = stage_get(&p, MSG_seal_complete);
	ck_assert_uint_eq(m->seal_complete.moved, 2);
	ck_assert_uint_eq(m->seal_complete.stayed, 4);
	puppet_kill(&p);
}
END_TEST

static const struct { const char *ask, *answer; } not_now[] = {
	{ "give 0 1 fd=-1", "-22" },
	{ "give 0 1 name=12345678901234567890123456789012345678901234567890123456789012345", "-22" },
	{ "give 0 1 name=\xff", "-22" },
};

START_TEST(misused)
{
	scene_serve(&p, "moves");
	ASK(&p, "conn 2", "2");
	ASK(&p, "give 0 1", "-22");
	ASK(&p, "error", "the successor takes no connections");
	ASK(&p, "gone 0", "0");
	puppet_kill(&p);
	sealing(2, 100);
	for (unsigned i = 0; i < 3; i++) {
		ASK(&p, not_now[i].ask, not_now[i].answer);
		ASK(&p, "error", "handoff_give: a connection of an unknown shape");
	}
	ASK(&p, "give 0 1", "0");
	ASK(&p, "sealed", "-22");   /* the End is missing */
	ASK(&p, "error", "handoff_sealed: handoff_give_end comes first");
	puppet_say(&p, "give_end");
	hear(MSG_batch);
	answer(1, 1);
	hear(MSG_end);
	answer(2, 0);
	ck_assert_str_eq(puppet_heard(&p), "0");
	ASK(&p, "give 1 2", "-22");
	ASK(&p, "error", "handoff_give comes before handoff_give_end");
	ASK(&p, "give_end", "-22");
	ASK(&p, "error", "handoff_give_end: called twice");
	ASK(&p, "sealed", "0");
	ASK(&p, "give 1 2", "-22");
	ASK(&p, "error", "connections are given in answer to HANDOFF_SEAL only");
	puppet_end(&p);
}
END_TEST

/* The attempt has ended before the daemon has given any. */
START_TEST(given_too_late)
{
	sealing(1, 100);
	stage_simple(&p, MSG_resume, 1);
	ASK(&p, "poll 20000", "1");
	ASK(&p, "dispatch", "0");   /* its own answer comes first */
	ASK(&p, "give 0 1", "-125");
	ASK(&p, "error", "the attempt has ended: handoff_seal_failed, and serve");
	ASK(&p, "give_end", "-125");
	ASK(&p, "seal_failed x", "0");
	stage_get(&p, MSG_status);
	puppet_end(&p);
}
END_TEST

/* A successor that takes none, and an incumbent that has none: nothing is sent. */
START_TEST(nothing_to_give)
{
	sealing(1, 100);
	ASK(&p, "give_end", "0");
	hear_nothing();
	ASK(&p, "sealed", "0");
	stage_get(&p, MSG_seal_complete);
	puppet_kill(&p);
	chan_close(&t);
	scene_serve(&p, "moves");
	ASK(&p, "conn 1", "1");
	scene_drained(&p, 1);
	stage_simple(&p, MSG_seal_request, 1);
	ASK(&p, "loop 30000", "1 seal*");
	ASK(&p, "give 0 1", "-95");
	ASK(&p, "give_end", "0");
	ASK(&p, "sealed", "0");
	puppet_end(&p);
}
END_TEST

/* Who is to blame, as the supervisor hears it. */
static bool by_successor(void)
{
	do
		ck_assert(stage_any(&p, LIMIT_MS));
	while (p.m.type == MSG_heartbeat);
	if (p.m.type == MSG_status)
		return p.m.status.by_successor;
	ck_assert_int_eq(p.m.type, MSG_seal_failed);
	return p.m.seal_failed.by_successor;
}

/* What the seal ends with: it fails, and then all of them are the incumbent's again. */
static void gives_up(int reconnects)
{
	ASK(&p, "seal_failed x", "0");
	ck_assert(reconnects || by_successor());
	ASK(&p, "gone 0", "0");
	ASK(&p, "gone 1", "0");
}

enum { CLOSED, SILENT, RESUMED, S_GONE, GARBAGE, WRONG_NUMBER, NOT_SENT, BATCH, EARLY_TAKING, CASES };

/* NULL: the attempt has ended. */
static const char *const what_fails[CASES] = {
	[CLOSED] = "the successor has gone",
	[GARBAGE] = "the successor sent what is not the protocol",
	[WRONG_NUMBER] = "the successor answered what was not asked",
	[NOT_SENT] = "the successor says that it has connections that were not sent",
	[BATCH] = "the successor sent what only the incumbent may send, or too early",
	[EARLY_TAKING] = "the successor sent what only the incumbent may send, or too early",
};

static void fail_somehow(int what)
{
	const uint64_t size = 0;
	const struct span name = { "", 0 };
	struct msg m = { .type = MSG_batch };

	switch (what) {
	case CLOSED: chan_close(&t); break;
	case SILENT: break;
	case RESUMED: stage_simple(&p, MSG_resume, 1); break;
	case S_GONE: chan_close(&p.c); break;
	case GARBAGE: ck_assert_int_eq(write(t.fd, "GET / HTTP/1.1\r\n", 16), 16); break;
	case WRONG_NUMBER: answer(2, 0); break;
	case NOT_SENT: answer(1, 4); break;
	case BATCH:
		m.batch.batch = 1;
		m.batch.names = (struct texts){ .n = 1, .v = &name };
		m.batch.sizes = (struct uints){ .n = 1, .v = &size };
		ck_assert_int_eq(chan_send(&t, &m, &t.fd, 1), 0);
		break;
	case EARLY_TAKING: simple(MSG_taking); break;
	case CASES: break;
	}
}

START_TEST(fails_in_the_seal)
{
	char error[120] = "the attempt has ended, and the successor had not answered: handoff_seal_failed, and serve";

	if (what_fails[_i])
		snprintf(error, sizeof error, "connections cannot be moved: %s", what_fails[_i]);
	if (_i == SILENT)
		stage_timers.deadline = 4000;   /* of the incumbent, from Prepare on */
	sealing(2, 1000);
	ASK(&p, "give 0 2", "1");
	puppet_say(&p, "give_end");
	hear(MSG_batch);
	fail_somehow(_i);
	ck_assert_str_eq(puppet_heard(&p), what_fails[_i] ? "-32" : "-125");
	ASK(&p, "error", error);
	gives_up(_i == S_GONE);
	puppet_end(&p);
}
END_TEST

/* A descriptor that the incumbent has closed is its own affair. */
START_TEST(given_and_closed)
{
	sealing(1, 1000);
	ASK(&p, "give 0 1 fd=1000000", "0");
	ASK(&p, "give_end", "-32");
	ASK(&p, "error", "connections cannot be moved: Bad file descriptor");
	ASK(&p, "seal_failed x", "0");
	ck_assert(!by_successor());
	puppet_end(&p);
}
END_TEST

#define FEW 5            /* descriptors: who only polls needs no more */
#define SOMEBODY 61004

/* More descriptors of that user are on their way than FEW; returns where they arrive. */
static int in_flight(uid_t user)
{
	struct msg m = { .type = MSG_hello_ack };
	struct chan c;
	int sv[2], status;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	MSG_SET(&m, hello_ack, transfer, 0);
	if ((pid = fork()) == 0) {
		if (setresuid(user, user, user))
			_exit(1);
		chan_init(&c, sv[1]);
		for (unsigned i = 0; i < 2 * FEW; i++)
			if (chan_send(&c, &m, &sv[1], 1))
				_exit(2);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	close(sv[1]);
	return sv[0];
}

/* The same for a batch that has to wait, and then meets the limit on open files. */
START_TEST(too_many_on_their_way)
{
	const struct rlimit few = { FEW, FEW };
	static char bytes[4096];
	int kept, end;

	if (geteuid()) {
		printf("skipped: too_many_on_their_way: needs root, whom that limit does not meet\n");
		return;
	}
	end = open_transfer();
	while (send(end, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	sealing_with(MOVE_BATCH + 1, 1000, end);
	ck_assert_str_eq(puppet_ask(&p, "give 0 %u", MOVE_BATCH + 1), "64");   /* the first batch is queued */
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &few, NULL), 0);
	ck_assert_str_eq(puppet_ask(&p, "user %d", SOMEBODY), "0");
	kept = in_flight(SOMEBODY);
	while (recv(t.fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	ASK(&p, "give_end", "-32");
	ASK(&p, "error", "connections cannot be moved: too many descriptors are on their way (raise limit-nofile)");
	ASK(&p, "seal_failed x", "0");
	ck_assert(!by_successor());
	puppet_kill(&p);
	close(kept);
}
END_TEST

/* Sealed, then told to serve again: what N has said decides. */
static const struct { const char *say; int taking, torn, garbage, lie; const char *gone; } ways_back[] = {
	{ "nothing", 0, 0, 0, 0, "0" },
	{ "Taking", 1, 0, 0, 0, "1" },
	{ "Taking, and garbage", 1, 0, 1, 0, "1" },
	{ "garbage: it may have been a Taking", 0, 0, 1, 0, "1" },
	{ "half a Taking: it died before it could touch any", 0, 1, 0, 0, "0" },
	{ "an Answer to nothing: who lies may touch them, too", 0, 0, 0, 1, "1" },
};

START_TEST(back_after_the_seal)
{
	uint8_t frame[64];
	struct msg m = { .type = MSG_taking };
	int n = msg_encode(&m, 1, frame, sizeof frame);

	two_given();
	if (ways_back[_i].taking)
		simple(MSG_taking);
	if (ways_back[_i].torn)
		ck_assert_int_eq(write(t.fd, frame, (size_t)n - 1), n - 1);
	if (ways_back[_i].lie)
		answer(3, 0);
	if (ways_back[_i].garbage)
		ck_assert_int_eq(write(t.fd, "\xff\xff\xff\xff\xff\xff", 6), 6);
	if (_i % 2 || ways_back[_i].torn)
		chan_close(&t);   /* or a helper of the dead has it still */
	stage_simple(&p, MSG_resume, 1);
	ASK(&p, "loop 30000", "1 resume reopen=1*");
	ASK(&p, "gone 0", ways_back[_i].gone);
	ASK(&p, "gone 1", "0");   /* never was N's */
	ASK(&p, "resumed", "0");
	stage_get(&p, MSG_status);
	ASK(&p, "gone 0", ways_back[_i].gone);
	puppet_end(&p);
}
END_TEST

/* An incumbent that serves again keeps nothing of it, and the next attempt begins anew. */
START_TEST(nothing_is_kept)
{
	int fds;

	scene_serve(&p, "moves");
	ASK(&p, "conn 2", "2");
	fds = atoi(puppet_ask(&p, "fds"));
	for (int i = 1; i < 4; i++) {
		stage_prepare_with(&p, i, open_transfer(), 100);
		ASK(&p, "loop 30000", "1 drain*");
		ASK(&p, "drained open=3", "0");
		stage_get(&p, MSG_drained);
		if (i > 1) {
			stage_simple(&p, MSG_seal_request, i);
			ASK(&p, "loop 30000", "1 seal*");
			ASK(&p, "give 0 2", "1");
			puppet_say(&p, "give_end");
			hear(MSG_batch);
			answer(1, 3);
			hear(MSG_end);
			answer(2, 0);
			ck_assert_str_eq(puppet_heard(&p), "0");
		}
		if (i == 3) {
			ASK(&p, "sealed", "0");
			stage_get(&p, MSG_seal_complete);
		}
		stage_simple(&p, MSG_resume, i);
		if (i == 2) {
			ASK(&p, "loop 1000", "0");   /* sealing: the daemon's own answer comes first */
			ASK(&p, "seal_failed x", "0");
		} else {
			ASK(&p, "loop 30000", "1 resume*");
			ASK(&p, "resumed", "0");
		}
		stage_get(&p, MSG_status);
		ck_assert_int_eq(atoi(puppet_ask(&p, "fds")), fds);
		chan_close(&t);
	}
	ASK(&p, "fork", "4");   /* the two pairs, and nothing of the library's */
	puppet_end(&p);
}
END_TEST

START_TEST(a_worker_has_nothing_of_it)
{
	sealing(2, 200000);
	ck_assert_str_eq(puppet_ask(&p, "give 0 2 size=%u", MOVE_INLINE + 1), "1");
	ASK(&p, "fork", "4");
	puppet_kill(&p);
}
END_TEST

/* ------------------------------------------------------------- the successor --- */

static int pairs[64][2];

/* A puppet that waits for its turn, with the end of a transfer channel. */
static void waiting(const char *options, uint64_t limit)
{
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s moves %s", stage_dir, options), "0");
	puppet_say(&p, "begin");
	ck_assert_uint_eq(stage_get(&p, MSG_hello)->hello.capabilities, CAP_CONNECTIONS);
	stage_ack_with(&p, 1, open_transfer(), limit);
}

/* Sends n connections, whose states are "a", "b", ...; their clients' ends are in pairs[][1]. */
static void batch(uint32_t number, unsigned n)
{
	uint64_t size[64];
	struct span name[64];
	char states[64];
	int fds[64] = { -1 };
	struct msg m = { .type = MSG_batch };

	for (unsigned i = 0; i < n; i++) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
		fds[i] = pairs[i][0];
		size[i] = 1;
		name[i] = SPAN("resp");
		states[i] = (char)('a' + i);
	}
	m.batch.batch = number;
	m.batch.names = (struct texts){ .n = n, .v = name };
	m.batch.sizes = (struct uints){ .n = n, .v = size };
	m.batch.states = (struct span){ states, n };
	ck_assert_int_eq(chan_send(&t, &m, fds, n), 0);
	for (unsigned i = 0; i < n; i++)
		close(pairs[i][0]);
}

static void close_pairs(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(pairs[i][1]);
}

static void end(uint32_t number, uint32_t connections)
{
	struct msg m = { .type = MSG_end };

	m.end.batch = number;
	m.end.connections = connections;
	ck_assert_int_eq(chan_send(&t, &m, NULL, 0), 0);
}

/* The client's end: 1 something came, 0 the end, -EAGAIN neither. */
static int at_client(unsigned i)
{
	char c;
	ssize_t n = recv(pairs[i][1], &c, 1, MSG_DONTWAIT);

	return n < 0 ? -errno : (int)n;
}

START_TEST(taken_and_committed)
{
	waiting("", 100);
	batch(1, 2);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	ASK(&p, "begin", "-11");   /* until all are taken */
	ASK(&p, "receive", "1 name=resp size=1 state=a");
	ASK(&p, "receive", "1 name=resp size=1 state=b");
	hear_nothing();
	ASK(&p, "receive", "0");
	ck_assert(hear(MSG_answer)->answer.batch == 1 && got.answer.kept == 3);
	puppet_say(&p, "begin");
	end(2, 2);
	ck_assert(hear(MSG_answer)->answer.batch == 2 && got.answer.kept == 0);
	stage_begin(&p, 1, 41);
	ck_assert_msg(!strncmp(puppet_heard(&p), "0 sealed=1 ", 11), "%s", p.line);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	hear_nothing();
	stage_simple(&p, MSG_commit, 1);
	ck_assert_str_eq(puppet_heard(&p), "0");
	stage_get(&p, MSG_status);
	hear(MSG_taking);
	ASK(&p, "touch", "1");
	ck_assert_int_eq(at_client(1), 1);
	chan_close(&t);
	ASK(&p, "poll 0", "0");    /* its end wakes nobody */
	ASK(&p, "receive", "0");
	stage_final(&p);
	ASK(&p, "loop 30000", "1 final*");
	close_pairs(2);
	puppet_end(&p);
}
END_TEST

/* The descriptor table grows in the warm-up: later, each doubling would wait for RCU. */
START_TEST(room_is_made_in_the_warm_up)
{
	struct rlimit r = { 3000, 3000 };
	char path[40], line[200];
	int room = 0;

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s moves nonblock", stage_dir), "0");
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &r, NULL), 0);
	ASK(&p, "begin", "-11");
	stage_get(&p, MSG_hello);
	stage_ack_with(&p, 1, open_transfer(), 100);
	ASK(&p, "poll 20000", "1");
	ASK(&p, "begin", "-11");
	snprintf(path, sizeof path, "/proc/%d/status", (int)p.pid);
	FILE *f = fopen(path, "re");
	while (fgets(line, sizeof line, f))
		sscanf(line, "FDSize: %d", &room);
	fclose(f);
	ck_assert_int_ge(room, 3000);
	puppet_kill(&p);
}
END_TEST

/* A daemon that waits for events alone learns that connections wait, once for all of them. */
START_TEST(events_tell_of_them)
{
	waiting("nonblock", 100);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	for (uint32_t n = 1; n <= 2; n++) {
		batch(n, 1);
		ASK(&p, "loop 20000", "1 begin*");
		ASK(&p, "next", "0");
		ASK(&p, "begin", "-11");
		ASK(&p, "receive", "1*");
		ASK(&p, "receive", "0");
		hear(MSG_answer);
		ASK(&p, "poll 0", "0");
		close_pairs(1);
	}
	end(3, 2);
	stage_begin(&p, 1, 41);
	ASK(&p, "loop 20000", "1 begin*");
	hear(MSG_answer);
	ASK(&p, "begin", "0 sealed=1*");
	ASK(&p, "next", "0");
	puppet_kill(&p);
}
END_TEST

/* A supervisor that acknowledges twice: the first channel is closed. */
START_TEST(a_second_channel)
{
	char c;
	struct chan first;

	waiting("nonblock", 100);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	first = t;
	stage_ack_with(&p, 1, open_transfer(), 100);
	batch(1, 1);
	ASK(&p, "loop 20000", "1 begin*");
	ASK(&p, "receive", "1*");
	ck_assert_int_eq(recv(first.fd, &c, 1, MSG_DONTWAIT), 0);
	chan_close(&first);
	close_pairs(1);
	puppet_kill(&p);
}
END_TEST

/* Rejects one of three: it is closed here, and lives on with the incumbent. */
START_TEST(one_is_not_wanted)
{
	int copy;

	waiting("nonblock", 100);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	batch(1, 3);
	copy = dup(pairs[1][1]);
	do {
		ASK(&p, "poll 20000", "1");
		ASK(&p, "begin", "-11");
	} while (!strcmp(puppet_ask(&p, "receive"), "0"));
	ck_assert_str_eq(p.line, "1 name=resp size=1 state=a");
	ASK(&p, "receive", "1 name=resp size=1 state=b");
	ASK(&p, "receive size=8", "-22");
	ASK(&p, "error", "handoff_receive: without ret->size");
	ASK(&p, "reject", "0");
	ASK(&p, "reject", "-22");
	ASK(&p, "error", "handoff_reject: only what handoff_receive gave out last");
	ASK(&p, "receive", "1 name=resp size=1 state=c");
	ASK(&p, "receive", "0");
	ck_assert_uint_eq(hear(MSG_answer)->answer.kept, 5);
	ck_assert_int_eq(at_client(1), 0);
	ck_assert_int_eq(at_client(0), -EAGAIN);
	ASK(&p, "reject", "-22");
	close(copy);
	close_pairs(3);
	puppet_kill(&p);
}
END_TEST

/* What is no connection stays where it is; a memfd must be what it was said to be. */
START_TEST(no_connections)
{
	const uint64_t size[6] = { 0, 0, 0, 0, MOVE_INLINE + 1, MOVE_INLINE + 1 };
	const struct sockaddr_in any = { .sin_family = AF_INET };
	struct span name[6] = { { "", 0 }, { "", 0 }, { "", 0 }, { "", 0 }, { "", 0 }, { "", 0 } };
	struct msg m = { .type = MSG_batch };
	int fds[8], sv[2];

	waiting("", 1u << 20);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fds[1], (const struct sockaddr *)&any, sizeof any), 0);
	ck_assert_int_eq(listen(fds[1], 1), 0);
	fds[2] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	fds[3] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	fds[4] = sv[0];
	fds[5] = sv[1];
	fds[6] = memfd_create("not sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[7] = memfd_create("too short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(ftruncate(fds[6], MOVE_INLINE + 1), 0);
	ck_assert_int_eq(fcntl(fds[7], F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK), 0);
	m.batch.batch = 1;
	m.batch.names = (struct texts){ .n = 6, .v = name };
	m.batch.sizes = (struct uints){ .n = 6, .v = size };
	ck_assert_int_eq(chan_send(&t, &m, fds, 8), 0);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	ASK(&p, "receive", "0");
	ck_assert_uint_eq(hear(MSG_answer)->answer.kept, 0);
	for (unsigned i = 0; i < 8; i++)
		close(fds[i]);
	puppet_kill(&p);
}
END_TEST

START_TEST(large_state_is_read)
{
	const uint64_t size = 2 * MOVE_INLINE, small = 5;
	const uint64_t sizes[2] = { size, small };
	struct span name[2] = { { "x", 1 }, { "y", 1 } };
	struct msg m = { .type = MSG_batch };
	int fds[3], sv[2];

	waiting("", 1u << 20);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	fds[0] = sv[0];
	fds[1] = sv[1];
	fds[2] = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(ftruncate(fds[2], (off_t)size), 0);
	ck_assert_int_eq(pwrite(fds[2], "beside", 6, 0), 6);
	ck_assert_int_eq(fcntl(fds[2], F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK), 0);
	m.batch.batch = 1;
	m.batch.names = (struct texts){ .n = 2, .v = name };
	m.batch.sizes = (struct uints){ .n = 2, .v = sizes };
	m.batch.states = SPAN("INNER");
	ck_assert_int_eq(chan_send(&t, &m, fds, 3), 0);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	ASK(&p, "receive", "1 name=x size=131072 state=beside");
	ASK(&p, "receive", "1 name=y size=5 state=INNER");
	ASK(&p, "receive", "0");
	ck_assert_uint_eq(hear(MSG_answer)->answer.kept, 3);
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
	puppet_kill(&p);
}
END_TEST

/* It was sent what no incumbent sends, or not all: it ends, and the incumbent serves on. */
static const struct { const char *what, *why; } bad[] = {
	{ "an empty batch", "an empty batch" },
	{ "the second batch first", "a batch is missing, or came twice" },
	{ "an End that counts more", "the End counts other connections than have come" },
	{ "Taking", "what only a successor may send, or no message of this channel" },
	{ "an Answer", "what only a successor may send, or no message of this channel" },
	{ "garbage", "a frame length that no frame can have (not this protocol?)" },
	{ "a second End", "more behind the End" },
	{ "Begin without End", "it has sealed, and not said that all were sent" },
	{ "two names and one size", "a batch with another number of states than of names" },
	{ "a name of 65 bytes", "a connection's name is too long" },
	{ "a size of two and one byte", "a batch's states are not as long as it says" },
};

/* Two connections, and not what belongs to them. */
static void wrong_batch(unsigned sizes, const char *name_of_first, uint64_t size_of_first)
{
	const uint64_t size[2] = { size_of_first, 0 };
	const struct span name[2] = { SPAN(name_of_first), SPAN("") };
	struct msg m = { .type = MSG_batch };
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	m.batch.batch = 1;
	m.batch.names = (struct texts){ .n = 2, .v = name };
	m.batch.sizes = (struct uints){ .n = sizes, .v = size };
	m.batch.states = SPAN("x");
	ck_assert_int_eq(chan_send(&t, &m, sv, 2), 0);
	close(sv[0]);
	close(sv[1]);
}

static void send_bad(int what)
{
	switch (what) {
	case 0: batch(1, 0); break;
	case 1: batch(2, 1); break;
	case 2: end(1, 1); break;
	case 3: simple(MSG_taking); break;
	case 4: answer(1, 0); break;
	case 5: ck_assert_int_eq(write(t.fd, "\xff\xff\xff\xff\xff\xff", 6), 6); break;
	case 6: end(1, 0); end(2, 0); break;
	case 8: wrong_batch(1, "a", 1); break;
	case 9: wrong_batch(2, "12345678901234567890123456789012345678901234567890123456789012345", 1); break;
	case 10: wrong_batch(2, "a", 2); break;
	default: batch(1, 1); break;
	}
}

START_TEST(ends_at)
{
	char line[200];

	waiting("", 100);
	send_bad(_i);
	if (_i == 7) {
		ck_assert_str_eq(puppet_heard(&p), "-11");
		ASK(&p, "receive", "1*");
		ASK(&p, "receive", "0");
		hear(MSG_answer);
		puppet_say(&p, "begin");
		stage_begin(&p, 1, 41);
	}
	ck_assert_str_eq(puppet_heard(&p), "-125");
	snprintf(line, sizeof line, "the incumbent's connections: %s", bad[_i].why);
	ASK(&p, "error", line);
	ASK(&p, "receive", "-125");
	stage_eof(&p);
	close_pairs(_i == 1 || _i == 7);
	puppet_end(&p);
}
END_TEST

/* O dies in the middle: what it had sent whole lives on, and is read before Ready. */
START_TEST(the_incumbent_dies)
{
	uint8_t half[8] = { 40, 0, 0, 0, 1, 0, 0x82, 0x18 };

	waiting("", 100);
	batch(1, 1);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	ASK(&p, "receive", "1 name=resp size=1 state=a");
	ASK(&p, "receive", "0");
	hear(MSG_answer);
	close_pairs(1);
	puppet_say(&p, "begin");
	batch(2, 2);
	if (_i)
		ck_assert_int_eq(write(t.fd, half, sizeof half), sizeof half);
	ck_assert_str_eq(puppet_heard(&p), "-11");
	if (_i < 2)
		chan_close(&t);   /* else a helper of the dead keeps it open */
	stage_begin(&p, 1, -1);
	ASK(&p, "receive", "1 name=resp size=1 state=a");
	ASK(&p, "receive", "1 name=resp size=1 state=b");
	ASK(&p, "receive", "0");
	ASK(&p, "begin", "0 sealed=0*");
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 1);
	ck_assert_str_eq(puppet_heard(&p), "0");
	stage_get(&p, MSG_status);
	ASK(&p, "touch", "1");
	ck_assert_int_eq(at_client(1), 1);
	close_pairs(2);
	puppet_end(&p);
}
END_TEST

/* A full socket to an incumbent that reads nothing: it could go on with what N would answer. */
START_TEST(taking_cannot_be_said)
{
	waiting("", 1000);
	for (uint32_t n = 1; n <= 600; n++) {
		struct pollfd f = { .fd = t.fd, .events = POLLOUT };
		batch(n, 1);
		while (chan_flush(&t) > 0)
			poll(&f, 1, LIMIT_MS);
		close_pairs(1);
		ck_assert_str_eq(puppet_heard(&p), "-11");
		ASK(&p, "receive", "1*");
		ASK(&p, "reject", "0");
		ASK(&p, "receive", "0");
		puppet_say(&p, "begin");
	}
	end(601, 600);
	stage_begin(&p, 1, 41);
	ck_assert_msg(!strncmp(puppet_heard(&p), "0 sealed=1 ", 11), "%s", p.line);
	puppet_say(&p, "ready");
	stage_get(&p, MSG_ready);
	stage_simple(&p, MSG_commit, 1);
	ck_assert_str_eq(puppet_heard(&p), "-125");
	ASK(&p, "error", "the incumbent's connections: it could not be told that they are taken");
	puppet_end(&p);
}
END_TEST

/* No room for what comes: in the warm-up for the channel's end; else for the connections. */
START_TEST(no_descriptors)
{
	struct rlimit r, old;

	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s moves nonblock", stage_dir), "0");
	ASK(&p, "begin", "-11");
	stage_get(&p, MSG_hello);
	if (_i) {
		stage_ack_with(&p, 1, open_transfer(), 100);
		ASK(&p, "poll 20000", "1");
		ASK(&p, "begin", "-11");   /* it has its end */
	}
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, NULL, &old), 0);
	r = old;
	r.rlim_cur = 4;   /* fewer than it has: no new one */
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &r, NULL), 0);
	if (!_i)
		stage_ack_with(&p, 1, open_transfer(), 100);
	else
		batch(1, 2);
	do
		ASK(&p, "poll 20000", "1");
	while (!strcmp(puppet_ask(&p, "begin"), "-11"));
	ck_assert_str_eq(p.line, "-125");
	stage_eof(&p);
	ck_assert_int_eq(prlimit(p.pid, RLIMIT_NOFILE, &old, NULL), 0);
	ck_assert(strstr(puppet_ask(&p, "error"), "descriptors were lost on the way"));
	close_pairs(_i ? 2 : 0);
	puppet_end(&p);
}
END_TEST

/* A daemon that does not move connections says so, and is sent none. */
START_TEST(without_the_flag)
{
	puppet_start(&p, "successor");
	ck_assert_str_eq(puppet_ask(&p, "open data=%s", stage_dir), "0");
	puppet_say(&p, "begin");
	ck_assert_uint_eq(stage_get(&p, MSG_hello)->hello.capabilities, 0);
	puppet_kill(&p);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

int main(void)
{
	const TTest *const tests[] = {
		given_and_committed, in_batches, waits_for_answers, large_states_lie_beside, too_much_stays,
		larger_than_a_file_may_be, those_who_stay_are_counted, events_tell_of_them, a_second_channel,
		misused, nothing_to_give, nothing_is_kept, a_worker_has_nothing_of_it, taken_and_committed,
		one_is_not_wanted, no_connections, large_state_is_read, taking_cannot_be_said,
		room_is_made_in_the_warm_up, without_the_flag, given_and_closed, too_many_on_their_way, given_too_late,
	};
	Suite *s = suite_create("moves");
	TCase *c = tcase_create("moves");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 120);
	for (int i = 0; i < COUNT(tests); i++)
		tcase_add_test(c, tests[i]);
	tcase_add_loop_test(c, fails_in_the_seal, 0, CASES);
	tcase_add_loop_test(c, back_after_the_seal, 0, COUNT(ways_back));
	tcase_add_loop_test(c, ends_at, 0, COUNT(bad));
	tcase_add_loop_test(c, the_incumbent_dies, 0, 3);
	tcase_add_loop_test(c, no_descriptors, 0, 2);
	suite_add_tcase(s, c);
	return suite_run(s);
}
