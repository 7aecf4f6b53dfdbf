#include "http.h"

#include <errno.h>
#include <http_parser.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* What a parser has met: data of its callbacks. */
struct seen {
	bool complete, last;
};

/* RFC 9112, 6.3: without a length a reply ends with its connection. */
static int on_headers(http_parser *p)
{
	return p->content_length == ULLONG_MAX && !(p->flags & F_CHUNKED) ? -1 : 0;
}

static int on_complete(http_parser *p)
{
	struct seen *s = p->data;

	s->complete = true;
	s->last = !http_should_keep_alive(p);
	http_parser_pause(p, 1);
	return 0;
}

ssize_t http_parse(const char *buf, size_t len, struct resp *ret)
{
	static const http_parser_settings settings = {
		.on_headers_complete = on_headers, .on_message_complete = on_complete,
	};
	struct seen seen = { false, false };
	http_parser p;
	size_t n;

	http_parser_init(&p, HTTP_RESPONSE);
	p.data = &seen;
	n = http_parser_execute(&p, &settings, buf, len);
	if (!seen.complete)
		return HTTP_PARSER_ERRNO(&p) == HPE_OK ? 0 : -EPROTO;
	*ret = (struct resp){ .type = p.status_code / 100 == 2 ? RESP_SIMPLE : RESP_ERROR,
		.text = buf, .len = strcspn(buf, "\r\n"), .last = seen.last };
	return (ssize_t)n;
}

void http_get(char *buf, const char *path)
{
	sprintf(buf, "GET %s HTTP/1.1\r\nHost: kvload\r\n\r\n", path);
}
