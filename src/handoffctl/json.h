/*
 * json: small helpers over jansson. Every key is always there: a value that is not known is
 * null, so that scripts need not ask twice. Numbers over 2^63 - 1 become that: JSON's
 * readers have no more. Out of memory: no text at all, json_whole().
 */
#ifndef HANDOFF_CTL_JSON_H
#define HANDOFF_CTL_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"

/* Once, before any object is made. */
void json_init(void);
/* The text of j, or NULL if any memory was missing since the last one: half an object is none.
 * flags: of json_dumps(3). Releases j (NULL: none). free(). */
char *json_whole(json_t *j, size_t flags);

/* A new string; bytes that are not UTF-8 become '?'. */
json_t *json_text(struct span s);
void json_put_text(json_t *j, const char *key, const char *value);   /* NULL: null */
void json_put_span(json_t *j, const char *key, bool has, struct span value);
void json_put_uint(json_t *j, const char *key, bool has, uint64_t value);
void json_put_bool(json_t *j, const char *key, bool has, bool value);
void json_put_sum(json_t *j, const char *key, bool has, const struct fprint *value);
void json_put_hid(json_t *j, const char *key, bool has, const struct hid *value);
void json_put_counts(json_t *j, const struct msg *op_event);   /* how far its phase is */

#endif
