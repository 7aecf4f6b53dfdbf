/*
 * The golden vectors against the codec: encoding gives exactly these bytes, decoding
 * exactly this meaning, and what is bad is refused with exactly this line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit/suite.h"
#include "msgtools.h"

#define FRAME_ROOM 70000
#define TEXT_ROOM  100000

struct vector {
	char kind[8], title[128];
	int line;
	uint8_t frame[FRAME_ROOM];
	size_t n;
	char rest[TEXT_ROOM];   /* the lines that are not hex, as they are */
	size_t rest_n;
};

static char source[512];

static void add_hex(struct vector *v, const char *p)
{
	for (; *p && *p != '\n'; p++) {
		unsigned byte;
		if (*p == ' ')
			continue;
		ck_assert_msg(sscanf(p, "%2x", &byte) == 1 && v->n < FRAME_ROOM, "%s: hex: %s",
		              v->title, p);
		v->frame[v->n++] = (uint8_t)byte;
		p++;
	}
}

/* The next vector: false at the end of the file. */
static bool read_vector(FILE *f, int *line, struct vector *v)
{
	static char text[TEXT_ROOM];

	v->n = v->rest_n = 0;
	v->kind[0] = 0;
	while (fgets(text, sizeof text, f)) {
		++*line;
		if (*text == '#')
			continue;
		if (*text == '\n') {
			if (v->kind[0])
				return true;
			continue;
		}
		if (!v->kind[0]) {
			v->line = *line;
			ck_assert_msg(sscanf(text, "%7s %127[^\n]", v->kind, v->title) == 2,
			              "line %d", *line);
		} else if (!strncmp(text, "  hex ", 6)) {
			add_hex(v, text + 6);
		} else {
			size_t n = strlen(text + 2);
			ck_assert_msg(v->rest_n + n < TEXT_ROOM, "line %d", *line);
			memcpy(v->rest + v->rest_n, text + 2, n + 1);
			v->rest_n += n;
		}
	}
	return v->kind[0] != 0;
}

static void each_vector(const char *kind, void (*check)(const struct vector *), int at_least)
{
	static struct vector v;
	int line = 0, count = 0;
	FILE *f = fopen(source, "r");

	ck_assert_msg(f != NULL, "%s: %s", source, strerror(errno));
	while (read_vector(f, &line, &v)) {
		ck_assert_msg(!strcmp(v.kind, "good") || !strcmp(v.kind, "read") ||
		              !strcmp(v.kind, "bad"),
		              "line %d: unknown kind %s", v.line, v.kind);
		if (strcmp(v.kind, kind))
			continue;
		check(&v);
		count++;
	}
	fclose(f);
	ck_assert_int_ge(count, at_least);
}

/* The item of v's frame, copied to an allocation of its size: a sanitizer sees a byte
 * read too far. The caller frees it. */
static uint8_t *item_of(const struct vector *v, size_t *ret_n)
{
	uint16_t version;

	ck_assert_uint_ge(v->n, FRAME_HEADER);
	int n = frame_get_header(v->frame, &version);
	ck_assert_msg(n >= 0 && (size_t)n == v->n - FRAME_HEADER && version == 1,
	              "line %d: %s: header", v->line, v->title);
	uint8_t *item = malloc(*ret_n = (size_t)n);
	ck_assert_ptr_nonnull(item);
	memcpy(item, v->frame + FRAME_HEADER, (size_t)n);
	return item;
}

static void decode_means(const struct vector *v, const uint8_t *item, size_t n, struct msg *m)
{
	static char said[TEXT_ROOM];
	char err[256] = "";

	int e = msg_decode(item, n, m, err, sizeof err);
	ck_assert_msg(e == 0, "line %d: %s: refused: %s", v->line, v->title, err);
	msg_say(m, said, sizeof said);
	ck_assert_msg(!strcmp(said, v->rest), "line %d: %s: decoded:\n%sexpected:\n%s", v->line,
	              v->title, said, v->rest);
}

static int encode_again(struct msg *m, uint8_t *out, size_t size)
{
	static struct store s;

	msg_thaw(m, &s);
	return msg_encode(m, 1, out, size);
}

static void check_good(const struct vector *v)
{
	static uint8_t out[FRAME_ROOM];
	size_t n;
	uint8_t *item = item_of(v, &n);
	struct msg m;

	decode_means(v, item, n, &m);
	int size = encode_again(&m, out, sizeof out);
	ck_assert_msg(size == (int)v->n && !memcmp(out, v->frame, v->n),
	              "line %d: %s: encodes otherwise",
	              v->line, v->title);
	ck_assert_int_eq(encode_again(&m, out, v->n), size);
	for (size_t room = 0; room < v->n; room++)   /* not one byte over the room given */
		ck_assert_int_eq(encode_again(&m, out, room), -EMSGSIZE);
	free(item);
}

