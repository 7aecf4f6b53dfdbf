#include "handoffctl/json.h"

#include <stdlib.h>
#include <string.h>

static bool starved;   /* of some memory, since the last whole text */

static void *allocate(size_t n)
{
	void *p = malloc(n);

	starved |= !p;
	return p;
}

void json_init(void)
{
	json_set_alloc_funcs(allocate, free);
}

char *json_whole(json_t *j, size_t flags)
{
	char *text = j ? json_dumps(j, flags) : NULL;

	/* json_dumps(3) goes on where it has no memory for a key, and leaves half of it out */
	if (starved) {
		free(text);
		text = NULL;
	}
	starved = false;
	json_decref(j);
	return text;
}

json_t *json_text(struct span s)
{
	json_t *j;
	char *copy;

	if (utf8_valid(s.p, s.n))
		return json_stringn(s.p, s.n);
	if (!(copy = allocate(s.n)))
		return NULL;
	for (size_t i = 0; i < s.n; i++)
		copy[i] = (unsigned char)s.p[i] < 0x80 ? s.p[i] : '?';
	j = json_stringn(copy, s.n);
	free(copy);
	return j;
}

void json_put_text(json_t *j, const char *key, const char *value)
{
	json_put_span(j, key, value != NULL, value ? SPAN(value) : (struct span){ "", 0 });
}

void json_put_span(json_t *j, const char *key, bool has, struct span value)
{
	json_object_set_new(j, key, has ? json_text(value) : json_null());
}

void json_put_uint(json_t *j, const char *key, bool has, uint64_t value)
{
	json_object_set_new(j, key, !has ? json_null() :
	                    json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void json_put_bool(json_t *j, const char *key, bool has, bool value)
{
	json_object_set_new(j, key, has ? json_boolean(value) : json_null());
}

void json_put_hid(json_t *j, const char *key, bool has, const struct hid *value)
{
	char text[37];

	if (has)
		hid_format(value, text);
	json_put_text(j, key, has ? text : NULL);
}

void json_put_sum(json_t *j, const char *key, bool has, const struct fprint *value)
{
	char text[65];

	if (has)
		fprint_format(value, text);
	json_put_text(j, key, has ? text : NULL);
}

void json_put_counts(json_t *j, const struct msg *m)
{
	const struct msg_op_event *e = &m->op_event;

	json_put_uint(j, "connections_left", MSG_HAS(m, op_event, left), e->left);
	json_put_uint(j, "shards_sealed", MSG_HAS(m, op_event, sealed), e->sealed);
	json_put_uint(j, "shards", MSG_HAS(m, op_event, shards), e->shards);
	json_put_uint(j, "connections_moved", MSG_HAS(m, op_event, moved), e->moved);
	json_put_uint(j, "connections_stayed", MSG_HAS(m, op_event, stayed), e->stayed);
}
