/* The table of time limits: texts, bounds, order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/timers.h"
#include "suite.h"

#define DAY TIMER_MAX_MS

static const struct { const char *text; uint32_t ms; } right[] = {
	{ "0", 0 }, { "00", 0 }, { "0ms", 0 }, { "0s", 0 }, { "0h", 0 },
	{ "1ms", 1 }, { "500ms", 500 },
	{ "2s", 2000 }, { "007s", 7000 }, { "5min", 300000 }, { "1h", 3600000 }, { "24h", DAY },
	{ "1440min", DAY }, { "86400s", DAY }, { "86400000ms", DAY },
};

START_TEST(parse_right)
{
	uint32_t ms = 77;

	ck_assert_int_eq(timers_parse(right[_i].text, &ms), 0);
	ck_assert_uint_eq(ms, right[_i].ms);
}
END_TEST

static const char *const wrong[] = {
	"", " ", "s", "ms", "1", "5", "86400000", "-1s", "+1s", " 1s", "1s ", "1 s", "1.5s",
	"1,5s", "1e3ms", "0x10s", "1S", "1Ms", "1m", "1mins", "1minute", "1hour", "1d", "1us",
	"1ss", "1s1s", "1h30min", "25h", "1441min", "86401s", "86400001ms", "4294967296ms",
	"4294967297ms", "18446744073709551616ms", "18446744073709551617s",
	"99999999999999999999999999999999s", "1\xc2\xb5s", "\xd9\xa1s", "inf", "s1", "--1s",
};

START_TEST(parse_wrong)
{
	uint32_t ms = 77;

	ck_assert_msg(timers_parse(wrong[_i], &ms) == -EINVAL, "accepted: '%s'", wrong[_i]);
	ck_assert_uint_eq(ms, 77);   /* untouched on failure */
}
END_TEST

static const struct { uint32_t ms; const char *text; } texts[] = {
	{ 0, "0" }, { 1, "1ms" }, { 999, "999ms" }, { 1000, "1s" }, { 1001, "1001ms" },
	{ 60000, "1min" }, { 90000, "90s" }, { 3600000, "1h" }, { 5400000, "90min" },
	{ DAY, "24h" }, { DAY - 1, "86399999ms" },
	{ UINT32_MAX, "4294967295ms" },
};

START_TEST(format)
{
	char buf[16];

	ck_assert_str_eq(timers_format(texts[_i].ms, buf), texts[_i].text);
}
END_TEST

START_TEST(format_is_parsed)
{
	uint32_t ms;
	char buf[16];

	for (uint32_t i = 0; i <= DAY; i += i < 100000 ? 1 : 7 * 1000) {
		ck_assert_int_eq(timers_parse(timers_format(i, buf), &ms), 0);
		ck_assert_uint_eq(ms, i);
	}
}
END_TEST

START_TEST(defaults)
{
	uint32_t t[TIMER_COUNT];
	char why[128] = "untouched";

	timers_default(t);
	ck_assert_int_eq(timers_check(t, why, sizeof why), TIMER_COUNT);
	ck_assert_str_eq(why, "untouched");
	ck_assert_uint_eq(t[TIMER_DEADLINE], 10000);
	ck_assert_uint_eq(t[TIMER_PROBATION], 0);
	for (int i = 0; i < TIMER_COUNT; i++) {
		ck_assert_uint_eq(t[i], timer_desc[i].def);
		ck_assert_str_ne(timer_desc[i].name, "");
		ck_assert_str_ne(timer_desc[i].what, "");
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(timer_desc[i].name, timer_desc[j].name);
	}
}
END_TEST

/* All as long as it may be: every sentence has room for the longest. */
static void widest(uint32_t t[TIMER_COUNT])
{
	for (int i = 0; i < TIMER_COUNT; i++)
		t[i] = DAY;
	t[TIMER_HEARTBEAT] = DAY / 2 - 1;
	t[TIMER_FENCE] = DAY - 1;
}

