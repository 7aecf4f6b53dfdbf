/*
 * handoff-exporter's parts in one process, beside a supervisor that is played: each of their system
 * calls and each of their allocations fails in turn. What is told is true all the same, and when
 * there is room again all is as it was.
 */
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/chan.h"
#include "exporter/everybody.h"
#include "exporter/traces.h"
#include "exporter/web.h"
#include "fault.h"
#include "handoffctl/json.h"
#include "leak.h"
#include "suite.h"

#define HANDOFFS 11   /* more than one answer has */
#define LIMIT_S  30   /* for whatever is waited for */

static char dir[] = "/tmp/handoff-exporter-XXXXXX", socket_path[100], spans[100];
static pid_t supervisor;
static struct event_base *base;

/* ---- memory: the linker leads the calls of what is tested, and the test those of libevent here ---- */

static int memory_at = -1, memory_seen;   /* at -1: nothing fails */
static bool spares_libevent;              /* its evhttp dies of a connection without memory (2.1.12) */
static void *large;                       /* the last block of more than LARGE, as long as it is there */
#define LARGE (2u << 20)

/* Check's own words need memory, and it has no other than what fails. */
#define MUST(so) do { \
	if (!(so)) { \
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #so); \
		abort(); \
	} \
} while (0)

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
void __wrap_free(void *p);

static bool starved(void)
{
	return memory_at >= 0 && memory_seen++ == memory_at;
}

void *__wrap_malloc(size_t n)
{
	void *p = starved() ? NULL : __real_malloc(n);

	if (n > LARGE)
		large = p;
	return p;
}

void __wrap_free(void *p)
{
	if (p == large)
		large = NULL;
	__real_free(p);
}

static void *libevent_malloc(size_t n)
{
	return !spares_libevent && starved() ? NULL : __real_malloc(n);
}

static void *libevent_realloc(void *p, size_t n)
{
	return !spares_libevent && starved() ? NULL : __real_realloc(p, n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return starved() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	const bool was_large = p && p == large;
	void *q = starved() ? NULL : __real_realloc(p, n);

	if (q && was_large)
		large = n > LARGE ? q : NULL;
	return q;
}

char *__wrap_strdup(const char *s)
{
	return starved() ? NULL : __real_strdup(s);
}

/* Fails allocation number at, from 0. */
static void memory_set(int at)
{
	memory_at = at;
	memory_seen = 0;
}

static bool memory_failed(void)
{
	return memory_at >= 0 && memory_seen > memory_at;
}

/* Off again; whether it has failed. */
static bool memory_off(void)
{
	const bool failed = memory_failed();

	memory_at = -1;
	return failed;
}

/* ---- a supervisor ---- */

static void say_handoffs(struct chan *c, const struct msg *question)
{
	const uint64_t before = MSG_HAS(question, op_history, before) ? question->op_history.before : HANDOFFS + 1;
	struct span steps[] = { SPAN("phase starting"), SPAN("phase drain") };
	uint64_t us[] = { 5, 70 };
	struct msg m = { .type = MSG_handoff }, end = { .type = MSG_op_result };

	m.handoff.outcome = SPAN("committed");
	MSG_SET(&m, handoff, asked_ms, UINT64_C(1700000000000));
	MSG_SET(&m, handoff, steps, ((struct texts){ .n = 2, .v = steps }));
	MSG_SET(&m, handoff, steps_us, ((struct uints){ .n = 2, .v = us }));
	for (uint64_t n = before; --n && before - n <= question->op_history.count; ) {
		m.handoff.number = n;
		m.handoff.id.b[15] = (uint8_t)n;
		chan_send(c, &m, NULL, 0);
	}
	end.op_result.outcome = SPAN("history");
	end.op_result.message = SPAN("");
	chan_send(c, &end, NULL, 0);
}

static void say_state(struct chan *c)
{
	struct msg m = { .type = MSG_op_state };

	m.op_state.service = SPAN("kvd");
	m.op_state.state = SPAN("idle");
	m.op_state.supervisor_pid = 1;
	MSG_SET(&m, op_state, pid, 2);
	MSG_SET(&m, op_state, serves, true);
	chan_send(c, &m, NULL, 0);
}

static void serve(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	struct chan c;
	struct msg m;
	int r;

	chan_init(&c, fd);
	while ((r = chan_recv(&c, &m)) == 0)
		poll(&p, 1, -1);
	if (r > 0 && m.type == MSG_op_history)
		say_handoffs(&c, &m);
	else if (r > 0)
		say_state(&c);
	while (chan_flush(&c) == 1) {
		p.events = POLLOUT;
		poll(&p, 1, -1);
	}
	chan_close(&c);
}

static void supervise(int listener)
{
	for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; )
		serve(fd);
	_exit(1);
}

