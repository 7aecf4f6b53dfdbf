/* Frames over sockets: their bounds, their descriptors, their ends, and bad input. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/chan.h"
#include "proto/move.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

static struct chan a, b;   /* a is tested, b is its peer */
static struct msg got;

static void setup(void)
{
	int sv[2];

	signal(SIGPIPE, SIG_DFL);   /* a send that raises it would end the test */
	leak_setup();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	chan_init(&a, sv[0]);
	chan_init(&b, sv[1]);
}

static void teardown(void)
{
	sys_fault = NULL;
	chan_close(&a);
	chan_close(&b);
	chan_close(&b);   /* a closed one is taken */
	leak_teardown();
}

static struct msg beat(uint64_t ms)
{
	struct msg m = { .type = MSG_heartbeat };

	m.heartbeat.ms = ms;
	return m;
}

/* Sockets with n names, "0", "1", ... */
static struct msg sockets(unsigned n)
{
	static char text[FRAME_MAX_FDS][12];
	static struct span names[FRAME_MAX_FDS];
	struct msg m = { .type = MSG_sockets };

	for (unsigned i = 0; i < n; i++) {
		snprintf(text[i], sizeof text[i], "%u", i);
		names[i] = SPAN(text[i]);
	}
	m.sockets.batch = m.sockets.of = 1;
	m.sockets.names = (struct texts){ .n = n, .v = names };
	return m;
}

static void raw(const void *p, size_t n)
{
	ck_assert_int_eq(send(b.fd, p, n, MSG_NOSIGNAL), n);
}

/* Bytes with descriptors that are all copies of one. */
static void raw_fds(const void *p, size_t n, unsigned nfds)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * 253)];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
	                    .msg_controllen = CMSG_SPACE(sizeof(int) * nfds) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
	for (unsigned i = 0; i < nfds; i++)
		memcpy(CMSG_DATA(h) + i * sizeof(int), &b.fd, sizeof(int));
	ck_assert_int_eq(sendmsg(b.fd, &m, MSG_NOSIGNAL), n);
}

static size_t encode(const struct msg *m, uint8_t *out, size_t size)
{
	int n = msg_encode(m, 1, out, size);

	ck_assert_int_gt(n, 0);
	return (size_t)n;
}

static void expect_bad(const char *line)
{
	ck_assert_int_eq(chan_recv(&a, &got), -EBADMSG);
	ck_assert_str_eq(a.error, line);
}

static void expect_beat(uint64_t ms)
{
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	ck_assert_int_eq(got.type, MSG_heartbeat);
	ck_assert_uint_eq(got.heartbeat.ms, ms);
	ck_assert_uint_eq(a.nfds, 0);
}

/* ---------------------------------------------------------------- bounds --- */

START_TEST(split_at_every_byte)
{
	uint8_t f[128];
	struct msg m = beat(1234567);
	size_t n = encode(&m, f, sizeof f);

	for (size_t i = 1; i < n; i++) {
		raw(f, i);
		ck_assert_int_eq(chan_recv(&a, &got), 0);
		ck_assert(chan_midframe(&a));
		raw(f + i, n - i);
		expect_beat(1234567);
		ck_assert(!chan_midframe(&a));
		ck_assert_int_eq(chan_recv(&a, &got), 0);
	}
}
END_TEST

START_TEST(one_byte_at_a_time)
{
	uint8_t f[16384];
	struct msg m = sockets(64);
	size_t n = encode(&m, f, sizeof f);

	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(chan_recv(&a, &got), 0);
		if (i == 7)
			raw_fds(f + i, 1, 64);
		else
			raw(f + i, 1);
	}
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	ck_assert_uint_eq(got.sockets.names.n, 64);
	ck_assert_uint_eq(a.nfds, 64);   /* not taken: closed with the next call */
}
END_TEST

START_TEST(many_in_one_write)
{
	uint8_t f[8192];
	size_t n = 0;

	for (uint64_t i = 0; i < 100; i++) {
		struct msg m = beat(i);
		n += encode(&m, f + n, sizeof f - n);
	}
	raw(f, n);
	for (uint64_t i = 0; i < 100; i++)
		expect_beat(i);
	ck_assert_int_eq(chan_recv(&a, &got), 0);
}
END_TEST

