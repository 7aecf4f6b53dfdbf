/* handoffd: the supervisor of one service. */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "base/sys.h"
#include "handoffd/check.h"
#include "handoffd/conf.h"
#include "handoffd/fdstore.h"
#include "handoffd/log.h"
#include "handoffd/reap.h"
#include "handoffd/service.h"

static const char usage[] =
	"usage: handoffd -c FILE [-d] [--log-format F]\n"
	"       handoffd -c FILE --check\n"
	"       handoffd [-c FILE] --reap NAME\n"
	"\n"
	"Supervises one daemon and replaces its binary while it serves. Stays in the\n"
	"foreground; logs to stderr.\n"
	"\n"
	"  -c, --config FILE   the service's configuration, handoff.conf(5)\n"
	"      --check         read and check it, say what would be done, exit 0 or 2\n"
	"      --reap NAME     end what the unit handoff@NAME left behind; for its guard unit\n"
	"  -d, --debug         log more\n"
	"      --log-format F  text, or json: an object a line\n"
	"  -h, --help          this text\n"
	"      --version       the version\n"
	"\n"
	"example:\n"
	"  handoffd -c /etc/handoff/kvd.conf --check\n"
	"  handoffd -c /etc/handoff/kvd.conf &\n"
	"  handoffctl upgrade kvd\n"
	"\n"
	"SIGTERM and SIGINT end the daemon, then handoffd. SIGKILL ends handoffd alone: the\n"
	"daemon goes on, and a handoffd that is started again adopts it.\n"
	"Exit status: 0 stopped; 1 it could not run; 2 usage or configuration.\n";

struct arguments { const char *config, *reap; bool check, debug, json; };

static int bad_usage(const char *what)
{
	fprintf(stderr, "handoffd: %s; 'handoffd --help' explains\n", what);
	return 2;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "check", no_argument, NULL, 'k' },
		{ "reap", required_argument, NULL, 'r' },
		{ "debug", no_argument, NULL, 'd' }, { "log-format", required_argument, NULL, 'l' },
		 { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:dh", options, NULL)) != -1)
		switch (c) {
		case 'c': a->config = optarg; break;
		case 'k': a->check = true; break;
		case 'r': a->reap = optarg; break;
		case 'd': a->debug = true; break;
		case 'l':
			a->json = !strcmp(optarg, "json");
			if (!a->json && strcmp(optarg, "text"))
				return bad_usage("--log-format is text or json");
			break;
		case 'h': fputs(usage, stdout); return 0;
		case 'v': puts("handoffd " PACKAGE_VERSION); return 0;
		default: return 2;
		}
	if (optind < argc)
		return bad_usage("it takes no arguments but options");
	if (a->reap && !conf_name_ok(a->reap))
		return bad_usage("--reap takes the name of a service");
	if (!a->config && !a->reap)
		return bad_usage("no configuration given: handoffd -c FILE");
	return -1;
}

static int check_only(const struct conf *c)
{
	char err[1200];

	if (conf_check_machine(c, err, sizeof err) || conf_check_command(c, err, sizeof err)) {
		fprintf(stderr, "handoffd: %s\n", err);
		return 2;
	}
	return check_print(c, stdout) ? 1 : 0;
}

/* The configuration, if it can be read, says how long a daemon may take to stop. */
static int reap_only(const struct arguments *a)
{
	uint32_t timer[TIMER_COUNT];
	struct conf *c = NULL;
	char err[1200];

	timers_default(timer);
	log_open(a->reap, a->debug ? LOG_L_DEBUG : LOG_L_INFO);
	if (a->config && conf_read(a->config, &c, err, sizeof err))
		log_warning("stop-timeout is taken for %u s: %s", timer[TIMER_STOP] / 1000, err);
	else if (c)
		memcpy(timer, c->timer, sizeof timer);
	conf_free(c);
	return reap(a->reap, timer[TIMER_STOP]);
}

/*
 * The file's configuration, or, if it cannot be used and a supervisor has died that used it,
 * the one that that one had. The exit status, or -1; *ret_broken: why it is the other.
 */
static int find_conf(const struct arguments *a, struct conf **ret, char *ret_broken, size_t size)
{
	char err[1200];
	int e;

	*ret_broken = '\0';
	if (!conf_read(a->config, ret, ret_broken, size) && (a->check || !conf_check_machine(*ret, ret_broken, size)))
		return -1;
	*ret = conf_free(*ret);
	fprintf(stderr, "handoffd: %s\n", ret_broken);
	e = a->check ? -ENOENT : conf_read_kept(a->config, ret, err, sizeof err);
	if (e == -ENOENT)
		return 2;
	if (!e && !conf_check_machine(*ret, err, sizeof err))
		return -1;
	*ret = conf_free(*ret);
	fprintf(stderr, "handoffd: the configuration that was in use cannot be used either: %s\n", err);
	return 1;   /* which is not final for a service manager: a daemon may live */
}

static int run(struct conf *c, const char *broken)
{
	static struct service service;   /* large, and there is one */
	struct event_base *base = event_base_new();
	char err[1200] = "no memory";
	int e;

	if (!base) {
		log_error("no event loop");
		return 1;
	}
	if (*broken)
		log_error("%s; the configuration that was in use is used; correct the file, 'handoffctl upgrade' "
		          "reads it again", broken);
	e = service_start(&service, base, c, err, sizeof err);
	snprintf(service.conf_error, sizeof service.conf_error, "%s", broken);
	if (e)
		log_error("%s", err);
	log_hold(true);
	while (!e && !service.ended && !event_base_loop(base, EVLOOP_ONCE))
		log_flush();
	log_hold(false);
	service_end(&service);
	event_base_free(base);
	return e == -ENOEXEC ? 2 : e ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct arguments a = { NULL };
	struct conf *c = NULL;
	char broken[1200];
	sigset_t term;
	int status = parse(argc, argv, &a);

	if (status >= 0)
		return status;
	if (a.reap)
		return reap_only(&a);
	fdstore_receive();
	/* an early SIGTERM waits for its handler: one between fork and here would leave a daemon */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigaddset(&term, SIGINT);
	sigprocmask(SIG_BLOCK, &term, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);   /* a record over RLIMIT_FSIZE is one that cannot be written */
	sys_never_linger();
	if ((status = find_conf(&a, &c, broken, sizeof broken)) >= 0)
		return status;
	if (a.check) {
		status = check_only(c);
		conf_free(c);
		return status;
	}
	log_open(c->name, a.debug ? LOG_L_DEBUG : LOG_L_INFO);
	if (a.json)
		log_as_json();
	return run(c, broken);
}
