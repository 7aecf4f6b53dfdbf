/* Requests to bytes. A reply is made in parts, as there is room or time for them. */
#include "httpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKED UINT64_MAX /* as a length */
#define PATTERN 251        /* /bytes: byte i is i modulo this */
#define BLOCK (PATTERN * 64)
#define MAX_EVENT_MS 3600000

struct route {
	const char *path; /* of a GET; with a number behind it if it ends in a slash */
	int upload;       /* of a PUT or POST, instead */
	void (*begin)(struct conn *c);
	int (*more)(struct conn *c);
};

static struct evbuffer *out(const struct conn *c)
{
	return bufferevent_get_output(c->bev);
}

static void head(struct conn *c, int status, const char *type, uint64_t length)
{
	char date[32];

	evutil_date_rfc1123(date, sizeof(date), NULL);
	evbuffer_add_printf(out(c), "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: httpd/%s\r\n"
			    "Content-Type: %s\r\n", status,
			    http_status_str((enum http_status)status), date,
			    c->sv->opt->version, type);
	if (length == CHUNKED)
		evbuffer_add_printf(out(c), "Transfer-Encoding: chunked\r\n"
				    "Cache-Control: no-store\r\n");
	else
		evbuffer_add_printf(out(c), "Content-Length: %llu\r\n", (unsigned long long)length);
	if (c->s.last)
		evbuffer_add_printf(out(c), "Connection: close\r\n");
	else if (!c->s.minor) /* HTTP/1.0 has to be told */
		evbuffer_add_printf(out(c), "Connection: keep-alive\r\n");
}

/* A whole reply; more: another line of the head, or "". */
static void whole(struct conn *c, int status, const char *more, const char *text)
{
	head(c, status, "text/plain", strlen(text));
	evbuffer_add_printf(out(c), "%s\r\n%s", more, c->s.method == HTTP_HEAD ? "" : text);
}

static void complain(struct conn *c, int status, const char *more)
{
	char text[64];

	snprintf(text, sizeof(text), "%s\n", http_status_str((enum http_status)status));
	whole(c, status, more, text);
}

static int done(struct conn *c)
{
	c->s.replying = 0;
	c->s.closing = c->s.last;
	return 1;
}

/* -- what is there ------------------------------------------------------- */

static void begin_home(struct conn *c)
{
	char text[64];

	snprintf(text, sizeof(text), "httpd %s\n", c->sv->opt->version);
	whole(c, HTTP_STATUS_OK, "", text);
}

static void begin_upload(struct conn *c)
{
	char text[64];

	snprintf(text, sizeof(text), "%llu %08llx\n", (unsigned long long)c->s.count,
		 (unsigned long long)c->s.sum);
	whole(c, HTTP_STATUS_OK, "", text);
}

static void begin_bytes(struct conn *c)
{
	head(c, HTTP_STATUS_OK, "application/octet-stream", c->s.number);
	evbuffer_add(out(c), "\r\n", 2);
	c->s.replying = c->s.method != HTTP_HEAD && c->s.number;
	c->s.at = 0;
}

static const unsigned char *pattern(void)
{
	static unsigned char block[BLOCK];
	size_t i;

	if (!block[1])
		for (i = 0; i < BLOCK; i++)
			block[i] = (unsigned char)(i % PATTERN);
	return block;
}

static int more_bytes(struct conn *c)
{
	size_t skip, n;

	while (c->s.at < c->s.number && evbuffer_get_length(out(c)) < OUT_HIGH) {
		skip = c->s.at % PATTERN;
		n = c->s.number - c->s.at < BLOCK - skip ? c->s.number - c->s.at : BLOCK - skip;
		evbuffer_add_reference(out(c), pattern() + skip, n, NULL, NULL);
		c->s.at += n;
	}
	return c->s.at >= c->s.number ? done(c) : 0;
}

/* A stream counts from the last event that its client knows of: from one connection to the next,
 * and from one process to the next. */
