/*
 * Bytes to requests. The parser's own state cannot be told to another process: it is private to
 * its library, and another version may have another. So the input keeps what the parser would need
 * to come to its place anew: a request from its beginning until its body begins, and from then on
 * what lies behind the last byte of the body that was taken. A parser that goes on within a body is
 * told a made-up head, of a request that has just the rest of it.
 */
#include "httpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

size_t piece_at(struct evbuffer *b, size_t at, const char **p)
{
	struct evbuffer_iovec v;
	struct evbuffer_ptr place;

	evbuffer_ptr_set(b, &place, at, EVBUFFER_PTR_SET);
	evbuffer_peek(b, -1, &place, &v, 1);
	*p = v.iov_base;
	return v.iov_len;
}

static void append(struct text *t, const char *p, size_t n)
{
	size_t room = sizeof(t->p) - 1 - t->n;

	t->cut |= n > room;
	n = n > room ? room : n;
	memcpy(t->p + t->n, p, n);
	t->n += n;
	t->p[t->n] = '\0';
}

static void clear(struct text *t)
{
	t->n = 0;
	t->cut = 0;
	t->p[0] = '\0';
}

static int on_begin(http_parser *p)
{
	struct conn *c = p->data;

	c->s.chunked = c->s.count = c->s.event = 0;
	c->s.sum = 1;
	c->in_value = c->expects = 0;
	clear(&c->url);
	clear(&c->field);
	clear(&c->value);
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	struct conn *c = p->data;

	append(&c->url, at, n);
	return c->url.cut;
}

static void header_done(struct conn *c)
{
	if (!strcasecmp(c->field.p, "Expect"))
		c->expects = !strcasecmp(c->value.p, "100-continue");
	if (!strcasecmp(c->field.p, "Last-Event-ID"))
		c->s.event = strtoull(c->value.p, NULL, 10);
	clear(&c->field);
	clear(&c->value);
	c->in_value = 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
	struct conn *c = p->data;

	if (c->in_value)
		header_done(c);
	append(&c->field, at, n);
	return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct conn *c = p->data;

	c->in_value = 1;
	append(&c->value, at, n);
	return 0;
}

static int on_head(http_parser *p)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct conn *c = p->data;

	header_done(c);
	c->left = p->content_length;
	c->s.method = p->method;
	c->s.minor = p->http_major == 1 ? p->http_minor : 0;
	c->s.last = !http_should_keep_alive(p);
	route_find(c, c->url.p, strcspn(c->url.p, "?"));
	/* a head that has moved is read twice */
	if (c->expects && c->s.minor && !c->s.continued)
		evbuffer_add(bufferevent_get_output(c->bev), go_on, sizeof(go_on) - 1);
	c->s.continued = (uint64_t)c->expects;
	return 0;
}

static int on_chunk(http_parser *p)
{
	struct conn *c = p->data;

	c->s.chunked = 1;
	c->left = p->content_length;
	return 0;
}

static uint64_t adler32(uint64_t sum, const unsigned char *p, size_t n)
{
	uint32_t a = (uint32_t)sum & 0xffff, b = (uint32_t)sum >> 16;

	while (n--) {
		a = (a + *p++) % 65521;
		b = (b + a) % 65521;
	}
	return (uint64_t)b << 16 | a;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct conn *c = p->data;

	c->s.count += n;
	c->s.sum = adler32(c->s.sum, (const unsigned char *)at, n);
	c->s.body = 1;
	c->s.left = c->left -= n;
	c->settled = c->parsed + (size_t)(at + n - c->piece);
	return 0;
}

/* What lies behind it is another request's, whose turn comes when this one is answered. */
static int on_end(http_parser *p)
{
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings callbacks = {
	.on_message_begin = on_begin, .on_url = on_url, .on_header_field = on_field,
	.on_header_value = on_value, .on_headers_complete = on_head,
	.on_chunk_header = on_chunk, .on_body = on_body, .on_message_complete = on_end,
};

void http_init(struct conn *c)
{
	http_parser_init(&c->parser, HTTP_REQUEST);
	c->parser.data = c;
	c->parsed = 0;
	c->s.body = 0;
}

static int status_of(enum http_errno e)
{
	return e == HPE_CB_url ? HTTP_STATUS_URI_TOO_LONG :
	       e == HPE_HEADER_OVERFLOW ? HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE :
	       HTTP_STATUS_BAD_REQUEST;
}

int http_parse(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	enum http_errno e;
	size_t n;

	while (c->parsed < evbuffer_get_length(in)) {
		n = piece_at(in, c->parsed, &c->piece);
		c->settled = 0;
		n = http_parser_execute(&c->parser, &callbacks, c->piece, n);
		e = HTTP_PARSER_ERRNO(&c->parser);
		c->parsed += n;
		if (e == HPE_PAUSED) {
			evbuffer_drain(in, c->parsed);
			http_init(c);
			c->s.continued = 0;
			return 1;
		}
		if (e != HPE_OK)
			return status_of(e);
		evbuffer_drain(in, c->settled);
		c->parsed -= c->settled;
	}
	return 0;
}

int http_resume(struct conn *c)
{
	static const http_parser_settings silent;
	unsigned long long rest = c->s.left + 1;
	char head[128];
	int n;

	c->left = c->s.left;
	if (!c->s.body)
		return 0;
	if (c->s.left >= INT64_MAX || (!c->s.chunked && !c->s.left))
		return -1;
	/* one byte more than is left, and that byte: its place is behind a byte of the body */
	if (c->s.chunked)
		n = snprintf(head, sizeof(head), "PUT / HTTP/1.1\r\n"
			     "Transfer-Encoding: chunked\r\n\r\n%llx\r\n.", rest);
	else
		n = snprintf(head, sizeof(head), "PUT / HTTP/1.1\r\n"
			     "Content-Length: %llu\r\n\r\n.", rest);
	http_parser_execute(&c->parser, &silent, head, (size_t)n);
	return HTTP_PARSER_ERRNO(&c->parser) == HPE_OK ? 0 : -1;
}