static void listen_there(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(sa.sun_path, socket_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 128), 0);
	supervisor = fork();
	ck_assert_int_ge(supervisor, 0);
	if (!supervisor) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		supervise(fd);
	}
	close(fd);
}

static void setup(void)
{
	char sub[60];

	signal(SIGPIPE, SIG_IGN);
	leak_before = leak_count();
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(sub, sizeof sub, "%s/kvd", dir);
	ck_assert_int_eq(mkdir(sub, 0755), 0);
	snprintf(socket_path, sizeof socket_path, "%s/control.sock", sub);
	snprintf(spans, sizeof spans, "%s/spans", dir);
	setenv("HANDOFF_RUNTIME_DIR", dir, 1);
	json_init();
	event_set_mem_functions(libevent_malloc, libevent_realloc, free);
	listen_there();
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	fault_set(SYS_C_COUNT, -1, 0);
	fault_off();
}

static void teardown(void)
{
	char sub[60];

	event_base_free(base);
	kill(supervisor, SIGKILL);
	waitpid(supervisor, NULL, 0);
	unlink(socket_path);
	unlink(spans);
	snprintf(sub, sizeof sub, "%s/kvd", dir);
	rmdir(sub);
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

/* ---- the loop ---- */

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	fprintf(stderr, "waited in vain: %s\n", (const char *)arg);
	abort();
}

#ifdef event_base_loop   /* that of tests/coverage/counters.h needs memory each time */
#define one_turn counters_real_loop
#else
#define one_turn event_base_loop
#endif

/* Turns of it, until that is so. */
static void loop_until(bool (*so)(void), const char *what)
{
	const struct timeval limit = { LIMIT_S, 0 };
	struct event *late;
	const int at = memory_at;

	memory_at = -1;
	late = evtimer_new(base, on_limit, (void *)(uintptr_t)what);
	evtimer_add(late, &limit);
	memory_at = at;
	while (!so())
		one_turn(base, EVLOOP_ONCE);
	event_free(late);
}

/* ---- everybody ---- */

static int told;          /* how often it was done */
static size_t told_of;
static bool told_up, told_short;

static void on_told(void *arg, const struct metrics_of *v, size_t n)
{
	(void)arg;
	told++;
	told_of = n;
	told_short = !v;
	told_up = v && n && v[0].up;
}

static bool is_told(void)
{
	return told;
}

/* false: refused. Else it is done once. */
static bool ask_and_wait(void)
{
	told = 0;
	told_short = told_up = false;
	if (!everybody_ask(base, NULL, on_told, NULL))
		return false;
	loop_until(is_told, "an answer");
	MUST(told == 1 && told_of <= 1);
	return true;
}

static void assert_well(void)
{
	ck_assert(ask_and_wait());
	ck_assert(told_up);
}

START_TEST(test_everybody_calls)
{
	const int with[] = { -EIO, -EMFILE, -ENOMEM, -ECONNREFUSED };

	for (unsigned i = 0; i < sizeof with / sizeof *with; i++)
		for (int at = 0; at == 0 || fault_hit != SYS_C_COUNT; at++) {
			fault_set(SYS_C_COUNT, at, with[i]);
			ask_and_wait();
			fault_off();
			assert_well();
		}
}
END_TEST

