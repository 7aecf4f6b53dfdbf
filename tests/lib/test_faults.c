/*
 * The library where a call of its own fails, a system call or an allocation: what it returns and
 * says, and what it leaves behind. Here the daemon is this very program, and the test is its
 * supervisor besides: what one waits for the other has said before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/suite.h"
#include "base/sys.h"
#include "handoff.h"
#include "proto/move.h"
#include "stage.h"

#define LARGE (MOVE_INLINE + 1)   /* bytes of a state that lies beside its message */
#define MEMORY SYS_C_COUNT        /* a "call": the allocations */
/* Each of these, but close(2), which closes even so, and write(2): to an eventfd it cannot fail, but
 * where whoever waits for it is awake. */
#define ANY (-1)

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strndup(const char *s, size_t n);

static struct puppet p;           /* of it only the channel */
static struct chan t;             /* the incumbent's end of the transfer channel */
static handoff *h;
static char logged[300];          /* the last warning or error */
static int before;

/* ----------------------------------------------------------------- faults --- */

static pthread_t daemon_thread;
static bool inside;               /* a call of the library's is under way */
static bool waits;                /* ... in poll(2), where a build with counters writes them, in memory */
static int fail_call, fail_at, fail_with, seen;

static bool strikes(int call)
{
	if (!pthread_equal(pthread_self(), daemon_thread) || !inside)
		return false;
	waits = call == SYS_C_POLL || (waits && call == MEMORY);
	if (fail_call == ANY ? call == SYS_C_CLOSE || call == SYS_C_WRITE : fail_call != call)
		return false;
	if (waits && call == MEMORY)
		return false;
	return seen++ == fail_at;
}

static int hook(enum sys_call call)
{
	return strikes((int)call) ? fail_with : 0;
}

void *__wrap_malloc(size_t n) { return strikes(MEMORY) ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return strikes(MEMORY) ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *q, size_t n) { return strikes(MEMORY) ? NULL : __real_realloc(q, n); }
char *__wrap_strndup(const char *s, size_t n) { return strikes(MEMORY) ? NULL : __real_strndup(s, n); }

/* From here on call number at of this kind fails; at -1: none, they are only counted. */
static void strike(int call, int at, int e)
{
	fail_call = call;
	fail_at = at;
	fail_with = e;
	seen = 0;
}

/* A call of the library's, in which it may be. */
#define LIB(call) __extension__({ \
	inside = true; \
	__typeof__(call) result_ = (call); \
	inside = false; \
	result_; \
})

/* One such call in which the first of this kind fails. */
#define FAILS(kind, e, call) __extension__({ \
	strike(kind, 0, e); \
	__typeof__(call) result2_ = LIB(call); \
	strike(ANY, -1, 0); \
	result2_; \
})

static void keep_log(void *arg, int level, const char *line)
{
	(void)arg;
	if (level <= HANDOFF_LOG_WARNING)
		snprintf(logged, sizeof logged, "%s", line);
}

static void setup(void)
{
	daemon_thread = pthread_self();
	strike(ANY, -1, 0);
	sys_fault = hook;
	chan_init(&p.c, -1);
	chan_init(&t, -1);
	before = stage_fds();
	stage_setup();
}

/* Nothing of the handle is left: no descriptor, not the lock. */
static void ends(void)
{
	char path[100];
	int lock;

	handoff_close(h);
	h = NULL;
	chan_close(&p.c);
	chan_close(&t);
	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	if (!access(path, F_OK)) {
		ck_assert_int_ge(lock = stage_hold_lock(), 0);
		close(lock);
	}
	ck_assert_int_eq(stage_fds(), before);
	logged[0] = '\0';
}

static void teardown(void)
{
	sys_fs_type_override = 0;
	ends();
	stage_teardown();
}

/* ------------------------------------------------------------------- open --- */

