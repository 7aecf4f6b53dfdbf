#include "resp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_LINE 1024

/* The line's number: digits with an optional minus, nothing else. */
static int parse_integer(const char *s, size_t len, int64_t *ret)
{
	int64_t n = 0;
	size_t i = len > 0 && s[0] == '-';

	if (i == len || len > 18)
		return -EPROTO;
	for (; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EPROTO;
		n = n * 10 + (s[i] - '0');
	}
	*ret = s[0] == '-' ? -n : n;
	return 0;
}

static ssize_t parse_bulk(const char *buf, size_t len, size_t head, int64_t n, struct resp *ret)
{
	if (n == -1) {
		*ret = (struct resp){ .type = RESP_NIL };
		return head;
	}
	if (n < 0 || n > RESP_MAX_BULK)
		return -EPROTO;
	if (len < head + n + 2)
		return 0;
	if (memcmp(buf + head + n, "\r\n", 2) != 0)
		return -EPROTO;
	*ret = (struct resp){ .type = RESP_BULK, .text = buf + head, .len = n };
	return head + n + 2;
}

ssize_t resp_parse(const char *buf, size_t len, struct resp *ret)
{
	const char *end;
	size_t line;
	int64_t n;

	if (len == 0)
		return 0;
	end = memchr(buf, '\r', len < MAX_LINE ? len : MAX_LINE);
	if (end == NULL)
		return len < MAX_LINE ? 0 : -EPROTO;
	if (end == buf + len - 1)
		return 0;
	if (end[1] != '\n')
		return -EPROTO;
	line = end - buf;
	switch (buf[0]) {
	case RESP_SIMPLE:
	case RESP_ERROR:
		*ret = (struct resp){ .type = buf[0], .text = buf + 1, .len = line - 1 };
		return line + 2;
	case RESP_INTEGER:
		if (parse_integer(buf + 1, line - 1, &n) < 0)
			return -EPROTO;
		*ret = (struct resp){ .type = RESP_INTEGER, .integer = n };
		return line + 2;
	case RESP_BULK:
		if (parse_integer(buf + 1, line - 1, &n) < 0)
			return -EPROTO;
		return parse_bulk(buf, len, line + 2, n, ret);
	default:
		return -EPROTO;
	}
}

size_t resp_header(char *buf, unsigned args)
{
	return sprintf(buf, "*%u\r\n", args);
}

size_t resp_arg(char *buf, const char *arg, size_t len)
{
	size_t n = sprintf(buf, "$%zu\r\n", len);

	memcpy(buf + n, arg, len);
	memcpy(buf + n + len, "\r\n", 2);
	return n + len + 2;
}
