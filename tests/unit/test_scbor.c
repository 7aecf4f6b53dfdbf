/*
 * Strict reading and deterministic writing: what is put is got back; what scbor
 * accepts libcbor's tree reader accepts too, with the same value; what is cut off is
 * refused wherever the cut is. Inputs lie in allocations of their size, so that a
 * sanitizer sees a byte read too far.
 */
#include <cbor.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "msgtools.h"
#include "suite.h"

#define ROUNDS 20000

static const uint64_t edges[] = {
	0, 1, 22, 23, 24, 25, 254, 255, 256, 257, 65534, 65535, 65536, 65537,
	UINT32_MAX - 1u, UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1,
	INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX,
};

static uint8_t *copy_of(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	MUST(copy, "no memory");
	if (n)
		memcpy(copy, p, n);
	return copy;
}

/* Every prefix of one item is refused by its own reader and by skip, and leaves the
 * reader where it was. */
static void refuse_cuts(const uint8_t *p, size_t n, int (*get)(struct cbor_in *, const char **))
{
	for (size_t cut = 0; cut < n; cut += cut < 64 || cut + 64 > n ? 1 : 37) {
		const char *why = NULL;
		uint8_t *part = copy_of(p, cut);
		struct cbor_in in = { part, cut };
		MUST(get(&in, &why) == -EBADMSG, "accepted when cut at %zu of %zu", cut, n);
		MUST(why && in.p == part && in.n == cut, "moved, or silent, at %zu of %zu", cut, n);
		why = NULL;
		MUST(scbor_skip(&in, &why) == -EBADMSG && why, "skipped when cut at %zu of %zu",
		     cut, n);
		free(part);
	}
}

static void skips_to_end(const uint8_t *p, size_t n)
{
	struct cbor_in in = { p, n };
	const char *why = "";

	MUST(scbor_skip(&in, &why) == 0, "skip: %s", why);
	ck_assert_uint_eq(in.n, 0);
}

#define ANY(kind, type) \
	static int any_##kind(struct cbor_in *in, const char **why) \
	{ \
		type v; \
		return scbor_get_##kind(in, &v, why); \
	}
ANY(uint, uint64_t)
ANY(bool, bool)
ANY(text, struct span)
ANY(bytes, struct span)
ANY(array, uint64_t)
ANY(map, uint64_t)

/* What libcbor's tree makes of p; the caller ends it with cbor_decref. */
static cbor_item_t *tree(const uint8_t *p, size_t n)
{
	struct cbor_load_result r;
	cbor_item_t *item = cbor_load(p, n, &r);

	MUST(item != NULL, "libcbor refuses: error %d at %zu", (int)r.error.code, r.error.position);
	MUST(r.read == n, "libcbor reads %zu of %zu", r.read, n);
	return item;
}

/* ------------------------------------------------------ put, then get --- */

static size_t width_of(uint64_t v)
{
	return v < 24 ? 1 : v <= UINT8_MAX ? 2 : v <= UINT16_MAX ? 3 : v <= UINT32_MAX ? 5 : 9;
}

static void uint_roundtrip(uint64_t v)
{
	uint8_t buf[9];
	struct cbor_out o = { .p = buf, .size = sizeof buf };
	uint64_t got = ~v;
	const char *why = "";

	scbor_put_uint(&o, v);
	ck_assert(!o.full);
	ck_assert_uint_eq(o.n, width_of(v));
	uint8_t *p = copy_of(buf, o.n);
	struct cbor_in in = { p, o.n };
	ck_assert_int_eq(scbor_get_uint(&in, &got, &why), 0);
	ck_assert(got == v && in.n == 0);
	cbor_item_t *item = tree(p, o.n);
	ck_assert(cbor_isa_uint(item) && cbor_get_int(item) == v);
	cbor_decref(&item);
	refuse_cuts(p, o.n, any_uint);
	free(p);
	for (size_t room = 0; room < o.n; room++) {
		struct cbor_out small = { .p = buf, .size = room };
		scbor_put_uint(&small, v);
		ck_assert(small.full);
	}
}

START_TEST(uints)
{
	uint64_t seed = test_seed("scbor uints");

	for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
		uint_roundtrip(edges[i]);
	for (int i = 0; i < ROUNDS; i++)
		uint_roundtrip(rnd_edge(&seed));
}
END_TEST