/* role NULL: without a supervisor. */
static int open_as(const char *role, const char *data_dir)
{
	struct handoff_options o = { .size = sizeof o, .data_dir = data_dir, .flags = HANDOFF_CONNECTIONS,
	                             .log = keep_log };
	char number[16];
	int sv[2], e;

	unsetenv("HANDOFF_FD");
	if (role) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		chan_init(&p.c, sv[0]);
		snprintf(number, sizeof number, "%d", sv[1]);
		setenv("HANDOFF_FD", number, 1);
		setenv("HANDOFF_ROLE", role, 1);
		setenv("HANDOFF_DIR", stage_dir, 1);
	}
	e = LIB(handoff_open(&o, &h));
	if (e && role && fcntl(sv[1], F_GETFD) >= 0)   /* it failed before the channel was the library's */
		close(sv[1]);
	return e;
}

static const struct { const char *role; int call, at, e; const char *said; } bad_opens[] = {
	{ NULL, MEMORY, 0, -ENOMEM, "" },   /* there is no handle yet, and no log */
	{ NULL, SYS_C_OPEN, 0, -EACCES, NULL },
	{ NULL, SYS_C_EPOLL_CREATE, 0, -EMFILE, "no descriptors for the library" },
	{ NULL, SYS_C_TIMERFD, 0, -ENFILE, "no descriptors for the library" },
	{ NULL, SYS_C_EVENTFD, 0, -EMFILE, "no descriptors for the library" },
	{ "first", SYS_C_EVENTFD, 0, -EMFILE, "the library's thread could not be started: Too many open files" },
	{ "first", SYS_C_TIMERFD, 0, -EMFILE, "the library's thread could not be started: Too many open files" },
	{ "first", SYS_C_EVENTFD, 1, -EMFILE, "no descriptors for the library" },
	{ NULL, SYS_C_EPOLL_CTL, 0, -ENOMEM, "the library's descriptors cannot be watched: Cannot allocate memory" },
	{ NULL, SYS_C_EPOLL_CTL, 1, -ENOSPC, "the library's descriptors cannot be watched: No space left on device" },
	{ "successor", SYS_C_EPOLL_CTL, 2, -ENOMEM, "the library's descriptors cannot be watched: Cannot allocate memory" },
};

START_TEST(open_fails)
{
	char said[160];

	strike(bad_opens[_i].call, bad_opens[_i].at, bad_opens[_i].e);
	ck_assert_int_eq(open_as(bad_opens[_i].role, stage_dir), bad_opens[_i].e);
	ck_assert_ptr_null(h);
	snprintf(said, sizeof said, "data directory %s: Permission denied", stage_dir);
	ck_assert_str_eq(logged, bad_opens[_i].said ? bad_opens[_i].said : said);
	ends();
	strike(ANY, -1, 0);
	ck_assert_int_eq(open_as(bad_opens[_i].role, stage_dir), 0);
}
END_TEST

/* The lock has to be where flock(2) is one: said when it is opened, and before it is taken. */
START_TEST(on_nfs)
{
	char said[160];
	struct handoff_sealed s = { .size = sizeof s };

	sys_fs_type_override = NFS_SUPER_MAGIC;
	ck_assert_int_eq(open_as(NULL, stage_dir), -EREMOTE);
	snprintf(said, sizeof said, "%s lies on NFS, where flock is no guard: use a local file system", stage_dir);
	ck_assert_str_eq(logged, said);
	sys_fs_type_override = 0;
	ck_assert_int_eq(open_as(NULL, stage_dir), 0);
	sys_fs_type_override = NFS_SUPER_MAGIC;
	ck_assert_int_eq(handoff_begin(h, &s), -EREMOTE);
	ck_assert_str_eq(handoff_error(h), ".handoff.lock: lies on NFS, whose flock is no guard: Object is remote");
}
END_TEST

