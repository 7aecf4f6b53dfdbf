/* kvd's protocol parser, fed in every way a socket may feed it; and its patterns. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "resp.h"
#include "suite.h"

/* Feeds text in pieces of `step` bytes; writes each command as "a|b|c;" */
static int feed(const char *text, size_t n, size_t step, char *out)
{
	struct resp p;
	size_t have = 0;
	uint32_t i;
	int r = 0;

	resp_init(&p);
	*out = '\0';
	do {
		have = have + step < n ? have + step : n;
		while ((r = resp_parse(&p, text, have)) > 0) {
			for (i = 0; i < p.argc; i++)
				sprintf(out + strlen(out), "%s%.*s", i ? "|" : "",
					(int)p.argv[i].len, text + p.argv[i].at);
			strcat(out, ";");
		}
	} while (r == 0 && have < n);
	if (r < 0)
		strcat(out, p.error);
	resp_free(&p);
	return r;
}

static const struct { const char *in, *out; int r; } cases[] = {
	{ "PING\r\n", "PING;", 0 },
	{ "  SET  a\tb \n\r\nGET a\r\n", "SET|a|b;;GET|a;", 0 },
	{ "*1\r\n$4\r\nPING\r\n", "PING;", 0 },
	{ "*2\r\n$3\r\nGET\r\n$5\r\na\r\nb!\r\n*0\r\n*-1\r\nX\r\n", "GET|a\r\nb!;;;X;", 0 },
	{ "*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n", "GET|;PING;", 0 },
	{ "*1\r\n+PING\r\n", "expected '$', got '+'", -1 },
	{ "*1\r\n$-1\r\n", "invalid bulk length (limit 67108864)", -1 },
	{ "*1\r\n$67108865\r\n", "invalid bulk length (limit 67108864)", -1 },
	{ "*1\r\n$007\r\n", "invalid bulk length (limit 67108864)", -1 },
	{ "*1048577\r\n", "invalid multibulk length (limit 1048576)", -1 },
	{ "*x\r\n", "invalid multibulk length (limit 1048576)", -1 },
	{ "*99999999999999999999\r\n", "invalid multibulk length (limit 1048576)", -1 },
	{ "*1\r\n$4\r\nPINGxx", "an argument does not end where its length says", -1 },
};

START_TEST(every_step)
{
	const char *in = cases[_i].in;
	char out[256];
	size_t step;
	int r;

	for (step = 1; step <= strlen(in); step++) {
		r = feed(in, strlen(in), step, out);
		ck_assert_int_eq(r, cases[_i].r);
		ck_assert_str_eq(out, cases[_i].out);
	}
}
END_TEST

START_TEST(long_line)
{
	char *line = malloc(MAX_INLINE + 2), out[256];

	memset(line, 'x', MAX_INLINE + 2);
	ck_assert_int_eq(feed(line, MAX_INLINE, 1000, out), 0);
	ck_assert_int_eq(feed(line, MAX_INLINE + 2, 1000, out), -1);
	ck_assert_str_eq(out, "a line is over the limit of 65536 bytes");
	free(line);
}
END_TEST

START_TEST(shift_and_rewind)
{
	static const char text[] = "PING\r\n*2\r\n$3\r\nGET\r\n$3\r\nabc\r\n";
	const char *rest = text + 6;
	struct resp p;

	resp_init(&p);
	ck_assert_int_eq(resp_parse(&p, text, 20), 1);
	ck_assert_int_eq(resp_parse(&p, text, 20), 0);
	ck_assert_uint_eq(resp_done(&p), 6);
	resp_shift(&p, 6); /* the half of GET that was parsed stays parsed */
	ck_assert_int_eq(resp_parse(&p, rest, strlen(rest)), 1);
	ck_assert_uint_eq(p.argc, 2);
	ck_assert_int_eq(memcmp(rest + p.argv[1].at, "abc", 3), 0);
	resp_rewind(&p, 0);
	ck_assert_int_eq(resp_parse(&p, rest, strlen(rest)), 1);
	ck_assert_int_eq(memcmp(rest + p.argv[0].at, "GET", 3), 0);
	resp_free(&p);
}
END_TEST

START_TEST(replies)
{
	struct buf b = { 0 };

	reply_text(&b, "OK");
	reply_int(&b, -9223372036854775807LL - 1);
	reply_int(&b, 0);
	reply_bulk(&b, "a\0b", 3);
	reply_nil(&b);
	reply_array(&b, 2);
	reply_error(&b, "ERR %s", "a\r\nb");
	buf_add(&b, "", 1);
	ck_assert_int_eq(memcmp(b.p, "+OK\r\n:-9223372036854775808\r\n:0\r\n$3\r\na\0b\r\n"
				"$-1\r\n*2\r\n-ERR a  b\r\n", b.len), 0);
	buf_free(&b);
}
END_TEST

static const struct { const char *pat, *s; int match; } globs[] = {
	{ "*", "", 1 }, { "*", "abc", 1 }, { "a*c", "abbc", 1 }, { "a*c", "abbd", 0 },
	{ "a?c", "abc", 1 }, { "a?c", "ac", 0 }, { "[a-c]x", "bx", 1 }, { "[a-c]x", "dx", 0 },
	{ "[^a]x", "bx", 1 }, { "[^a]x", "ax", 0 }, { "\\*", "*", 1 }, { "\\*", "a", 0 },
	{ "a**b*", "aXXbYY", 1 }, { "", "", 1 }, { "", "a", 0 }, { "[a", "a", 1 },
	{ "*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0 },
};

START_TEST(patterns)
{
	ck_assert_int_eq(glob_match(globs[_i].pat, strlen(globs[_i].pat), globs[_i].s,
				    strlen(globs[_i].s)), globs[_i].match);
}
END_TEST

START_TEST(table_is_sorted)
{
	unsigned i;

	for (i = 1; i < commands_count; i++)
		ck_assert_str_lt(commands[i - 1].name, commands[i].name);
}
END_TEST

#define COUNT(table) (int)(sizeof(table) / sizeof(table[0]))

int main(void)
{
	Suite *s = suite_create("kvd_resp");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, every_step, 0, COUNT(cases));
	tcase_add_test(t, long_line);
	tcase_add_test(t, shift_and_rewind);
	tcase_add_test(t, replies);
	tcase_add_loop_test(t, patterns, 0, COUNT(globs));
	tcase_add_test(t, table_is_sorted);
	suite_add_tcase(s, t);
	return suite_run(s);
}
