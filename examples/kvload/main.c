/*
 * kvload: load for a server that speaks RESP2, as kvd does, by writers that
 * remember what was acknowledged and check it.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "http.h"
#include "load.h"

#define FAILED 1
#define USAGE  2

struct options {
	struct load_options load;
	const char *target, *state, *prefix;
	char http[HTTP_MAX_PATH + 64];   /* the request; "": the server speaks RESP2 */
	unsigned keys, value_size;
	bool verify, verify_only, has_seed;
};

enum { OPT_TARGET = 256, OPT_KEEPALIVE, OPT_KEEPALIVE_RATE, OPT_FRESH_RATE, OPT_DURATION, OPT_KEYS,
	OPT_VALUE_SIZE, OPT_TIMEOUT, OPT_SEED, OPT_PREFIX, OPT_STATE, OPT_REPORT, OPT_VERIFY,
	OPT_JSON, OPT_HELP, OPT_HTTP };

struct option_row {
	int id;
	const char *name, *arg, *text;
};

static const struct option_row rows[] = {
	{ OPT_TARGET, "target", "ADDRESS", "127.0.0.1:PORT, [::1]:PORT or unix:PATH (required)" },
	{ OPT_KEEPALIVE, "keepalive", "N", "connections that stay (50)" },
	{ OPT_KEEPALIVE_RATE, "keepalive-rate", "R", "requests a second, over all of them (1000)" },
	{ OPT_FRESH_RATE, "fresh-rate", "R", "fresh connections a second, each with one or two "
	  "requests (100)" },
	{ OPT_DURATION, "duration", "S", "seconds; else until SIGINT or SIGTERM" },
	{ OPT_KEYS, "keys", "N", "keys, every fourth a counter (10000)" },
	{ OPT_VALUE_SIZE, "value-size", "B", "bytes of a value (128)" },
	{ OPT_TIMEOUT, "timeout", "S", "a request without a reply has failed after it (10)" },
	{ OPT_SEED, "seed", "N", "of what is chosen by chance" },
	{ OPT_PREFIX, "prefix", "TEXT", "of the keys' names; they must not exist (kvload-RANDOM)" },
	{ OPT_STATE, "state", "FILE", "save what was acknowledged, for `kvload verify`" },
	{ OPT_REPORT, "report-every", "S", "a line of progress every S seconds" },
	{ OPT_VERIFY, "verify", NULL, "at the end, read every key back" },
	{ OPT_JSON, "json", NULL, "the result as JSON" },
	{ OPT_HELP, "help", NULL, "this text" },
#ifdef KVLOAD_HTTP
	{ OPT_HTTP, "http", "PATH", "the server speaks HTTP/1.1: GET PATH and nothing else, 2xx is right" },
#endif
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void help(void)
{
	size_t i;
	char left[64];

	printf("usage: kvload --target ADDRESS [OPTION]...\n"
	       "       kvload verify --state FILE --target ADDRESS [--timeout S] [--json]\n\n"
	       "Writes and reads at a constant rate; latency counts from when a request was due.\n"
	       "Remembers what the server acknowledged and checks every read against it.\n\n");
	for (i = 0; i < ROWS; i++) {
		snprintf(left, sizeof(left), "--%s %s", rows[i].name,
		         rows[i].arg != NULL ? rows[i].arg : "");
		printf("  %-22s %s\n", left, rows[i].text);
	}
	printf("\nSIGUSR1 prints the counts as a line of JSON.\n"
	       "Exit status: 0 nothing failed and nothing was lost; 1 something was; 2 usage.\n"
	       "A write without a reply on a connection that stays is unknown, not failed: the\n"
	       "next request reads the key and settles it.\n");
	stats_help(stdout);
}

static int bad(const char *name, const char *value, const char *right)
{
	fprintf(stderr, "kvload: --%s %s: %s\n", name, value, right);
	return -EINVAL;
}

static int parse_number(const struct option_row *row, const char *text, double least, double most,
                        double *ret)
{
	char *end, right[64];
	double d;

	errno = 0;
	d = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || !isfinite(d) || d < least || d > most) {
		snprintf(right, sizeof(right), "a number from %g to %g is wanted", least, most);
		return bad(row->name, text, right);
	}
	*ret = d;
	return 0;
}

