/*
 * The messages, by their table: what is encoded is decoded, each field is held to its
 * type and bound, and no mutation of a frame gets a second spelling accepted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "msgtools.h"
#include "suite.h"

#define ROOM      (1u << 17)
#define MUTATIONS 200000

static uint8_t frame[ROOM], again[ROOM];
static char said[1u << 20], said_again[1u << 20];
static struct store store, thawed;

static unsigned table_size(void)
{
	unsigned n = 0;

	while (msg_table[n])
		n++;
	return n;
}

/* Encodes m, decodes it from an allocation of its size, compares both. */
static void roundtrip(struct msg *m, const char *what)
{
	char err[256] = "";
	struct msg got;
	int n = msg_encode(m, 1, frame, sizeof frame);
	uint16_t version;

	MUST(n > 0, "%s: not encoded: %d", what, n);
	MUST(frame_get_header(frame, &version) == n - (int)FRAME_HEADER && version == 1,
	     "%s: header", what);
	size_t size = (size_t)n - FRAME_HEADER;
	uint8_t *item = malloc(size);
	memcpy(item, frame + FRAME_HEADER, size);
	MUST(msg_decode(item, size, &got, err, sizeof err) == 0, "%s: %s", what, err);
	MUST(got.type == m->type, "%s: type", what);
	msg_thaw(&got, &thawed);
	MUST(msg_encode(&got, 1, again, sizeof again) == n && !memcmp(frame, again, (size_t)n),
	     "%s: encodes otherwise once decoded", what);
	for (unsigned i = 0; i < msg_desc(m->type)->nfields; i++)
		MUST(msg_has(m, msg_desc(m->type), i) == (got.has >> i & 1),
		     "%s: presence of field %u", what, i);
	free(item);
}

START_TEST(table_is_sound)
{
	for (const struct msg_desc *const *d = msg_table; *d; d++) {
		ck_assert_ptr_eq(msg_desc((*d)->type), *d);
		ck_assert_str_eq(msg_name((*d)->type), (*d)->name);
		ck_assert_uint_le((*d)->limit, FRAME_MAX_LEN - 2);
		ck_assert_uint_le((*d)->nfields, 64);   /* bits of has */
		for (unsigned i = 0; i < (*d)->nfields; i++) {
			const struct msg_field *f = &(*d)->fields[i];
			ck_assert(i == 0 || f->key > f[-1].key);
			for (unsigned j = 0; j < i; j++)
				ck_assert_str_ne(f->name, (*d)->fields[j].name);
			if (f->kind == KIND_text || f->kind == KIND_bytes ||
			    f->kind == KIND_uints || f->kind == KIND_texts)
				ck_assert_uint_gt(f->max, 0);
		}
		for (const struct msg_desc *const *e = msg_table; e < d; e++)
			ck_assert_str_ne((*d)->name, (*e)->name);
	}
	ck_assert_ptr_null(msg_desc(0));
	ck_assert_ptr_null(msg_desc(UINT64_MAX));
	ck_assert_ptr_null(msg_desc((UINT64_C(1) << 32) + MSG_hello));
	ck_assert_str_eq(msg_name((enum msg_type)0), "?");
	ck_assert_ptr_null(msg_desc(31));
	ck_assert_ptr_null(msg_desc(36));
}
END_TEST

START_TEST(random_roundtrip)
{
	uint64_t seed = test_seed("msg roundtrip");
	struct msg m;

	for (const struct msg_desc *const *d = msg_table; *d; d++)
		for (int i = 0; i < 300; i++) {
			msg_random(*d, &m, &store, &seed, false);
			roundtrip(&m, (*d)->name);
		}
}
END_TEST

/* Every field as large as it may be: the message's own limit leaves room for it. */
START_TEST(fullest_roundtrip)
{
	uint64_t seed = 1;
	struct msg m;

	msg_random(msg_table[_i], &m, &store, &seed, true);
	roundtrip(&m, msg_table[_i]->name);
}
END_TEST

/* ------------------------------------------------- one field at a time --- */

static void put_plain(struct cbor_out *o, const struct msg_field *f)
{
	static const char zeros[FINGERPRINT_SIZE];

	switch ((enum msg_kind)f->kind) {
	case KIND_uint: scbor_put_uint(o, 0); break;
	case KIND_bool: scbor_put_bool(o, false); break;
	case KIND_text: scbor_put_text(o, SPAN("")); break;
	case KIND_bytes: scbor_put_bytes(o, "", 0); break;
	case KIND_uuid: scbor_put_bytes(o, zeros, 16); break;
	case KIND_fprint: scbor_put_bytes(o, zeros, FINGERPRINT_SIZE); break;
	case KIND_uints:
	case KIND_texts: scbor_put_array(o, 0); break;
	}
}

