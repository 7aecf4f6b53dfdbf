/* handoffd: the supervisor of one service. */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/check.h"
#include "handoffd/conf.h"
#include "handoffd/fdstore.h"
#include "handoffd/log.h"
#include "handoffd/reap.h"
#include "handoffd/service.h"
#include "handoffd/transient.h"
#include "handoffd/version.h"

static const char usage[] =
	"usage: handoffd -c FILE [-d] [--log-format F]\n"
	"       handoffd -c FILE --check\n"
	"       handoffd [-c FILE] --reap NAME\n"
	"       handoffd -c FILE --check-carried FD\n"
	"\n"
	"Supervises one daemon and replaces its binary while it serves. Stays in the\n"
	"foreground; logs to stderr.\n"
	"\n"
	"  -c, --config FILE   the service's configuration, handoff.conf(5)\n"
	"      --check         read and check it, say what would be done, exit 0 or 2\n"
	"      --reap NAME     end what the unit handoff@NAME left behind; for its guard unit\n"
	"      --check-carried FD  could this one go on in place of who asks? for handoffctl reexec\n"
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

struct arguments { const char *config, *reap, *carried; bool check, debug, json; };

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
		{ "reap", required_argument, NULL, 'r' }, { "check-carried", required_argument, NULL, 'C' },
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
		case 'C': a->carried = optarg; break;
		case 'd': a->debug = true; break;
		case 'l':
			a->json = !strcmp(optarg, "json");
			if (!a->json && strcmp(optarg, "text"))
				return bad_usage("--log-format is text or json");
			break;
		case 'h': fputs(usage, stdout); return 0;
		case 'v': printf("handoffd %s\n", handoffd_version); return 0;
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

/* Of a configuration that cannot be used. 2 is final for a service manager, and so it is only for
 * what stays wrong until somebody corrects it. */
static int status_of(int error)
{
	return transient(error) ? 1 : 2;
}

static int check_only(const struct conf *c)
{
	char err[1200];
	int e = conf_check_machine(c, err, sizeof err);

	if (e || (e = conf_check_command(c, err, sizeof err))) {
		fprintf(stderr, "handoffd: %s\n", err);
		return status_of(e);
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

/* Another handoffd asks whether this one could go on in its place. The exit status. */
static int check_carried(const struct arguments *a)
{
	struct carried carried;
	struct conf *c = NULL;
	char err[1200] = "the configuration that is in use is not kept in the runtime directory";
	int e = carry_read(atoi(a->carried), &carried, err, sizeof err);

	if (e || (e = conf_read_kept(a->config, &c, err, sizeof err)))
		fprintf(stderr, "%s\n", err);
	else
		printf("handoffd %s\n", handoffd_version);
	conf_free(c);
	carry_free(&carried);
	return e ? 1 : 0;
}

/* As an earlier life of this process had it. 0 or the exit status. */
static int find_carried_conf(const struct arguments *a, const struct carried *carried, struct conf **ret,
                             char *ret_broken, size_t size)
{
	char err[1200] = "it is not there";

	snprintf(ret_broken, size, "%.*s", (int)carried->head.carry.conf_error.n, carried->head.carry.conf_error.p);
	if (!conf_read_kept(a->config, ret, err, sizeof err))
		return 0;
	fprintf(stderr, "handoffd: the configuration that is in use cannot be read: %s\n", err);
	return 1;   /* it is started again, and a daemon lives */
}

/*
 * The file's configuration, or, if it cannot be used and a supervisor has died that used it,
 * the one that that one had. The exit status, or -1; *ret_broken: why it is the other.
 */
static int find_conf(const struct arguments *a, struct conf **ret, char *ret_broken, size_t size)
{
	char err[1200];
	int e, wrong;

	*ret_broken = '\0';
	if (!(wrong = conf_read(a->config, ret, ret_broken, size)) &&
	    (a->check || !(wrong = conf_check_machine(*ret, ret_broken, size))))
		return -1;
	*ret = conf_free(*ret);
	fprintf(stderr, "handoffd: %s\n", ret_broken);
	e = a->check ? -ENOENT : conf_read_kept(a->config, ret, err, sizeof err);
	if (e == -ENOENT)
		return status_of(wrong);
	if (!e && !conf_check_machine(*ret, err, sizeof err))
		return -1;
	*ret = conf_free(*ret);
	fprintf(stderr, "handoffd: the configuration that was in use cannot be used either: %s\n", err);
	return 1;   /* which is not final for a service manager: a daemon may live */
}

static int run(struct conf *c, const struct carried *carried, const char *broken)
{
	static struct service service;   /* large, and there is one */
	struct event_base *base = event_base_new();
	char err[1200] = "no memory";
	int e;

	if (!base) {
		log_error("no memory for an event loop");
		return 1;
	}
	if (*broken)
		log_error("%s; the configuration that was in use is used; mend that, 'handoffctl upgrade' reads the "
		          "file again", broken);
	e = service_start(&service, base, c, carried, err, sizeof err);
	snprintf(service.conf_error, sizeof service.conf_error, "%s", broken);
	if (e)
		log_error("%s", err);
	log_hold(true);
	while (!e && !service.ended && !service_turn(&service)) {
		reexec_turn(&service);
		log_flush();
	}
	log_hold(false);
	service_end(&service);
	event_base_free(base);
	return e == -ENOEXEC ? 2 : e ? 1 : 0;
}

/* An early SIGTERM waits for its handler: one between fork and here would leave a daemon. */
static void prepare_signals(void)
{
	service_hold_signals(true);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);   /* a record over RLIMIT_FSIZE is one that cannot be written */
	sys_never_linger();
}

/* The exit status. carried: as service_start(). */
static int supervise(const struct arguments *a, const struct carried *carried)
{
	struct conf *c = NULL;
	char broken[1200];
	int status = carried ? find_carried_conf(a, carried, &c, broken, sizeof broken)
	                     : find_conf(a, &c, broken, sizeof broken);

	if (status > 0)
		return status;
	if (a->check) {
		status = check_only(c);
		conf_free(c);
		return status;
	}
	log_open(c->name, a->debug ? LOG_L_DEBUG : LOG_L_INFO);
	if (a->json)
		log_as_json();
	return run(c, carried, broken);
}

static int go_on_or_begin(const struct arguments *a)
{
	struct carried carried;
	char err[1200];
	int status, goes_on = reexec_receive(&carried, err, sizeof err);

	if (goes_on < 0) {
		fprintf(stderr, "handoffd: %s\n", err);
		return 1;
	}
	status = supervise(a, goes_on ? &carried : NULL);
	if (goes_on)
		carry_free(&carried);
	return status;
}

int main(int argc, char **argv)
{
	struct arguments a = { NULL };
	int status;

	sys_fill_standard();
	reexec_arguments(argc, argv);   /* before getopt(3) puts them in another order */
	if ((status = parse(argc, argv, &a)) >= 0)
		return status;
	if (a.carried)
		return check_carried(&a);
	if (a.reap)
		return reap_only(&a);
	fdstore_receive();
	prepare_signals();
	return go_on_or_begin(&a);
}
