#include "handoffd/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/sys.h"
#include "handoffd/conf_scan.h"
#include "handoffd/conf_value.h"
#include "handoffd/ids.h"
#include "handoffd/transient.h"
#include "proto/slot.h"

#define TEXT_AT_FIRST 4096   /* bytes; most files have less */

/* One reading of one file. */
struct reader {
	const char *file;
	struct conf_scan scan;
	struct conf *conf;
	char *err;
	size_t err_size;
};

/* libconfuse's error function has no argument of ours; one file is read at a time. */
static struct reader *reading;

static int __attribute__((format(printf, 3, 4)))
fail(struct reader *r, int line, const char *fmt, ...)
{
	const int n = snprintf(r->err, r->err_size, "%s:%d: ", r->file, line);
	va_list ap;

	va_start(ap, fmt);
	if ((size_t)n < r->err_size)
		vsnprintf(r->err + n, r->err_size - n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* The mistake came with no line: nothing is wrong in the file. */
static int trouble(struct reader *r, int error, const char *what)
{
	snprintf(r->err, r->err_size, "%s: %s: %s%s", r->file, what, strerror(-error),
		 transient_hint(error));
	return error;
}

/* ---- the marks: is everything where it belongs, and once? ---- */

static int unknown_in_service(struct reader *r, const struct conf_mark *m)
{
	const char *near = conf_option_nearest(conf_options, m->name);

	if (m->section)
		return fail(r, m->line,
			    "there is no section '%s'; a service has only listen NAME { ... }",
			    m->name);
	if (conf_option_find(conf_listen_options, m->name) >= 0)
		return fail(r, m->line,
			    "'%s' is an option of a listener; write listen NAME { %s = ... }",
			    m->name, m->name);
	if (near)
		return fail(r, m->line, "there is no option '%s'; did you mean %s?", m->name, near);
	return fail(r, m->line, "there is no option '%s'; see handoff.conf(5) for all of them",
		    m->name);
}

static int unknown_in_listen(struct reader *r, const struct conf_mark *m)
{
	const struct conf_mark *listen = &r->scan.v[m->parent];
	const char *near = conf_option_nearest(conf_listen_options, m->name);

	if (m->section || conf_option_find(conf_options, m->name) >= 0)
		return fail(r, m->line,
			    "'%s' does not belong in listen %s; add the } that is missing since "
			    "line %d, or move it out",
			    m->name, listen->title, listen->line);
	if (near)
		return fail(r, m->line, "there is no option '%s' in a listener; did you mean %s?",
			    m->name, near);
	return fail(r, m->line,
		    "there is no option '%s' in a listener; it has address, backlog, mode, "
		    "reuseaddr and v6only",
		    m->name);
}

static int check_option(struct reader *r, const struct conf_mark *m,
			const struct conf_option *table, int *lines)
{
	const int i = conf_option_find(table, m->name);

	if (m->section && i >= 0)
		return fail(r, m->line, "'%s' is an option, not a section; write %s = VALUE",
			    m->name, m->name);
	if (i < 0)
		return table == conf_options ? unknown_in_service(r, m) : unknown_in_listen(r, m);
	if (lines[i])
		return fail(r, m->line, "'%s' is there twice, first on line %d; keep one of them",
			    m->name, lines[i]);
	lines[i] = m->line;
	if (m->list && table[i].kind != CONF_LIST)
		return fail(r, m->line, "'%s' takes one value, not a list; write %s = VALUE",
			    m->name, m->name);
	return 0;
}

static int check_service(struct reader *r, const struct conf_mark *m, int *service)
{
	if (!m->section)
		return fail(r, m->line,
			    "'%s' stands outside of the service; write service NAME { %s = ... }",
			    m->name, m->name);
	if (strcmp(m->name, "service"))
		return fail(r, m->line,
			    "there is no section '%s'; a file has one service NAME { ... }",
			    m->name);
	if (*service >= 0)
		return fail(r, m->line, "a second service, after the one on line %d; give each a "
			    "file of its own", r->scan.v[*service].line);
	if (!m->title)
		return fail(r, m->line, "this service has no name; write service NAME { ... }");
	*service = m - r->scan.v;
	return 0;
}

static int check_listen(struct reader *r, const struct conf_mark *m)
{
	const struct conf_mark *const v = r->scan.v;

	if (!m->section)
		return fail(r, m->line,
			    "'listen' is a section; write listen NAME { address = ... }");
	if (!m->title)
		return fail(r, m->line,
			    "this listener has no name; write listen NAME { address = ... }");
	if (!conf_name_ok(m->title))
		return fail(r, m->line,
			    "listen %s: not a name; use letters, digits, _ . @ -, at most %d, "
			    "a letter, digit or _ first",
			    m->title, CONF_MAX_NAME);
	for (const struct conf_mark *o = v; o < m; o++)
		if (o->section && o->parent == m->parent && o->title && !strcmp(o->title, m->title))
			return fail(r, m->line,
				    "a second listener '%s', after the one on line %d; give it "
				    "another name",
				    m->title, o->line);
	if (++r->conf->nlisten > CONF_MAX_LISTENERS)
		return fail(r, m->line, "more than %d listeners; a service can have no more",
			    CONF_MAX_LISTENERS);
	return 0;
}

static int check_marks(struct reader *r)
{
	int lines[CONF_OPTION_MAX], service = -1, e = 0;

	for (int i = 0; !e && i < r->scan.n; i++) {
		const struct conf_mark *m = &r->scan.v[i];

		if (m->parent < 0) {
			e = check_service(r, m, &service);
		} else if (m->parent != service) {
			e = check_option(r, m, conf_listen_options, lines);
		} else if (!strcmp(m->name, "listen")) {
			memset(lines, 0, sizeof lines);
			e = check_listen(r, m);
		} else {
			e = check_option(r, m, conf_options, r->conf->option_line);
		}
	}
	if (e)
		return e;
	if (r->scan.open >= 0)
		return fail(r, r->scan.v[r->scan.open].line, "%s %s { is never closed; add its }",
			    r->scan.v[r->scan.open].name, r->scan.v[r->scan.open].title);
	if (service < 0)
		return fail(r, 1, "there is no service; write service NAME { command = ... }");
	r->conf->line = r->scan.v[service].line;
	return 0;
}

/* ---- libconfuse ---- */

/* Everything is text to libconfuse; what it means is said by our own table. */
static void cfg_rows(cfg_opt_t *rows, const struct conf_option *table)
{
	for (; table->name; table++, rows++) {
		const cfg_opt_t one = CFG_STR(table->name, NULL, CFGF_NONE);
		const cfg_opt_t many = CFG_STR_LIST(table->name, NULL, CFGF_NODEFAULT);

		*rows = table->kind == CONF_LIST ? many : one;
	}
	*rows = (cfg_opt_t)CFG_END();
}

static void __attribute__((format(printf, 2, 0))) on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[256];

	vsnprintf(text, sizeof text, fmt, ap);
	fail(reading, cfg->line, "%s; see handoff.conf(5)", text);
}

/*
 * Without memory libconfuse does not fail, it ends the process (an assertion, exit(3), a NULL
 * followed), and with it the supervisor. So there has to be enough of it before: handoffd has
 * one thread, nobody else takes what was free a moment ago.
 */
static int ensure_memory(const struct reader *r, size_t text_size)
{
	/* it copies all options for each section, and the text of each value */
	void *volatile room = malloc(256 * 1024 + 4 * text_size + (size_t)r->conf->nlisten * 4096);

	if (!room)
		return -ENOMEM;
	free(room);
	return 0;
}

static int parse(struct reader *r, const char *text, cfg_t **ret)
{
	cfg_opt_t listen[CONF_OPTION_MAX], service[CONF_OPTION_MAX + 1];
	cfg_opt_t root[] = {
		CFG_SEC("service", service, CFGF_MULTI | CFGF_TITLE),
		CFG_END()
	};
	cfg_t *cfg;
	int n = 0;

	cfg_rows(listen, conf_listen_options);
	cfg_rows(service, conf_options);
	while (conf_options[n].name)
		n++;
	service[n] = (cfg_opt_t)CFG_SEC("listen", listen, CFGF_MULTI | CFGF_TITLE);
	service[n + 1] = (cfg_opt_t)CFG_END();
	cfg = ensure_memory(r, strlen(text)) ? NULL : cfg_init(root, CFGF_NONE);
	if (!cfg)
		return trouble(r, -ENOMEM, "cannot read it");
	cfg_set_error_function(cfg, on_error);
	fail(r, 1, "not understood; see handoff.conf(5)");
	reading = r;
	if (cfg_parse_buf(cfg, text) != CFG_SUCCESS) {
		cfg_free(cfg);
		return -EINVAL;
	}
	*ret = cfg;
	return 0;
}

/* ---- values ---- */

static int set(struct reader *r, void *base, const struct conf_option *o, int line, char *const *v,
	       unsigned n)
{
	char why[512];
	const int e = conf_value_set(base, o, v, n, why, sizeof why);

	if (e == -EINVAL)
		return fail(r, line, "%s", why);
	return e < 0 ? trouble(r, e, "cannot read it") : 0;
}

static int take_option(struct reader *r, cfg_t *sec, void *base, const struct conf_option *o,
		       int line)
{
	cfg_opt_t *opt = cfg_getopt(sec, o->name);
	const unsigned n = cfg_opt_size(opt);
	char **v = calloc(n + 1, sizeof *v);
	int e;

	if (!v)
		return trouble(r, -ENOMEM, "cannot read it");
	for (unsigned i = 0; i < n; i++)
		v[i] = cfg_opt_getnstr(opt, i);
	e = set(r, base, o, line, v, n);
	free(v);
	return e;
}

static int take_defaults(struct reader *r, void *base, const struct conf_option *o)
{
	int e = 0;

	for (; !e && o->name; o++) {
		char *text = (char *)o->def;

		if (text)
			e = set(r, base, o, 0, &text, 1);
	}
	return e;
}

static int check_listener(struct reader *r, const struct conf_listen *l, const int *lines)
{
	const int family = l->sa.ss_family;
	const bool path = family == AF_UNIX && ((const struct sockaddr_un *)&l->sa)->sun_path[0];
	const int *at;

	if (!l->address)
		return fail(r, l->line,
			    "listen %s has no address; add address = \"tcp:127.0.0.1:PORT\", say",
			    l->name);
	at = &lines[conf_option_find(conf_listen_options, "mode")];
	if (*at && !path)
		return fail(r, *at, "mode is for unix:/PATH only; remove it from listen %s",
			    l->name);
	at = &lines[conf_option_find(conf_listen_options, "reuseaddr")];
	if (*at && family == AF_UNIX)
		return fail(r, *at, "reuseaddr is for tcp:HOST:PORT only; remove it from listen %s",
			    l->name);
	at = &lines[conf_option_find(conf_listen_options, "v6only")];
	if (*at && family != AF_INET6)
		return fail(r, *at, "v6only is for tcp:[HOST]:PORT only; remove it from listen %s",
			    l->name);
	return 0;
}

/* The i-th listen section: its mark is m, its options are the marks behind that. */
static int take_listener(struct reader *r, cfg_t *sec, int m, struct conf_listen *l)
{
	int lines[CONF_OPTION_MAX] = { 0 };
	int e = take_defaults(r, l, conf_listen_options);

	l->line = r->scan.v[m].line;
	l->name = strdup(cfg_title(sec));
	if (!e && !l->name)
		e = trouble(r, -ENOMEM, "cannot read it");
	for (int i = m + 1; !e && i < r->scan.n && r->scan.v[i].parent == m; i++) {
		const int o = conf_option_find(conf_listen_options, r->scan.v[i].name);

		lines[o] = r->scan.v[i].line;
		e = take_option(r, sec, l, &conf_listen_options[o], lines[o]);
	}
	return e ? e : check_listener(r, l, lines);
}

static int take_listeners(struct reader *r, cfg_t *service)
{
	struct conf *c = r->conf;
	unsigned n = 0;
	int e = 0;

	c->listen = calloc(c->nlisten + 1, sizeof *c->listen);
	if (!c->listen) {
		c->nlisten = 0;
		return trouble(r, -ENOMEM, "cannot read it");
	}
	for (int i = 0; !e && i < r->scan.n; i++)
		if (r->scan.v[i].section && r->scan.v[i].parent >= 0) {
			e = take_listener(r, cfg_getnsec(service, "listen", n), i, &c->listen[n]);
			n++;
		}
	return e;
}

static int take_service(struct reader *r, cfg_t *sec)
{
	struct conf *c = r->conf;
	int e;

	c->name = strdup(cfg_title(sec));
	c->file = strdup(r->file);
	if (!c->name || !c->file)
		return trouble(r, -ENOMEM, "cannot read it");
	if (!conf_name_ok(c->name))
		return fail(r, c->line,
			    "service %s: not a name; use letters, digits, _ . @ -, at most %d, "
			    "a letter, digit or _ first",
			    c->name, CONF_MAX_NAME);
	timers_default(c->timer);
	e = take_defaults(r, c, conf_options);
	for (int i = 0; !e && conf_options[i].name; i++)
		if (c->option_line[i])
			e = take_option(r, sec, c, &conf_options[i], c->option_line[i]);
	return e ? e : take_listeners(r, sec);
}

/* ---- what holds between options ---- */

int conf_line(const struct conf *c, const char *option)
{
	const int i = conf_option_find(conf_options, option);

	return i >= 0 && c->option_line[i] ? c->option_line[i] : c->line;
}

static bool stands(const struct conf *c, const char *option)
{
	return c->option_line[conf_option_find(conf_options, option)] != 0;
}

/* A default may be at fault; what stands in the file is the other one of its pair. */
static int timer_line(const struct conf *c, enum timer fault, const char *why)
{
	if (stands(c, timer_desc[fault].name))
		return conf_line(c, timer_desc[fault].name);
	for (int i = 0; i < TIMER_COUNT; i++)
		if (stands(c, timer_desc[i].name) && strstr(why, timer_desc[i].name))
			return conf_line(c, timer_desc[i].name);
	return c->line;
}

static int check_environment(struct reader *r, const struct conf *c)
{
	const int line = conf_line(c, "environment");

	for (char **e = c->environment; e && *e; e++) {
		const size_t n = strcspn(*e, "=");

		if (!(*e)[n] || n == 0)
			return fail(r, line,
				    "environment: '%s' has no name or no =; write NAME=VALUE", *e);
		if (!strncmp(*e, "HANDOFF_", 8))
			return fail(r, line,
				    "environment: %.*s is set by handoffd itself; use another name",
				    (int)n, *e);
	}
	return 0;
}

static int check_whole(struct reader *r)
{
	struct conf *c = r->conf;
	char why[256];
	enum timer t;

	if (!c->command)
		return fail(r, c->line,
			    "service %s has no command; add command = { \"/path/of/daemon\" }",
			    c->name);
	if (!c->command[0] || !c->command[0][0])
		return fail(r, conf_line(c, "command"),
			    "command is empty; write command = { \"/path/of/daemon\", "
			    "\"argument\" }");
	if (c->command[0][0] != '/' && strchr(c->command[0], '/'))
		return fail(r, conf_line(c, "command"),
			    "command = %s is a relative path; write it from / on, or a "
			    "name that is found in PATH",
			    c->command[0]);
	t = timers_check(c->timer, why, sizeof why);
	if (t != TIMER_COUNT)
		return fail(r, timer_line(c, t, why), "%s", why);
	c->has_oom = stands(c, "oom-score-adj");
	return check_environment(r, c);
}

static int resolve(struct reader *r)
{
	const char *option;
	char why[512];
	const int e = ids_resolve(r->conf, &option, why, sizeof why);

	if (e < 0)
		fail(r, conf_line(r->conf, option ? option : "user"), "%s", why);
	return e;
}

/* ---- the file ---- */

/* All of it, or more than CONF_FILE_MAX; *ret is the caller's, and has room for a byte more. */
static ssize_t read_fd(int fd, char **ret)
{
	size_t got = 0, room = 0;
	ssize_t n;

	do {
		if (got + 1 >= room) {
			char *more = realloc(*ret, room = room ? 2 * room : TEXT_AT_FIRST);
			if (!more)
				return -ENOMEM;
			*ret = more;
		}
		n = sys_read(fd, *ret + got, room - 1 - got);
		got += n > 0 ? (size_t)n : 0;
	} while (n > 0 && got <= CONF_FILE_MAX);
	return n < 0 ? n : (ssize_t)got;
}

static int read_text(struct reader *r, char **ret)
{
	const int fd = sys_open(r->file, O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
	char *text = NULL;
	ssize_t got;

	if (fd < 0)
		return trouble(r, fd, "cannot open the configuration");
	got = read_fd(fd, &text);
	sys_close(fd);
	if (got < 0) {
		free(text);
		return trouble(r, (int)got, "cannot read the configuration");
	}
	if (got > CONF_FILE_MAX) {
		free(text);
		return fail(r, 1, "the file is larger than %d bytes; is it a configuration?",
			    CONF_FILE_MAX);
	}
	text[got] = '\0';
	*ret = realloc(text, (size_t)got + 1);   /* what is made of it lies behind it, and stays when it goes */
	if (!*ret)
		*ret = text;
	text = *ret;
	for (ssize_t i = 0, line = 1; i < got; line += text[i++] == '\n')
		if (!text[i])
			return fail(r, line, "a NUL byte; the file must be plain text");
	return 0;
}

static int read_all(struct reader *r, char *text)
{
	cfg_t *cfg = NULL;
	int e = text ? 0 : read_text(r, &text);

	if (!e)
		e = conf_scan(r->file, text, &r->scan, r->err, r->err_size);
	if (!e)
		e = check_marks(r);
	if (!e)
		e = parse(r, text, &cfg);
	if (!e)
		e = take_service(r, cfg_getnsec(cfg, "service", 0));
	if (!e)
		e = check_whole(r);
	if (!e)
		e = resolve(r);
	if (cfg)
		cfg_free(cfg);
	if (!e) {
		r->conf->text = strdup(text);   /* without the room that it was read into */
		r->conf->sum = crc32_of(text, strlen(text));
	}
	free(text);
	return e;
}

int conf_read(const char *path, struct conf **ret, char *err, size_t err_size)
{
	return conf_parse(path, NULL, ret, err, err_size);
}

int conf_parse(const char *path, char *text, struct conf **ret, char *err, size_t err_size)
{
	struct reader r = {
		.file = path, .scan.open = -1, .err = err, .err_size = err_size,
		.conf = calloc(1, sizeof *r.conf),
	};
	const int e = r.conf ? read_all(&r, text) : trouble(&r, -ENOMEM, "cannot read it");

	conf_scan_free(&r.scan);
	if (e < 0) {
		conf_free(r.conf);
		return e;
	}
	*err = '\0';
	*ret = r.conf;
	return 0;
}

/* Frees what a row's field holds. */
static void free_field(void *base, const struct conf_option *o)
{
	void *const field = (char *)base + o->offset;

	if (o->kind == CONF_LIST)
		conf_list_free(*(char ***)field);
	else if (o->kind == CONF_STRING || o->kind == CONF_PATH || o->kind == CONF_ADDRESS)
		free(*(char **)field);
}

struct conf *conf_free(struct conf *c)
{
	if (!c)
		return NULL;
	for (unsigned i = 0; c->listen && i < c->nlisten; i++) {
		for (const struct conf_option *o = conf_listen_options; o->name; o++)
			free_field(&c->listen[i], o);
		free(c->listen[i].name);
	}
	for (const struct conf_option *o = conf_options; o->name; o++)
		free_field(c, o);
	free(c->listen);
	free(c->rlimits);
	free(c->gids);
	free(c->name);
	free(c->file);
	free(c->text);
	free(c);
	return NULL;
}
