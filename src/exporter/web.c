#include "exporter/web.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>

#include "base/sys.h"
#include "exporter/everybody.h"
#include "handoffd/conf.h"

#define PATIENCE_S   10         /* for a request, and for the reading of an answer */
#define HEADERS_MAX  8192
#define AT_ONCE      64         /* requests that wait for supervisors */

struct web {
	struct evhttp *http;
	struct event_base *base;
	unsigned waiting;
};

/* One request that waits for supervisors. */
struct request {
	struct web *web;
	struct evhttp_request *http;
	struct everybody *everybody;
	const struct path *path;
	bool one;                    /* of one service: unknown is an answer */
};

struct path {
	const char *name;
	bool of_one;                 /* may have /NAME behind it */
	void (*answer)(struct request *r, const struct metrics_of *v, size_t n);
};

static const char plain[] = "text/plain; charset=utf-8";

/* Consumes b. NULL: there was no memory for it. */
static void reply(struct evhttp_request *http, int code, const char *type, struct evbuffer *b)
{
	evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", type);
	evhttp_send_reply(http, b ? code : HTTP_INTERNAL, NULL, b);
	if (b)
		evbuffer_free(b);
}

/* text NULL: there was no memory for it. */
static void say(struct evhttp_request *http, int code, const char *type, const char *text)
{
	struct evbuffer *b = text ? evbuffer_new() : NULL;

	if (b && evbuffer_add(b, text, strlen(text)))
		code = HTTP_INTERNAL;   /* half of the rows would be a lie */
	reply(http, code, type, b);
}

/* ---- /metrics ---- */

static bool wants_openmetrics(struct evhttp_request *http)
{
	const char *accept = evhttp_find_header(evhttp_request_get_input_headers(http), "Accept");

	return accept && strstr(accept, "application/openmetrics-text");
}

static void answer_metrics(struct request *r, const struct metrics_of *v, size_t n)
{
	const bool openmetrics = wants_openmetrics(r->http);
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (f) {
		metrics_write(f, v, n, openmetrics);
		if (fclose(f)) {
			free(text);
			text = NULL;
		}
	}
	say(r->http, HTTP_OK, openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
	    : "text/plain; version=0.0.4; charset=utf-8", text);
	free(text);
}

/* ---- /health, /ready ---- */

static const char *health(const struct metrics_of *m)
{
	return !m->up ? "the supervisor does not answer" : !m->serving ? "the service is not served" : NULL;
}

static const char *readiness(const struct metrics_of *m)
{
	const char *why = health(m);

	return why ? why : !m->connected ? "the daemon is not registered with its supervisor"
	       : m->in_handoff ? "a handoff is under way" : m->refuses ? "an upgrade would be refused" : NULL;
}

static void answer_states(struct request *r, const struct metrics_of *v, size_t n,
                          const char *(*wrong)(const struct metrics_of *m))
{
	struct evbuffer *b = evbuffer_new();
	int code = HTTP_OK;

	for (size_t i = 0; b && i < n; i++) {
		const char *why = wrong(&v[i]);

		if (why && code == HTTP_OK)
			code = HTTP_SERVUNAVAIL;
		if (evbuffer_add_printf(b, "%s: %s\n", v[i].service, why ? why : "ok") < 0)
			code = HTTP_INTERNAL;
	}
	reply(r->http, code, plain, b);
}

static void answer_health(struct request *r, const struct metrics_of *v, size_t n)
{
	answer_states(r, v, n, health);
}

static void answer_ready(struct request *r, const struct metrics_of *v, size_t n)
{
	answer_states(r, v, n, readiness);
}

static const struct path paths[] = {
	{ "/metrics", false, answer_metrics },
	{ "/health", true, answer_health },
	{ "/ready", true, answer_ready },
};

/* ---- requests ---- */

static void request_free(struct request *r)
{
	r->web->waiting--;
	free(r);
}

static void on_done(void *arg, const struct metrics_of *v, size_t n)
{
	struct request *r = arg;

	evhttp_connection_set_closecb(evhttp_request_get_connection(r->http), NULL, NULL);
	if (!v)
		say(r->http, HTTP_SERVUNAVAIL, plain, "no memory or no descriptors to ask the supervisors with\n");
	else if (r->one && !n)
		say(r->http, HTTP_NOTFOUND, plain, "no such service here\n");
	else
		r->path->answer(r, v, n);
	request_free(r);
}