/* A byte of MSG_OOB, here each frame's last, is one like the others; limited or not. */
START_TEST(out_of_band)
{
	uint8_t f[64];
	struct msg m = beat(5);
	size_t n = encode(&m, f, sizeof f);

	if (_i)
		chan_limit(&a, 100);
	if (send(b.fd, f, n, MSG_OOB) < 0 && errno == EOPNOTSUPP)
		return;   /* no CONFIG_AF_UNIX_OOB */
	expect_beat(5);
	ck_assert_int_eq(send(b.fd, f, n, MSG_OOB), n);
	raw(f, n);
	shutdown(b.fd, SHUT_WR);
	expect_beat(5);
	expect_beat(5);
	ck_assert_int_eq(chan_recv(&a, &got), -ENODATA);
}
END_TEST

/* ----------------------------------------------------------- descriptors --- */

static void same_file(int x, int y)
{
	struct stat s, t;

	ck_assert_int_eq(fstat(x, &s), 0);
	ck_assert_int_eq(fstat(y, &t), 0);
	ck_assert_uint_eq(s.st_ino, t.st_ino);
	ck_assert_int_eq(fcntl(y, F_GETFD), FD_CLOEXEC);
}

/* They lie merged in the socket's buffer: plain, with descriptors, plain, with others. */
START_TEST(each_with_its_frame)
{
	int p[2], q[2], fds[FRAME_MAX_FDS];
	struct msg m = beat(1), s = sockets(2);

	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(q, O_CLOEXEC), 0);
	for (int round = 0; round < 3; round++) {
		ck_assert_int_eq(chan_send(&b, &m, NULL, 0), 0);
		ck_assert_int_eq(chan_send(&b, &s, p, 2), 0);
		ck_assert_int_eq(chan_send(&b, &s, q, 2), 0);
		ck_assert_int_eq(chan_send(&b, &m, NULL, 0), 0);
	}
	for (int round = 0; round < 3; round++) {
		expect_beat(1);
		for (int i = 0; i < 2; i++) {
			ck_assert_int_eq(chan_recv(&a, &got), 1);
			ck_assert_uint_eq(chan_take_fds(&a, fds), 2);
			for (int j = 0; j < 2; j++) {
				same_file(i ? q[j] : p[j], fds[j]);
				close(fds[j]);
			}
		}
		expect_beat(1);
	}
	for (int i = 0; i < 2; i++)
		close(p[i]), close(q[i]);
}
END_TEST

START_TEST(none_one_and_64)
{
	static const unsigned counts[] = { 0, 1, 63, 64 };
	int fds[FRAME_MAX_FDS];

	for (unsigned i = 0; i < 4; i++) {
		struct msg m = sockets(counts[i]);
		for (unsigned j = 0; j < counts[i]; j++)
			fds[j] = b.fd;
		ck_assert_int_eq(chan_send(&b, &m, fds, counts[i]), 0);
		ck_assert_int_eq(chan_recv(&a, &got), 1);
		ck_assert_uint_eq(a.nfds, counts[i]);
	}
	struct msg m = sockets(64);
	ck_assert_int_eq(chan_send(&b, &m, fds, 65), -EMSGSIZE);
	ck_assert_int_eq(chan_recv(&a, &got), 0);
}
END_TEST

static const struct { unsigned named, come; const char *line; } mismatch[] = {
	{ 0, 1, "Sockets: 1 descriptors came, 0 were announced" },
	{ 2, 1, "Sockets: 1 descriptors came, 2 were announced" },
	{ 1, 2, "Sockets: 2 descriptors came, 1 were announced" },
	{ 1, 0, "Sockets: 0 descriptors came, 1 were announced" },
	{ 64, 65, "more than 64 descriptors with a frame" },
	{ 64, 66, "more than 64 descriptors with a frame" },
	{ 64, 67, "more than 64 descriptors with a frame" },
	{ 64, 253, "more than 64 descriptors with a frame" },
};

START_TEST(another_number_than_announced)
{
	uint8_t f[16384];
	struct msg m = sockets(mismatch[_i].named);
	size_t n = encode(&m, f, sizeof f);

	if (mismatch[_i].come)
		raw_fds(f, n, mismatch[_i].come);
	else
		raw(f, n);
	expect_bad(mismatch[_i].line);
}
END_TEST

