#include "handoffd/check.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

static void print_list(FILE *f, const char *what, char *const *v)
{
	fprintf(f, "%-16s", what);
	for (; *v; v++)
		fprintf(f, strpbrk(*v, " \t\"") || !**v ? " \"%s\"" : " %s", *v);
	fputc('\n', f);
}

static void print_identity(const struct conf *c, FILE *f)
{
	if (c->user)
		fprintf(f, "%-16s %s (uid %u)\n", "user", c->user, c->uid);
	else
		fprintf(f, "%-16s handoffd's own\n", "user");
	if (c->gid != (gid_t)-1)
		fprintf(f, "%-16s %s (gid %u)\n", "group", c->group ? c->group : "the user's",
			c->gid);
	if (c->gids) {
		fprintf(f, "%-16s", "groups");
		for (unsigned i = 0; i < c->ngids; i++)
			fprintf(f, " %u", c->gids[i]);
		fputs(c->ngids ? "\n" : " none\n", f);
	}
	if (c->operators)
		fprintf(f, "%-16s root, handoffd's user, and group %s (gid %u)\n", "operators",
			c->operators, c->operators_gid);
	else
		fprintf(f, "%-16s root and handoffd's user\n", "operators");
}

static void print_limits(const struct conf *c, FILE *f)
{
	for (unsigned i = 0; i < c->nrlimits; i++) {
		const rlim_t both[] = { c->rlimits[i].limit.rlim_cur,
					c->rlimits[i].limit.rlim_max };

		fprintf(f, "%-16s", c->rlimits[i].option);
		for (int k = 0; k < 2; k++)
			if (both[k] == RLIM_INFINITY)
				fprintf(f, "%sunlimited", k ? ":" : " ");
			else
				fprintf(f, "%s%llu", k ? ":" : " ", (unsigned long long)both[k]);
		fputc('\n', f);
	}
}

static void print_listener(const struct conf_listen *l, FILE *f)
{
	const bool path = l->sa.ss_family == AF_UNIX &&
			  ((const struct sockaddr_un *)&l->sa)->sun_path[0];

	fprintf(f, "%-16s %s: %s, backlog %d", "listen", l->name, l->address, l->backlog);
	if (path)
		fprintf(f, ", mode %04o", (unsigned)l->mode);
	if (l->sa.ss_family != AF_UNIX && !l->reuseaddr)
		fputs(", no reuseaddr", f);
	if (l->sa.ss_family == AF_INET6)
		fputs(l->v6only ? ", IPv6 only" : ", IPv6 and IPv4", f);
	fputc('\n', f);
}

static void print_process(const struct conf *c, FILE *f)
{
	print_list(f, "command", c->command);
	fprintf(f, "%-16s %s\n", "data-dir",
		c->data_dir ? c->data_dir : "none; the lock lies in the runtime directory");
	fprintf(f, "%-16s %s\n", "working-dir", c->working_dir);
	print_identity(c, f);
	fprintf(f, "%-16s %s\n", "environment",
		c->clear_environment ? "only what stands here" : "handoffd's, and:");
	for (char **e = c->environment; e && *e; e++)
		fprintf(f, "%-16s %s\n", "", *e);
	fprintf(f, "%-16s %s\n", "output", c->output ? c->output : "handoffd's own; under the journal a stream of its own");
	if (!c->ignore_sigpipe)
		fprintf(f, "%-16s %s\n", "ignore-sigpipe", "no: SIGPIPE ends the daemon unless it handles it");
	fprintf(f, "%-16s %04o\n", "umask", (unsigned)c->umask);
	if (c->nice)
		fprintf(f, "%-16s %+d\n", "nice", c->nice);
	if (c->has_oom)
		fprintf(f, "%-16s %d\n", "oom-score-adj", c->oom_score_adj);
	print_limits(c, f);
	fprintf(f, "%-16s %d MiB in all\n", "connection-state", c->connection_state);
}

int check_print(const struct conf *c, FILE *f)
{
	char buf[16];

	fprintf(f, "%s is in order: service %s\n", c->file, c->name);
	print_process(c, f);
	for (unsigned i = 0; i < c->nlisten; i++)
		print_listener(&c->listen[i], f);
	for (int i = 0; i < TIMER_COUNT; i++)
		fprintf(f, "%-16s %-8s %s\n", timer_desc[i].name, timers_format(c->timer[i], buf),
			timer_desc[i].what);
	return fflush(f) == 0 && !ferror(f) ? 0 : -EIO;
}