/* An item of d with all fields plain, but for one: instead of it these bytes, or nothing. */
static size_t build(const struct msg_desc *d, unsigned odd, const void *instead, size_t n)
{
	struct cbor_out o = { .p = frame, .size = sizeof frame };

	scbor_put_array(&o, 2);
	scbor_put_uint(&o, (uint64_t)d->type);
	scbor_put_map(&o, d->nfields - (odd < d->nfields && !instead));
	for (unsigned i = 0; i < d->nfields; i++) {
		if (i == odd && !instead)
			continue;
		scbor_put_uint(&o, d->fields[i].key);
		if (i != odd) {
			put_plain(&o, &d->fields[i]);
		} else {
			MUST(n <= o.size - o.n, "no room");
			memcpy(o.p + o.n, instead, n);
			o.n += n;
		}
	}
	MUST(!o.full, "no room");
	return o.n;
}

/* Decodes what build made: the line said, "" if it was accepted. */
static const char *verdict(size_t n)
{
	static char err[256];
	uint8_t *item = malloc(n);
	struct msg m;

	err[0] = 0;
	memcpy(item, frame, n);
	int e = msg_decode(item, n, &m, err, sizeof err);
	MUST(e == 0 || (e == -EBADMSG && err[0]), "%d without a line", e);
	free(item);
	return err;
}

static void expect_line(const struct msg_desc *d, unsigned i, const void *p, size_t n,
                        const char *why)
{
	char line[256];

	snprintf(line, sizeof line, "%s: %s: %s", d->name, d->fields[i].name, why);
	ck_assert_str_eq(verdict(build(d, i, p, n)), line);
}

static const struct { const char *bytes; size_t n; const char *what; uint32_t kinds; } items[] = {
	{ "\x00", 1, "0", 1u << KIND_uint },
	{ "\x20", 1, "-1", 0 },
	{ "\x40", 1, "bytes", 1u << KIND_bytes | 1u << KIND_uuid | 1u << KIND_fprint },
	{ "\x60", 1, "text", 1u << KIND_text },
	{ "\x80", 1, "array", 1u << KIND_uints | 1u << KIND_texts },
	{ "\xa0", 1, "map", 0 },
	{ "\xc1\x00", 2, "tag", 0 },
	{ "\xf4", 1, "false", 1u << KIND_bool },
	{ "\xf5", 1, "true", 1u << KIND_bool },
	{ "\xf6", 1, "null", 0 },
	{ "\xf7", 1, "undefined", 0 },
	{ "\xf9\x00\x00", 3, "half", 0 },
	{ "\xfa\x00\x00\x00\x00", 5, "single", 0 },
	{ "\xfb\x00\x00\x00\x00\x00\x00\x00\x00", 9, "double", 0 },
};

START_TEST(wrong_types)
{
	const struct msg_desc *d = msg_table[_i];

	ck_assert_str_eq(verdict(build(d, UINT32_MAX, NULL, 0)), "");
	for (unsigned i = 0; i < d->nfields; i++)
		for (size_t k = 0; k < sizeof items / sizeof *items; k++)
			if (!(items[k].kinds >> d->fields[i].kind & 1))
				expect_line(d, i, items[k].bytes, items[k].n, "wrong type");
}
END_TEST

START_TEST(missing)
{
	const struct msg_desc *d = msg_table[_i];

	for (unsigned i = 0; i < d->nfields; i++) {
		if (d->fields[i].required)
			expect_line(d, i, NULL, 0, "missing");
		else
			ck_assert_str_eq(verdict(build(d, i, NULL, 0)), "");
	}
}
END_TEST