static void begin_events(struct conn *c)
{
	if (!c->s.minor) {
		complain(c, HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED, "");
		return;
	}
	head(c, HTTP_STATUS_OK, "text/event-stream", CHUNKED);
	evbuffer_add(out(c), "\r\n", 2);
	c->s.replying = c->s.method != HTTP_HEAD;
	c->s.at = c->s.event;
	c->s.due = mono_ms();
}

/* Its end is said, so that its client comes back for the next event. */
static int more_events(struct conn *c)
{
	uint64_t now = mono_ms(), wait = c->s.due > now ? c->s.due - now : 0;
	const struct timeval tv = { (time_t)(wait / 1000), (suseconds_t)(wait % 1000 * 1000) };

	if (c->eof || c->sv->leaving) {
		evtimer_del(c->timer);
		evbuffer_add(out(c), "0\r\n\r\n", 5);
		c->s.last = 1;
		return done(c);
	}
	evtimer_add(c->timer, &tv);
	return 0;
}

void reply_on_time(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	uint64_t now = mono_ms();
	char text[64];
	int n;

	(void)fd, (void)what;
	if (evbuffer_get_length(out(c)) < OUT_HIGH) {
		c->s.at++;
		n = snprintf(text, sizeof(text), "id: %llu\ndata: httpd %s\n\n",
			     (unsigned long long)c->s.at, c->sv->opt->version);
		evbuffer_add_printf(out(c), "%x\r\n%s\r\n", (unsigned)n, text);
	}
	c->s.due += c->s.number;
	if (c->s.due < now) /* none of them are made up for */
		c->s.due = now;
	conn_step(c);
}

/* The row's number is a part of the form in which a connection moves: new ones come last. */
static const struct route routes[] = {
	{ NULL },
	{ "/", 0, begin_home, NULL },
	{ "/upload", 1, begin_upload, NULL },
	{ "/bytes/", 0, begin_bytes, more_bytes },
	{ "/events/", 0, begin_events, more_events }, /* every so many milliseconds */
};
#define ROUTES (sizeof(routes) / sizeof(routes[0]))

static int matches(const struct route *r, const char *path, size_t n)
{
	size_t k = strlen(r->path);

	if (n < k || strncmp(r->path, path, k) != 0)
		return 0;
	if (!r->more)
		return n == k;
	return n > k && n - k <= 18 && strspn(path + k, "0123456789") >= n - k;
}

void route_find(struct conn *c, const char *path, size_t n)
{
	size_t i;

	for (i = ROUTES - 1; i > 0 && !matches(&routes[i], path, n); i--)
		;
	c->s.route = i;
	c->s.number = routes[i].more ? strtoull(path + strlen(routes[i].path), NULL, 10) : 0;
	if (routes[i].more == more_events && (!c->s.number || c->s.number > MAX_EVENT_MS))
		c->s.route = 0;
}

int route_known(uint64_t route, int replying)
{
	return route < ROUTES && (!replying || routes[route].more);
}

void reply_begin(struct conn *c)
{
	const struct route *r = &routes[c->s.route];
	int fits = r->upload ? c->s.method == HTTP_PUT || c->s.method == HTTP_POST :
		   c->s.method == HTTP_GET || c->s.method == HTTP_HEAD;

	c->s.last |= (uint64_t)c->sv->leaving;
	if (!r->path)
		complain(c, HTTP_STATUS_NOT_FOUND, "");
	else if (!fits)
		complain(c, HTTP_STATUS_METHOD_NOT_ALLOWED,
			 r->upload ? "Allow: PUT, POST\r\n" : "Allow: GET, HEAD\r\n");
	else
		r->begin(c);
	if (!c->s.replying)
		done(c);
}

int reply_more(struct conn *c)
{
	return routes[c->s.route].more(c);
}

void reply_error(struct conn *c, int status)
{
	c->s.last = c->s.minor = 1;
	c->s.method = HTTP_GET;
	complain(c, status, "");
	done(c);
}
