/* The parser, driven by the tables. No abbreviations: a script must not break when an option
 * is added. Options may stand anywhere. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sys.h"
#include "handoffctl/ctl.h"
#include "handoffctl/trace.h"
#include "handoffd/conf.h"
#include "proto/timers.h"

struct parser {
	struct ctl *c;
	int argc, at;
	char **argv;
	unsigned given;            /* bits, as ctl_options is ordered */
};

static int wrong(struct ctl *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int wrong(struct ctl *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	out_verror(&c->out, CTL_USAGE, fmt, ap);
	va_end(ap);
	return CTL_USAGE;
}

/* How many letters differ: for "did you mean". */
static unsigned distance(const char *a, const char *b)
{
	const size_t na = strlen(a), nb = strlen(b);
	unsigned row[64];

	if (na > 40 || nb >= 64)
		return 99;
	for (unsigned j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			const unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			const unsigned other = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);

			diagonal = row[j];
			row[j] = change < other ? change : other;
		}
	}
	return row[nb];
}

/* What is further away is another word, not a slip of the finger. */
static unsigned nearest(const char *name)
{
	return strlen(name) < 6 ? 3 : 4;
}

static int unknown_option(struct parser *p, const char *name)
{
	const struct ctl_option *best = NULL;
	unsigned least = nearest(name);

	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		const unsigned d = distance(name, o->name);

		if (d < least)
			least = d, best = o;
	}
	if (best)
		return wrong(p->c, "there is no option --%s; did you mean --%s?", name, best->name);
	return wrong(p->c, "there is no option --%s; handoffctl --help shows them all", name);
}

static int unknown_command(struct parser *p, const char *name)
{
	const struct ctl_command *best = NULL;
	unsigned least = nearest(name);

	for (const struct ctl_command *k = ctl_commands; k->name; k++) {
		const unsigned d = distance(name, k->name);

		if (d < least)
			least = d, best = k;
	}
	if (best)
		return wrong(p->c, "there is no command '%s'; did you mean %s?", name, best->name);
	return wrong(p->c, "there is no command '%s'; handoffctl --help shows them all", name);
}

/* ---- values ---- */

static int take_text(struct parser *p, const struct ctl_option *o, const char *value,
                     const char **ret)
{
	const size_t n = strlen(value);

	if (o->limit && n > o->limit)
		return wrong(p->c, "--%s: %zu bytes; at most %u go over the wire",
		             o->name, n, (unsigned)o->limit);
	if (o->limit && !utf8_valid(value, n))
		return wrong(p->c, "--%s: not UTF-8; the protocol takes no other text", o->name);
	if (!n)
		return wrong(p->c, "--%s: empty; leave it out instead", o->name);
	*ret = value;
	return 0;
}

static int take_duration(struct parser *p, const struct ctl_option *o, const char *value,
                         struct ctl_duration *ret)
{
	const struct timer_desc *t = &timer_desc[o->limit];
	char least[16], most[16];

	if (timers_parse(value, &ret->ms) < 0 || ret->ms < t->min)
		return wrong(p->c, "--%s %s: not a duration that it takes; write a number with "
		             "ms, s, min or h, from %s to %s, as in 500ms or 10s",
		             o->name, value, timers_format(t->min, least),
		             timers_format(TIMER_MAX_MS, most));
	ret->given = true;
	return 0;
}

static int take_number(struct parser *p, const struct ctl_option *o, const char *value,
                       unsigned *ret)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n < 1 || n > o->limit)
		return wrong(p->c, "--%s %s: write a number from 1 to %u", o->name, value,
		             (unsigned)o->limit);
	*ret = (unsigned)n;
	return 0;
}

/* A moment: so long ago, or local time. */
static int take_time(struct parser *p, const struct ctl_option *o, const char *value,
                     uint64_t *ret_ms)
{
	static const struct { const char *name; uint64_t ms; } units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 },
	};
	static const char *const forms[] = { "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d" };
	const uint64_t now = sys_wall_ms();
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(value, &end, 10);
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (*value >= '0' && *value <= '9' && !errno && !strcmp(end, units[i].name) &&
		    n < now / units[i].ms) {
			*ret_ms = now - n * units[i].ms;
			return 0;
		}
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct tm tm = { .tm_isdst = -1 };
		const char *rest = strptime(value, forms[i], &tm);
		const time_t t = rest && !*rest ? mktime(&tm) : -1;

		if (t > 0) {
			*ret_ms = (uint64_t)t * 1000;
			return 0;
		}
	}
	return wrong(p->c, "--%s %s: write how long ago, as in 30min, 2h or 7d, or a local time, as in "
	             "2026-11-21 or '2026-11-21 08:45:00'", o->name, value);
}