/* Bytes of a value of f's kind that has this size: a number, a length, a count. */
static size_t sized(const struct msg_field *f, uint64_t size, uint8_t *out, size_t room)
{
	static char zeros[70000];
	struct cbor_out o = { .p = out, .size = room };

	switch ((enum msg_kind)f->kind) {
	case KIND_uint: scbor_put_uint(&o, size); break;
	case KIND_bool: break;
	case KIND_text: scbor_put_text(&o, (struct span){ zeros, size }); break;
	case KIND_bytes:
	case KIND_uuid:
	case KIND_fprint: scbor_put_bytes(&o, zeros, size); break;
	case KIND_uints:
	case KIND_texts:
		scbor_put_array(&o, size);
		for (uint64_t i = 0; i < size; i++)
			if (f->kind == KIND_uints)
				scbor_put_uint(&o, i % 30);
			else
				scbor_put_text(&o, SPAN(""));
		break;
	}
	MUST(!o.full, "no room");
	return o.n;
}

START_TEST(bounds)
{
	static const char *const words[] = {
		[KIND_uint] = "number too large", [KIND_text] = "too long",
		[KIND_bytes] = "too long",
		[KIND_uints] = "too many elements", [KIND_texts] = "too many elements",
		[KIND_uuid] = "wrong length", [KIND_fprint] = "wrong length",
	};
	const struct msg_desc *d = msg_table[_i];
	static uint8_t value[70000];

	for (unsigned i = 0; i < d->nfields; i++) {
		const struct msg_field *f = &d->fields[i];
		bool exact = f->kind == KIND_uuid || f->kind == KIND_fprint;
		uint64_t max = f->kind == KIND_uuid ? 16 :
		               f->kind == KIND_fprint ? FINGERPRINT_SIZE : f->max;
		if (f->kind == KIND_bool)
			continue;
		if (f->kind == KIND_uint && !max) {
			size_t n = sized(f, UINT64_MAX, value, sizeof value);
			ck_assert_str_eq(verdict(build(d, i, value, n)), "");
			continue;
		}
		ck_assert_str_eq(verdict(build(d, i, value, sized(f, max, value, sizeof value))),
		                 "");
		expect_line(d, i, value, sized(f, max + 1, value, sizeof value), words[f->kind]);
		if (exact) {
			expect_line(d, i, value, sized(f, max - 1, value, sizeof value),
			            words[f->kind]);
			expect_line(d, i, value, sized(f, 0, value, sizeof value), words[f->kind]);
		}
	}
}
END_TEST

START_TEST(bad_utf8)
{
	const struct msg_desc *d = msg_table[_i];

	for (unsigned i = 0; i < d->nfields; i++) {
		if (d->fields[i].kind == KIND_text)
			expect_line(d, i, "\x62\xc0\x80", 3, "text that is not UTF-8");
		if (d->fields[i].kind == KIND_texts)
			expect_line(d, i, "\x82\x61\x61\x61\xff", 5, "text that is not UTF-8");
	}
}
END_TEST

/* ------------------------------------------------- what encode refuses --- */

START_TEST(encode_unknown_type)
{
	struct msg m = { .type = (enum msg_type)36 };

	ck_assert_int_eq(msg_encode(&m, 1, frame, sizeof frame), -EMSGSIZE);
}
END_TEST

/* A peer would refuse it and end the connection: it must not get onto the wire. */
START_TEST(encode_holds_bounds)
{
	static char zeros[70000];
	static uint64_t u[5000];
	static struct span t[5000];
	const struct msg_desc *d = msg_table[_i];
	struct msg m;

	for (unsigned i = 0; i < d->nfields; i++) {
		const struct msg_field *f = &d->fields[i];
		uint64_t seed = 7;
		msg_random(d, &m, &store, &seed, false);
		m.has |= UINT64_C(1) << i;
		void *p = (char *)&m + f->offset;
		if (f->kind == KIND_uint && f->max)
			*(uint64_t *)p = f->max + 1;
		else if (f->kind == KIND_text || f->kind == KIND_bytes)
			*(struct span *)p = (struct span){ zeros, f->max + 1 };
		else if (f->kind == KIND_uints)
			*(struct uints *)p = (struct uints){ .n = (unsigned)f->max + 1, .v = u };
		else if (f->kind == KIND_texts)
			*(struct texts *)p = (struct texts){ .n = (unsigned)f->max + 1, .v = t };
		else
			continue;
		ck_assert_msg(msg_encode(&m, 1, frame, sizeof frame) == -EMSGSIZE, "%s: %s",
		              d->name, f->name);
	}
}
END_TEST

