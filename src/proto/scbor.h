/*
 * scbor: strict reading and deterministic writing (RFC 8949, 4.2.1) over libcbor's
 * streaming decoder and buffer encoders: no tree, no allocation, nothing sized by
 * a peer's numbers.
 *
 * libcbor leaves to its caller: minimal integers, UTF-8, indefinite lengths, a
 * length near 2^64 (it wraps), counts that the buffer cannot hold. That is what
 * this file is for.
 */
#ifndef HANDOFF_PROTO_SCBOR_H
#define HANDOFF_PROTO_SCBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span { const char *p; size_t n; };   /* borrowed bytes, no NUL at the end */
#define SPAN(s) ((struct span){ (s), strlen(s) })

struct cbor_in { const uint8_t *p; size_t n; };  /* what is left to read */

/* Each takes one item of its kind: 0, or -EBADMSG (and *why, a few static words). */
int scbor_get_uint(struct cbor_in *in, uint64_t *ret, const char **why);
int scbor_get_bool(struct cbor_in *in, bool *ret, const char **why);
int scbor_get_text(struct cbor_in *in, struct span *ret, const char **why);
int scbor_get_bytes(struct cbor_in *in, struct span *ret, const char **why);
int scbor_get_array(struct cbor_in *in, uint64_t *ret_count, const char **why);
int scbor_get_map(struct cbor_in *in, uint64_t *ret_count, const char **why);
/* Takes any item with all that it holds: what an unknown key brings. Well-formedness
 * is checked as strictly as elsewhere; at most 4 levels deep. */
int scbor_skip(struct cbor_in *in, const char **why);

struct cbor_out { uint8_t *p; size_t n, size; bool full; };

void scbor_put_uint(struct cbor_out *o, uint64_t v);
void scbor_put_bool(struct cbor_out *o, bool v);
void scbor_put_text(struct cbor_out *o, struct span s);
void scbor_put_bytes(struct cbor_out *o, const void *p, size_t n);
void scbor_put_array(struct cbor_out *o, size_t count);
void scbor_put_map(struct cbor_out *o, size_t count);

/* Cuts a string at the first byte that is not UTF-8: what a cut in the middle of a character left. */
void utf8_mend(char *s);
/* The text, or words in its place: a path may be any bytes, the wire takes UTF-8. */
struct span utf8_span(const char *p, size_t n);
bool utf8_valid(const char *p, size_t n);   /* RFC 3629: no surrogates, no overlong */

#endif
