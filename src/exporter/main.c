/* handoff-exporter: what the supervisors of a host say, for Prometheus, probes and collectors. */
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "base/sys.h"
#include "exporter/traces.h"
#include "exporter/web.h"
#include "handoffctl/json.h"

#define LISTEN "127.0.0.1:9780"

static const char usage[] =
	"usage: handoff-exporter [--listen ADDRESS] [--spans FILE]\n"
	"\n"
	"Asks the supervisors of this host for their state, which everybody may, and tells it\n"
	"over HTTP: /metrics, /health, /health/NAME, /ready, /ready/NAME. Stays in the foreground.\n"
	"\n"
	"  -l, --listen ADDRESS   HOST:PORT or [HOST]:PORT (" LISTEN "); port 0: a free one\n"
	"  -s, --spans FILE       each handoff that has ended, as a line of OTLP JSON; a pipe, too\n"
	"  -h, --help             this text\n"
	"      --version          the version\n"
	"\n"
	"example:\n"
	"  handoff-exporter --spans /var/log/handoff-spans.json &\n"
	"  curl http://" LISTEN "/metrics\n"
	"\n"
	"Exit status: 0 stopped; 1 it could not run; 2 usage.\n";

struct arguments { const char *listen, *spans; char host[256]; uint16_t port; };

static int bad_usage(const char *what)
{
	fprintf(stderr, "handoff-exporter: %s; 'handoff-exporter --help' explains\n", what);
	return 2;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' }, { "spans", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'v' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "l:s:h", options, NULL)) != -1)
		switch (c) {
		case 'l': a->listen = optarg; break;
		case 's': a->spans = optarg; break;
		case 'h': fputs(usage, stdout); return 0;
		case 'v': puts("handoff-exporter " PACKAGE_VERSION); return 0;
		default: return 2;
		}
	return optind < argc ? bad_usage("it takes no arguments but options") : -1;
}

/* HOST:PORT; the brackets of an IPv6 address are left out. */
static int split(const char *address, char host[256], uint16_t *port)
{
	const char *colon = strrchr(address, ':');
	size_t n = colon ? (size_t)(colon - address) : 0;
	char *end;
	long v = colon ? strtol(colon + 1, &end, 10) : -1;

	if (!n || n > 255 || !colon[1] || *end || v < 0 || v > 65535)
		return -1;
	if (*address == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	} else if (memchr(address, ':', n)) {
		return -1;
	}
	memcpy(host, address, n);
	host[n] = '\0';
	*port = (uint16_t)v;
	return 0;
}

static void on_signal(evutil_socket_t sig, short what, void *base)
{
	(void)sig;
	(void)what;
	event_base_loopbreak(base);
}

static int run(struct arguments *a, struct event_base *base)
{
	struct event *term = evsignal_new(base, SIGTERM, on_signal, base), *interrupt = evsignal_new(base, SIGINT, on_signal, base);
	struct web *web = NULL;
	struct traces *traces = NULL;
	char err[600] = "no memory";
	bool ok = term && interrupt && !event_add(term, NULL) && !event_add(interrupt, NULL);

	ok = ok && (web = web_open(base, a->host, a->port, &a->port, err, sizeof err)) &&
	     (!a->spans || (traces = traces_open(base, a->spans, TRACES_MS, err, sizeof err)));
	if (ok) {
		fprintf(stderr, "handoff-exporter: listens on %s, port %u\n", a->host, (unsigned)a->port);
		event_base_dispatch(base);
	} else {
		fprintf(stderr, "handoff-exporter: %s\n", err);
	}
	traces_close(traces);
	web_close(web);
	if (term)
		event_free(term);
	if (interrupt)
		event_free(interrupt);
	return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct arguments a = { .listen = LISTEN };
	struct event_base *base;
	int status;

	sys_fill_standard();
	json_init();
	if ((status = parse(argc, argv, &a)) >= 0)
		return status;
	if (split(a.listen, a.host, &a.port))
		return bad_usage("--listen takes HOST:PORT or [HOST]:PORT");
	signal(SIGPIPE, SIG_IGN);
	if (!(base = event_base_new()))
		return 1;
	status = run(&a, base);
	event_base_free(base);
	return status;
}