START_TEST(bools)
{
	for (int v = 0; v < 2; v++) {
		uint8_t buf[1];
		struct cbor_out o = { .p = buf, .size = 1 };
		struct cbor_in in = { buf, 1 };
		bool got = !v;
		const char *why = "";
		scbor_put_bool(&o, v);
		ck_assert(!o.full && o.n == 1 && buf[0] == 0xf4 + v);
		ck_assert_int_eq(scbor_get_bool(&in, &got, &why), 0);
		ck_assert(got == v);
		refuse_cuts(buf, 1, any_bool);
		struct cbor_out none = { .p = buf, .size = 0 };
		scbor_put_bool(&none, v);
		ck_assert(none.full);
	}
}
END_TEST

static void string_roundtrip(uint8_t *buf, size_t room, const char *content, size_t n, bool text)
{
	struct cbor_out o = { .p = buf, .size = room };
	struct span got = { NULL, 0 };
	const char *why = "";

	if (text)
		scbor_put_text(&o, (struct span){ content, n });
	else
		scbor_put_bytes(&o, content, n);
	ck_assert(!o.full);
	ck_assert_uint_eq(o.n, width_of(n) + n);
	uint8_t *p = copy_of(buf, o.n);
	struct cbor_in in = { p, o.n };
	ck_assert_int_eq((text ? scbor_get_text : scbor_get_bytes)(&in, &got, &why), 0);
	ck_assert(got.n == n && in.n == 0 && !memcmp(got.p, content, n));
	in = (struct cbor_in){ p, o.n };
	ck_assert_int_eq((text ? scbor_get_bytes : scbor_get_text)(&in, &got, &why), -EBADMSG);
	ck_assert_str_eq(why, "wrong type");
	cbor_item_t *item = tree(p, o.n);
	ck_assert(text ? cbor_isa_string(item) && cbor_string_length(item) == n &&
	          (!n || !memcmp(cbor_string_handle(item), content, n))
	          : cbor_isa_bytestring(item) && cbor_bytestring_length(item) == n &&
	          (!n || !memcmp(cbor_bytestring_handle(item), content, n)));
	cbor_decref(&item);
	skips_to_end(p, o.n);
	refuse_cuts(p, o.n, text ? any_text : any_bytes);
	free(p);
	struct cbor_out small = { .p = buf, .size = o.n - 1 };
	if (text)
		scbor_put_text(&small, (struct span){ content, n });
	else
		scbor_put_bytes(&small, content, n);
	ck_assert(small.full && small.n <= small.size);
}

START_TEST(strings)
{
	static char content[70000];
	static uint8_t buf[70010];
	static const size_t sizes[] = { 0, 1, 23, 24, 255, 256, 65535, 65536 };
	uint64_t seed = test_seed("scbor strings");

	for (int text = 0; text < 2; text++) {
		for (size_t i = 0; i < sizeof content; i++)
			content[i] = text ? (char)(rnd(&seed) % 128) : (char)rnd(&seed);
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
			string_roundtrip(buf, sizeof buf, content, sizes[i], text);
		for (int i = 0; i < 500; i++)
			string_roundtrip(buf, sizeof buf, content + rnd(&seed) % 1000,
			                 rnd(&seed) % 600, text);
	}
}
END_TEST

/* An array or map of n zeros. */
static void container_roundtrip(uint8_t *buf, size_t room, size_t n, bool map)
{
	struct cbor_out o = { .p = buf, .size = room };
	size_t elements = map ? 2 * n : n;
	uint64_t got = 0;
	const char *why = "";

	(map ? scbor_put_map : scbor_put_array)(&o, n);
	size_t head = o.n;
	ck_assert_uint_eq(head, width_of(n));
	for (size_t i = 0; i < elements; i++)
		scbor_put_uint(&o, 0);
	ck_assert(!o.full);
	uint8_t *p = copy_of(buf, o.n);
	struct cbor_in in = { p, o.n };
	ck_assert_int_eq((map ? scbor_get_map : scbor_get_array)(&in, &got, &why), 0);
	ck_assert(got == n && in.n == elements);
	skips_to_end(p, o.n);
	refuse_cuts(p, o.n, map ? any_map : any_array);
	free(p);
}

START_TEST(containers)
{
	static uint8_t buf[140000];
	static const size_t sizes[] = { 0, 1, 2, 23, 24, 255, 256, 1024, 65535, 65536 };

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		container_roundtrip(buf, sizeof buf, sizes[i], false);
		container_roundtrip(buf, sizeof buf, sizes[i], true);
	}
}
END_TEST

