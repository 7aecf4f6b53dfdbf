/* A configuration file: refused with its line, or read into what holds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "handoffd/conf.h"
#include "handoffd/conf_scan.h"

static void scan(const uint8_t *p, size_t n)
{
	struct conf_scan s = { .open = -1 };
	char err[1200] = "", *text = malloc(n + 1), *before = malloc(n + 1);

	if (!text || !before)
		abort();
	if (n)
		memcpy(text, p, n);
	text[n] = '\0';
	strcpy(before, text);
	const int e = conf_scan("f", text, &s, err, sizeof err);
	HOLDS(!e || e == -EINVAL, "%d", e);
	HOLDS(!e || (!strncmp(err, "f:", 2) && atoi(err + 2) > 0), "'%s'", err);
	HOLDS(strlen(text) == strlen(before), "%zu bytes became %zu", strlen(before), strlen(text));
	for (size_t i = 0; before[i]; i++)   /* comments become blanks, lines stay */
		HOLDS(text[i] == before[i] || (text[i] == ' ' && before[i] != '\n'), "at %zu", i);
	for (int i = 0; !e && i < s.n; i++)
		HOLDS(s.v[i].parent < i && s.v[i].line > 0 && s.v[i].name, "mark %d", i);
	if (!e)
		conf_scan_free(&s);
	free(text);
	free(before);
}

static void whole(const struct conf *c)
{
	char why[300];

	HOLDS(conf_name_ok(c->name) && c->command && c->command[0] && *c->command[0], "%s", c->name);
	HOLDS(timers_check(c->timer, why, sizeof why) == TIMER_COUNT, "%s", why);
	for (unsigned i = 0; i < c->nlisten; i++) {
		HOLDS(conf_name_ok(c->listen[i].name) && c->listen[i].address, "listener %u", i);
		HOLDS(c->listen[i].sa_len > 0 && c->listen[i].sa_len <= sizeof c->listen[i].sa, "listener %u", i);
		HOLDS(c->listen[i].backlog > 0, "backlog %d", c->listen[i].backlog);
	}
	for (char **e = c->environment; e && *e; e++)
		HOLDS(strchr(*e, '=') && strncmp(*e, "HANDOFF_", 8), "%s", *e);
}

void fuzz_conf(const uint8_t *p, size_t n)
{
	const char *path = fuzz_file("fuzz.conf", p, n);
	struct conf *c = NULL;
	char err[1200] = "";

	if (!memchr(p, 0, n))
		scan(p, n);
	const int e = conf_read(path, &c, err, sizeof err);
	if (!e)
		whole(c);
	else
		HOLDS(!c && !strncmp(err, path, strlen(path)) && !strchr(err, '\n'), "%d: '%s'", e, err);
	conf_free(c);
}