START_TEST(more_than_64_in_pieces)
{
	uint8_t f[16384];
	struct msg m = sockets(64);
	size_t n = encode(&m, f, sizeof f);

	raw_fds(f, 6, 40);
	raw_fds(f + 6, n - 6, 40);
	expect_bad("more than 64 descriptors with a frame");
}
END_TEST

START_TEST(with_a_message_that_has_none)
{
	uint8_t f[64];
	struct msg m = beat(1);

	raw_fds(f, encode(&m, f, sizeof f), 1);
	expect_bad("Heartbeat: 1 descriptors came, 0 were announced");
}
END_TEST

/* The ends of a transfer channel, and what a batch of connections announces. */
START_TEST(announced_by_a_key_or_by_sizes)
{
	static const uint64_t sizes[] = { 0, MOVE_INLINE, MOVE_INLINE + 1 };
	static char states[MOVE_INLINE];
	const struct span names[] = { SPAN("a"), SPAN("b"), SPAN("c") };
	const int fds[] = { b.fd, b.fd, b.fd, b.fd };
	struct msg m = { .type = MSG_hello_ack };

	for (unsigned n = 0; n <= 1; n++) {
		if (n)
			MSG_SET(&m, hello_ack, transfer, 0);
		ck_assert_int_eq(chan_send(&b, &m, fds, n), 0);
		ck_assert_int_eq(chan_recv(&a, &got), 1);
		ck_assert_uint_eq(a.nfds, n);
	}
	m = (struct msg){ .type = MSG_prepare };
	MSG_SET(&m, prepare, transfer, UINT64_MAX);
	ck_assert_int_eq(chan_send(&b, &m, fds, 1), 0);
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	m = (struct msg){ .type = MSG_batch };
	m.batch.names = (struct texts){ .n = 3, .v = names };
	m.batch.sizes = (struct uints){ .n = 3, .v = sizes };
	m.batch.states = (struct span){ states, sizeof states };
	ck_assert_int_eq(chan_send(&b, &m, fds, 4), 0);
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	ck_assert_uint_eq(a.nfds, 4);
	ck_assert_int_eq(chan_send(&b, &m, fds, 3), 0);
	expect_bad("Batch: 3 descriptors came, 4 were announced");
}
END_TEST

START_TEST(an_end_that_was_announced_and_did_not_come)
{
	struct msg m = { .type = MSG_hello_ack };

	MSG_SET(&m, hello_ack, transfer, 1);
	ck_assert_int_eq(chan_send(&b, &m, NULL, 0), 0);
	expect_bad("HelloAck: 0 descriptors came, 1 were announced");
}
END_TEST

START_TEST(table_full)
{
	struct msg m = sockets(4);
	int fds[4] = { b.fd, b.fd, b.fd, b.fd };
	struct rlimit was, limit;

	ck_assert_int_eq(chan_send(&b, &m, fds, 4), 0);
	getrlimit(RLIMIT_NOFILE, &was);
	limit = was;
	limit.rlim_cur = (rlim_t)(a.fd > b.fd ? a.fd : b.fd) + 3;   /* room for two */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	expect_bad("descriptors were lost on the way (too many, or the limit on open files)");
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
}
END_TEST

/* ------------------------------------------------------------------ ends --- */

START_TEST(end_at_each_byte)
{
	uint8_t f[64];
	struct msg m = beat(99);
	size_t n = encode(&m, f, sizeof f);

	for (size_t i = 0; i <= n; i++) {
		int sv[2];
		chan_close(&a);
		chan_close(&b);
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		chan_init(&a, sv[0]);
		chan_init(&b, sv[1]);
		if (i)
			raw(f, i);
		chan_close(&b);
		if (i == n)
			expect_beat(99);
		if (i > 0 && i < n)
			expect_bad("the stream ends inside a frame");
		else
			ck_assert_int_eq(chan_recv(&a, &got), -ENODATA);
	}
	chan_close(&a);
	ck_assert_int_eq(chan_recv(&a, &got), -ENODATA);
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -EPIPE);
}
END_TEST

/* The peer closes with data of ours unread: what it sent comes first, then ECONNRESET. */
START_TEST(reset_after_what_was_sent)
{
	struct msg m = beat(7), n = beat(8);

	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	ck_assert_int_eq(chan_send(&b, &n, NULL, 0), 0);
	chan_close(&b);
	expect_beat(8);
	ck_assert_int_eq(chan_recv(&a, &got), -ECONNRESET);
}
END_TEST