START_TEST(encode_holds_utf8)
{
	const struct msg_desc *d = msg_table[_i];
	struct span bad[2] = { SPAN("good"), SPAN("\xff") };
	struct msg m;

	for (unsigned i = 0; i < d->nfields; i++) {
		const struct msg_field *f = &d->fields[i];
		uint64_t seed = 7;
		msg_random(d, &m, &store, &seed, false);
		m.has |= UINT64_C(1) << i;
		void *p = (char *)&m + f->offset;
		if (f->kind == KIND_text)
			*(struct span *)p = bad[1];
		else if (f->kind == KIND_texts)
			*(struct texts *)p = (struct texts){ .n = 2, .v = bad };
		else
			continue;
		ck_assert_msg(msg_encode(&m, 1, frame, sizeof frame) == -EILSEQ, "%s: %s",
		              d->name, f->name);
	}
}
END_TEST

/* ----------------------------------------------------------- mutations --- */

static size_t insert(uint8_t *p, size_t n, size_t at, const uint8_t *what, size_t size)
{
	memmove(p + at + size, p + at, n - at);
	memcpy(p + at, what, size);
	return n + size;
}

static size_t cut_out(uint8_t *p, size_t n, size_t at, size_t size)
{
	memmove(p + at, p + at + size, n - at - size);
	return n - size;
}

/* A pair with a key that no table has, behind all others. */
static size_t add_unknown(uint8_t *p, size_t n)
{
	static const uint8_t pair[] = { 0x18, 0xc8, 0x82, 0x05, 0xa0 };   /* 200: [5, {}] */
	size_t map = p[1] == 0x18 ? 3 : 2;   /* behind the array's head and the type */

	if ((p[map] & 0x1f) >= 23)
		return n;
	p[map]++;
	return insert(p, n, n, pair, sizeof pair);
}

/* One change to an item. The last one writes a short integer or length in a longer form. */
static size_t mutate(uint8_t *p, size_t n, uint64_t *seed)
{
	static const uint8_t odd[] = { 0x00, 0x17, 0x18, 0x19, 0x1b, 0x1f, 0x20, 0x40, 0x5f, 0x60,
		0x7f, 0x80, 0x9b, 0x9f, 0xa0, 0xbf, 0xc0, 0xf4, 0xf6, 0xf9, 0xff };
	size_t at = n ? rnd(seed) % n : 0;
	size_t size = n ? 1 + rnd(seed) % (n - at < 20 ? n - at : 20) : 0;
	uint8_t chunk[20];

	if (!n)
		return 0;
	switch (rnd(seed) % 8) {
	case 0: p[at] ^= (uint8_t)(1u << rnd(seed) % 8); return n;
	case 1: p[at] = (uint8_t)rnd(seed); return n;
	case 2: p[at] = odd[rnd(seed) % sizeof odd]; return n;
	case 3: p[at] += rnd(seed) % 2 ? 1 : -1; return n;
	case 4: return cut_out(p, n, at, size);
	case 5: return at;   /* cut off */
	case 6:
		memcpy(chunk, p + at, size);
		return insert(p, n, rnd(seed) % (n + 1), chunk, size);
	default:
		if ((p[at] & 0x1f) >= 24)
			return n;
		chunk[0] = p[at] & 0x1f;
		p[at] = (uint8_t)((p[at] & 0xe0) | 24);
		return insert(p, n, at + 1, chunk, 1);
	}
}

struct tally { unsigned accepted, skipped, refused; };

/* Whatever is accepted and has no unknown keys is encoded as the same bytes. With
 * unknown keys: what is known of it survives, in fewer bytes. */
static void judge(const uint8_t *item, size_t n, struct tally *tally, uint64_t seed)
{
	char err[256] = "";
	struct msg m, known;
	int e = msg_decode(item, n, &m, err, sizeof err);

	if (e) {
		MUST(e == -EBADMSG && err[0] && !strchr(err, '\n'),
		     "seed %llu: refused with %d, '%s'",
		     (unsigned long long)seed, e, err);
		tally->refused++;
		return;
	}
	bool whole = msg_pairs(item, n) == (uint64_t)__builtin_popcountll(m.has);
	msg_say(&m, said, sizeof said);
	msg_thaw(&m, &thawed);
	int size = msg_encode(&m, 1, again, sizeof again);
	MUST(size > 0, "seed %llu: accepted, and cannot be encoded: %d\n%s",
	     (unsigned long long)seed, size, said);
	size_t got = (size_t)size - FRAME_HEADER;
	if (whole) {
		MUST(got == n && !memcmp(again + FRAME_HEADER, item, n),
		     "seed %llu: a second spelling of\n%s",
		     (unsigned long long)seed, said);
		tally->accepted++;
		return;
	}
	MUST(got < n, "seed %llu: unknown keys came back", (unsigned long long)seed);
	MUST(msg_decode(again + FRAME_HEADER, got, &known, err, sizeof err) == 0, "seed %llu: %s",
	     (unsigned long long)seed, err);
	msg_say(&known, said_again, sizeof said_again);
	MUST(!strcmp(said, said_again), "seed %llu: unknown keys changed known ones",
	     (unsigned long long)seed);
	tally->skipped++;
}

