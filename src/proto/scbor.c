#include "proto/scbor.h"

#include <cbor.h>
#include <errno.h>
#include <string.h>

enum kind { K_NONE, K_UINT, K_NEGINT, K_BYTES, K_TEXT, K_ARRAY, K_MAP, K_BOOL, K_OTHER, K_INDEF };

struct item {
	enum kind kind;
	uint64_t value;         /* uint; count of an array or map; bool */
	struct span data;
	unsigned width;         /* bytes of the integer behind the first byte, as decoded */
};

static void take(void *ctx, enum kind kind, uint64_t value)
{
	struct item *it = ctx;
	it->kind = kind;
	it->value = value;
}

static void on_u8(void *c, uint8_t v) { take(c, K_UINT, v); }
static void on_u16(void *c, uint16_t v) { take(c, K_UINT, v); }
static void on_u32(void *c, uint32_t v) { take(c, K_UINT, v); }
static void on_u64(void *c, uint64_t v) { take(c, K_UINT, v); }
static void on_n8(void *c, uint8_t v) { take(c, K_NEGINT, v); }
static void on_n16(void *c, uint16_t v) { take(c, K_NEGINT, v); }
static void on_n32(void *c, uint32_t v) { take(c, K_NEGINT, v); }
static void on_n64(void *c, uint64_t v) { take(c, K_NEGINT, v); }
static void on_array(void *c, size_t n) { take(c, K_ARRAY, n); }
static void on_map(void *c, size_t n) { take(c, K_MAP, n); }
static void on_bool(void *c, bool v) { take(c, K_BOOL, v); }
static void on_indef(void *c) { take(c, K_INDEF, 0); }
static void on_tag(void *c, uint64_t v) { take(c, K_OTHER, v); }
static void on_half(void *c, float v) { (void)v; take(c, K_OTHER, 0); }
static void on_double(void *c, double v) { (void)v; take(c, K_OTHER, 0); }
static void on_simple(void *c) { take(c, K_OTHER, 0); }

static void on_bytes(void *c, cbor_data p, size_t n)
{
	struct item *it = c;
	it->data = (struct span){ (const char *)p, n };
	take(c, K_BYTES, n);
}

static void on_text(void *c, cbor_data p, size_t n)
{
	struct item *it = c;
	it->data = (struct span){ (const char *)p, n };
	take(c, K_TEXT, n);
}

static const struct cbor_callbacks callbacks = {
	.uint8 = on_u8, .uint16 = on_u16, .uint32 = on_u32, .uint64 = on_u64,
	.negint8 = on_n8, .negint16 = on_n16, .negint32 = on_n32, .negint64 = on_n64,
	.byte_string = on_bytes, .byte_string_start = on_indef,
	.string = on_text, .string_start = on_indef,
	.array_start = on_array, .indef_array_start = on_indef,
	.map_start = on_map, .indef_map_start = on_indef,
	.tag = on_tag, .float2 = on_half, .float4 = on_half, .float8 = on_double,
	.undefined = on_simple, .null = on_simple, .boolean = on_bool, .indef_break = on_indef,
};

static int bad(const char **why, const char *words)
{
	*why = words;
	return -EBADMSG;
}

/* The argument of an item's head as its bytes say it: how libcbor's answer is
 * checked for minimal form, and long strings before libcbor adds to their length. */
static int head_check(const struct cbor_in *in, const char **why)
{
	unsigned info = in->p[0] & 0x1f, major = in->p[0] >> 5;
	uint64_t v = 0;

	if (info < 24 || major == 7)
		return 0;
	if (info > 27)
		return info == 31 ? bad(why, "indefinite length") : bad(why, "malformed CBOR");
	size_t width = (size_t)1 << (info - 24);
	if (in->n < 1 + width)
		return bad(why, "CBOR ends too early");
	for (size_t i = 0; i < width; i++)
		v = v << 8 | in->p[1 + i];
	if (width == 1 ? v < 24 : v >> (4 * width) == 0)
		return bad(why, "integer not in its shortest form");
	/* a count or length that the rest of the frame cannot hold; near 2^64 libcbor's
	 * own sum would wrap */
	if (major >= 2 && major <= 5 && v > in->n)
		return bad(why, "a length beyond the end of the frame");
	return 0;
}

static int next(struct cbor_in *in, struct item *it, const char **why)
{
	struct cbor_decoder_result r;

	if (in->n == 0)
		return bad(why, "CBOR ends too early");
	int e = head_check(in, why);
	if (e)
		return e;
	memset(it, 0, sizeof *it);
	r = cbor_stream_decode(in->p, in->n, &callbacks, it);
	/* NEDATA too: a frame is complete, nothing more will come */
	if (r.status != CBOR_DECODER_FINISHED || r.read == 0 || r.read > in->n)
		return bad(why, r.status == CBOR_DECODER_NEDATA ? "CBOR ends too early" : "malformed CBOR");
	if (it->kind == K_INDEF)
		return bad(why, "indefinite length");
	if (it->kind == K_TEXT && !utf8_valid(it->data.p, it->data.n))
		return bad(why, "text that is not UTF-8");
	/* each element takes one byte at least, each pair of a map two */
	if ((it->kind == K_ARRAY && it->value > in->n - r.read) ||
	    (it->kind == K_MAP && it->value > (in->n - r.read) / 2))
		return bad(why, "a count beyond the end of the frame");
	in->p += r.read;
	in->n -= r.read;
	return 0;
}