START_TEST(pipe_broken_and_still_read)
{
	struct msg m = beat(7), n = beat(8);

	ck_assert_int_eq(chan_send(&b, &n, NULL, 0), 0);
	chan_close(&b);
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -EPIPE);
	expect_beat(8);
	ck_assert_int_eq(chan_recv(&a, &got), -ENODATA);
}
END_TEST

/* --------------------------------------------------------------- writing --- */

/* Queues until the limit, no byte is lost before it, and the queue goes out in order. */
START_TEST(peer_that_does_not_read)
{
	static char text[1000];
	struct msg m = { .type = MSG_abort };
	int e, n = 0, r = 0;

	memset(text, 'x', sizeof text);
	m.abort.why = (struct span){ text, sizeof text };
	for (;; n++) {
		snprintf(text, sizeof text, "%07d", n);
		text[7] = 'x';
		if ((e = chan_send(&a, &m, NULL, 0)))
			break;
	}
	ck_assert_int_eq(e, -ENOBUFS);
	ck_assert(chan_pending(&a));
	ck_assert_uint_le(a.out_bytes, CHAN_OUT_MAX);
	ck_assert_uint_gt(a.out_bytes, CHAN_OUT_MAX - 1100);
	ck_assert_int_eq(chan_flush(&a), 1);
	while (r < n) {
		e = chan_recv(&b, &got);
		if (e == 0) {
			chan_flush(&a);
			continue;
		}
		ck_assert_int_eq(e, 1);
		ck_assert_int_eq(atoi(got.abort.why.p), r);
		r++;
	}
	ck_assert_int_eq(chan_flush(&a), 0);
	ck_assert(!chan_pending(&a));
	ck_assert_uint_eq(a.out_bytes, 0);
	ck_assert_int_eq(chan_recv(&b, &got), 0);
}
END_TEST

START_TEST(queued_with_descriptors)
{
	struct msg m = beat(5), s = sockets(2);
	int p[2], fds[FRAME_MAX_FDS];

	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	fault_set(SYS_C_SENDMSG, 0, -EAGAIN);
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	ck_assert_int_eq(chan_send(&a, &s, p, 2), 0);
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	ck_assert_int_eq(fault_off(), 1);   /* behind a queue nothing is sent out of turn */
	close(p[0]);   /* the queue has copies */
	close(p[1]);
	ck_assert_int_eq(chan_flush(&a), 0);
	ck_assert_int_eq(chan_recv(&b, &got), 1);
	ck_assert_int_eq(chan_recv(&b, &got), 1);
	ck_assert_uint_eq(chan_take_fds(&b, fds), 2);
	ck_assert_int_eq(write(fds[1], "z", 1), 1);
	ck_assert_int_eq(read(fds[0], &(char){ 0 }, 1), 1);
	close(fds[0]);
	close(fds[1]);
	ck_assert_int_eq(chan_recv(&b, &got), 1);
}
END_TEST

START_TEST(closed_with_a_queue)
{
	struct msg s = sockets(1);

	fault_set(SYS_C_SENDMSG, 0, -EAGAIN);
	ck_assert_int_eq(chan_send(&a, &s, &b.fd, 1), 0);
	ck_assert(chan_pending(&a));
}
END_TEST

START_TEST(no_descriptor_for_the_queue)
{
	struct msg s = sockets(1), m = beat(3);

	fault_set(SYS_C_SENDMSG, 0, -EAGAIN);
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	fault_set(SYS_C_DUP, 0, -EMFILE);
	ck_assert_int_eq(chan_send(&a, &s, &b.fd, 1), -EMFILE);
	fault_off();
	ck_assert_int_eq(chan_flush(&a), 0);
	ck_assert_int_eq(chan_recv(&b, &got), 1);   /* the stream is whole */
	ck_assert_int_eq(chan_recv(&b, &got), 0);
}
END_TEST

START_TEST(send_fails)
{
	static const int errors[] = { -ETOOMANYREFS, -EMFILE, -EPIPE };
	struct msg s = sockets(1), m = beat(3);

	for (unsigned i = 0; i < 3; i++) {
		fault_set(SYS_C_SENDMSG, 0, errors[i]);
		ck_assert_int_eq(chan_send(&a, &s, &b.fd, 1), errors[i]);
		fault_off();
		ck_assert(!chan_pending(&a));
	}
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	ck_assert_int_eq(chan_recv(&b, &got), 1);
}
END_TEST