static int parse_prefix(const struct option_row *row, const char *text)
{
	if (text[0] == '\0' || strlen(text) > 60 || strspn(text, "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-") != strlen(text))
		return bad(row->name, text, "1 to 60 letters, digits or any of _.:- are wanted");
	return 0;
}

static int parse_count(const struct option_row *row, const char *text, double least, double most,
                       unsigned *ret)
{
	double d;
	int r = parse_number(row, text, least, most, &d);

	if (r < 0)
		return r;
	if (d != floor(d))
		return bad(row->name, text, "a whole number is wanted");
	*ret = d;
	return 0;
}

static int parse_seconds(const struct option_row *row, const char *text, uint64_t *ret)
{
	double d;
	int r = parse_number(row, text, 0.001, 1e6, &d);

	if (r == 0)
		*ret = d * 1e6;
	return r;
}

static int parse_seed(struct options *o, const char *text)
{
	char *end;

	errno = 0;
	o->load.seed = strtoull(text, &end, 10);
	o->has_seed = true;
	if (errno != 0 || end == text || *end != '\0')
		return bad("seed", text, "a number is wanted");
	return 0;
}

static int parse_path(struct options *o, const struct option_row *row, const char *text)
{
	if (text[0] != '/' || strlen(text) > HTTP_MAX_PATH || strpbrk(text, " \t\r\n") != NULL)
		return bad(row->name, text, "a path that begins with / is wanted");
#ifdef KVLOAD_HTTP
	http_get(o->http, text);
#else
	(void)o; /* without http-parser there is no such option */
#endif
	return 0;
}

static int take_option(struct options *o, const struct option_row *row, const char *arg)
{
	switch (row->id) {
	case OPT_TARGET:
		o->target = arg;
		return target_parse(arg, &o->load.target) < 0 ? bad(row->name, arg,
		       "127.0.0.1:PORT, [::1]:PORT or unix:PATH is wanted") : 0;
	case OPT_KEEPALIVE:
		return parse_count(row, arg, 0, 100000, &o->load.keepalive);
	case OPT_KEEPALIVE_RATE:
		return parse_number(row, arg, 0, 1e6, &o->load.keepalive_rate);
	case OPT_FRESH_RATE:
		return parse_number(row, arg, 0, 1e6, &o->load.fresh_rate);
	case OPT_DURATION:
		return parse_seconds(row, arg, &o->load.duration_us);
	case OPT_KEYS:
		return parse_count(row, arg, 1, 10e6, &o->keys);
	case OPT_VALUE_SIZE:
		return parse_count(row, arg, KEYS_MIN_VALUE, KEYS_MAX_VALUE, &o->value_size);
	case OPT_TIMEOUT:
		return parse_seconds(row, arg, &o->load.timeout_us);
	case OPT_SEED:
		return parse_seed(o, arg);
	case OPT_PREFIX:
		o->prefix = arg;
		return parse_prefix(row, arg);
	case OPT_STATE:
		o->state = arg;
		return 0;
	case OPT_REPORT:
		return parse_seconds(row, arg, &o->load.report_us);
	case OPT_VERIFY:
		o->verify = true;
		return 0;
	case OPT_JSON:
		o->load.json = true;
		return 0;
	case OPT_HTTP:
		return parse_path(o, row, arg);
	case OPT_HELP:
		help();
		exit(fflush(stdout) == 0 ? 0 : FAILED);
	}
	return -EINVAL;
}

static int wrong_usage(const char *what)
{
	fprintf(stderr, "kvload: %s (kvload --help)\n", what);
	return -EINVAL;
}

/* Nothing is written, so nothing is remembered. */
static int use_http(struct options *o)
{
	if (o->verify || o->state != NULL || o->prefix != NULL)
		return wrong_usage("--http goes without --verify, --state and --prefix");
	o->keys = 0;
	o->load.target.request = o->http;
#ifdef KVLOAD_HTTP
	o->load.target.parse = http_parse;
#endif
	return 0;
}