/* The connection is closed before the answer, as at the end of the exporter; libevent frees its request. */
static void on_gone(struct evhttp_connection *c, void *arg)
{
	struct request *r = arg;

	(void)c;
	everybody_free(r->everybody);
	request_free(r);
}

static void ask(struct web *w, struct evhttp_request *http, const struct path *p, const char *name)
{
	struct request *r = w->waiting < AT_ONCE ? calloc(1, sizeof *r) : NULL;

	if (r) {
		*r = (struct request){ .web = w, .http = http, .path = p, .one = name != NULL };
		w->waiting++;
		r->everybody = everybody_ask(w->base, name, on_done, r);
		if (r->everybody) {
			evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_gone, r);
			return;
		}
		request_free(r);
	}
	say(http, HTTP_SERVUNAVAIL, plain, "too many requests, or the runtime directory cannot be read\n");
}

static void on_request(struct evhttp_request *http, void *arg)
{
	const char *uri = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(http));

	for (size_t i = 0; uri && i < sizeof paths / sizeof *paths; i++) {
		const size_t n = strlen(paths[i].name);
		const char *name = uri + n;

		if (strncmp(uri, paths[i].name, n) || (*name && *name != '/'))
			continue;
		if (*name && (!paths[i].of_one || !conf_name_ok(name + 1)))
			break;
		ask(arg, http, &paths[i], *name ? name + 1 : NULL);
		return;
	}
	say(http, HTTP_NOTFOUND, plain, "there are /metrics, /health, /health/NAME, /ready and /ready/NAME\n");
}

/* ---- connections ---- */

static void on_accept_again(evutil_socket_t fd, short what, void *listener);

/* Without descriptors a connection stays in the queue, and its listener readable (accept(2)): else
 * it would be tried all the while. */
static void on_no_accept(struct evconnlistener *l, void *arg)
{
	const struct timeval pause = { 1, 0 };
	const int e = errno;

	(void)arg;   /* libevent's, of its HTTP */
	if (event_base_once(evconnlistener_get_base(l), -1, EV_TIMEOUT, on_accept_again, l, &pause))
		return;
	evconnlistener_disable(l);
	fprintf(stderr, "handoff-exporter: a connection cannot be accepted: %s; tried again in a second\n", strerror(e));
}

static void on_accept_again(evutil_socket_t fd, short what, void *listener)
{
	(void)fd;
	(void)what;
	if (evconnlistener_enable(listener))
		on_no_accept(listener, NULL);
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof sa;

	if (sys_getsockname(fd, (struct sockaddr *)&sa, &n))
		return 0;
	return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port : ((struct sockaddr_in *)&sa)->sin_port);
}

struct web *web_open(struct event_base *base, const char *host, uint16_t port, uint16_t *ret_port, char *err, size_t size)
{
	struct web *w = calloc(1, sizeof *w);
	struct evhttp_bound_socket *bound;

	if (!w || !(w->http = evhttp_new(base))) {
		free(w);
		snprintf(err, size, "no memory");
		return NULL;
	}
	w->base = base;
	evhttp_set_allowed_methods(w->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
	evhttp_set_max_headers_size(w->http, HEADERS_MAX);
	evhttp_set_max_body_size(w->http, 0);
	evhttp_set_timeout(w->http, PATIENCE_S);
	evhttp_set_gencb(w->http, on_request, w);
	errno = 0;
	if (!(bound = evhttp_bind_socket_with_handle(w->http, host, port))) {
		snprintf(err, size, "cannot listen on %s, port %u: %s; choose another with --listen", host,
		         (unsigned)port, errno ? strerror(errno) : "not an address");
		web_close(w);
		return NULL;
	}
	evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(bound), on_no_accept);
	*ret_port = port_of(evhttp_bound_socket_get_fd(bound));
	return w;
}

void web_close(struct web *w)
{
	if (!w)
		return;
	evhttp_free(w->http);
	free(w);
}
