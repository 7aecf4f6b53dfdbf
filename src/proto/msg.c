#include "proto/msg.h"

#include <errno.h>
#include <stdio.h>

#define OPT false
#define REQ true
#define MSG(name, type, text, limit) static const struct msg_field fields_##name[] = {
#define F(name, key, kind, field, req, max, text) \
	{ key, KIND_##kind, req, offsetof(struct msg, name.field), max, text },
#define END(name) { 0 } };
#include "proto/msg.def"
#undef MSG
#undef F
#undef END

#define MSG(name, type, text, limit) static const struct msg_desc desc_##name = { \
	type, text, limit, sizeof fields_##name / sizeof *fields_##name - 1, fields_##name };
#define F(...)
#define END(name)
#include "proto/msg.def"
#undef MSG
#undef END

const struct msg_desc *const msg_table[] = {
#define MSG(name, type, text, limit) &desc_##name,
#define END(name)
#include "proto/msg.def"
#undef MSG
#undef F
#undef END
	NULL
};

const struct msg_desc *msg_desc(uint64_t type)
{
	for (const struct msg_desc *const *d = msg_table; *d; d++)
		if ((uint64_t)(*d)->type == type)
			return *d;
	return NULL;
}

const char *msg_name(enum msg_type type)
{
	const struct msg_desc *d = msg_desc(type);
	return d ? d->name : "?";
}

void hex_format(const void *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[b[i] >> 4];
		*out++ = digits[b[i] & 15];
	}
	*out = '\0';
}

void hid_format(const struct hid *id, char out[37])
{
	char *o = out;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*o++ = '-';
		hex_format(&id->b[i], 1, o);
		o += 2;
	}
}

void fprint_format(const struct fprint *f, char out[65])
{
	hex_format(f->b, sizeof f->b, out);
}

int hid_parse(const char *text, struct hid *ret)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	struct hid id = { { 0 } };
	unsigned n = 0;

	for (const char *p = text; *p; p++) {
		const char *d = strchr(digits, *p);
		if ((p - text == 8 || p - text == 13 || p - text == 18 || p - text == 23)) {
			if (*p != '-')
				return -EINVAL;
			continue;
		}
		if (!d || n == 32)
			return -EINVAL;
		unsigned v = (unsigned)(d - digits);
		id.b[n / 2] = (uint8_t)(id.b[n / 2] << 4 | (v < 16 ? v : v - 6));
		n++;
	}
	if (n != 32)
		return -EINVAL;
	*ret = id;
	return 0;
}

struct hid msg_id(const struct msg *m)
{
	const struct msg_desc *d = msg_desc(m->type);
	struct hid id = { { 0 } };

	if (d && d->nfields && d->fields[0].kind == KIND_uuid && (d->fields[0].required || m->has & 1))
		memcpy(&id, (const char *)m + d->fields[0].offset, sizeof id);
	return id;
}

unsigned uints_copy(const struct uints *a, uint64_t *out, unsigned max)
{
	struct cbor_in in = a->raw;
	const char *why;
	unsigned i;

	for (i = 0; i < a->n && i < max; i++)
		if (scbor_get_uint(&in, &out[i], &why))
			break;
	return i;
}

unsigned texts_copy(const struct texts *a, struct span *out, unsigned max)
{
	struct cbor_in in = a->raw;
	const char *why;
	unsigned i;

	for (i = 0; i < a->n && i < max; i++)
		if (scbor_get_text(&in, &out[i], &why))
			break;
	return i;
}

/* ---------------------------------------------------------------- encode --- */