static int expect(struct cbor_in *in, enum kind kind, struct item *it, const char **why)
{
	struct cbor_in rest = *in;
	int e = next(&rest, it, why);

	if (e)
		return e;
	if (it->kind != kind)
		return bad(why, "wrong type");
	*in = rest;
	return 0;
}

int scbor_get_uint(struct cbor_in *in, uint64_t *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_UINT, &it, why);
	if (!e)
		*ret = it.value;
	return e;
}

int scbor_get_bool(struct cbor_in *in, bool *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_BOOL, &it, why);
	if (!e)
		*ret = it.value;
	return e;
}

int scbor_get_text(struct cbor_in *in, struct span *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_TEXT, &it, why);
	if (!e)
		*ret = it.data;
	return e;
}

int scbor_get_bytes(struct cbor_in *in, struct span *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_BYTES, &it, why);
	if (!e)
		*ret = it.data;
	return e;
}

int scbor_get_array(struct cbor_in *in, uint64_t *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_ARRAY, &it, why);
	if (!e)
		*ret = it.value;
	return e;
}

int scbor_get_map(struct cbor_in *in, uint64_t *ret, const char **why)
{
	struct item it;
	int e = expect(in, K_MAP, &it, why);
	if (!e)
		*ret = it.value;
	return e;
}

static int skip_deep(struct cbor_in *in, int depth, const char **why)
{
	struct item it;
	int e = next(in, &it, why);

	if (e)
		return e;
	if (it.kind == K_OTHER)
		return bad(why, "a tag, a float or a simple value");
	if (it.kind != K_ARRAY && it.kind != K_MAP)
		return 0;
	if (depth == 0)
		return bad(why, "nested too deep");
	for (uint64_t i = it.value * (it.kind == K_MAP ? 2 : 1); i; i--)
		if ((e = skip_deep(in, depth - 1, why)))
			return e;
	return 0;
}

int scbor_skip(struct cbor_in *in, const char **why)
{
	return skip_deep(in, 4, why);
}

bool utf8_valid(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text, *end = n ? p + n : p;

	while (p < end) {
		unsigned c = *p++, more, low;
		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c < 0xe0) { more = 1; low = 0x80; c &= 0x1f; }
		else if (c >= 0xe0 && c < 0xf0) { more = 2; low = 0x800; c &= 0x0f; }
		else if (c >= 0xf0 && c < 0xf5) { more = 3; low = 0x10000; c &= 0x07; }
		else return false;
		if ((size_t)(end - p) < more)
			return false;
		for (; more; more--, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3f);
		}
		if (c < low || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			return false;
	}
	return true;
}

struct span utf8_span(const char *p, size_t n)
{
	return utf8_valid(p, n) ? (struct span){ p, n } : SPAN("(not UTF-8)");
}

void utf8_mend(char *s)
{
	size_t n = strlen(s);

	while (n && !utf8_valid(s, n))
		n--;
	s[n] = '\0';
}

static void put(struct cbor_out *o, size_t written)
{
	/* libcbor's encoders return 0 when there is no room */
	if (written == 0)
		o->full = true;
	o->n += written;
}

#define ROOM(o) (o)->p + (o)->n, (o)->size - (o)->n

void scbor_put_uint(struct cbor_out *o, uint64_t v) { put(o, cbor_encode_uint(v, ROOM(o))); }
void scbor_put_bool(struct cbor_out *o, bool v) { put(o, cbor_encode_bool(v, ROOM(o))); }
void scbor_put_array(struct cbor_out *o, size_t n) { put(o, cbor_encode_array_start(n, ROOM(o))); }
void scbor_put_map(struct cbor_out *o, size_t n) { put(o, cbor_encode_map_start(n, ROOM(o))); }

static void put_raw(struct cbor_out *o, const void *p, size_t n)
{
	if (o->full || o->size - o->n < n) {
		o->full = true;
		return;
	}
	if (n)
		memcpy(o->p + o->n, p, n);
	o->n += n;
}

void scbor_put_text(struct cbor_out *o, struct span s)
{
	put(o, cbor_encode_string_start(s.n, ROOM(o)));
	put_raw(o, s.p, s.n);
}

void scbor_put_bytes(struct cbor_out *o, const void *p, size_t n)
{
	put(o, cbor_encode_bytestring_start(n, ROOM(o)));
	put_raw(o, p, n);
}