/* A daemon without data has its lock where the supervisor says. */
START_TEST(lock_of_its_own_directory)
{
	struct handoff_sealed s = { .size = sizeof s };

	setenv("HANDOFF_LOCK_DIR", "/nowhere/at/all", 1);
	ck_assert_int_eq(open_as("first", NULL), -ENOENT);
	ck_assert_str_eq(logged, "lock directory /nowhere/at/all: No such file or directory");
	chan_close(&p.c);
	setenv("HANDOFF_LOCK_DIR", stage_dir, 1);
	ck_assert_int_eq(open_as("first", NULL), 0);
	stage_ack(&p, 0);
	stage_begin(&p, 0, -1);
	ck_assert_int_eq(handoff_begin(h, &s), 0);
	ck_assert(!MSG_HAS(stage_get(&p, MSG_hello), hello, ino));
	ck_assert(!stage_lock_is_free());
	unsetenv("HANDOFF_LOCK_DIR");
}
END_TEST

/* ------------------------------------------------------------------- lock --- */

static const struct { int call, at, e; const char *said; } bad_locks[] = {
	{ SYS_C_FSTATFS, 0, -EIO, ".handoff.lock: cannot be looked at: Input/output error" },
	{ SYS_C_OPEN, 0, -EMFILE, ".handoff.lock: cannot be opened: Too many open files" },
	{ SYS_C_FSTAT, 0, -EIO, ".handoff.lock: cannot be looked at: Input/output error" },
	{ SYS_C_FLOCK, 0, -ENOLCK, ".handoff.lock: cannot be locked: No locks available" },
	{ SYS_C_PREAD, 0, -EIO, ".handoff.lock could not be written: Input/output error" },
	{ SYS_C_FALLOCATE, 0, -ENOSPC, ".handoff.lock could not be written: No space left on device" },
	{ SYS_C_PWRITE, 0, -ENOSPC, ".handoff.lock could not be written: No space left on device" },
	{ SYS_C_FDATASYNC, 0, -EIO, ".handoff.lock could not be written: Input/output error" },
};

/* By hand, and as a successor, which can have another try no more than its attempt. */
START_TEST(lock_cannot_be_taken)
{
	const bool alone = _i % 2 == 0, synced = bad_locks[_i / 2].call == SYS_C_FDATASYNC;
	struct handoff_sealed s = { .size = sizeof s };
	struct handoff_state state = { .size = sizeof state, .healthy = 1 };
	const int e = bad_locks[_i / 2].e;

	ck_assert_int_eq(open_as(alone ? NULL : "successor", stage_dir), 0);
	if (!alone) {
		stage_ack(&p, 1);
		stage_begin(&p, 1, 5);
	}
	strike(bad_locks[_i / 2].call, bad_locks[_i / 2].at, e);
	if (alone || !synced) {
		ck_assert_int_eq(LIB(handoff_begin(h, &s)), e);
	} else {   /* it lasts by the time the supervisor decides, or this one does not serve */
		ck_assert_int_eq(LIB(handoff_begin(h, &s)), 0);
		stage_simple(&p, MSG_commit, 1);
		ck_assert_int_eq(LIB(handoff_ready(h, &state)), e);
	}
	ck_assert_str_eq(handoff_error(h), bad_locks[_i / 2].said);
	ck_assert_int_eq(handoff_take_fd(h, "main"), alone ? -ENOENT : _i / 2 < 3 ? -ENOENT : e);
	strike(ANY, -1, 0);
	if (!alone && _i / 2 >= 3)
		ck_assert_str_eq(logged, bad_locks[_i / 2].said);
}
END_TEST

/* Somebody holds it who has not said who he is. */
START_TEST(held_by_nobody_known)
{
	struct handoff_sealed s = { .size = sizeof s };
	int lock = stage_hold_lock();

	ck_assert_int_eq(open_as(NULL, stage_dir), 0);
	ck_assert_int_eq(handoff_begin(h, &s), -EBUSY);
	ck_assert_str_eq(handoff_error(h), "the data directory is in use");
	close(lock);
	ck_assert_int_eq(handoff_begin(h, &s), 0);
	ck_assert_uint_eq(s.epoch, 1);
}
END_TEST

/* ------------------------------------------------------------- whole lives --- */

