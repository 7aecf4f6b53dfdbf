/* What earlier handoffs say about the next one. */
#include <stdlib.h>

#include "handoffctl/expect.h"
#include "suite.h"

START_TEST(pauses)
{
	uint64_t none[1], one[] = { 7 }, two[] = { 9, 5 }, many[] = { 30, 10, UINT64_MAX, 20, 10 };
	struct expected e;

	expect_pause(none, 0, &e);
	ck_assert(e.handoffs == 0 && e.median_us == 0 && e.max_us == 0);
	expect_pause(one, 1, &e);
	ck_assert(e.handoffs == 1 && e.median_us == 7 && e.max_us == 7);
	expect_pause(two, 2, &e);
	ck_assert(e.median_us == 9 && e.max_us == 9);
	expect_pause(many, 5, &e);
	ck_assert(e.handoffs == 5 && e.median_us == 20 && e.max_us == UINT64_MAX);
}
END_TEST

START_TEST(rates)
{
	ck_assert_uint_eq(expect_rate(100, 50000), 2000);
	ck_assert_uint_eq(expect_rate(0, 50000), 0);
	ck_assert_uint_eq(expect_rate(1, 10), 0);
	ck_assert_uint_eq(expect_rate(100, 0), 0);
	ck_assert_uint_eq(expect_rate(UINT64_MAX, 1), 0);
}
END_TEST

START_TEST(queues)
{
	ck_assert_uint_eq(expect_full_ms(4096, 2000), 2048);
	ck_assert_uint_eq(expect_full_ms(0, 2000), 0);
	ck_assert_uint_eq(expect_full_ms(128, 0), UINT64_MAX);
	ck_assert_uint_eq(expect_full_ms(UINT64_MAX, 1), UINT64_MAX);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("expect");
	TCase *t = tcase_create("expect");

	tcase_add_test(t, pauses);
	tcase_add_test(t, rates);
	tcase_add_test(t, queues);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