/* The kernel has none now: the frame waits, with its descriptors, and nothing is lost. */
START_TEST(no_memory_in_the_kernel)
{
	static const int errors[] = { -ENOBUFS, -ENOMEM };
	struct msg s = sockets(1);
	int fds[FRAME_MAX_FDS];

	for (unsigned i = 0; i < 2; i++) {
		fault_set(SYS_C_SENDMSG, 0, errors[i]);
		ck_assert_int_eq(chan_send(&a, &s, &b.fd, 1), 0);
		ck_assert(chan_pending(&a));
		fault_set(SYS_C_SENDMSG, 0, errors[i]);
		ck_assert_int_eq(chan_flush(&a), 1);
		fault_off();
		ck_assert_int_eq(chan_flush(&a), 0);
		ck_assert_int_eq(chan_recv(&b, &got), 1);
		ck_assert_uint_eq(chan_take_fds(&b, fds), 1);
		close(fds[0]);
	}
}
END_TEST

static int cut_hook(enum sys_call call)
{
	return call == SYS_C_SENDMSG ? 1 : 0;
}

/* A byte of a frame has left, and there is no room for the rest: no garbage follows it. */
START_TEST(torn)
{
	struct msg m = beat(3);

	a.out_bytes = CHAN_OUT_MAX;
	sys_fault = cut_hook;
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -ENOBUFS);
	sys_fault = NULL;
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -EPIPE);
	ck_assert_int_eq(chan_recv(&b, &got), -EBADMSG);
}
END_TEST

START_TEST(ended)
{
	struct msg m = beat(3), n = beat(8);

	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	ck_assert_int_eq(chan_send(&b, &n, NULL, 0), 0);
	chan_end(&a);
	expect_beat(8);   /* what has come is read, on both sides */
	ck_assert_int_eq(chan_recv(&a, &got), -ENODATA);
	ck_assert_int_eq(chan_recv(&b, &got), 1);
	ck_assert_int_eq(chan_recv(&b, &got), -ENODATA);
	ck_assert_int_eq(chan_send(&b, &n, NULL, 0), -EPIPE);
	chan_close(&a);
	chan_end(&a);     /* takes a closed one */
}
END_TEST

static unsigned dice;

/* A third of the transfers does not happen, the rest is short. */
static int short_hook(enum sys_call call)
{
	if (call != SYS_C_SENDMSG && call != SYS_C_RECVMSG)
		return 0;
	dice = dice * 1103515245 + 12345;
	return (dice >> 16) % 3 ? (int)(1 + (dice >> 20) % 40) : -EAGAIN;
}

/* Short transfers and EAGAIN at all places: frames and descriptors stay together. */
START_TEST(short_transfers)
{
	struct msg s = sockets(3), m = beat(11);
	int fds[3] = { b.fd, b.fd, b.fd }, n = 0;

	dice = (unsigned)_i;
	sys_fault = short_hook;
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(chan_send(&a, &s, fds, 3), 0);
		ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	}
	for (int tries = 0; n < 20; tries++) {
		ck_assert_int_lt(tries, 100000);
		ck_assert_int_ge(chan_flush(&a), 0);
		int e = chan_recv(&b, &got);
		ck_assert_int_ge(e, 0);
		if (!e)
			continue;
		ck_assert_int_eq(got.type, n % 2 ? MSG_heartbeat : MSG_sockets);
		ck_assert_uint_eq(b.nfds, n % 2 ? 0 : 3);
		n++;
	}
	sys_fault = NULL;
	ck_assert_int_eq(chan_flush(&a), 0);
	ck_assert_int_eq(chan_recv(&b, &got), 0);
}
END_TEST

START_TEST(read_errors_pass)
{
	static const int errors[] = { -ENOMEM, -EMFILE, -ECONNRESET };
	struct msg m = beat(3);

	ck_assert_int_eq(chan_send(&b, &m, NULL, 0), 0);
	for (int at = 0; at < 2; at++)   /* of the header, of the body */
		for (unsigned i = 0; i < 3; i++) {
			fault_set(SYS_C_RECVMSG, i ? 0 : at, errors[i]);
			ck_assert_int_eq(chan_recv(&a, &got), errors[i]);
			fault_off();
		}
	expect_beat(3);
}
END_TEST