/* Once full it stays full, and nothing behind the room is written. */
START_TEST(full_stays_full)
{
	uint8_t buf[8];

	memset(buf, 0xee, sizeof buf);
	struct cbor_out o = { .p = buf, .size = 4 };
	scbor_put_text(&o, (struct span){ "too long", 8 });
	ck_assert(o.full);
	scbor_put_uint(&o, 1);
	scbor_put_bool(&o, true);
	scbor_put_bytes(&o, NULL, 0);
	ck_assert(o.full);
	for (int i = 4; i < 8; i++)
		ck_assert_uint_eq(buf[i], 0xee);
}
END_TEST

/* -------------------------------------------------------- any bytes --- */

/* A byte string that is nearly CBOR: items with random heads, some of them cut. */
static size_t nearly_cbor(uint8_t *buf, size_t room, uint64_t *seed)
{
	size_t n = 0, items = 1 + rnd(seed) % 6;

	for (size_t i = 0; i < items && n + 20 < room; i++) {
		unsigned major = (unsigned)(rnd(seed) % 8);
		unsigned info = (unsigned)(rnd(seed) % (rnd(seed) % 3 ? 5 : 32));
		buf[n++] = (uint8_t)(major << 5 | info);
		size_t more = info >= 24 && info < 28 ? (size_t)1 << (info - 24) : 0;
		for (; more; more--)
			buf[n++] = rnd(seed) % 2 ? 0 : (uint8_t)rnd(seed);
		if (major == 2 || major == 3)
			for (unsigned j = 0; j < info && j < 5; j++)
				buf[n++] = (uint8_t)(rnd(seed) % 5 ? 'a' : rnd(seed));
	}
	return rnd(seed) % 4 ? n : rnd(seed) % (n + 1);
}

/* How many bytes skip takes; 0: refused. */
static size_t skip_size(const uint8_t *p, size_t n)
{
	struct cbor_in in = { p, n };
	const char *why = NULL;

	if (scbor_skip(&in, &why)) {
		MUST(why, "refused without a word");
		return 0;
	}
	MUST(in.p >= p && in.p + in.n == p + n, "lost its place");
	return n - in.n;
}

START_TEST(agrees_with_libcbor)
{
	uint64_t seed = test_seed("scbor agreement"), u;
	unsigned accepted = 0, values = 0;
	uint8_t buf[512];

	for (int i = 0; i < 20 * ROUNDS; i++) {
		size_t n = nearly_cbor(buf, sizeof buf, &seed), taken;
		uint8_t *p = copy_of(buf, n);
		const char *why;
		if ((taken = skip_size(p, n))) {
			struct cbor_in in = { p, n };
			cbor_item_t *item = tree(p, taken);
			if (!scbor_get_uint(&in, &u, &why)) {
				MUST(cbor_isa_uint(item) && cbor_get_int(item) == u,
				     "another number");
				values++;
			} else {
				MUST(!cbor_isa_uint(item), "a number was refused");
			}
			cbor_decref(&item);
			accepted++;
		}
		free(p);
	}
	ck_assert_uint_gt(accepted, ROUNDS);   /* else this test sees nothing */
	ck_assert_uint_gt(values, ROUNDS / 10);
}
END_TEST

/* Every first byte, followed by zeros: only one kind of reader takes it at most, and
 * which one is what RFC 8949 says. */
START_TEST(every_first_byte)
{
	static int (*const readers[])(struct cbor_in *, const char **) = {
		any_uint, NULL, any_bytes, any_text, any_array, any_map, NULL, any_bool,
	};
	unsigned info = (unsigned)_i & 31, major = (unsigned)_i >> 5;
	uint8_t buf[80] = { (uint8_t)_i };
	/* longer heads with zeros are not in their shortest form */
	bool legal = major == 7 ? info == 20 || info == 21 : info < 24;

	for (unsigned k = 0; k < 8; k++) {
		struct cbor_in in = { buf, sizeof buf };
		const char *why = NULL;
		if (!readers[k])
			continue;
		int e = readers[k](&in, &why);
		MUST((e == 0) == (legal && k == major), "first byte %02x, reader %u: %d",
		     (unsigned)_i, k, e);
		ck_assert(e == 0 || (e == -EBADMSG && why && in.n == sizeof buf));
	}
}
END_TEST

