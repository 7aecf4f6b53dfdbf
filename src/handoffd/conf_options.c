#include "handoffd/conf_options.h"

#include <limits.h>
#include <string.h>

#include "handoffd/conf.h"

const char *const conf_kind_name[CONF_KIND_COUNT] = {
	[CONF_STRING] = "text",
	[CONF_PATH] = "path",
	[CONF_LIST] = "list",
	[CONF_NUMBER] = "number",
	[CONF_OCTAL] = "octal mode",
	[CONF_BOOL] = "true or false",
	[CONF_DURATION] = "duration",
	[CONF_LIMIT] = "limit",
	[CONF_ADDRESS] = "address",
};

#define AT(field) .offset = offsetof(struct conf, field)
#define LIMIT(option, resource, text) \
	{ "limit-" option, CONF_LIMIT, NULL, text, .offset = 0, .min = resource }

const struct conf_option conf_options[] = {
	{ "command", CONF_LIST, NULL, "the daemon and its arguments", AT(command) },
	{ "data-dir", CONF_PATH, NULL, "the directory that only one process may write",
	  AT(data_dir) },
	{ "working-dir", CONF_PATH, "/", "the daemon's working directory", AT(working_dir) },
	{ "user", CONF_STRING, NULL, "the user that the daemon runs as", AT(user) },
	{ "group", CONF_STRING, NULL, "its group, instead of the user's own", AT(group) },
	{ "groups", CONF_LIST, NULL, "its supplementary groups, instead of the user's own",
	  AT(groups) },
	{ "operators", CONF_STRING, NULL, "the group that may upgrade, besides root",
	  AT(operators) },
	{ "environment", CONF_LIST, NULL, "variables for the daemon, each NAME=VALUE",
	  AT(environment) },
	{ "clear-environment", CONF_BOOL, "false", "the daemon gets only environment's variables",
	  AT(clear_environment) },
	{ "output", CONF_PATH, NULL, "the file that the daemon's stdout and stderr are appended to",
	  AT(output) },
	{ "ignore-sigpipe", CONF_BOOL, "true", "SIGPIPE is ignored when the daemon begins",
	  AT(ignore_sigpipe) },
	{ "umask", CONF_OCTAL, "022", "the daemon's umask", AT(umask), .max = 0777 },
	{ "nice", CONF_NUMBER, "0", "added to the daemon's priority value", AT(nice), .min = -20,
	  .max = 19 },
	{ "oom-score-adj", CONF_NUMBER, NULL, "how readily the kernel kills it for memory",
	  AT(oom_score_adj), .min = -1000, .max = 1000 },
	{ "connection-state", CONF_NUMBER, "256", "MiB of state that live connections carry, in all",
	  AT(connection_state), .min = 0, .max = 65536 },
	LIMIT("as", RLIMIT_AS, "bytes of address space"),
	LIMIT("core", RLIMIT_CORE, "bytes of a core dump"),
	LIMIT("cpu", RLIMIT_CPU, "seconds of processor time"),
	LIMIT("data", RLIMIT_DATA, "bytes of data segment"),
	LIMIT("fsize", RLIMIT_FSIZE, "bytes of a file that it writes"),
	LIMIT("memlock", RLIMIT_MEMLOCK, "bytes of locked memory"),
	LIMIT("nofile", RLIMIT_NOFILE, "open descriptors"),
	LIMIT("nproc", RLIMIT_NPROC, "processes of its user"),
	LIMIT("rtprio", RLIMIT_RTPRIO, "highest real-time priority"),
	LIMIT("sigpending", RLIMIT_SIGPENDING, "queued signals"),
	LIMIT("stack", RLIMIT_STACK, "bytes of stack"),
#define T(id, name, def, min, what) { name, CONF_DURATION, NULL, what, AT(timer[TIMER_##id]) },
	TIMERS(T)
#undef T
	{ NULL }
};
#undef AT

#define AT(field) .offset = offsetof(struct conf_listen, field)
const struct conf_option conf_listen_options[] = {
	{ "address", CONF_ADDRESS, NULL, "tcp:HOST:PORT, unix:/PATH or unix:@NAME", AT(address) },
	{ "backlog", CONF_NUMBER, "4096", "connections that may wait in the kernel", AT(backlog),
	  .min = 1, .max = INT_MAX },
	{ "mode", CONF_OCTAL, "0660", "mode of a unix listener's path", AT(mode), .max = 0777 },
	{ "reuseaddr", CONF_BOOL, "true", "SO_REUSEADDR of a tcp listener", AT(reuseaddr) },
	{ "v6only", CONF_BOOL, "false", "a tcp:[...] listener takes no IPv4 connections",
	  AT(v6only) },
	{ NULL }
};

int conf_option_find(const struct conf_option *table, const char *name)
{
	for (int i = 0; table[i].name; i++)
		if (!strcmp(table[i].name, name))
			return i;
	return -1;
}

const char *conf_option_default(const struct conf_option *o, char buf[16])
{
	if (o->kind != CONF_DURATION)
		return o->def;
	for (int i = 0; i < TIMER_COUNT; i++)
		if (!strcmp(timer_desc[i].name, o->name))
			return timers_format(timer_desc[i].def, buf);
	return NULL;
}

/* Levenshtein's distance; names beyond NEAR_MAX are far from everything. */
#define NEAR_MAX 32
static unsigned distance(const char *a, const char *b)
{
	const size_t na = strlen(a), nb = strlen(b);
	unsigned row[NEAR_MAX + 1];

	if (na > NEAR_MAX || nb > NEAR_MAX)
		return UINT_MAX;
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			const unsigned above = row[j];
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (above + 1 < best)
				best = above + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = above;
			row[j] = best;
		}
	}
	return row[nb];
}

const char *conf_option_nearest(const struct conf_option *table, const char *name)
{
	const char *nearest = NULL;
	unsigned best = strlen(name) / 3 + 2;

	for (; table->name; table++) {
		const unsigned d = distance(name, table->name);

		if (d < best) {
			best = d;
			nearest = table->name;
		}
	}
	return nearest;
}
