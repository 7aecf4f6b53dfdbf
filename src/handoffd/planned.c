#include "handoffd/planned.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/sys.h"
#include "handoffd/service.h"

#define LISTENERS_TOLD 16   /* of each kind; what is more is "..." */

/* "name address" of listeners. */
struct names {
	unsigned n;
	char text[LISTENERS_TOLD + 1][CONF_MAX_NAME + 140];
	struct span span[LISTENERS_TOLD + 1];
};

struct planned {
	struct hid id;
	char path[4096], old_path[4096], build[129], old_build[129], software[65], old_software[65];
	pid_t old_pid;
	bool greeted;
	uint64_t version, capabilities, hello_us, nofile[2], backlog[LISTENERS_TOLD];
	uint32_t deadline_ms;
	struct names added, dropped;
	unsigned nlisten;
	char name[LISTENERS_TOLD][CONF_MAX_NAME + 1];
	struct span names[LISTENERS_TOLD];
};

static void add_name(struct names *v, const struct conf_listen *l)
{
	char *text = v->text[v->n];

	if (v->n > LISTENERS_TOLD)
		return;
	snprintf(text, sizeof v->text[0], "%s %.130s", l->name, l->address);
	if (v->n == LISTENERS_TOLD)
		strcpy(text, "...");
	utf8_mend(text);
	v->span[v->n++] = SPAN(text);
}

static bool has_listener(const struct conf *c, const struct conf_listen *l)
{
	for (unsigned i = 0; i < c->nlisten; i++)
		if (!strcmp(c->listen[i].name, l->name) && !strcmp(c->listen[i].address, l->address))
			return true;
	return false;
}

static void difference(const struct conf *a, const struct conf *b, struct names *ret)
{
	for (unsigned i = 0; i < a->nlisten; i++)
		if (!has_listener(b, &a->listen[i]))
			add_name(ret, &a->listen[i]);
}

/* How many descriptors the successor may have: as configured, or as handoffd may. */
static void find_nofile(const struct conf *c, uint64_t ret[2])
{
	struct rlimit own = { 0, 0 };

	getrlimit(RLIMIT_NOFILE, &own);
	for (unsigned i = 0; i < c->nrlimits; i++)
		if (c->rlimits[i].resource == RLIMIT_NOFILE)
			own = c->rlimits[i].limit;
	ret[0] = own.rlim_cur;
	ret[1] = own.rlim_max;
}

void planned_begin(struct service *s)
{
	const struct conf *c = s->new_conf;
	struct planned *p = calloc(1, sizeof *p);

	planned_end(s);
	if (!(s->planned = p))
		return;
	p->id = s->attempt.id;
	snprintf(p->path, sizeof p->path, "%s", s->new_exe.path);
	snprintf(p->old_path, sizeof p->old_path, "%s", s->exe.fd >= 0 ? s->exe.path : s->journal.binary);
	utf8_mend(p->path);
	utf8_mend(p->old_path);
	p->deadline_ms = c->timer[TIMER_DEADLINE];
	if (s->o) {
		p->old_pid = s->o->pid;
		hex_format(s->o->build, s->o->build_size, p->old_build);
		memcpy(p->old_software, s->o->software, sizeof p->old_software);
	}
	find_nofile(c, p->nofile);
	difference(c, s->conf, &p->added);
	difference(s->conf, c, &p->dropped);
	for (; p->nlisten < c->nlisten && p->nlisten < LISTENERS_TOLD; p->nlisten++) {
		snprintf(p->name[p->nlisten], sizeof p->name[0], "%s", c->listen[p->nlisten].name);
		p->names[p->nlisten] = SPAN(p->name[p->nlisten]);
		p->backlog[p->nlisten] = (uint64_t)c->listen[p->nlisten].backlog;
	}
}

void planned_hello(struct service *s, const struct peer *n)
{
	struct planned *p = s->planned;

	if (!p)
		return;
	p->greeted = true;
	p->version = n->chan.version;
	p->capabilities = n->capabilities;
	p->hello_us = sys_now_us() - s->attempt.released_us;
	hex_format(n->build, n->build_size, p->build);
	memcpy(p->software, n->software, sizeof p->software);
}

#define SET_TEXT(m, field, s) do { \
	if ((s)[0]) MSG_SET(m, op_planned, field, SPAN(s)); \
} while (0)
#define SET_NAMES(m, field, list) \
	MSG_SET(m, op_planned, field, ((struct texts){ .n = (list)->n, .v = (list)->span }))

static void tell_hello(const struct planned *p, struct msg *m)
{
	MSG_SET(m, op_planned, version, p->version);
	MSG_SET(m, op_planned, capabilities, p->capabilities);
	MSG_SET(m, op_planned, start_us, p->hello_us);
	SET_TEXT(m, build, p->build);
	SET_TEXT(m, software, p->software);
}

bool planned_tell(const struct service *s, struct msg *m)
{
	const struct planned *p = s->planned;
	const struct attempt *a = &s->attempt;

	*m = (struct msg){ .type = MSG_op_planned };
	if (!p)
		return false;
	m->op_planned.id = p->id;
	m->op_planned.binary = SPAN(p->path);
	m->op_planned.deadline_ms = p->deadline_ms;
	if (sum_known(&a->sums.exe))
		MSG_SET(m, op_planned, sha256, a->sums.exe);
	if (a->compared)
		MSG_SET(m, op_planned, changed, a->changed);
	if (p->greeted)
		tell_hello(p, m);
	if (p->old_pid)
		MSG_SET(m, op_planned, old_pid, (uint64_t)p->old_pid);
	SET_TEXT(m, old_build, p->old_build);
	SET_TEXT(m, old_software, p->old_software);
	SET_TEXT(m, old_binary, p->old_path);
	MSG_SET(m, op_planned, nofile, ((struct uints){ .n = 2, .v = p->nofile }));
	SET_NAMES(m, added, &p->added);
	SET_NAMES(m, dropped, &p->dropped);
	MSG_SET(m, op_planned, listeners, ((struct texts){ .n = p->nlisten, .v = p->names }));
	MSG_SET(m, op_planned, backlogs, ((struct uints){ .n = p->nlisten, .v = p->backlog }));
	return true;
}

void planned_end(struct service *s)
{
	free(s->planned);
	s->planned = NULL;
}
