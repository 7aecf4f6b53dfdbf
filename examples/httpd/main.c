#include "httpd.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef HTTPD_VERSION
#define HTTPD_VERSION "1.0"
#endif

static const char help[] =
"httpd " HTTPD_VERSION ": an HTTP/1.1 server whose binary can be replaced under its clients.\n\n"
"  httpd --listen 127.0.0.1:8080\n"
"  curl http://127.0.0.1:8080/\n\n"
"  GET  /            its version\n"
"  PUT  /upload      (or POST) how many bytes have come, and their Adler-32\n"
"  GET  /bytes/N     N bytes\n"
"  GET  /events/MS   an event every MS milliseconds, for ever\n\n"
"  --listen HOST:PORT    an address, as [::1]:8080 too; may be repeated. fd:N: a\n"
"                        socket that it is started with. Below a supervisor its\n"
"                        listeners are used instead\n"
"  --max-connections N   at a time (10000)\n"
"  --idle SECONDS        so long a client may be silent, or not read (75)\n"
"  --leave SECONDS       so long a process that is replaced finishes what did not move;\n"
"                        less than the service's exit-timeout (5)\n"
"  --fault WHAT          misbehave as a successor, for tests: unhealthy, die, hang\n"
"  --version             print it\n"
"  --help                this text\n\n"
"As a daemon of handoffd it takes its listeners from there (any name), and\n"
"`handoffctl upgrade` replaces it. SIGTERM ends it.\n";

void log_line(const char *fmt, ...)
{
	va_list ap;

	fputs("httpd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

uint64_t mono_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void __attribute__((noreturn)) usage_error(const char *what, const char *value)
{
	fprintf(stderr, "httpd: %s%s (httpd --help explains)\n", what, value);
	exit(2);
}

static unsigned number(const char *value)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < 1 || n > 1000000)
		usage_error("a number from 1 to 1000000 is needed, not ", value);
	return (unsigned)n;
}

static enum fault fault(const char *value)
{
	static const char *const names[] = {
		[FAULT_UNHEALTHY] = "unhealthy", [FAULT_DIE] = "die", [FAULT_HANG] = "hang",
	};
	unsigned i;

	for (i = 1; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(value, names[i]))
			return (enum fault)i;
	usage_error("no such fault: ", value);
}

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option table[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "max-connections", required_argument, NULL, 'm' },
		{ "idle", required_argument, NULL, 'i' },
		{ "leave", required_argument, NULL, 'e' },
		{ "fault", required_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1)
		switch (c) {
		case 'l':
			if (o->listens == MAX_LISTENERS)
				usage_error("too many of --listen", "");
			o->listen[o->listens++] = optarg;
			break;
		case 'm': o->max_connections = number(optarg); break;
		case 'i': o->idle_s = number(optarg); break;
		case 'e': o->leave_s = number(optarg); break;
		case 'f': o->fault = fault(optarg); break;
		case 'v': puts("httpd " HTTPD_VERSION); exit(0);
		case 'h': fputs(help, stdout); exit(0);
		default: exit(2);
		}
	if (optind < argc)
		usage_error("what is ", argv[optind]);
}

static void on_term(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	log_line("signal %d: ending", (int)sig);
	net_leave(arg, 1);
}

static void on_handoff(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	life_dispatch(arg);
}

/* What is needed to serve, and not before: a signal still ends a successor at once. */
static int attach(struct server *sv)
{
	sv->handoff_event = event_new(sv->base, handoff_fd(sv->h), EV_READ | EV_PERSIST,
				      on_handoff, sv);
	sv->term[0] = evsignal_new(sv->base, SIGTERM, on_term, sv);
	sv->term[1] = evsignal_new(sv->base, SIGINT, on_term, sv);
	return sv->handoff_event && sv->term[0] && sv->term[1] &&
	       event_add(sv->handoff_event, NULL) == 0 && event_add(sv->term[0], NULL) == 0 &&
	       event_add(sv->term[1], NULL) == 0 ? 0 : -1;
}

static int serve(struct server *sv)
{
	if (attach(sv) < 0) {
		log_line("out of memory");
		return 1;
	}
	log_line("httpd %s serves, with %u connections", sv->opt->version, sv->nconns);
	net_accept(sv, 1);
	move_wake(sv); /* those of an incumbent */
	return event_base_dispatch(sv->base) < 0;
}

int main(int argc, char **argv)
{
	struct options opt = { .version = HTTPD_VERSION, .max_connections = 10000,
			       .idle_s = 75, .leave_s = 5 };
	static struct server sv = { 0 };
	int r;

	parse(&opt, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	http_parser_set_max_header_size(MAX_HEAD);
	sv.opt = &opt;
	r = net_init(&sv);
	if (r == 0)
		r = life_start(&sv);
	if (r == 0)
		r = serve(&sv);
	else
		r = r < 0;
	net_free(&sv);
	handoff_close(sv.h);
	return r;
}