START_TEST(mutations)
{
	uint64_t seed = test_seed("msg mutations");
	struct tally tally = { 0 };
	unsigned types = table_size();
	struct msg m;

	for (int i = 0; i < MUTATIONS; i++) {
		uint64_t start = seed;
		msg_random(msg_table[rnd(&seed) % types], &m, &store, &seed, false);
		int size = msg_encode(&m, 1, frame, sizeof frame);
		MUST(size > 0, "seed %llu: not encoded", (unsigned long long)start);
		size_t n = (size_t)size - FRAME_HEADER;
		if (i % 8 == 0)
			n = add_unknown(frame + FRAME_HEADER, n);
		for (uint64_t k = 1 + rnd(&seed) % 3; k; k--)
			n = mutate(frame + FRAME_HEADER, n, &seed);
		uint8_t *item = malloc(n ? n : 1);
		memcpy(item, frame + FRAME_HEADER, n);
		judge(item, n, &tally, start);
		free(item);
	}
	printf("mutations: %u accepted, %u with unknown keys, %u refused\n", tally.accepted,
	       tally.skipped, tally.refused);
	/* else the test has stopped to see what it is for */
	ck_assert_uint_gt(tally.accepted, MUTATIONS / 20);
	ck_assert_uint_gt(tally.skipped, MUTATIONS / 200);
	ck_assert_uint_gt(tally.refused, MUTATIONS / 4);
}
END_TEST

/* Bytes that were never a message. */
START_TEST(noise)
{
	uint64_t seed = test_seed("msg noise");
	struct tally tally = { 0 };

	for (int i = 0; i < MUTATIONS; i++) {
		uint64_t start = seed;
		size_t n = rnd(&seed) % 40;
		uint8_t *item = malloc(n ? n : 1);
		for (size_t k = 0; k < n; k++)
			item[k] = (uint8_t)rnd(&seed);
		if (n > 3 && i % 2) {   /* get past the first bytes */
			item[0] = 0x82;
			item[1] = (uint8_t)(1 + rnd(&seed) % 17);
			item[2] = (uint8_t)(0xa0 | rnd(&seed) % 4);
		}
		judge(item, n, &tally, start);
		free(item);
	}
}
END_TEST

/* ------------------------------------------------------------ the rest --- */

START_TEST(ids)
{
	static const char text[] = "0198f2a4-5b6c-7d8e-9f00-112233445566";
	static const char *const wrong[] = {
		"", "0", "0198f2a4-5b6c-7d8e-9f00-11223344556",
		"0198f2a4-5b6c-7d8e-9f00-1122334455667",
		"0198f2a45b6c7d8e9f00112233445566", "0198f2a4-5b6c-7d8e-9f00-11223344556g",
		"0198f2a4 5b6c-7d8e-9f00-112233445566", "-198f2a4-5b6c-7d8e-9f00-112233445566",
		"0198f2a4-5b6c-7d8e-9f00--12233445566", " 198f2a4-5b6c-7d8e-9f00-112233445566",
		"0198f2a4-5b6c-7d8e-9f00-112233445566 ", "0198f2a4-5b6c-7d8e-9f00-11223344556\x10",
		"\x11" "198f2a4-5b6c-7d8e-9f00-112233445566",
		"\xb0" "198f2a4-5b6c-7d8e-9f00-112233445566",
		"0198f2a4-5b6c-7d8e-9f00-112233445566-", "{0198f2a4-5b6c-7d8e-9f00-112233445566}",
	};
	struct hid id, other = { { 1 } };
	char out[37];

	ck_assert_int_eq(hid_parse(text, &id), 0);
	ck_assert_mem_eq(id.b, "\x01\x98\xf2\xa4\x5b\x6c\x7d\x8e\x9f\x00\x11\x22\x33\x44\x55\x66",
	                 16);
	hid_format(&id, out);
	ck_assert_str_eq(out, text);
	ck_assert_int_eq(hid_parse("0198F2A4-5B6C-7D8E-9F00-112233445566", &other), 0);
	ck_assert(hid_equal(&id, &other) && !hid_none(&id));
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		ck_assert_msg(hid_parse(wrong[i], &id) == -EINVAL, "accepted: '%s'", wrong[i]);
		ck_assert(hid_equal(&id, &other));   /* untouched on failure */
	}
	ck_assert_int_eq(hid_parse("00000000-0000-0000-0000-000000000000", &id), 0);
	ck_assert(hid_none(&id) && !hid_equal(&id, &other));
}
END_TEST

