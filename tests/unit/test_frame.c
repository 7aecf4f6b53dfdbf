/* The frame's header and the choice of a version. */
#include <errno.h>
#include <stdlib.h>

#include "msgtools.h"
#include "suite.h"

START_TEST(header_bytes)
{
	uint8_t h[FRAME_HEADER];
	uint16_t version = 0;

	frame_put_header(h, 0x0102, 0x030405);
	ck_assert_mem_eq(h, "\x07\x04\x03\x00\x02\x01", FRAME_HEADER);
	ck_assert_int_eq(frame_get_header(h, &version), 0x030405);
	ck_assert_uint_eq(version, 0x0102);
}
END_TEST

START_TEST(header_roundtrip)
{
	static const uint16_t versions[] = { 0, 1, 255, 256, 65535 };
	uint8_t h[FRAME_HEADER];
	uint16_t version;

	for (size_t n = 1; n <= FRAME_MAX_LEN - 2; n += n < 70000 ? 1 : 4093)
		for (size_t v = 0; v < sizeof versions / sizeof *versions; v++) {
			frame_put_header(h, versions[v], n);
			MUST(frame_get_header(h, &version) == (int)n, "%zu", n);
			MUST(version == versions[v], "%zu: version", n);
		}
}
END_TEST

static const struct { uint32_t length; int expected; } lengths[] = {
	{ 0, -EMSGSIZE }, { 1, -EMSGSIZE }, { 2, -EMSGSIZE }, { 3, 1 }, { 5, 3 },
	{ FRAME_MAX_LEN - 1, FRAME_MAX_LEN - 3 }, { FRAME_MAX_LEN, FRAME_MAX_LEN - 2 },
	{ FRAME_MAX_LEN + 1, -EMSGSIZE }, { 0x7fffffff, -EMSGSIZE }, { 0x80000000, -EMSGSIZE },
	{ 0xfffffffe, -EMSGSIZE }, { 0xffffffff, -EMSGSIZE },
};

START_TEST(header_lengths)
{
	uint32_t len = lengths[_i].length;
	uint8_t h[FRAME_HEADER] = {
		(uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), (uint8_t)(len >> 24), 9, 0,
	};
	uint16_t version = 0x5a5a;

	ck_assert_int_eq(frame_get_header(h, &version), lengths[_i].expected);
	ck_assert_uint_eq(version,
	                  lengths[_i].expected < 0 ? 0x5a5a : 9);   /* untouched on failure */
}
END_TEST

static const struct { uint64_t a_min, a_max, b_min, b_max; int expected; } ranges[] = {
	{ 1, 1, 1, 1, 1 },
	{ 1, 3, 2, 5, 3 },
	{ 2, 5, 1, 3, 3 },
	{ 1, 9, 4, 5, 5 },
	{ 4, 5, 1, 9, 5 },
	{ 1, 2, 2, 3, 2 },
	{ 1, 1, 2, 2, -EPROTONOSUPPORT },
	{ 2, 2, 1, 1, -EPROTONOSUPPORT },
	{ 3, 1, 1, 3, -EPROTONOSUPPORT },   /* upside down */
	{ 1, 3, 3, 1, -EPROTONOSUPPORT },
	{ 0, 0, 0, 0, 0 },
	{ 0, 65535, 1, 65535, 65535 },
	{ 1, UINT64_MAX, 1, 1, 1 },
	{ 1, UINT64_MAX, 1, UINT64_MAX, -EPROTONOSUPPORT },   /* no version of 16 bits */
	{ 65536, 65536, 65536, 65536, -EPROTONOSUPPORT },
};

START_TEST(negotiate)
{
	ck_assert_int_eq(version_negotiate(ranges[_i].a_min, ranges[_i].a_max,
	                                   ranges[_i].b_min, ranges[_i].b_max),
	                 ranges[_i].expected);
}
END_TEST

/* Against the definition, for all small ranges; and it does not matter who asks. */
START_TEST(negotiate_all)
{
	for (unsigned n = 0; n < 6 * 6 * 6 * 6; n++) {
		unsigned a = n % 6, b = n / 6 % 6, c = n / 36 % 6, d = n / 216;
		int expected = -EPROTONOSUPPORT;
		for (unsigned v = 0; v < 6; v++)
			if (v >= a && v <= b && v >= c && v <= d)
				expected = (int)v;
		ck_assert_int_eq(version_negotiate(a, b, c, d), expected);
		ck_assert_int_eq(version_negotiate(c, d, a, b), expected);
	}
}
END_TEST

START_TEST(own_range)
{
	ck_assert_int_eq(version_negotiate(PROTO_VERSION_MIN, PROTO_VERSION_MAX, PROTO_VERSION_MIN,
	                                   PROTO_VERSION_MAX), PROTO_VERSION_MAX);
	ck_assert_uint_eq(PROTO_VERSION_HELLO, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("frame");
	TCase *t = tcase_create("frame");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, header_bytes);
	tcase_add_test(t, header_roundtrip);
	tcase_add_loop_test(t, header_lengths, 0, sizeof lengths / sizeof *lengths);
	tcase_add_loop_test(t, negotiate, 0, sizeof ranges / sizeof *ranges);
	tcase_add_test(t, negotiate_all);
	tcase_add_test(t, own_range);
	return suite_run(s);
}