/* As sha256sum(1) writes it. */
static int take_sha256(struct parser *p, const struct ctl_option *o, const char *value,
                       struct ctl_sha256 *ret)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const size_t size = 2 * sizeof ret->sum.b;

	if (strlen(value) != size || strspn(value, digits) != size)
		return wrong(p->c, "--%s %s: write the %zu hexadecimal digits of sha256sum(1)", o->name, value, size);
	for (size_t i = 0; i < size; i++) {
		const unsigned digit = (unsigned)(strchr(digits, value[i]) - digits) % 16;

		ret->sum.b[i / 2] = (uint8_t)(i % 2 ? ret->sum.b[i / 2] | digit : digit << 4);
	}
	ret->given = true;
	return 0;
}

static int take_trace(struct parser *p, const struct ctl_option *o, const char *value, const char **ret)
{
	if (!trace_parent_valid(SPAN(value)))
		return wrong(p->c, "--%s %.60s: write a W3C traceparent in lower case, 00-TRACE-PARENT-FLAGS of 32, 16 "
		             "and 2 hexadecimal digits, neither id all zeros", o->name, value);
	return take_text(p, o, value, ret);
}

static int take_value(struct parser *p, const struct ctl_option *o, const char *value)
{
	char *field = (char *)p->c + o->offset;
	const unsigned bit = 1u << (o - ctl_options);

	if (p->given & bit && o->kind != CTL_FLAG)
		return wrong(p->c, "--%s is there twice; one of them must go", o->name);
	p->given |= bit;
	switch (o->kind) {
	case CTL_FLAG:
		*(bool *)field = true;
		return 0;
	case CTL_DURATION:
		return take_duration(p, o, value, (struct ctl_duration *)field);
	case CTL_NUMBER:
		return take_number(p, o, value, (unsigned *)field);
	case CTL_TIME:
		return take_time(p, o, value, (uint64_t *)field);
	case CTL_SHA256:
		return take_sha256(p, o, value, (struct ctl_sha256 *)field);
	case CTL_TRACE:
		return take_trace(p, o, value, (const char **)field);
	case CTL_TEXT:
	case CTL_PATH:
	case CTL_FILE:
		return take_text(p, o, value, (const char **)field);
	}
	return 0;
}

/* ---- words ---- */

static int take_option(struct parser *p, const struct ctl_option *o, const char *attached)
{
	if (!o->argument && attached)
		return wrong(p->c, "--%s takes no value", o->name);
	if (o->argument && !attached) {
		if (p->at == p->argc)
			return wrong(p->c, "--%s needs a value: --%s %s",
			             o->name, o->name, o->argument);
		attached = p->argv[p->at++];
	}
	return take_value(p, o, attached);
}

static int long_option(struct parser *p, const char *word)
{
	const size_t n = strcspn(word, "=");
	char *name;
	int r;

	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (strlen(o->name) == n && !memcmp(word, o->name, n))
			return take_option(p, o, word[n] ? word + n + 1 : NULL);
	if (!(name = strndup(word, n)))
		return wrong(p->c, "out of memory");
	r = unknown_option(p, name);
	free(name);
	return r;
}

/* -S VALUE, -SVALUE; flags may share a word */
static int letters(struct parser *p, const char *word)
{
	int r = 0;

	for (; !r && *word; word++) {
		const struct ctl_option *o = ctl_options;

		while (o->name && o->letter != *word)
			o++;
		if (!o->name)
			return wrong(p->c, "there is no option -%c; handoffctl --help shows them "
			             "all", *word);
		if (o->argument)
			return take_option(p, o, word[1] ? word + 1 : NULL);
		r = take_option(p, o, NULL);
	}
	return r;
}

/* A UUID, or eight of its characters or more from its beginning. */
static bool is_id(const char *word)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	const size_t n = strlen(word);

	if (n < 8 || n > sizeof form - 1)
		return false;
	for (size_t i = 0; i < n; i++)
		if (form[i] == '-' ? word[i] != '-' : !strchr("0123456789abcdefABCDEF", word[i]))
			return false;
	return true;
}

