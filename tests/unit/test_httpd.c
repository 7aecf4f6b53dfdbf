/* httpd's connections, moved from one server to another in the middle of everything. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "httpd.h"
#include "suite.h"

void log_line(const char *fmt, ...)
{
	(void)fmt;
}

uint64_t mono_ms(void)
{
	static uint64_t now;

	return now += 1000; /* so the next event of a stream is always due */
}

static const struct options opt = { .version = "test", .max_connections = 10, .idle_s = 600 };
static struct server one = { .opt = &opt }, two = { .opt = &opt };
static int client;

static void setup(void)
{
	ck_assert(net_init(&one) == 0 && net_init(&two) == 0);
	http_parser_set_max_header_size(MAX_HEAD);
}

static void teardown(void)
{
	net_free(&one);
	net_free(&two);
}

static struct conn *connect_to(struct server *sv)
{
	int s[2];

	ck_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s) == 0);
	client = s[1];
	conn_wake(conn_adopt(sv, s[0]));
	return sv->conns;
}

/* Until the server has nothing more to do for what has come. */
static void turn(struct server *sv)
{
	int left = 0;

	do {
		event_base_loop(sv->base, EVLOOP_NONBLOCK);
		event_base_loop(sv->base, EVLOOP_NONBLOCK);
	} while (sv->conns && ioctl(sv->conns->fd, FIONREAD, &left) == 0 && left);
}

/* As move.c does it, without the two processes. */
static struct conn *move(struct server *from, struct server *to)
{
	struct evbuffer *state = evbuffer_new();
	struct conn *c = conn_adopt(to, dup(from->conns->fd));
	size_t n;

	conn_sleep(from->conns);
	move_encode(from->conns, state);
	conn_free(from->conns);
	n = evbuffer_get_length(state);
	ck_assert_int_eq(move_decode(c, evbuffer_pullup(state, -1), n), 0);
	evbuffer_free(state);
	conn_wake(c);
	return c;
}

static void say(const char *text, size_t n)
{
	ck_assert(n == 0 || send(client, text, n, 0) == (ssize_t)n);
}

/* All that the server says until it ends the connection; without the dates. */
static char *hear(struct server *sv, size_t *ret)
{
	size_t n = 0, room = 1 << 20;
	char *all = malloc(room), *date;
	ssize_t r;

	for (;;) {
		turn(sv);
		r = recv(client, all + n, room - n - 1, 0);
		if (r == 0)
			break;
		ck_assert(r > 0 || errno == EAGAIN);
		n += r > 0 ? (size_t)r : 0;
		if (n > room / 2)
			all = realloc(all, room *= 2);
	}
	close(client);
	turn(sv);
	all[n] = '\0';
	while ((date = strstr(all, "Date: ")) != NULL)
		memset(date, '-', strcspn(date, "\r"));
	*ret = n;
	return all;
}

static const char talk[] =
	"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
	"PUT /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
	"5;with=extension\r\nabcde\r\n1\r\nf\r\n00a\r\nghijklmnop\r\n0\r\nTrailer: of it\r\n\r\n"
	"POST /upload?x HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789"
	"HEAD /bytes/7 HTTP/1.1\r\n\r\n"
	"GET /nowhere HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
	"PUT / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
	"\r\nGET /bytes/300 HTTP/1.1\r\nConnection: close\r\n\r\n";

START_TEST(cut_anywhere)
{
	size_t n, expected_n, cut;
	char *expected, *heard;

	connect_to(&one);
	say(talk, sizeof(talk) - 1);
	expected = hear(&one, &expected_n);
	ck_assert_ptr_nonnull(strstr(expected, "\r\n\r\n16 36400689\n"));
	for (cut = 0; cut < sizeof(talk) - 1; cut++) {
		connect_to(&one);
		say(talk, cut);
		turn(&one);
		move(&one, &two);
		say(talk + cut, sizeof(talk) - 1 - cut);
		heard = hear(&two, &n);
		ck_assert_msg(n == expected_n && !memcmp(heard, expected, n),
			      "moved at %zu:\n%s\nand not:\n%s", cut, heard, expected);
		free(heard);
	}
	free(expected);
}
END_TEST

START_TEST(back_and_forth)
{
	size_t n, expected_n, i;
	char *expected, *heard;

	connect_to(&one);
	say(talk, sizeof(talk) - 1);
	expected = hear(&one, &expected_n);
	connect_to(&one);
	for (i = 0; i < sizeof(talk) - 1; i++) {
		say(talk + i, 1);
		turn(i % 2 ? &two : &one);
		if (i + 2 < sizeof(talk))
			i % 2 ? move(&two, &one) : move(&one, &two);
	}
	heard = hear(one.conns ? &one : &two, &n);
	ck_assert_str_eq(heard, expected);
	free(expected);
	free(heard);
}
END_TEST