static void check_cut(const struct vector *v)
{
	char err[256];
	size_t n;
	struct msg m, before;
	uint8_t *item = item_of(v, &n);

	memset(&before, 0x5a, sizeof before);
	m = before;
	for (size_t cut = 0; cut < n; cut++) {
		uint8_t *part = malloc(cut ? cut : 1);
		memcpy(part, item, cut);
		err[0] = 0;
		MUST(msg_decode(part, cut, &m, err, sizeof err) == -EBADMSG,
		              "line %d: %s: accepted when cut at %zu", v->line, v->title, cut);
		MUST(strstr(err, "CBOR ends too early") ||
		     strstr(err, "beyond the end of the frame"),
		              "line %d: %s: cut at %zu: %s", v->line, v->title, cut, err);
		MUST(!memcmp(&m, &before, sizeof m), "line %d: %s: result touched", v->line,
		     v->title);
		free(part);
	}
	free(item);
}

static void check_read(const struct vector *v)
{
	static uint8_t out[FRAME_ROOM];
	size_t n;
	uint8_t *item = item_of(v, &n);
	struct msg m;

	decode_means(v, item, n, &m);
	int size = encode_again(&m, out, sizeof out);
	ck_assert_msg(size > 0 && (size_t)size < v->n, "line %d: %s: unknown keys came back",
	              v->line, v->title);
	decode_means(v, out + FRAME_HEADER, (size_t)size - FRAME_HEADER, &m);
	free(item);
}

static void check_bad(const struct vector *v)
{
	char err[256] = "", line[300];
	uint16_t version = 0;
	unsigned stated;
	struct msg m, before;
	size_t n;

	if (!strcmp(v->rest, "header refused\n")) {
		ck_assert_msg(frame_get_header(v->frame, &version) == -EMSGSIZE, "line %d: %s",
		              v->line, v->title);
		return;
	}
	if (sscanf(v->rest, "header version %u", &stated) == 1) {
		ck_assert_msg(frame_get_header(v->frame, &version) > 0 && version == stated &&
		              version_negotiate(stated, stated, PROTO_VERSION_MIN,
		                                PROTO_VERSION_MAX) < 0,
		              "line %d: %s", v->line, v->title);
		return;
	}
	memset(&before, 0xa5, sizeof before);
	m = before;
	uint8_t *item = item_of(v, &n);
	int e = msg_decode(item, n, &m, err, sizeof err);
	snprintf(line, sizeof line, "error %s\n", err);
	ck_assert_msg(e == -EBADMSG, "line %d: %s: accepted", v->line, v->title);
	ck_assert_msg(!strcmp(line, v->rest), "line %d: %s: said: %sexpected: %s", v->line,
	              v->title, line, v->rest);
	ck_assert_mem_eq(&m, &before, sizeof m);   /* untouched on failure */
	free(item);
}

START_TEST(good) { each_vector("good", check_good, 70); } END_TEST
START_TEST(cut) { each_vector("good", check_cut, 70); } END_TEST
START_TEST(skipped) { each_vector("read", check_read, 15); } END_TEST
START_TEST(refused) { each_vector("bad", check_bad, 250); } END_TEST

#define FIRST_RECORD 128   /* from here on: records on disk, never on the wire */

/* Every message of the table has a vector with all of its fields, and one with the least. */
static uint32_t seen_all[256], seen_least[256];

static void note_fields(const struct vector *v)
{
	char err[256];
	size_t n;
	struct msg m;
	uint8_t *item = item_of(v, &n);

	ck_assert_int_eq(msg_decode(item, n, &m, err, sizeof err), 0);
	const struct msg_desc *d = msg_desc(m.type);
	uint64_t required = 0;
	for (unsigned i = 0; i < d->nfields; i++)
		required |= (uint64_t)d->fields[i].required << i;
	seen_all[m.type] |= m.has == (UINT64_C(1) << d->nfields) - 1;
	seen_least[m.type] |= m.has == required;
	free(item);
}

START_TEST(complete)
{
	each_vector("good", note_fields, 70);
	for (const struct msg_desc *const *d = msg_table; *d; d++) {
		if ((*d)->type >= FIRST_RECORD)
			continue;
		ck_assert_msg(seen_all[(*d)->type], "%s: no vector with all fields", (*d)->name);
		ck_assert_msg(seen_least[(*d)->type], "%s: no vector with required fields only",
		              (*d)->name);
	}
}
END_TEST

int main(void)
{
	const char *dir = getenv("srcdir");
	Suite *s = suite_create("wire");
	TCase *t = tcase_create("vectors");

	snprintf(source, sizeof source, "%s/tests/wire/vectors.txt", dir ? dir : ".");
	suite_add_tcase(s, t);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, good);
	tcase_add_test(t, cut);
	tcase_add_test(t, skipped);
	tcase_add_test(t, refused);
	tcase_add_test(t, complete);
	return suite_run(s);
}
