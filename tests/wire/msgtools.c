#include "msgtools.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct text_out { char *p; size_t n, size; };

__attribute__((format(printf, 2, 3)))
static void say(struct text_out *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(o->p + o->n, o->size - o->n, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= o->size - o->n) {
		fprintf(stderr, "msg_say: no room\n");
		abort();
	}
	o->n += (size_t)n;
}

static void say_text(struct text_out *o, struct span s)
{
	static const char plain[] = "\b\f\n\r\t\"\\", named[] = "bfnrt\"\\";

	say(o, "\"");
	for (size_t i = 0; i < s.n; i++) {
		const char *c = s.p[i] ? strchr(plain, s.p[i]) : NULL;
		if (c)
			say(o, "\\%c", named[c - plain]);
		else if ((unsigned char)s.p[i] < 0x20)
			say(o, "\\u%04x", (unsigned)s.p[i]);
		else
			say(o, "%c", s.p[i]);
	}
	say(o, "\"");
}

static void say_hex(struct text_out *o, const void *p, size_t n)
{
	say(o, "h'");
	for (size_t i = 0; i < n; i++)
		say(o, "%02x", ((const uint8_t *)p)[i]);
	say(o, "'");
}

static void say_field(struct text_out *o, const struct msg_field *f, const void *p)
{
	static struct store arrays;
	char id[37];

	switch ((enum msg_kind)f->kind) {
	case KIND_uint: say(o, "%" PRIu64, *(const uint64_t *)p); break;
	case KIND_bool: say(o, "%s", *(const bool *)p ? "true" : "false"); break;
	case KIND_text: say_text(o, *(const struct span *)p); break;
	case KIND_bytes: {
		const struct span *s = p;
		say_hex(o, s->p, s->n);
		break;
	}
	case KIND_uuid: hid_format(p, id); say(o, "%s", id); break;
	case KIND_fprint: say_hex(o, p, FINGERPRINT_SIZE); break;
	case KIND_uints: {
		unsigned n = uints_copy(p, arrays.u, 4096);
		for (unsigned i = 0; i < n; i++)
			say(o, "%s%" PRIu64, i ? ", " : "[", arrays.u[i]);
		say(o, n ? "]" : "[]");
		break;
	}
	case KIND_texts: {
		unsigned n = texts_copy(p, arrays.t, 4096);
		for (unsigned i = 0; i < n; i++) {
			say(o, i ? ", " : "[");
			say_text(o, arrays.t[i]);
		}
		say(o, n ? "]" : "[]");
		break;
	}
	}
}

bool msg_has(const struct msg *m, const struct msg_desc *d, unsigned i)
{
	return d->fields[i].required || m->has >> i & 1;
}

void msg_say(const struct msg *m, char *out, size_t size)
{
	const struct msg_desc *d = msg_desc(m->type);
	struct text_out o = { out, 0, size };

	say(&o, "is %s\n", d->name);
	for (unsigned i = 0; i < d->nfields; i++) {
		if (!msg_has(m, d, i))
			continue;
		say(&o, "%s ", d->fields[i].name);
		say_field(&o, &d->fields[i], (const char *)m + d->fields[i].offset);
		say(&o, "\n");
	}
}

void msg_thaw(struct msg *m, struct store *s)
{
	const struct msg_desc *d = msg_desc(m->type);

	s->used_u = s->used_t = 0;
	for (unsigned i = 0; i < d->nfields; i++) {
		void *p = (char *)m + d->fields[i].offset;
		if (d->fields[i].kind == KIND_uints) {
			struct uints *a = p;
			a->v = s->u + s->used_u;
			s->used_u += a->n = uints_copy(a, s->u + s->used_u, 4096);
		} else if (d->fields[i].kind == KIND_texts) {
			struct texts *a = p;
			a->v = s->t + s->used_t;
			s->used_t += a->n = texts_copy(a, s->t + s->used_t, 4096);
		}
	}
}

/* ------------------------------------------------------------- made up --- */