START_TEST(too_large_to_send)
{
	static char text[2000];
	struct msg m = { .type = MSG_abort };

	memset(text, 'x', sizeof text);
	m.abort.why = (struct span){ text, sizeof text };
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -EMSGSIZE);
	m.type = (enum msg_type)200;
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), -EMSGSIZE);
	ck_assert_int_eq(chan_recv(&b, &got), 0);
}
END_TEST

/* The largest message there is goes through, queue and all. */
START_TEST(largest)
{
	static uint64_t rev[1024];
	static char text[64][1024];
	struct span names[64];
	struct msg m = { .type = MSG_ready };
	int e;

	for (int i = 0; i < 64; i++) {
		memset(text[i], 'n', sizeof text[i]);
		names[i] = (struct span){ text[i], 800 };
	}
	memset(rev, 0xff, sizeof rev);
	m.ready.listening = (struct texts){ .n = 64, .v = names };
	m.ready.revisions = (struct uints){ .n = 1024, .v = rev };
	ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	while (!(e = chan_recv(&b, &got)))
		chan_flush(&a);
	ck_assert_int_eq(e, 1);
	ck_assert_uint_eq(got.ready.revisions.n, 1024);
	ck_assert_uint_eq(got.ready.listening.n, 64);
}
END_TEST

/* ------------------------------------------------------------- bad input --- */

#define BAD(bytes, text) { bytes, sizeof bytes - 1, text }
#define NEST "\x81\x81\x81\x81\x81"
#define H(n) n "\0\0\0\1\0"   /* header of a frame whose length field says n */

static const struct { const char *p; size_t n; const char *line; } frames[] = {
	BAD("\0\0\0\0\1\0", "a frame length that no frame can have (not this protocol?)"),
	BAD("\1\0\0\0\1\0", "a frame length that no frame can have (not this protocol?)"),
	BAD("\2\0\0\0\1\0", "a frame length that no frame can have (not this protocol?)"),
	BAD("\1\0\x10\0\1\0", "a frame length that no frame can have (not this protocol?)"),
	BAD("\xff\xff\xff\xff\1\0", "a frame length that no frame can have (not this protocol?)"),
	BAD("GET / HTTP/1.1\r\n", "a frame length that no frame can have (not this protocol?)"),
	BAD("\0\0\x10\0\1\0", "a frame longer than any message may be"),
	BAD("\5\0\0\0\0\0", "protocol version 0 in a frame, known are 1 to 1"),
	BAD("\5\0\0\0\2\0", "protocol version 2 in a frame, known are 1 to 1"),
	BAD("\5\0\0\0\xff\xff", "protocol version 65535 in a frame, known are 1 to 1"),
	/* [14, {1: 7}] is 82 0e a1 01 07 */
	BAD(H("\7") "\x82\x0e\xa1\1\7", NULL),
	BAD(H("\10") "\x82\x0e\xa1\1\7\0", "Heartbeat: bytes behind the end of the message"),
	BAD(H("\10") "\x9f\x0e\xa1\1\7\xff", "message: indefinite length"),
	BAD(H("\10") "\x82\x0e\xbf\1\7\xff", "Heartbeat: indefinite length"),
	BAD(H("\11") "\x82\x0e\xa2\1\7\1\7", "Heartbeat: key: keys do not ascend"),
	BAD(H("\11") "\x82\x0e\xa2\2\7\1\7", "Heartbeat: key: keys do not ascend"),
	BAD(H("\11") "\x82\x0e\xa2\1\7\2\7", NULL),           /* an unknown key is no fault */
	BAD(H("\10") "\x82\x0e\xa1\1\x18\7",
	    "Heartbeat: monotonic-ms: integer not in its shortest form"),
	BAD(H("\10") "\x82\x18\x0e\xa1\1\7", "message: integer not in its shortest form"),
	BAD(H("\10") "\x82\x0e\xa1\x18\1\7", "Heartbeat: key: integer not in its shortest form"),
	BAD(H("\7") "\x82\x0e\xa1\1\x60", "Heartbeat: monotonic-ms: wrong type"),
	BAD(H("\5") "\x82\x0e\xa0", "Heartbeat: monotonic-ms: missing"),
	BAD(H("\7") "\x82\x0d\xa1\1\7", "ResumeAfterAbort: reason: wrong type"),
	BAD(H("\7") "\x82\x1f\xa1\1\7", "message: indefinite length"),
	BAD(H("\10") "\x82\x18\x60\xa1\1\7", "unknown message type 96"),
	BAD(H("\10") "\x82\x18\x82\xa1\1\7", "LockOwner: start-time: missing"),
	BAD(H("\x0b") "\x82\x0c\xa1\1\x64" "ab\xff\xfe", "Abort: reason: text that is not UTF-8"),
	BAD(H("\x0f") "\x82\x0c\xa1\1\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
	    "Abort: reason: a length beyond the end of the frame"),
	BAD(H("\x0f") "\x82\x07\xa1\1\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
	    "SealComplete: revisions: a length beyond the end of the frame"),
	BAD(H("\x0d") "\x82\x0e\xa2\1\7\5\x9a\xff\xff\xff\xff",
	    "Heartbeat: unknown key: a length beyond the end of the frame"),
	BAD(H("\x1d") "\x82\x0e\xa2\1\7\5" NEST NEST NEST NEST "\0",
	    "Heartbeat: unknown key: nested too deep"),
};
#define NFRAMES (int)(sizeof frames / sizeof *frames)