START_TEST(id_of_a_message)
{
	struct hid id = { { 9, 8, 7 } }, got;
	struct msg m = { .type = MSG_commit };

	got = msg_id(&m);
	ck_assert(hid_none(&got));
	MSG_SET(&m, commit, id, id);
	ck_assert(MSG_HAS(&m, commit, id));
	got = msg_id(&m);
	ck_assert(hid_equal(&got, &id));
	m = (struct msg){ .type = MSG_drained, .drained.id = id };   /* required: needs no bit */
	got = msg_id(&m);
	ck_assert(hid_equal(&got, &id));
	m = (struct msg){ .type = MSG_heartbeat, .heartbeat.ms = UINT64_MAX };
	got = msg_id(&m);
	ck_assert(hid_none(&got));
	m = (struct msg){ .type = MSG_op_status };
	got = msg_id(&m);
	ck_assert(hid_none(&got));
}
END_TEST

START_TEST(arrays_are_copied_in_part)
{
	static const uint64_t revisions[] = { 1, 1000, UINT64_MAX };
	struct span names[] = { SPAN("a"), SPAN("bc") }, out_t[2];
	struct msg m = { .type = MSG_ready }, got;
	uint64_t out[3] = { 0 };
	char err[256];

	m.ready.revisions = (struct uints){ .n = 3, .v = revisions };
	m.ready.listening = (struct texts){ .n = 2, .v = names };
	int n = msg_encode(&m, 1, frame, sizeof frame);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(msg_decode(frame + FRAME_HEADER, (size_t)n - FRAME_HEADER, &got, err,
	                            sizeof err), 0);
	ck_assert_uint_eq(uints_copy(&got.ready.revisions, out, 2), 2);
	ck_assert(out[0] == 1 && out[1] == 1000 && out[2] == 0);
	ck_assert_uint_eq(uints_copy(&got.ready.revisions, out, 3), 3);
	ck_assert(out[2] == UINT64_MAX);
	ck_assert_uint_eq(uints_copy(&got.ready.revisions, NULL, 0), 0);
	ck_assert_uint_eq(texts_copy(&got.ready.listening, out_t, 1), 1);
	ck_assert_uint_eq(texts_copy(&got.ready.listening, out_t, 2), 2);
	ck_assert(out_t[1].n == 2 && !memcmp(out_t[1].p, "bc", 2));
}
END_TEST

/* A line that does not fit is cut, with its NUL. */
START_TEST(short_room_for_the_line)
{
	char err[8] = "#######";
	struct msg m;

	ck_assert_int_eq(msg_decode((const uint8_t *)"\x82\x05\xa0", 3, &m, err, 5), -EBADMSG);
	ck_assert_str_eq(err, "Seal");
	ck_assert_int_eq(err[5], '#');
}
END_TEST

int main(void)
{
	Suite *s = suite_create("msg");
	TCase *t = tcase_create("msg");
	int types = (int)table_size();

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, table_is_sound);
	tcase_add_test(t, random_roundtrip);
	tcase_add_loop_test(t, fullest_roundtrip, 0, types);
	tcase_add_loop_test(t, wrong_types, 0, types);
	tcase_add_loop_test(t, missing, 0, types);
	tcase_add_loop_test(t, bounds, 0, types);
	tcase_add_loop_test(t, bad_utf8, 0, types);
	tcase_add_test(t, encode_unknown_type);
	tcase_add_loop_test(t, encode_holds_bounds, 0, types);
	tcase_add_loop_test(t, encode_holds_utf8, 0, types);
	tcase_add_test(t, mutations);
	tcase_add_test(t, noise);
	tcase_add_test(t, ids);
	tcase_add_test(t, id_of_a_message);
	tcase_add_test(t, arrays_are_copied_in_part);
	tcase_add_test(t, short_room_for_the_line);
	return suite_run(s);
}
