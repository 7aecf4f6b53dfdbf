#include "resp.h"

#include "record.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void resp_init(struct resp *p)
{
	memset(p, 0, sizeof(*p));
	p->bulk = -1;
}

void resp_free(struct resp *p)
{
	free(p->argv);
	resp_init(p);
}

PRINTF_LIKE(2, 3) static int refuse(struct resp *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->error, sizeof(p->error), fmt, ap);
	va_end(ap);
	return -1;
}

static void add_arg(struct resp *p, size_t at, size_t len)
{
	if (p->argc == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 8;
		p->argv = xrealloc(p->argv, p->cap * sizeof(*p->argv));
	}
	p->argv[p->argc++] = (struct arg){ at, (uint32_t)len };
}

/* A whole line at pos: 1, its length without the end, and pos behind it. */
static int take_line(struct resp *p, const char *buf, size_t len, size_t *ret_at, size_t *ret_n)
{
	size_t from = p->scanned > p->pos ? p->scanned : p->pos;
	const char *end = from < len ? memchr(buf + from, '\n', len - from) : NULL;

	p->scanned = end ? 0 : len;
	if ((end ? (size_t)(end - buf) : len) - p->pos > MAX_INLINE)
		return refuse(p, "a line is over the limit of %u bytes", MAX_INLINE);
	if (!end)
		return 0;
	*ret_at = p->pos;
	*ret_n = (size_t)(end - buf) - p->pos;
	p->pos += *ret_n + 1;
	if (*ret_n && buf[*ret_at + *ret_n - 1] == '\r')
		(*ret_n)--;
	return 1;
}

static void split_inline(struct resp *p, const char *buf, size_t at, size_t n)
{
	size_t i = at, from;

	while (i < at + n) {
		for (; i < at + n && (buf[i] == ' ' || buf[i] == '\t'); i++)
			;
		for (from = i; i < at + n && buf[i] != ' ' && buf[i] != '\t'; i++)
			;
		if (i > from)
			add_arg(p, from, i - from);
	}
}

/* The first line of a command: *<count>, or words. 1: the command is complete. */
static int take_first(struct resp *p, const char *buf, size_t len)
{
	long long count;
	size_t at, n;
	int r;

	p->start = p->pos;
	p->argc = 0;
	r = take_line(p, buf, len, &at, &n);
	if (r <= 0)
		return r;
	if (!n || buf[at] != '*') {
		split_inline(p, buf, at, n);
		return 1;
	}
	if (!parse_ll(buf + at + 1, n - 1, &count) || count > (long long)MAX_ARGS)
		return refuse(p, "invalid multibulk length (limit %u)", MAX_ARGS);
	p->want = count > 0 ? (uint32_t)count : 0;
	return p->want ? 2 : 1;
}

/* The line $<length> of an argument. */
static int take_bulk_head(struct resp *p, const char *buf, size_t len)
{
	size_t at, n;
	long long v;
	int r = take_line(p, buf, len, &at, &n);

	if (r <= 0)
		return r;
	if (!n || buf[at] != '$')
		return refuse(p, "expected '$', got '%c'",
			      n && buf[at] > ' ' && buf[at] < 127 ? buf[at] : '?');
	if (!parse_ll(buf + at + 1, n - 1, &v) || v < 0 || v > (long long)MAX_VALUE)
		return refuse(p, "invalid bulk length (limit %u)", MAX_VALUE);
	if (p->pos - p->start + (size_t)v > MAX_COMMAND)
		return refuse(p, "the command is over the limit of %u bytes", MAX_COMMAND);
	p->bulk = v;
	return 2;
}

static int take_bulk(struct resp *p, const char *buf, size_t len)
{
	size_t n = (size_t)p->bulk;

	if (len - p->pos < n + 2)
		return 0;
	if (buf[p->pos + n] != '\r' || buf[p->pos + n + 1] != '\n')
		return refuse(p, "an argument does not end where its length says");
	add_arg(p, p->pos, n);
	p->pos += n + 2;
	p->bulk = -1;
	return --p->want ? 2 : 1;
}

int resp_parse(struct resp *p, const char *buf, size_t len)
{
	int r;

	do {
		if (p->bulk >= 0)
			r = take_bulk(p, buf, len);
		else if (p->want)
			r = take_bulk_head(p, buf, len);
		else
			r = take_first(p, buf, len);
	} while (r == 2);
	return r;
}

void resp_shift(struct resp *p, size_t n)
{
	uint32_t i;

	p->start -= p->start > n ? n : p->start; /* a command that is done may be gone */
	p->pos -= n;
	p->scanned -= p->scanned > n ? n : p->scanned;
	if (p->want) /* else argv is of a command that is done */
		for (i = 0; i < p->argc; i++)
			p->argv[i].at -= n;
}

void resp_rewind(struct resp *p, size_t start)
{
	p->start = p->pos = p->scanned = start;
	p->want = 0;
	p->bulk = -1;
}

/* -- replies ------------------------------------------------------------- */

static void reply_number(struct buf *b, char type, long long v)
{
	char text[24], *p = text + sizeof(text);
	unsigned long long u = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;

	*--p = '\n';
	*--p = '\r';
	do
		*--p = (char)('0' + u % 10);
	while ((u /= 10) != 0);
	if (v < 0)
		*--p = '-';
	*--p = type;
	buf_add(b, p, (size_t)(text + sizeof(text) - p));
}

void reply_text(struct buf *b, const char *text)
{
	buf_add(b, "+", 1);
	buf_add(b, text, strlen(text));
	buf_add(b, "\r\n", 2);
}

void reply_error(struct buf *b, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	char *p;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (p = text; *p; p++) /* what a client sent must not end the line */
		if ((unsigned char)*p < ' ')
			*p = ' ';
	buf_add(b, "-", 1);
	buf_add(b, text, strlen(text));
	buf_add(b, "\r\n", 2);
}

void reply_int(struct buf *b, long long v)
{
	reply_number(b, ':', v);
}

void reply_bulk(struct buf *b, const char *p, size_t n)
{
	reply_number(b, '$', (long long)n);
	buf_reserve(b, n + 2);
	buf_add(b, p, n);
	buf_add(b, "\r\n", 2);
}

void reply_string(struct buf *b, const char *s)
{
	reply_bulk(b, s, strlen(s));
}

void reply_nil(struct buf *b)
{
	buf_add(b, "$-1\r\n", 5);
}

void reply_array(struct buf *b, size_t n)
{
	reply_number(b, '*', (long long)n);
}