static int check_options(struct options *o)
{
	if (o->target == NULL)
		return wrong_usage("--target is required");
	if (o->verify_only)
		return o->state != NULL ? 0 : wrong_usage("verify needs --state FILE");
	if (o->load.keepalive_rate <= 0 || o->load.keepalive == 0) {
		if (o->load.fresh_rate <= 0)
			return wrong_usage("no requests: --keepalive-rate and --fresh-rate are 0");
	}
	if (o->http[0] != '\0')
		return use_http(o);
	if (o->keys < 2 * (o->load.keepalive + 1))
		return wrong_usage("--keys must be more than twice --keepalive");
	return 0;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	struct option longs[ROWS + 1] = { { NULL, 0, NULL, 0 } };
	int id, r;
	size_t i;

	for (i = 0; i < ROWS; i++)
		longs[i] = (struct option){ rows[i].name,
			rows[i].arg != NULL ? required_argument : no_argument, NULL, rows[i].id };
	while ((id = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (id < OPT_TARGET)
			return -EINVAL;
		r = take_option(o, &rows[id - OPT_TARGET], optarg);
		if (r < 0)
			return r;
	}
	if (optind < argc && strcmp(argv[optind], "verify") == 0) {
		o->verify_only = true;
		optind++;
	}
	if (optind < argc)
		return wrong_usage("unknown argument");
	return check_options(o);
}

static struct keys *make_keys(struct options *o)
{
	char prefix[64];
	uint64_t chance = 0;

	if (getrandom(&chance, sizeof(chance), 0) < 0)
		chance = now_us();
	snprintf(prefix, sizeof(prefix), "kvload-%08x", (unsigned)chance);
	if (!o->has_seed)
		o->load.seed = chance;
	return keys_new(o->prefix != NULL ? o->prefix : prefix, o->keys, o->value_size);
}

/* Fresh connections pile up while the server stalls. */
static void raise_descriptors(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int run(struct options *o, struct keys *k, struct stats *s)
{
	unsigned timeout_ms = o->load.timeout_us / 1000;
	char err[160];
	int r;

	if (!o->verify_only) {
		if (!o->load.target.request && target_probe(&o->load.target, timeout_ms, err, sizeof(err)) < 0) {
			fprintf(stderr, "kvload: %s: %s\n", o->target, err);
			return FAILED;
		}
		raise_descriptors();
		r = load_run(&o->load, k, s);
		if (r < 0) {
			fprintf(stderr, "kvload: %s\n", strerror(-r));
			return FAILED;
		}
	}
	if (o->verify || o->verify_only)
		target_verify(&o->load.target, k, s, timeout_ms);
	if (o->load.json)
		stats_json(stdout, s, &s->line_window, "result", now_us());
	else
		stats_summary(stdout, s);
	r = o->state != NULL ? keys_save(k, o->state) : 0;
	if (r < 0) {
		fprintf(stderr, "kvload: --state %s: %s\n", o->state, strerror(-r));
		return FAILED;
	}
	return stats_exit_code(s);
}

int main(int argc, char **argv)
{
	struct options o = {
		.load = { .keepalive = 50, .keepalive_rate = 1000, .fresh_rate = 100,
		          .timeout_us = 10000000 },
		.keys = 10000, .value_size = 128,
	};
	struct stats *s;
	struct keys *k = NULL;
	int r = 0;

	if (parse_options(argc, argv, &o) < 0)
		return USAGE;
	signal(SIGPIPE, SIG_IGN);
	if (o.verify_only)
		r = keys_load(o.state, &k);
	else
		k = make_keys(&o);
	if (r < 0) {
		fprintf(stderr, "kvload: --state %s: %s\n", o.state, r == -EPROTO ?
		        "this is no state file of kvload" : strerror(-r));
		return USAGE;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL || k == NULL) {
		fprintf(stderr, "kvload: out of memory\n");
		return FAILED;
	}
	r = run(&o, k, s);
	keys_free(k);
	free(s);
	return r;
}