START_TEST(bounds)
{
	uint32_t t[TIMER_COUNT];
	char why[128], low[16], expected[128];

	widest(t);
	ck_assert_int_eq(timers_check(t, why, sizeof why), TIMER_COUNT);
	snprintf(expected, sizeof expected, "%s must be at least %s and at most 24h",
	         timer_desc[_i].name,
	         timers_format(timer_desc[_i].min, low));
	t[_i] = DAY + 1;
	ck_assert_int_eq(timers_check(t, why, sizeof why), _i);
	ck_assert_str_eq(why, expected);
	t[_i] = UINT32_MAX;
	ck_assert_int_eq(timers_check(t, why, sizeof why), _i);
	if (timer_desc[_i].min > 0) {
		t[_i] = timer_desc[_i].min - 1;
		ck_assert_int_eq(timers_check(t, why, sizeof why), _i);
		ck_assert_str_eq(why, expected);
	}
}
END_TEST

START_TEST(lowest)
{
	uint32_t t[TIMER_COUNT];
	char why[128];

	for (int i = 0; i < TIMER_COUNT; i++)
		t[i] = timer_desc[i].min;
	t[TIMER_DEAD] = t[TIMER_FENCE] + 1;
	ck_assert_int_eq(timers_check(t, why, sizeof why), TIMER_COUNT);
}
END_TEST

START_TEST(bound_sentence)
{
	uint32_t t[TIMER_COUNT];
	char why[128];

	timers_default(t);
	t[TIMER_DEADLINE] = 9;
	ck_assert_int_eq(timers_check(t, why, sizeof why), TIMER_DEADLINE);
	ck_assert_str_eq(why, "deadline must be at least 10ms and at most 24h");
}
END_TEST

static const struct {
	enum timer changed;
	uint32_t at_edge, over_edge;
	enum timer fault;
	const char *why;
} order[] = {
	{ TIMER_DRAIN, 10000, 10001, TIMER_DRAIN,
		"drain-grace (10001ms) must not exceed deadline (10s)" },
	{ TIMER_DEADLINE, 2000, 1999, TIMER_DRAIN,
		"drain-grace (2s) must not exceed deadline (1999ms)" },
	{ TIMER_HEARTBEAT, 2000, 2001, TIMER_FENCE,
		"self-fence (4s) must be at least twice heartbeat (2001ms)" },
	{ TIMER_FENCE, 2000, 1999, TIMER_FENCE,
		"self-fence (1999ms) must be at least twice heartbeat (1s)" },
	{ TIMER_FENCE, 4999, 5000, TIMER_DEAD,
		"presumed-dead (5s) must be longer than self-fence (5s)" },
	{ TIMER_DEAD, 4001, 4000, TIMER_DEAD,
		"presumed-dead (4s) must be longer than self-fence (4s)" },
	{ TIMER_HEARTBEAT, 1000, DAY, TIMER_FENCE,
		"self-fence (4s) must be at least twice heartbeat (24h)" },
};

START_TEST(order_of_timers)
{
	uint32_t t[TIMER_COUNT];
	char why[128];

	timers_default(t);
	t[order[_i].changed] = order[_i].at_edge;
	ck_assert_int_eq(timers_check(t, why, sizeof why), TIMER_COUNT);
	t[order[_i].changed] = order[_i].over_edge;
	ck_assert_int_eq(timers_check(t, why, sizeof why), order[_i].fault);
	ck_assert_str_eq(why, order[_i].why);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("timers");
	TCase *t = tcase_create("timers");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, parse_right, 0, sizeof right / sizeof *right);
	tcase_add_loop_test(t, parse_wrong, 0, sizeof wrong / sizeof *wrong);
	tcase_add_loop_test(t, format, 0, sizeof texts / sizeof *texts);
	tcase_add_test(t, format_is_parsed);
	tcase_add_test(t, defaults);
	tcase_add_loop_test(t, bounds, 0, TIMER_COUNT);
	tcase_add_test(t, lowest);
	tcase_add_test(t, bound_sentence);
	tcase_add_loop_test(t, order_of_timers, 0, sizeof order / sizeof *order);
	return suite_run(s);
}