static const struct { const char *bytes; size_t n; const char *why; } lies[] = {
	{ "\x5b\xff\xff\xff\xff\xff\xff\xff\xff", 9, "a length beyond the end of the frame" },
	{ "\x7b\xff\xff\xff\xff\xff\xff\xff\xf7", 9, "a length beyond the end of the frame" },
	{ "\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 9, "a length beyond the end of the frame" },
	{ "\xbb\x80\0\0\0\0\0\0\0\0\0", 11, "a length beyond the end of the frame" },
	{ "\x9b\0\0\0\1\0\0\0\0", 9, "a length beyond the end of the frame" },
	{ "\x83\0\0", 3, "a count beyond the end of the frame" },
	{ "\xa2\0\0\0", 4, "a count beyond the end of the frame" },
	{ "\x43\0\0", 3, "CBOR ends too early" },
	{ "\x19\1", 2, "CBOR ends too early" },
	{ "", 0, "CBOR ends too early" },
	{ "\x9f\xff", 2, "indefinite length" },
	{ "\xbf\xff", 2, "indefinite length" },
	{ "\x5f\xff", 2, "indefinite length" },
	{ "\x7f\xff", 2, "indefinite length" },
	{ "\xff", 1, "indefinite length" },
	{ "\x1c", 1, "malformed CBOR" },
	{ "\x18\x17", 2, "integer not in its shortest form" },
	{ "\x38\x17", 2, "integer not in its shortest form" },
	{ "\xc1\x00", 2, "a tag, a float or a simple value" },
	{ "\xf6", 1, "a tag, a float or a simple value" },
	{ "\xf9\0\0", 3, "a tag, a float or a simple value" },
	{ "\x81\x81\x81\x81\x80", 5, "nested too deep" },
	{ "\xa1\0\xa1\0\xa1\0\xa1\0\x80", 9, "nested too deep" },
	{ "\x61\xff", 2, "text that is not UTF-8" },
};

START_TEST(lies_are_refused)
{
	uint8_t *p = copy_of((const uint8_t *)lies[_i].bytes, lies[_i].n);
	struct cbor_in in = { p, lies[_i].n };
	const char *why = "";

	ck_assert_int_eq(scbor_skip(&in, &why), -EBADMSG);
	ck_assert_str_eq(why, lies[_i].why);
	free(p);
}
END_TEST

/* ------------------------------------------------------------- UTF-8 --- */

/* Every code point, encoded by the book; the surrogates are none. */
START_TEST(utf8_all)
{
	for (unsigned c = 0; c < 0x120000; c++) {
		char b[4];
		size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
		for (size_t i = n; i-- > 1;)
			b[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
		b[0] = (char)(lead[n] | c >> 6 * (n - 1));
		bool valid = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
		MUST(utf8_valid(b, n) == valid, "U+%04X", c);
		for (size_t cut = 1; cut < n; cut++)
			MUST(!utf8_valid(b, cut), "U+%04X cut at %zu", c, cut);
	}
}
END_TEST

/* All strings of three bytes, against the table of RFC 3629. */
static size_t rfc3629(const unsigned char *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		return n > 1 && p[1] >> 6 == 2 ? 2 : 0;
	if (p[0] >= 0xe0 && p[0] <= 0xef)
		return n > 2 && p[1] >> 6 == 2 && p[2] >> 6 == 2 &&
		       (p[0] != 0xe0 || p[1] >= 0xa0) &&
		       (p[0] != 0xed || p[1] < 0xa0) ? 3 : 0;
	return 0;   /* four bytes do not fit */
}

START_TEST(utf8_three_bytes)
{
	for (unsigned v = 0; v < 1u << 24; v++) {
		unsigned char b[3] = { (unsigned char)(v >> 16), (unsigned char)(v >> 8),
			(unsigned char)v };
		size_t at = 0, step = 1;
		while (at < 3 && (step = rfc3629(b + at, 3 - at)))
			at += step;
		MUST(utf8_valid((const char *)b, 3) == (at == 3), "%06x", v);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("scbor");
	TCase *t = tcase_create("scbor");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, uints);
	tcase_add_test(t, bools);
	tcase_add_test(t, strings);
	tcase_add_test(t, containers);
	tcase_add_test(t, full_stays_full);
	tcase_add_test(t, agrees_with_libcbor);
	tcase_add_loop_test(t, every_first_byte, 0, 256);
	tcase_add_loop_test(t, lies_are_refused, 0, sizeof lies / sizeof *lies);
	tcase_add_test(t, utf8_all);
	tcase_add_test(t, utf8_three_bytes);
	return suite_run(s);
}