/* What a decoder refuses is not sent: it would cost the connection. */
static int check_field(const struct msg_field *f, const void *p)
{
	const struct span *s = p;
	const struct texts *a = p;

	switch ((enum msg_kind)f->kind) {
	case KIND_uint:
		return f->max && *(const uint64_t *)p > f->max ? -EMSGSIZE : 0;
	case KIND_bytes:
		return s->n > f->max ? -EMSGSIZE : 0;
	case KIND_text:
		return s->n > f->max ? -EMSGSIZE : utf8_valid(s->p, s->n) ? 0 : -EILSEQ;
	case KIND_uints:
		return ((const struct uints *)p)->n > f->max ? -EMSGSIZE : 0;
	case KIND_texts:
		if (a->n > f->max)
			return -EMSGSIZE;
		for (unsigned i = 0; i < a->n; i++)
			if (!utf8_valid(a->v[i].p, a->v[i].n))
				return -EILSEQ;
		return 0;
	default:
		return 0;
	}
}

static void put_field(struct cbor_out *o, const struct msg_field *f, const void *p)
{
	switch ((enum msg_kind)f->kind) {
	case KIND_uint: scbor_put_uint(o, *(const uint64_t *)p); break;
	case KIND_bool: scbor_put_bool(o, *(const bool *)p); break;
	case KIND_text: scbor_put_text(o, *(const struct span *)p); break;
	case KIND_bytes: {
		const struct span *s = p;
		scbor_put_bytes(o, s->p, s->n);
		break;
	}
	case KIND_uuid: scbor_put_bytes(o, p, sizeof(struct hid)); break;
	case KIND_fprint: scbor_put_bytes(o, p, FINGERPRINT_SIZE); break;
	case KIND_uints: {
		const struct uints *a = p;
		scbor_put_array(o, a->n);
		for (unsigned i = 0; i < a->n; i++)
			scbor_put_uint(o, a->v[i]);
		break;
	}
	case KIND_texts: {
		const struct texts *a = p;
		scbor_put_array(o, a->n);
		for (unsigned i = 0; i < a->n; i++)
			scbor_put_text(o, a->v[i]);
		break;
	}
	}
}

int msg_encode(const struct msg *m, uint16_t version, uint8_t *out, size_t size)
{
	const struct msg_desc *d = msg_desc(m->type);
	struct cbor_out o = { .p = out, .n = FRAME_HEADER, .size = size };
	size_t count = 0;
	int e;

	if (!d || size < FRAME_HEADER)
		return -EMSGSIZE;
	for (unsigned i = 0; i < d->nfields; i++)
		count += d->fields[i].required || m->has >> i & 1;
	scbor_put_array(&o, 2);
	scbor_put_uint(&o, (uint64_t)m->type);
	scbor_put_map(&o, count);
	for (unsigned i = 0; i < d->nfields; i++) {
		const struct msg_field *f = &d->fields[i];
		if (!f->required && !(m->has >> i & 1))
			continue;
		if ((e = check_field(f, (const char *)m + f->offset)))
			return e;
		scbor_put_uint(&o, f->key);
		put_field(&o, f, (const char *)m + f->offset);
	}
	if (o.full || o.n - FRAME_HEADER > d->limit)
		return -EMSGSIZE;
	frame_put_header(out, version, o.n - FRAME_HEADER);
	return (int)o.n;
}

/* ---------------------------------------------------------------- decode --- */

static int too(const char **why, const char *words)
{
	*why = words;
	return -EBADMSG;
}

static int get_sized(struct cbor_in *in, struct span *s, size_t want, const char **why)
{
	int e = scbor_get_bytes(in, s, why);
	if (!e && s->n != want)
		return too(why, "wrong length");
	return e;
}

/* An array is walked once here, so that whoever reads it later need not doubt it. */
static int get_array(struct cbor_in *in, const struct msg_field *f, void *p, const char **why)
{
	uint64_t count, u;
	struct span s;
	int e = scbor_get_array(in, &count, why);

	if (e)
		return e;
	if (count > f->max)
		return too(why, "too many elements");
	struct cbor_in raw = *in;
	for (uint64_t i = 0; i < count && !e; i++)
		e = f->kind == KIND_uints ? scbor_get_uint(in, &u, why) : scbor_get_text(in, &s, why);
	if (e)
		return e;
	if (f->kind == KIND_uints)
		*(struct uints *)p = (struct uints){ .n = (unsigned)count, .raw = raw };
	else
		*(struct texts *)p = (struct texts){ .n = (unsigned)count, .raw = raw };
	return 0;
}

