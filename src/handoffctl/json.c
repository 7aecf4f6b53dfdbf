#include "handoffctl/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *json_text(struct span s)
{
	json_t *j;
	char *copy;

	if (utf8_valid(s.p, s.n))
		return json_stringn(s.p, s.n);
	if (!(copy = malloc(s.n)))
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

void json_print_line(json_t *j)
{
	/* whole or not at all: half an object is none */
	char *text = j ? json_dumps(j, 0) : NULL;

	errno = text ? 0 : ENOMEM;
	/* a script finds no line: at least people see why (EPIPE: it does not want any) */
	if ((!text || puts(text) == EOF || fflush(stdout)) && errno != EPIPE)
		fprintf(stderr, "handoffctl: a line of JSON could not be printed: %s\n", strerror(errno));
	free(text);
	json_decref(j);
}