static int take_operand(struct parser *p, const char *word)
{
	struct ctl *c = p->c;

	if (!c->command) {
		for (const struct ctl_command *k = ctl_commands; k->name; k++)
			if (!strcmp(word, k->name)) {
				c->command = k;
				return 0;
			}
		return unknown_command(p, word);
	}
	if (c->command->takes_id && !c->id && is_id(word)) {
		c->id = word;
		return 0;
	}
	if (!c->command->takes_name)
		return wrong(c, "%s takes no NAME ('%s')", c->command->name, word);
	if (c->name && c->command->takes_id && !c->id)
		return wrong(c, "'%s' is no ID; write the one that handoffctl history shows, or its beginning, eight "
		             "characters at least", word);
	if (c->name)
		return wrong(c, "'%s' is one word too many after %s %s; one service at a time",
		             word, c->command->name, c->name);
	if (!conf_name_ok(word))
		return wrong(c, "'%s' is no service's name; use letters, digits, _ . @ -, at most "
		             "%d, a letter, digit or _ first", word, CONF_MAX_NAME);
	c->name = word;
	return 0;
}

static int take_words(struct parser *p)
{
	bool operands = false;
	int r = 0;

	while (!r && p->at < p->argc) {
		const char *word = p->argv[p->at++];

		if (operands || word[0] != '-' || !word[1])
			r = take_operand(p, word);
		else if (!strcmp(word, "--"))
			operands = true;
		else if (word[1] == '-')
			r = long_option(p, word + 2);
		else
			r = letters(p, word + 1);
	}
	return r;
}

/* ---- what belongs together ---- */

static int check_options(struct parser *p)
{
	const struct ctl *c = p->c;
	const unsigned bit = 1u << (c->command - ctl_commands);

	if (c->json && c->command->prints)
		return wrong(p->c, "%s has no option --json: it prints %s", c->command->name, c->command->prints);
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (p->given & 1u << (o - ctl_options) && !(o->commands & bit))
			return wrong(p->c, "%s has no option --%s; see handoffctl %s --help",
			             c->command->name, o->name, c->command->name);
	if (c->socket && c->name)
		return wrong(p->c, "-S names the service by its socket; leave '%s' out", c->name);
	if (c->wait.given && !c->socket && !c->name)
		return wrong(p->c, "--wait needs to know for whom: handoffctl %s NAME", c->command->name);
	if (c->deadline.given && c->drain.given && c->drain.ms > c->deadline.ms)
		return wrong(p->c, "--drain-grace is longer than --deadline; it is a part of it");
	return 0;
}

/* The supervisor has another working directory. Symbolic links stay, those that lead to the file as
 * well: the next start follows them anew. */
static int make_absolute(struct ctl *c)
{
	const bool relative = c->binary[0] != '/';
	char *dir = relative ? get_current_dir_name() : NULL;   /* $PWD, if it is that: by its links */
	struct stat st;
	int e = relative && !dir ? -errno : sys_stat(c->binary, &st);

	if (!e && !S_ISREG(st.st_mode))
		e = S_ISDIR(st.st_mode) ? -EISDIR : -EACCES;
	if (!e && asprintf(&c->binary_path, "%s%s%s", dir && strcmp(dir, "/") ? dir : "", relative ? "/" : "",
	                   c->binary) < 0) {
		c->binary_path = NULL;
		e = -ENOMEM;
	}
	free(dir);
	if (e)
		return wrong(c, "--binary %s: %s; give the path of an executable file",
		             c->binary, strerror(-e));
	if (strlen(c->binary_path) > 4095 || !utf8_valid(c->binary_path, strlen(c->binary_path)))
		return wrong(c, "--binary %s: its path is longer than 4095 bytes, or not UTF-8",
		             c->binary);
	return 0;
}

int ctl_parse(struct ctl *c, int argc, char **argv)
{
	struct parser p = { .c = c, .argc = argc, .at = 1, .argv = argv };
	int r = take_words(&p);

	if (r || c->help || c->version)
		return r;
	if (!c->command)
		return wrong(c, "which command? handoffctl --help shows them all");
	r = check_options(&p);
	return r || !c->binary ? r : make_absolute(c);
}