static int get_field(struct cbor_in *in, const struct msg_field *f, void *p, const char **why)
{
	struct span s;
	int e;

	switch ((enum msg_kind)f->kind) {
	case KIND_uint:
		e = scbor_get_uint(in, p, why);
		return !e && f->max && *(uint64_t *)p > f->max ? too(why, "number too large") : e;
	case KIND_bool:
		return scbor_get_bool(in, p, why);
	case KIND_text:
	case KIND_bytes:
		e = f->kind == KIND_text ? scbor_get_text(in, p, why) : scbor_get_bytes(in, p, why);
		return !e && ((struct span *)p)->n > f->max ? too(why, "too long") : e;
	case KIND_uuid:
	case KIND_fprint:
		e = get_sized(in, &s, f->kind == KIND_uuid ? sizeof(struct hid) : FINGERPRINT_SIZE, why);
		if (!e)
			memcpy(p, s.p, s.n);
		return e;
	case KIND_uints:
	case KIND_texts:
		return get_array(in, f, p, why);
	}
	return too(why, "wrong type");
}

static const struct msg_field *field_of(const struct msg_desc *d, uint64_t key)
{
	for (unsigned i = 0; i < d->nfields; i++)
		if (d->fields[i].key == key)
			return &d->fields[i];
	return NULL;
}

static int get_map(struct cbor_in *in, const struct msg_desc *d, struct msg *m, const char **why,
                   const char **where)
{
	uint64_t count, key, last = 0;
	int e = scbor_get_map(in, &count, why);

	for (uint64_t i = 0; i < count && !e; i++) {
		*where = "key";
		if ((e = scbor_get_uint(in, &key, why)))
			break;
		if (i && key <= last)
			return too(why, "keys do not ascend");
		last = key;
		const struct msg_field *f = field_of(d, key);
		*where = f ? f->name : "unknown key";
		if (!f) {
			e = scbor_skip(in, why);   /* a later version's: ignored */
			continue;
		}
		e = get_field(in, f, (char *)m + f->offset, why);
		m->has |= UINT64_C(1) << (f - d->fields);
	}
	if (e)
		return e;
	for (unsigned i = 0; i < d->nfields; i++)
		if (d->fields[i].required && !(m->has >> i & 1)) {
			*where = d->fields[i].name;
			return too(why, "missing");
		}
	*where = NULL;
	return 0;
}

int msg_decode(const uint8_t *p, size_t n, struct msg *ret, char *err, size_t err_size)
{
	struct cbor_in in = { p, n };
	const struct msg_desc *d = NULL;
	const char *why = "", *where = NULL;
	struct msg m;
	uint64_t count = 0, type = 0;
	int e = scbor_get_array(&in, &count, &why);

	memset(&m, 0, sizeof m);
	if (!e && count != 2)
		e = too(&why, "not an array of type and map");
	if (!e)
		e = scbor_get_uint(&in, &type, &why);
	if (!e && !(d = msg_desc(type))) {
		snprintf(err, err_size, "unknown message type %llu", (unsigned long long)type);
		return -EBADMSG;
	}
	if (!e && n > d->limit)
		e = too(&why, "longer than this message may be");
	if (!e) {
		m.type = d->type;
		e = get_map(&in, d, &m, &why, &where);
	}
	if (!e && in.n)
		e = too(&why, "bytes behind the end of the message");
	if (e) {
		snprintf(err, err_size, "%s%s%s%s%s", d ? d->name : "message", where ? ": " : "",
		         where ? where : "", ": ", why);
		return e;
	}
	*ret = m;
	return 0;
}