START_TEST(bad_frames)
{
	struct msg m = beat(1);
	int sv[2];
	struct chan c, d;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	chan_init(&c, sv[0]);
	chan_init(&d, sv[1]);
	raw(frames[_i].p, frames[_i].n);
	if (!frames[_i].line) {
		ck_assert_int_eq(chan_recv(&a, &got), 1);
	} else {
		expect_bad(frames[_i].line);
	}
	ck_assert_int_eq(chan_send(&d, &m, NULL, 0), 0);   /* another client is unharmed */
	ck_assert_int_eq(chan_recv(&c, &got), 1);
	chan_close(&c);
	chan_close(&d);
}
END_TEST

START_TEST(record_of_the_disk)
{
	struct msg m = { .type = MSG_owner };
	uint8_t f[512];

	m.owner.boot = SPAN("x");
	raw(f, encode(&m, f, sizeof f));
	expect_bad("a record of the disk, not a message");
}
END_TEST

/* Pieces of 7 bytes, so that they meet the borders of header and body. */
struct saved { struct chan_piece piece[4096]; int fd[4096]; unsigned n; };

static int keep_piece(void *arg, const struct chan_piece *p)
{
	struct saved *s = arg;
	struct chan_piece *to = &s->piece[s->n];

	ck_assert_uint_lt(s->n, 4096);
	ck_assert_uint_le(p->nfds, 1);
	*to = *p;
	to->bytes.p = memcpy(malloc(p->bytes.n), p->bytes.p, p->bytes.n);
	to->fds = &s->fd[s->n];
	if (p->nfds)   /* an exec would leave it open under its number */
		s->fd[s->n] = fcntl(p->fds[0], F_DUPFD_CLOEXEC, 3);
	s->n++;
	return 0;
}

/* Another life of a: the same socket, and what was in hand. */
static void live_again(size_t piece)
{
	static struct saved s;
	struct chan next;

	s.n = 0;
	ck_assert_int_eq(chan_save(&a, piece, keep_piece, &s), 0);
	chan_init(&next, fcntl(a.fd, F_DUPFD_CLOEXEC, 3));
	chan_close(&a);
	a = next;
	a.out_tail = &a.out;
	for (unsigned i = 0; i < s.n; i++) {
		ck_assert_int_eq(chan_restore(&a, &s.piece[i]), 0);
		free((void *)(uintptr_t)s.piece[i].bytes.p);
	}
}

START_TEST(read_on_in_another_life)
{
	const struct msg m = beat(UINT64_C(1) << 40);
	uint8_t f[64];
	const size_t n = (size_t)encode(&m, f, sizeof f);

	for (size_t cut = 0; cut < n; cut++) {
		raw(f, cut);
		ck_assert_int_eq(chan_recv(&a, &got), 0);
		live_again(7);
		raw(f + cut, n - cut);
		ck_assert_int_eq(chan_recv(&a, &got), 1);
		ck_assert_uint_eq(got.heartbeat.ms, UINT64_C(1) << 40);
	}
	/* one that was not taken is there again, here and there */
	raw(f, n);
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	chan_unread(&a);
	live_again(65536);
	ck_assert_int_eq(chan_recv(&a, &got), 1);
	ck_assert_int_eq(chan_recv(&a, &got), 0);
}
END_TEST