START_TEST(test_everybody_memory)
{
	bool failed, done;
	int n = 0;

	do {
		memory_set(n++);
		done = ask_and_wait();
		failed = memory_off();
		if (done)   /* what this process lacks is not said of the supervisor */
			ck_assert(told_short || told_up);
		assert_well();
	} while (failed);
	ck_assert_int_gt(n, 5);
}
END_TEST

/* ---- traces ---- */

static char whole[1 << 16], now[1 << 16];

static void read_spans(char text[1 << 16])
{
	const int fd = open(spans, O_RDONLY | O_CLOEXEC);
	const ssize_t n = fd < 0 ? 0 : read(fd, text, (1 << 16) - 1);

	MUST(n >= 0);
	text[n] = '\0';
	if (fd >= 0)
		close(fd);
}

static bool is_whole(void)
{
	read_spans(now);
	return !strcmp(now, whole);
}

/* All that there is, as it is without a fault; the next ones must be the same. */
static bool has_all(void)
{
	unsigned lines = 0;

	read_spans(whole);
	for (const char *p = whole; (p = strchr(p, '\n')); p++)
		lines++;
	return lines == HANDOFFS;
}

static bool struck_or_whole(void)
{
	return fault_hit != SYS_C_COUNT || memory_failed() || is_whole();
}

static struct traces *trace(char err[200])
{
	err[0] = '\0';
	return traces_open(base, spans, 1, err, 200);
}

static void learn_whole(void)
{
	char err[200];
	struct traces *t = trace(err);

	ck_assert_ptr_nonnull(t);
	loop_until(has_all, "all handoffs in the file");
	traces_close(t);
}

/* What was to fail has been set. Without it all is written in the end, and nothing twice. */
static void go_on(struct traces *t, const char *err)
{
	if (t)
		loop_until(struck_or_whole, "the fault");
	fault_off();
	memory_at = -1;
	if (!t) {
		ck_assert_str_ne(err, "");
		return;
	}
	loop_until(is_whole, "the rest");
	traces_close(t);
	unlink(spans);
}

START_TEST(test_traces_calls)
{
	const int with[] = { -EIO, -EMFILE, -ENOSPC, 1 };
	char err[200];

	learn_whole();
	unlink(spans);
	for (unsigned i = 0; i < sizeof with / sizeof *with; i++)
		for (int at = 0; at == 0 || fault_hit != SYS_C_COUNT; at++) {
			fault_set(SYS_C_COUNT, at, with[i]);
			go_on(trace(err), err);
		}
}
END_TEST

START_TEST(test_traces_memory)
{
	char err[200];
	struct traces *t;
	int n = 0;
	bool failed;

	learn_whole();
	unlink(spans);
	do {
		memory_set(n++);
		t = trace(err);
		if (t)
			loop_until(struck_or_whole, "the fault");
		failed = memory_failed();
		go_on(t, err);
	} while (failed);
	ck_assert_int_gt(n, 100);
}
END_TEST

#define FILLER (9 << 20)   /* more than is read of a file */

static size_t size_of_spans(void)
{
	struct stat st;

	MUST(!stat(spans, &st));
	return (size_t)st.st_size;
}

static size_t long_file;

static bool has_grown(void)
{
	return size_of_spans() >= long_file;
}

/* Behind what others have written all but the last one are there: that is added, and no text is kept. */
START_TEST(test_traces_in_a_long_file)
{
	static char text[FILLER];
	char err[200], *last;
	struct traces *t;
	FILE *f;

	learn_whole();
	memset(text, 'x', sizeof text);
	text[sizeof text - 1] = '\n';
	last = strrchr(whole, '\n');
	while (last > whole && last[-1] != '\n')
		last--;
	f = fopen(spans, "we");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, sizeof text, 1, f), 1);
	ck_assert_uint_eq(fwrite(whole, (size_t)(last - whole), 1, f), 1);
	ck_assert_int_eq(fclose(f), 0);
	long_file = sizeof text + strlen(whole);
	t = trace(err);
	ck_assert_ptr_nonnull(t);
	ck_assert_ptr_null(large);
	loop_until(has_grown, "the last one");
	ck_assert_uint_eq(size_of_spans(), long_file);
	traces_close(t);
	unlink(spans);
}
END_TEST

