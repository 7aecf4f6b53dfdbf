#include "options.h"

#include "manifest.h"
#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

PRINTF_LIKE(1, 2) static void __attribute__((noreturn)) usage_error(const char *fmt, ...)
{
	va_list ap;

	fputs("kvd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (kvd --help explains)\n", stderr);
	exit(2);
}

static void set_data_dir(struct options *o, const char *v)
{
	o->data_dir = v;
}

static void set_listen(struct options *o, const char *v)
{
	if (o->listens == MAX_LISTEN)
		usage_error("--listen: at most %d of them", MAX_LISTEN);
	if (strncmp(v, "unix:", 5) != 0 && !strrchr(v, ':'))
		usage_error("--listen %s: HOST:PORT or unix:PATH is needed", v);
	o->listen[o->listens++] = v;
}

static unsigned number(const char *name, const char *v, unsigned lowest, unsigned highest)
{
	long long n;

	if (!parse_ll(v, strlen(v), &n) || n < lowest || n > highest)
		usage_error("%s %s: a number from %u to %u is needed", name, v, lowest, highest);
	return (unsigned)n;
}

static uint64_t size(const char *name, const char *v)
{
	uint64_t n;

	if (!parse_size(v, &n))
		usage_error("%s %s: a size is needed, like 4096, 512k, 64m or 1g", name, v);
	return n;
}

static void set_shards(struct options *o, const char *v)
{
	o->shards = number("--shards", v, 1, MAX_SHARDS);
}

static void set_fsync(struct options *o, const char *v)
{
	o->fsync_always = !strcmp(v, "always");
	if (!o->fsync_always && strcmp(v, "everysec") != 0)
		usage_error("--fsync %s: always or everysec is needed", v);
}

static void set_max_clients(struct options *o, const char *v)
{
	o->max_clients = number("--max-clients", v, 1, 1000000);
}

static void set_segment_size(struct options *o, const char *v)
{
	o->segment_size = size("--segment-size", v);
}

static void set_compact_min(struct options *o, const char *v)
{
	o->compact_min = size("--compact-min", v);
}

static void set_fault(struct options *o, const char *v)
{
	char why[512];

	if (fault_add(&o->faults, v, why, sizeof(why)) < 0)
		usage_error("--fault=%s: %s", v, why);
}

static void set_debug(struct options *o, const char *v)
{
	(void)v;
	o->debug = 1;
}

static void set_verify(struct options *o, const char *v)
{
	(void)v;
	o->verify = 1;
}

static void set_version(struct options *o, const char *v)
{
	(void)o, (void)v;
	printf("kvd %s\n", kvd_version);
	exit(0);
}

static void set_help(struct options *o, const char *v);

static const struct option {
	const char *name, *arg;
	void (*set)(struct options *o, const char *v);
	const char *help;
} table[] = {
	{ "--data-dir", "DIR", set_data_dir,
	  "where the data is; must exist, only one kvd may write there" },
	{ "--listen", "ADDRESS", set_listen,
	  "HOST:PORT ([::1]:6380 for IPv6) or unix:PATH; may be repeated.\n"
	  "Below a supervisor its listeners are used instead" },
	{ "--shards", "N", set_shards, "logs of a store that is made new (4)" },
	{ "--fsync", "WHEN", set_fsync,
	  "always: before each reply; everysec: once a second (everysec).\n"
	  "Either survives kill -9; this is about a loss of power" },
	{ "--max-clients", "N", set_max_clients, "connections at a time (10000)" },
	{ "--segment-size", "SIZE", set_segment_size, "begin a new log file above it (64m)" },
	{ "--compact-min", "SIZE", set_compact_min,
	  "compact a shard when so many bytes of it are waste (16m)" },
	{ "--verify", NULL, set_verify,
	  "read the logs, print revisions, fingerprint, keys, torn tails\n"
	  "and the order of epochs; exit 1 if something is wrong" },
	{ "--fault", "POINT:ACTION", set_fault, "misbehave, for tests; may be repeated" },
	{ "--debug", NULL, set_debug, "log what the library says about each step, too" },
	{ "--version", NULL, set_version, "print it" },
	{ "--help", NULL, set_help, "this text" },
};
#define COUNT (sizeof(table) / sizeof(table[0]))

static void print_help(const char *text)
{
	const char *end;

	for (; (end = strchr(text, '\n')) != NULL; text = end + 1)
		printf("%.*s\n%25s", (int)(end - text), text, "");
	puts(text);
}

static void set_help(struct options *o, const char *v)
{
	char left[64];
	size_t i;

	(void)o, (void)v;
	printf("kvd %s", kvd_version);
	puts(": a key-value store that speaks the Redis protocol and whose binary can be\n"
	     "replaced while it serves.\n\n"
	     "  mkdir -m 700 /tmp/kv && kvd --data-dir /tmp/kv --listen 127.0.0.1:6380\n"
	     "  redis-cli -p 6380 set greeting hello\n\n"
	     "As a daemon of handoffd it takes its listeners from there (any name; `resp` by\n"
	     "custom), and `handoffctl upgrade` replaces it. SIGTERM ends it.\n");
	for (i = 0; i < COUNT; i++) {
		snprintf(left, sizeof(left), "%s %s", table[i].name,
			 table[i].arg ? table[i].arg : "");
		printf("  %-22s ", left);
		print_help(table[i].help);
	}
	printf("\nPoints and actions of --fault:\n");
	fault_print(stdout);
	exit(0);
}

static const struct option *find(const char *word, size_t n)
{
	size_t i;

	for (i = 0; i < COUNT; i++)
		if (strlen(table[i].name) == n && !strncmp(table[i].name, word, n))
			return &table[i];
	usage_error("no such option: %s", word);
}

void options_parse(struct options *o, int argc, char **argv)
{
	const struct option *op;
	const char *value, *eq;
	int i;

	memset(o, 0, sizeof(*o));
	o->shards = 4;
	o->max_clients = 10000;
	o->segment_size = 64u << 20;
	o->compact_min = 16u << 20;
	for (i = 1; i < argc; i++) {
		eq = strchr(argv[i], '=');
		op = find(argv[i], eq ? (size_t)(eq - argv[i]) : strlen(argv[i]));
		value = eq ? eq + 1 : NULL;
		if (op->arg && !value)
			value = argv[++i];
		if (op->arg && !value)
			usage_error("%s: its %s is missing", op->name, op->arg);
		if (!op->arg && eq)
			usage_error("%s takes no value", op->name);
		op->set(o, value);
	}
	if (!o->data_dir)
		usage_error("--data-dir is missing");
}