uint64_t rnd(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

uint64_t rnd_edge(uint64_t *seed)
{
	static const uint64_t edges[] = {
		0, 1, 23, 24, 255, 256, 65535, 65536, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX,
		UINT64_MAX,
	};

	if (rnd(seed) % 2)
		return edges[rnd(seed) % (sizeof edges / sizeof *edges)];
	return rnd(seed) >> rnd(seed) % 64;
}

static struct span make_bytes(struct store *s, uint64_t *seed, size_t n, bool text)
{
	static const char *const chars[] = { "a", "Z", "\x7f", "\n", "\"", "\xc3\xbc",
		"\xe2\x82\xac", "\xf0\x9f\x98\x80" };
	char *start = s->text + s->used;

	if (n > sizeof s->text - s->used)
		abort();
	for (size_t left = n; left;) {
		const char *c = chars[rnd(seed) % 8];
		size_t len = text && strlen(c) <= left ? strlen(c) : 1;
		if (text)
			memcpy(start + n - left, len == strlen(c) ? c : "x", len);
		else
			start[n - left] = (char)rnd(seed);
		left -= len;
	}
	s->used += n;
	return (struct span){ start, n };
}

static size_t make_size(uint64_t *seed, uint64_t max, bool fullest)
{
	if (fullest || rnd(seed) % 8 == 0)
		return max;
	return rnd(seed) % (max < 40 ? max + 1 : 40);
}

static void make_field(const struct msg_field *f, void *p, struct store *s, uint64_t *seed,
                       bool fullest)
{
	uint64_t v;

	switch ((enum msg_kind)f->kind) {
	case KIND_uint:
		v = fullest ? UINT64_MAX : rnd_edge(seed);
		*(uint64_t *)p = !f->max || v <= f->max ? v : fullest ? f->max : v % (f->max + 1);
		break;
	case KIND_bool: *(bool *)p = rnd(seed) & 1; break;
	case KIND_text:
	case KIND_bytes:
		*(struct span *)p = make_bytes(s, seed, make_size(seed, f->max, fullest),
		                               f->kind == KIND_text);
		break;
	case KIND_uuid: memcpy(p, make_bytes(s, seed, 16, false).p, 16); break;
	case KIND_fprint:
		memcpy(p, make_bytes(s, seed, FINGERPRINT_SIZE, false).p, FINGERPRINT_SIZE);
		break;
	case KIND_uints: {
		struct uints *a = p;
		*a = (struct uints){ .n = (unsigned)make_size(seed, f->max, fullest), .v = s->u + s->used_u };
		for (unsigned i = 0; i < a->n; i++)
			s->u[s->used_u++] = fullest ? UINT64_MAX : rnd_edge(seed);
		break;
	}
	case KIND_texts: {
		struct texts *a = p;
		*a = (struct texts){ .n = (unsigned)make_size(seed, f->max, fullest), .v = s->t + s->used_t };
		for (unsigned i = 0; i < a->n; i++) {
			size_t n = fullest ? (f->max > 64 ? 8 : 200) : rnd(seed) % 12;
			s->t[s->used_t++] = make_bytes(s, seed, n, true);
		}
		break;
	}
	}
}

void msg_random(const struct msg_desc *d, struct msg *m, struct store *s, uint64_t *seed,
                bool fullest)
{
	memset(m, 0, sizeof *m);
	m->type = d->type;
	s->used = s->used_u = s->used_t = 0;
	for (unsigned i = 0; i < d->nfields; i++) {
		if (!fullest && !d->fields[i].required && rnd(seed) % 2)
			continue;
		m->has |= UINT64_C(1) << i;
		make_field(&d->fields[i], (char *)m + d->fields[i].offset, s, seed, fullest);
	}
}

uint64_t msg_pairs(const uint8_t *item, size_t n)
{
	struct cbor_in in = { item, n };
	uint64_t count, type, pairs;
	const char *why;

	if (scbor_get_array(&in, &count, &why) || scbor_get_uint(&in, &type, &why) ||
	    scbor_get_map(&in, &pairs, &why))
		return 0;
	return pairs;
}

uint64_t test_seed(const char *test)
{
	const char *given = getenv("HANDOFF_TEST_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	printf("%s: HANDOFF_TEST_SEED=%" PRIu64 "\n", test, seed);
	fflush(stdout);
	return seed;
}
