/* The decoder, beside libcbor as a foreign one, and beside the encoder. */
#include <cbor.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "msgtools.h"

/* libcbor builds a tree where scbor streams; bytes read, 0: refused. */
static size_t foreign(const uint8_t *p, size_t n)
{
	struct cbor_load_result r;
	cbor_item_t *item = cbor_load(p, n, &r);

	if (!item)
		return 0;
	cbor_decref(&item);
	return r.read;
}

static void header(const uint8_t *p, size_t n)
{
	uint8_t again[FRAME_HEADER];
	uint16_t version;

	if (n < FRAME_HEADER)
		return;
	const int size = frame_get_header(p, &version);
	if (size < 0) {
		HOLDS(size == -EMSGSIZE, "%d", size);
		return;
	}
	HOLDS(size >= 1 && (unsigned)size <= FRAME_MAX_LEN, "%d", size);
	frame_put_header(again, version, (size_t)size);
	HOLDS(!memcmp(again, p, FRAME_HEADER), "another header for %d", size);
}

/* Whatever is accepted is one message only, in one encoding only. */
static void accepted(struct msg *m, const uint8_t *p, size_t n)
{
	static char before[1 << 20], after[1 << 20];
	static uint8_t out[1 << 17];
	static struct store arrays;
	const struct msg_desc *d = msg_desc(m->type);
	char err[200];
	struct msg again;
	uint64_t fields = 0;

	HOLDS(d && n <= d->limit, "%zu bytes", n);
	HOLDS(foreign(p, n) == n, "libcbor reads %zu of %zu bytes of %s", foreign(p, n), n, d->name);
	msg_say(m, before, sizeof before);
	msg_thaw(m, &arrays);
	const int size = msg_encode(m, 1, out, sizeof out);
	HOLDS(size > 0, "%s was decoded, and cannot be encoded: %d", d->name, size);
	for (unsigned i = 0; i < d->nfields; i++)
		fields += msg_has(m, d, i);
	if (msg_pairs(p, n) == fields)   /* no unknown key was skipped */
		HOLDS((size_t)size == n + FRAME_HEADER && !memcmp(out + FRAME_HEADER, p, n),
		      "%s has two encodings", d->name);
	HOLDS(!msg_decode(out + FRAME_HEADER, (size_t)size - FRAME_HEADER, &again, err, sizeof err),
	      "%s: its own encoding is refused: %s", d->name, err);
	msg_say(&again, after, sizeof after);
	HOLDS(!strcmp(before, after), "%s means something else when encoded again", d->name);
}

void fuzz_msg(const uint8_t *p, size_t n)
{
	struct msg m, untouched;
	char err[200] = "";

	header(p, n);
	memset(&m, 0x5a, sizeof m);
	untouched = m;
	const int e = msg_decode(p, n, &m, err, sizeof err);
	if (!e) {
		accepted(&m, p, n);
		return;
	}
	HOLDS(e == -EBADMSG, "%d", e);
	HOLDS(err[0] && !strchr(err, '\n'), "'%s'", err);
	HOLDS(!memcmp(&m, &untouched, sizeof m), "the result of a refused message was touched");
}

void feed_message(struct feed *f, unsigned type, bool fullest, struct msg *ret)
{
	static struct store room;
	uint64_t seed = feed_u8(f);
	const struct msg_desc *d = type ? msg_desc(type) : NULL;
	unsigned n = 0;

	while (msg_table[n])
		n++;
	msg_random(d ? d : msg_table[feed_u8(f) % n], ret, &room, &seed, fullest);
}

/* ------------------------------------------------------------------ items --- */

/* What one getter took, put again: the same bytes. */
static void again(int kind, struct cbor_in in, const uint8_t *p)
{
	static uint8_t buf[1 << 16];
	struct cbor_out out = { .p = buf, .size = sizeof buf };
	const struct cbor_in all = in;
	const char *why = NULL;
	struct span s;
	uint64_t u;
	bool b;
	int e;

	switch (kind) {
	case 0: if (!(e = scbor_get_uint(&in, &u, &why))) scbor_put_uint(&out, u); break;
	case 1: if (!(e = scbor_get_bool(&in, &b, &why))) scbor_put_bool(&out, b); break;
	case 2: if (!(e = scbor_get_text(&in, &s, &why))) scbor_put_text(&out, s); break;
	case 3: if (!(e = scbor_get_bytes(&in, &s, &why))) scbor_put_bytes(&out, s.p, s.n); break;
	case 4: if (!(e = scbor_get_array(&in, &u, &why))) scbor_put_array(&out, u); break;
	default: if (!(e = scbor_get_map(&in, &u, &why))) scbor_put_map(&out, u); break;
	}
	if (e) {
		HOLDS(e == -EBADMSG && why && *why, "%d", e);
		return;
	}
	const size_t took = all.n - in.n;
	HOLDS(in.n <= all.n && in.p == all.p + took, "took %zu of %zu", took, all.n);
	HOLDS(!out.full && out.n == took && !memcmp(buf, p, took), "kind %d: two encodings", kind);
}

static void skip(const uint8_t *p, size_t n)
{
	struct cbor_in in = { p, n };
	const char *why = NULL;

	if (scbor_skip(&in, &why))
		HOLDS(why && *why, "no reason");
	else
		HOLDS(foreign(p, n) == n - in.n, "libcbor reads %zu, scbor %zu", foreign(p, n), n - in.n);
}

static void text(const uint8_t *p, size_t n)
{
	char *s = malloc(n + 1);
	const bool valid = utf8_valid((const char *)p, n);

	if (!s)
		abort();
	if (n)
		memcpy(s, p, n);
	s[n] = '\0';
	const size_t len = strlen(s);
	utf8_mend(s);
	HOLDS(strlen(s) <= len && !memcmp(s, p, strlen(s)), "not the beginning");
	HOLDS(utf8_valid(s, strlen(s)), "still not UTF-8");
	HOLDS(!valid || strlen(s) == len, "a valid text was cut");
	free(s);
}

void fuzz_cbor(const uint8_t *p, size_t n)
{
	if (!n)
		return;
	for (int kind = 0; kind <= 5; kind++)
		again(kind, (struct cbor_in){ p, n }, p);
	skip(p, n);
	text(p, n);
}
