/*
 * msg: the messages as structs, made from msg.def, and their codec. Pure.
 *
 * A decoded message borrows from the bytes it was decoded from. Optional fields:
 * bit (1 << place in the table) of `has`; MSG_HAS(&m, hello, ino).
 */
#ifndef HANDOFF_PROTO_MSG_H
#define HANDOFF_PROTO_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/scbor.h"
#include "proto/frame.h"

#define FINGERPRINT_SIZE 32u
#define MAX_SHARDS       1024u

struct hid { uint8_t b[16]; };   /* a handoff's id, a UUID; all 0: none (a cold start) */

static inline bool hid_equal(const struct hid *a, const struct hid *b) { return !memcmp(a, b, sizeof *a); }
static inline bool hid_none(const struct hid *a)
{
	static const struct hid none;
	return hid_equal(a, &none);
}
/* n bytes in hexadecimal, 2 * n + 1 with the end. */
void hex_format(const void *p, size_t n, char *out);
void hid_format(const struct hid *id, char out[37]);
int hid_parse(const char *text, struct hid *ret);   /* 0 or -EINVAL */

/* An array: v when it is to be encoded, raw when it was decoded (checked already). */
struct uints { unsigned n; const uint64_t *v; struct cbor_in raw; };
struct texts { unsigned n; const struct span *v; struct cbor_in raw; };
struct fprint { uint8_t b[FINGERPRINT_SIZE]; };
void fprint_format(const struct fprint *f, char out[65]);   /* in hexadecimal */

/* Copies a decoded array out, at most max; returns how many. */
unsigned uints_copy(const struct uints *a, uint64_t *out, unsigned max);
unsigned texts_copy(const struct texts *a, struct span *out, unsigned max);

typedef uint64_t msg_t_uint;
typedef bool msg_t_bool;
typedef struct span msg_t_text, msg_t_bytes;
typedef struct hid msg_t_uuid;
typedef struct uints msg_t_uints;
typedef struct texts msg_t_texts;
typedef struct fprint msg_t_fprint;

enum msg_type {
#define MSG(name, type, text, limit) MSG_##name = type,
#define F(...)
#define END(name)
#include "proto/msg.def"
#undef MSG
#undef F
#undef END
};

#define MSG(name, type, text, limit) struct msg_##name {
#define F(name, key, kind, field, req, max, text) msg_t_##kind field;
#define END(name) char end_; };
#include "proto/msg.def"
#undef MSG
#undef F
#undef END

/* The place of each field in its table: the bits of `has`. */
#define MSG(name, type, text, limit) enum {
#define F(name, key, kind, field, req, max, text) MSG_BIT_##name##_##field,
#define END(name) MSG_BIT_##name##_end };
#undef F_CONTEXT
#define F_CONTEXT(name) MSG_BIT_##name##_reason, MSG_BIT_##name##_trace_parent, \
	MSG_BIT_##name##_correlation_id, MSG_BIT_##name##_tenant,
#include "proto/msg.def"
#undef MSG
#undef F
#undef END
#undef F_CONTEXT

struct msg {
	enum msg_type type;
	uint64_t has;           /* bits of the optional fields that are there */
	union {
#define MSG(name, type, text, limit) struct msg_##name name;
#define F(...)
#define END(name)
#include "proto/msg.def"
#undef MSG
#undef F
#undef END
	};
};

#define MSG_HAS(m, name, field) (((m)->has >> MSG_BIT_##name##_##field) & 1u)
/* sets an optional field so that it is encoded */
#define MSG_SET(m, name, field_, value) \
	((m)->name.field_ = (value), (m)->has |= UINT64_C(1) << MSG_BIT_##name##_##field_)

enum msg_kind { KIND_uint, KIND_bool, KIND_text, KIND_bytes, KIND_uuid, KIND_uints, KIND_texts, KIND_fprint };

struct msg_field {
	uint8_t key, kind;
	bool required;
	uint16_t offset;          /* in struct msg */
	uint64_t max;
	const char *name;
};

struct msg_desc {
	enum msg_type type;
	const char *name;
	uint32_t limit;           /* bytes of the item */
	unsigned nfields;
	const struct msg_field *fields;
};

extern const struct msg_desc *const msg_table[];  /* NULL at the end */
const struct msg_desc *msg_desc(uint64_t type);   /* NULL: no such type */
const char *msg_name(enum msg_type type);

/*
 * The handoff's id that a message carries; *none (all 0) if it has none.
 */
struct hid msg_id(const struct msg *m);

/*
 * Encodes header and item into out. Returns the frame's size, or -EMSGSIZE: over size,
 * the message's limit or a field's; -EILSEQ: a text that is not UTF-8. Required fields
 * are always written, optional ones by their bit in has.
 */
int msg_encode(const struct msg *m, uint16_t version, uint8_t *out, size_t size);

/*
 * Decodes one item of n bytes (without the header). 0 and *ret, or -EBADMSG and in
 * err one line: "Hello: build-id: wrong type".
 */
int msg_decode(const uint8_t *p, size_t n, struct msg *ret, char *err, size_t err_size);

/* As a string into out, cut to size, which is at least 1. */
static inline void span_copy(char *out, size_t size, const struct span *s)
{
	const size_t n = s->n < size ? s->n : size - 1;

	if (n)
		memcpy(out, s->p, n);
	out[n] = '\0';
}

#endif