/* ---- over HTTP ---- */

static struct web *web;
static uint16_t port;

struct client { int fd; size_t n; char text[1 << 16]; };
static struct client client;

static void client_begin(struct client *c, const char *path)
{
	const struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port),
	                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char request[100];
	const int n = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);

	c->n = 0;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	MUST(!connect(c->fd, (const struct sockaddr *)&sa, sizeof sa));
	MUST(write(c->fd, request, (size_t)n) == n);
}

/* Whether its answer has ended; it is a text then. */
static bool client_read(struct client *c)
{
	ssize_t n;

	while ((n = recv(c->fd, c->text + c->n, sizeof c->text - 1 - c->n, MSG_DONTWAIT)) > 0)
		c->n += (size_t)n;
	if (n < 0 && errno == EAGAIN)
		return false;
	c->text[c->n] = '\0';
	return true;
}

static bool client_done(void)
{
	return client_read(&client);
}

/* The status, 0: none. */
static int get(const char *path)
{
	int status = 0;

	client_begin(&client, path);
	loop_until(client_done, path);
	close(client.fd);
	sscanf(client.text, "HTTP/1.0 %d", &status);
	return status;
}

static const char *body(void)
{
	const char *p = strstr(client.text, "\r\n\r\n");

	return p ? p + 4 : "";
}

static void open_web(void)
{
	char err[200];

	web = web_open(base, "127.0.0.1", 0, &port, err, sizeof err);
	ck_assert_ptr_nonnull(web);
}

START_TEST(test_web_calls)
{
	const int with[] = { -EIO, -EMFILE };

	open_web();
	for (unsigned i = 0; i < sizeof with / sizeof *with; i++)
		for (int at = 0; at == 0 || fault_hit != SYS_C_COUNT; at++) {
			int status;

			fault_set(SYS_C_COUNT, at, with[i]);
			status = get("/health");
			fault_off();
			ck_assert(status == 200 || status == 503);
			ck_assert_int_eq(get("/health"), 200);
			ck_assert_str_eq(body(), "kvd: ok\n");
		}
	web_close(web);
}
END_TEST

/* 200 is the whole truth. */
START_TEST(test_web_memory)
{
	static const char *const paths[] = { "/metrics", "/health", "/ready/kvd", "/health/nobody", "/nothing" };

	open_web();
	spares_libevent = true;
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
		const int well = get(paths[i]);
		bool failed;
		int n = 0;

		ck_assert_uint_lt(strlen(body()), sizeof whole);
		strcpy(whole, body());

		do {
			int status;

			memory_set(n++);
			status = get(paths[i]);
			failed = memory_off();
			if (status == 200)
				ck_assert_str_eq(body(), whole);
			else
				ck_assert(!status || status >= 400);
		} while (failed);
		ck_assert_int_eq(get(paths[i]), well);
		ck_assert_str_eq(body(), whole);
	}
	web_close(web);
}
END_TEST

static void add(Suite *s, const char *name, const TTest *test)
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, 300);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test);
	suite_add_tcase(s, t);
}

int main(void)
{
	Suite *s = suite_create("exporter");

	add(s, "everybody-calls", test_everybody_calls);
	add(s, "everybody-memory", test_everybody_memory);
	add(s, "traces-calls", test_traces_calls);
	add(s, "traces-memory", test_traces_memory);
	add(s, "traces-long", test_traces_in_a_long_file);
	add(s, "web-calls", test_web_calls);
	add(s, "web-memory", test_web_memory);
	return suite_run(s);
}