static struct handoff_state state = { .size = sizeof state, .healthy = 1 };
static int daemons_own[16], nown;   /* descriptors that the daemon got, or has */
static pid_t other;                 /* who answers at the other end of the second transfer channel */

static void own(int fd)
{
	ck_assert_int_lt(nown, 16);
	daemons_own[nown++] = fd;
}

/* What it keeps open is an error of nobody's: the daemon says no more over it. */
static bool hears(void)
{
	struct pollfd f = { .fd = p.c.fd, .events = POLLRDHUP };

	return poll(&f, 1, 0) >= 0 && !(f.revents & (POLLHUP | POLLRDHUP));
}

static int memfd(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_eq(ftruncate(fd, LARGE), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK), 0);
	return fd;
}

/* The incumbent before it gives two connections, one of which has a large state, and seals. */
static void gives_two(void)
{
	const uint64_t size[2] = { 1, LARGE };
	struct span name[2] = { SPAN("a"), SPAN("b") };
	struct msg m = { .type = MSG_batch }, end = { .type = MSG_end };
	int sv[2], fds[3];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	fds[0] = sv[0];
	fds[1] = sv[1];
	fds[2] = memfd();
	m.batch.batch = 1;
	m.batch.names = (struct texts){ .n = 2, .v = name };
	m.batch.sizes = (struct uints){ .n = 2, .v = size };
	m.batch.states = SPAN("x");
	ck_assert_int_eq(chan_send(&t, &m, fds, 3), 0);
	end.end.batch = end.end.connections = 2;
	ck_assert_int_eq(chan_send(&t, &end, NULL, 0), 0);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void sockets(void)
{
	struct msg m = { .type = MSG_sockets };
	struct span name = SPAN("main");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	m.sockets.batch = m.sockets.of = 1;
	m.sockets.names = (struct texts){ .n = 1, .v = &name };
	stage_put_fds(&p, &m, &fd, 1);
	close(fd);
}

static int pair_for(struct chan *c)
{
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	chan_init(c, sv[0]);
	return sv[1];
}

/* All that a successor is told until its turn has come. */
static void offer(void)
{
	stage_ack_with(&p, 1, pair_for(&t), 1u << 20);
	sockets();
	gives_two();
	stage_begin(&p, 1, 5);
}

/* 0: it serves. */
static int takes_over(void)
{
	struct handoff_sealed s = { .size = sizeof s };
	struct handoff_connection c = { .size = sizeof c };
	int e = open_as("successor", stage_dir);

	if (e)
		return e;
	offer();
	while ((e = LIB(handoff_begin(h, &s))) == -EAGAIN)
		while (LIB(handoff_receive(h, &c)) > 0)
			own(c.fd);
	if (!e && (e = LIB(handoff_take_fd(h, "main"))) >= 0) {
		own(e);
		e = 0;
	}
	if (e)
		return e;
	if (hears())
		stage_simple(&p, MSG_commit, 1);
	if (!(e = LIB(handoff_ready(h, &state))))
		ck_assert(!stage_lock_is_free());   /* who serves has it */
	return e;
}

/* A successor that takes all that it is given, in a process of its own; returns the incumbent's end. */
static int another(void)
{
	struct msg m, a = { .type = MSG_answer };
	struct pollfd f = { .events = POLLIN };
	struct chan c;
	int fd = pair_for(&c), e;

	if ((other = fork()) == 0) {
		close(fd);
		for (f.fd = c.fd; (e = chan_recv(&c, &m)) >= 0; ) {
			if (e == 0) {
				poll(&f, 1, LIMIT_MS);
				continue;
			}
			a.answer.batch = m.type == MSG_batch ? m.batch.batch : m.end.batch;
			a.answer.kept = m.type == MSG_batch ? (UINT64_C(1) << m.batch.names.n) - 1 : 0;
			chan_send(&c, &a, NULL, 0);
		}
		_exit(0);
	}
	chan_close(&c);
	return fd;
}

/* The next event, 0: none comes. (What failed for lack of memory is tried again at the next turn.) */
static int next_event(void)
{
	struct handoff_event e = { .size = sizeof e };

	for (int i = 0; i < 3; i++) {
		LIB(handoff_dispatch(h));
		if (LIB(handoff_next(h, &e)) > 0)
			return e.type;
	}
	return 0;
}

static int give(size_t size)
{
	static char bytes[LARGE];
	struct handoff_connection c = { .size = sizeof c, .name = "c", .state = bytes, .state_size = size };
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	own(c.fd = sv[0]);
	own(sv[1]);
	return LIB(handoff_give(h, &c));
}

/* It is asked to seal. */
static bool in_seal(int transfer)
{
	stage_prepare_with(&p, 1, transfer, 1u << 20);
	if (next_event() != HANDOFF_DRAIN || LIB(handoff_drained(h, 2)))
		return false;
	if (hears())
		stage_simple(&p, MSG_seal_request, 1);
	return next_event() == HANDOFF_SEAL;
}

/* Who serves seals and hands over, or is told to resume. 0, or what a call returned that failed. */
static int seals(int transfer, bool committed)
{
	int e;

	if (!hears()) {
		close(transfer);
		return -EPIPE;
	}
	if (!in_seal(transfer))
		return -ECANCELED;
	if ((e = give(1)) >= 0 || e == -ENOMEM)   /* one that cannot be given stays */
		e = give(LARGE);
	e = LIB(handoff_give_end(h));
	if (e < 0) {
		ck_assert_int_eq(LIB(handoff_seal_failed(h, "x")), 0);
		ck_assert(!handoff_gone(h, 0) && !handoff_gone(h, 1));
		ck_assert(!stage_lock_is_free());
		return e;
	}
	if ((e = LIB(handoff_sealed(h, &state))))
		return e;
	ck_assert(stage_lock_is_free());
	if (!hears())
		return -EPIPE;
	stage_simple(&p, committed ? MSG_commit : MSG_resume, 1);
	if (committed)
		return next_event() == HANDOFF_COMMIT ? 0 : -ECANCELED;
	if (next_event() != HANDOFF_RESUME)
		return -ECANCELED;
	ck_assert(!stage_lock_is_free());
	return LIB(handoff_resumed(h));
}

/* Its descriptors are closed, what was at the other end is gone. */
static void buried(void)
{
	while (nown)
		close(daemons_own[--nown]);
	ends();
	if (other)
		ck_assert_int_eq(waitpid(other, NULL, 0), other);
	other = 0;
}

static int life(bool committed)
{
	const int transfer = another();   /* before there is a lock that it would inherit */
	int e = takes_over();

	if (!e)
		return seals(transfer, committed);
	close(transfer);
	return e;
}

static const struct { int call, e; } errors[] = {
	{ ANY, -EIO }, { ANY, -ENOMEM }, { SYS_C_SENDMSG, -EAGAIN }, { SYS_C_SENDMSG, -EPIPE }, { SYS_C_RECVMSG, -EAGAIN },
};

/* No call of the life that follows fails, but those that are told to. */
static void serves(void)
{
	ck_assert_int_eq(takes_over(), 0);
}

/* No descriptor is left for a second copy of a listener; the first one works. */
START_TEST(listener_cannot_be_copied)
{
	serves();
	ck_assert_int_eq(FAILS(SYS_C_DUP, -EMFILE, handoff_take_fd(h, "main")), -EMFILE);
	ck_assert_str_eq(handoff_error(h), "listener main: Too many open files");
	own(LIB(handoff_take_fd(h, "main")));
	ck_assert_int_ge(daemons_own[nown - 1], 0);
	buried();
}
END_TEST

/* It could not be given: the daemon is to blame, and serves all of them again. */
static void all_stay(int e, const char *why)
{
	ck_assert_int_eq(e, -EPIPE);
	ck_assert_str_eq(handoff_error(h), why);
	ck_assert_int_eq(LIB(handoff_seal_failed(h, why)), 0);
	do
		stage_any(&p, LIMIT_MS);
	while (p.m.type != MSG_seal_failed);
	ck_assert(!p.m.seal_failed.by_successor);
	ck_assert_int_eq(handoff_gone(h, 0), 0);
	ck_assert(!stage_lock_is_free());
}

START_TEST(connections_cannot_be_given)
{
	const int transfer = another();

	serves();
	ck_assert(in_seal(transfer));
	ck_assert_int_eq(give(_i ? MOVE_INLINE / 2 : 1), 0);
	if (_i)
		all_stay(FAILS(MEMORY, 0, handoff_give_end(h)), "connections cannot be moved: no memory");
	else
		all_stay(FAILS(SYS_C_EPOLL_CTL, -ENOSPC, handoff_give_end(h)), "connections cannot be moved: "
		         "the channel cannot be watched (no memory, or max_user_watches)");
	buried();
}
END_TEST

/* One that cannot be given stays, and is counted; it hinders no other. */
static const struct { size_t size; int call, e; const char *why; } stay[] = {
	{ 1, MEMORY, -ENOMEM, "a connection's state of 1 bytes: Cannot allocate memory" },
	{ LARGE, SYS_C_MEMFD, -EMFILE, "a connection's state of 65537 bytes: Too many open files" },
	{ LARGE, SYS_C_WRITE, -ENOSPC, "a connection's state of 65537 bytes: No space left on device" },
	{ LARGE, SYS_C_FCNTL, -EPERM, "a connection's state of 65537 bytes: Operation not permitted" },
};

START_TEST(one_cannot_be_given)
{
	const int transfer = another();

	serves();
	ck_assert(in_seal(transfer));
	strike(stay[_i].call, 0, stay[_i].e);
	ck_assert_int_eq(give(stay[_i].size), stay[_i].e);
	ck_assert_str_eq(handoff_error(h), stay[_i].why);
	strike(SYS_C_WRITE, 0, 100);   /* the memory takes it in two pieces */
	ck_assert_int_eq(give(LARGE), 0);
	strike(ANY, -1, 0);
	ck_assert_int_eq(LIB(handoff_give_end(h)), 0);
	ck_assert_int_eq(LIB(handoff_sealed(h, &state)), 0);
	do
		stage_any(&p, LIMIT_MS);
	while (p.m.type != MSG_seal_complete);
	ck_assert_uint_eq(p.m.seal_complete.moved, 1);
	ck_assert_uint_eq(p.m.seal_complete.stayed, 1);
	buried();
}
END_TEST

/* First none fails, and they are counted; then each fails in its turn. */
START_TEST(each_call_fails)
{
	const bool committed = _i & 1;
	const int call = errors[_i / 2].call;
	int calls;

	strike(call, -1, 0);
	ck_assert_int_eq(life(committed), 0);
	calls = seen;
	buried();
	ck_assert_int_gt(calls, call == ANY ? 100 : 5);
	for (int at = 0; at < calls; at++) {
		strike(call, at, errors[_i / 2].e);
		int e = life(committed);
		/* who cannot go on says why */
		ck_assert_msg(e >= 0 || !h || handoff_error(h)[0] || logged[0] || !hears(),
		              "call %d of %d: %d and no word", at, calls, e);
		buried();
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { on_nfs, lock_of_its_own_directory, held_by_nobody_known, listener_cannot_be_copied };
	const struct { const TTest *test; int n; } loops[] = {
		{ open_fails, (int)(sizeof bad_opens / sizeof *bad_opens) },
		{ lock_cannot_be_taken, 2 * (int)(sizeof bad_locks / sizeof *bad_locks) },
		{ connections_cannot_be_given, 2 },
		{ one_cannot_be_given, (int)(sizeof stay / sizeof *stay) },
		{ each_call_fails, 2 * (int)(sizeof errors / sizeof *errors) },
	};
	Suite *suite = suite_create("faults");
	TCase *c = tcase_create("faults");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 120);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(c, tests[i]);
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
		tcase_add_loop_test(c, loops[i].test, 0, loops[i].n);
	suite_add_tcase(suite, c);
	return suite_run(suite);
}