START_TEST(large_reply)
{
	static const char ask[] = "GET /bytes/3000000 HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n";
	const size_t size = 3000000;
	size_t n, i, moves;
	char *heard, *body;

	connect_to(&one);
	say(ask, sizeof(ask) - 1);
	for (moves = 0; moves < 4; moves++) {
		turn(moves % 2 ? &two : &one);
		moves % 2 ? move(&two, &one) : move(&one, &two);
	}
	heard = hear(&one, &n);
	body = strstr(heard, "\r\n\r\n") + 4;
	for (i = 0; i < size && (unsigned char)body[i] == i % 251; i++)
		;
	ck_assert_uint_eq(i, size);
	ck_assert_ptr_nonnull(strstr(body + size, "httpd test\n"));
	free(heard);
}
END_TEST

START_TEST(events)
{
	static const char ask[] = "GET /events/1 HTTP/1.1\r\nLast-Event-ID: 41\r\n\r\n";
	char *heard, *at;
	size_t n, i;

	connect_to(&one);
	say(ask, sizeof(ask) - 1);
	for (i = 0; i < 6; i++) {
		turn(i % 2 ? &two : &one);
		i % 2 ? move(&two, &one) : move(&one, &two);
	}
	turn(&one);
	net_leave(&one, 0);
	heard = hear(&one, &n);
	for (at = heard, i = 42; (at = strstr(at, "\nid: ")) != NULL; at += 5, i++)
		ck_assert_uint_eq(strtoul(at + 5, NULL, 10), i);
	ck_assert_uint_gt(i, 42 + 6);
	ck_assert_str_eq(heard + n - 5, "0\r\n\r\n");
	free(heard);
	one.leaving = 0;
}
END_TEST

START_TEST(bad_requests)
{
	static const struct { const char *ask, *reply; } cases[] = {
		{ "NONSENSE\r\n\r\n", "HTTP/1.1 400 " },
		{ "PUT /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
		  "HTTP/1.1 400 " },
		{ "PUT /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
		  "HTTP/1.1 400 " },
		{ "GET /events/5 HTTP/1.0\r\n\r\n", "HTTP/1.1 505 " },
		{ "GET /bytes/ HTTP/1.0\r\n\r\n", "HTTP/1.1 404 " },
		{ "GET /bytes/99999999999999999999 HTTP/1.0\r\n\r\n", "HTTP/1.1 404 " },
		{ "GET /events/0 HTTP/1.0\r\n\r\n", "HTTP/1.1 404 " },
		{ "DELETE / HTTP/1.0\r\n\r\n", "HTTP/1.1 405 " },
	};
	char *heard, longest[2 * MAX_HEAD];
	size_t i, n;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		connect_to(&one);
		say(cases[i].ask, strlen(cases[i].ask));
		heard = hear(&one, &n);
		ck_assert_msg(!strncmp(heard, cases[i].reply, strlen(cases[i].reply)), "%s", heard);
		free(heard);
	}
	memset(longest, 'x', sizeof(longest));
	for (i = 0; i < 2; i++) {
		memcpy(longest, i ? "GET / HTTP/1.1\r\nA: " : "GET /aaaaaaaaaaaaaa", 19);
		connect_to(&one);
		say(longest, sizeof(longest));
		heard = hear(&one, &n);
		ck_assert_msg(!strncmp(heard, i ? "HTTP/1.1 431" : "HTTP/1.1 414", 12), "%s",
			      heard);
		free(heard);
	}
}
END_TEST

START_TEST(bad_states)
{
	struct evbuffer *state = evbuffer_new();
	struct conn *c = connect_to(&one), *d;
	unsigned char *p;
	size_t n, i;

	say(talk, 200);
	turn(&one);
	move_encode(c, state);
	n = evbuffer_get_length(state);
	p = evbuffer_pullup(state, -1);
	for (i = 0; i < n; i++) { /* cut off */
		d = conn_adopt(&two, dup(c->fd));
		ck_assert_int_eq(move_decode(d, p, i), -EBADMSG);
		conn_free(d);
	}
	for (i = 0; i < n; i++) { /* changed: refused, or understood as something else */
		p[i] ^= 0x81;
		d = conn_adopt(&two, dup(c->fd));
		if (move_decode(d, p, n) == 0)
			conn_step(d);
		else
			conn_free(d);
		p[i] ^= 0x81;
		while (two.conns)
			conn_free(two.conns);
	}
	conn_free(c);
	close(client);
	evbuffer_free(state);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("httpd");
	TCase *tc = tcase_create("connections");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, cut_anywhere);
	tcase_add_test(tc, back_and_forth);
	tcase_add_test(tc, large_reply);
	tcase_add_test(tc, events);
	tcase_add_test(tc, bad_requests);
	tcase_add_test(tc, bad_states);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