/* A record that says more than could have been in hand. */
START_TEST(more_than_was_in_hand)
{
	const struct msg m = beat(1);
	struct chan_piece piece = { .out = false };
	uint8_t f[65] = { 0 };

	piece.bytes = (struct span){ (const char *)f, (size_t)encode(&m, f, sizeof f) + 1 };
	ck_assert_int_eq(chan_restore(&a, &piece), -EBADMSG);
	ck_assert_str_eq(a.error, "more than a frame");
}
END_TEST

START_TEST(sent_in_another_life)
{
	unsigned sent = 0, come = 0;

	while (!chan_pending(&a)) {
		const struct msg m = beat(sent++);
		ck_assert_int_eq(chan_send(&a, &m, NULL, 0), 0);
	}
	live_again(7);
	ck_assert(chan_pending(&a));
	while (chan_flush(&a) == 1 || come < sent)
		while (chan_recv(&b, &got) == 1)
			ck_assert_uint_eq(got.heartbeat.ms, come++);
	ck_assert_uint_eq(come, sent);
}
END_TEST

static void has_b(struct chan *c)
{
	int fds[FRAME_MAX_FDS];

	ck_assert_int_eq(chan_recv(c, &got), 1);
	ck_assert_int_eq(got.type, MSG_sockets);
	ck_assert_uint_eq(chan_take_fds(c, fds), 1);
	same_file(b.fd, fds[0]);
	close(fds[0]);
}

START_TEST(descriptors_in_another_life)
{
	const struct msg m = sockets(1);
	uint8_t f[256];
	const size_t n = (size_t)encode(&m, f, sizeof f);

	for (size_t cut = 1; cut < n; cut++) {
		raw_fds(f, cut, 1);
		ck_assert_int_eq(chan_recv(&a, &got), 0);
		live_again(_i ? 7 : 65536);
		raw(f + cut, n - cut);
		has_b(&a);
	}
	fault_set(SYS_C_SENDMSG, 0, -EAGAIN);
	ck_assert_int_eq(chan_send(&a, &m, &b.fd, 1), 0);
	fault_off();
	live_again(_i ? 7 : 65536);
	ck_assert_int_eq(chan_flush(&a), 0);
	has_b(&b);
	/* too many, or not to be had: closed, as leak.h sees */
	raw_fds(f, 1, FRAME_MAX_FDS);
	ck_assert_int_eq(chan_recv(&a, &got), 0);
	ck_assert_int_eq(chan_restore(&a, &(struct chan_piece){ .bytes = { (const char *)f + 1, 1 },
	                 .fds = &(int){ fcntl(b.fd, F_DUPFD_CLOEXEC, 3) }, .nfds = 1 }), 0);
	fault_set(SYS_C_DUP, 0, -EMFILE);
	ck_assert_int_eq(chan_restore(&a, &(struct chan_piece){ .out = true, .bytes = { (const char *)f, n },
	                 .fds = &(int){ fcntl(b.fd, F_DUPFD_CLOEXEC, 3) }, .nfds = 1 }), -EMFILE);
	fault_off();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		split_at_every_byte, one_byte_at_a_time, many_in_one_write, each_with_its_frame,
		none_one_and_64, more_than_64_in_pieces, with_a_message_that_has_none, table_full,
		end_at_each_byte, reset_after_what_was_sent, pipe_broken_and_still_read,
		peer_that_does_not_read, queued_with_descriptors, closed_with_a_queue,
		no_descriptor_for_the_queue, send_fails, no_memory_in_the_kernel, torn, ended,
		read_errors_pass, too_large_to_send, more_than_was_in_hand,
		largest, record_of_the_disk, announced_by_a_key_or_by_sizes,
		an_end_that_was_announced_and_did_not_come, read_on_in_another_life,
		sent_in_another_life,
	};
	Suite *s = suite_create("chan");
	TCase *t = tcase_create("chan");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	tcase_add_loop_test(t, out_of_band, 0, 2);
	tcase_add_loop_test(t, another_number_than_announced, 0,
	                    (int)(sizeof mismatch / sizeof *mismatch));
	tcase_add_loop_test(t, short_transfers, 0, 40);
	tcase_add_loop_test(t, descriptors_in_another_life, 0, 2);
	tcase_add_loop_test(t, bad_frames, 0, NFRAMES);
	suite_add_tcase(s, t);
	return suite_run(s);
}
