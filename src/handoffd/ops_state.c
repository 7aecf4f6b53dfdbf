/* What an operator sees of a service: the State. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/callers.h"
#include "handoffd/service.h"
#include "handoffd/version.h"

#define STATE_QUEUES      64   /* listeners whose queues a State has, */
#define STATE_QUEUES_UNIX 8    /* and of unix sockets so many: they take longer */
#define STATE_LISTENERS_MAX 40000   /* bytes of their names and addresses in a State */

static struct span text(const char *s)
{
	return utf8_span(s, strlen(s));
}

const char *ops_state_name(const struct service *s)
{
	if (s->s.state == S_IDLE && !s->s.o_connected)
		return "unregistered";
	return s_state_desc[s->s.state].name;
}

static void put_totals(struct msg *m, const struct service *s)
{
	const struct totals *t = &s->totals;

	MSG_SET(m, op_state, serves, service_serves(s));
	MSG_SET(m, op_state, supervisor_since_ms, t->since_ms);
	MSG_SET(m, op_state, committed, t->outcomes[OUTCOME_COMMITTED]);
	MSG_SET(m, op_state, aborted, t->outcomes[OUTCOME_ABORTED]);
	MSG_SET(m, op_state, rolled_back, t->outcomes[OUTCOME_ROLLED_BACK]);
	MSG_SET(m, op_state, cold_starts, t->cold_starts);
	MSG_SET(m, op_state, moved, t->moved);
	MSG_SET(m, op_state, stayed, t->stayed);
	if (t->pause_us)
		MSG_SET(m, op_state, last_pause_us, t->pause_us);
	if (t->total_us)
		MSG_SET(m, op_state, last_total_us, t->total_us);
	if (t->handed)
		MSG_SET(m, op_state, last_stall_us, t->stall_us);
}

/* Whether another file lies at the path by now the client looks itself: a path can hang. */
static void put_binaries(const struct service *s, struct msg *m, uint64_t id[4])
{
	const struct kept *before = &s->keep.c.before;
	const struct exe *e = &s->exe;

	MSG_SET(m, op_state, binary, text(e->fd >= 0 ? e->path : s->journal.binary[0] ? s->journal.binary
	                                                                              : s->conf->command[0]));
	if (e->fd >= 0) {
		id[0] = e->id.ino, id[1] = e->id.size, id[2] = e->id.mtime, id[3] = e->id.ctime;
		if (e->id.ino)
			MSG_SET(m, op_state, file, ((struct uints){ .n = 4, .v = id }));
		MSG_SET(m, op_state, kept, e->copy > 0);
		if (sum_known(&s->keep.c.now.sum) && s->exe_served)
			MSG_SET(m, op_state, sha256, s->keep.c.now.sum);
	}
	if (!before->path[0])
		return;
	MSG_SET(m, op_state, previous, text(before->path));
	MSG_SET(m, op_state, previous_kept, before->copy > 0);
}

/* Of the first listeners; who asks may not make it look at a thousand. */
struct queues {
	uint64_t waiting[STATE_QUEUES], backlog[STATE_QUEUES], drops[STATE_QUEUES];
	uint64_t deepest[STATE_QUEUES], dropped[STATE_QUEUES];   /* in the last handoff */
};

/* What the last handoff cost the same listeners, as far as they were there. */
static void put_last_queues(const struct service *s, struct msg *m, struct queues *q, unsigned n)
{
	const struct disruption *d = &s->totals.last;

	for (unsigned i = 0; i < n; i++) {
		const struct disruption_queue *l = disruption_of(d, s->conf->listen[i].name);

		q->deepest[i] = l ? l->deepest.waiting : UINT64_MAX;
		q->dropped[i] = l ? l->deepest.drops : UINT64_MAX;
	}
	MSG_SET(m, op_state, last_deepest, ((struct uints){ .n = n, .v = q->deepest }));
	MSG_SET(m, op_state, last_drops, ((struct uints){ .n = n, .v = q->dropped }));
}

static void put_queues(struct service *s, struct msg *m, struct queues *q)
{
	const struct conf *c = s->conf;
	unsigned left = STATE_QUEUES_UNIX, n;
	int diag = queue_open();

	for (n = 0; n < c->nlisten && n < STATE_QUEUES; n++) {
		const struct listener *l = listeners_find(&s->listeners, &c->listen[n]);
		struct queue now;
		bool known = l && (!l->path || left) && !queue_look(l->fd, diag, &now);

		left -= known && l->path;
		q->waiting[n] = known ? now.waiting : UINT64_MAX;
		q->backlog[n] = known ? now.backlog : UINT64_MAX;
		q->drops[n] = known ? now.drops : UINT64_MAX;
	}
	sys_closep(&diag);
	MSG_SET(m, op_state, waiting, ((struct uints){ .n = n, .v = q->waiting }));
	MSG_SET(m, op_state, backlogs, ((struct uints){ .n = n, .v = q->backlog }));
	MSG_SET(m, op_state, drops, ((struct uints){ .n = n, .v = q->drops }));
	if (s->totals.handed)
		put_last_queues(s, m, q, n);
}

/* Their names and addresses, in the order of the configuration. */
struct names {
	char (*address)[CONF_MAX_NAME + 140];
	struct span *name;
};

static void put_listeners(const struct conf *c, struct msg *m, struct names *v)
{
	size_t bytes = 0;
	unsigned n = 0;

	v->address = calloc(c->nlisten + 1u, sizeof *v->address);
	v->name = calloc(c->nlisten + 1u, sizeof *v->name);
	while (v->address && v->name && n < c->nlisten && bytes <= STATE_LISTENERS_MAX) {
		snprintf(v->address[n], sizeof *v->address, "%s %.130s", c->listen[n].name, c->listen[n].address);
		v->name[n] = text(v->address[n]);
		bytes += v->name[n++].n + 3;
	}
	if (bytes > STATE_LISTENERS_MAX)   /* a frame has its limit */
		v->name[n - 1] = SPAN("...");
	m->op_state.listeners = (struct texts){ .n = n, .v = v->name };
}

static void put_incumbent(const struct service *s, struct msg *m, char build[129])
{
	const struct peer *o = s->o;

	if (!o)
		return;
	MSG_SET(m, op_state, pid, (uint64_t)o->pid);
	hex_format(o->build, o->build_size, build);
	if (o->build_size)   /* not before it has registered */
		MSG_SET(m, op_state, build, SPAN(build));
	if (o->epoch)
		MSG_SET(m, op_state, epoch, o->epoch);
	if (s->journal.since)   /* not of one that no journal named */
		MSG_SET(m, op_state, since_ms, s->journal.since);
	if (o->software[0])
		MSG_SET(m, op_state, software, SPAN(o->software));
}

static void put_last(const struct journal *j, struct msg *m)
{
	if (j->outcome == OUTCOME_NONE)
		return;
	MSG_SET(m, op_state, last_id, j->last_id);
	MSG_SET(m, op_state, last_outcome, SPAN(outcome_name[j->outcome]));
	MSG_SET(m, op_state, last_message, SPAN(j->message));
}

/* One, the worst of what there is. */
static void put_warning(const struct service *s, struct msg *m, char *broken, size_t size)
{
	if (s->store.dirty) {
		MSG_SET(m, op_state, warning, SPAN("the journal could not be written"));
	} else if (s->lockwait.text[0]) {
		MSG_SET(m, op_state, warning, SPAN(s->lockwait.text));
	} else if (s->cold_error[0] && (!s->o || peer_dead(s->o))) {
		MSG_SET(m, op_state, warning, text(s->cold_error));
	} else if (s->conf_error[0]) {
		snprintf(broken, size, "%s; the configuration that was in use is used, and an upgrade "
		         "reads the file again", s->conf_error);
		MSG_SET(m, op_state, warning, text(broken));
	} else if (s->keep.why[0]) {
		MSG_SET(m, op_state, warning, text(s->keep.why));
	}
}

void ops_state(struct service *s, struct caller *o)
{
	struct msg m = { .type = MSG_op_state };
	char build[129], broken[sizeof s->conf_error + 100];
	uint64_t timers[TIMER_COUNT], file[4], left = generations_left(s->generations);
	const char *no = service_refuses(s);
	struct queues queues;
	struct names names;

	m.op_state.service = SPAN(s->conf->name);
	m.op_state.state = SPAN(ops_state_name(s));
	m.op_state.supervisor_pid = (uint64_t)getpid();
	MSG_SET(&m, op_state, supervisor_version, SPAN(handoffd_version));
	if (s_in_handoff(&s->s))
		MSG_SET(&m, op_state, id, s->s.id);
	put_incumbent(s, &m, build);
	if (s->n)
		MSG_SET(&m, op_state, successor_pid, (uint64_t)s->n->pid);
	put_binaries(s, &m, file);
	put_listeners(s->conf, &m, &names);
	put_queues(s, &m, &queues);
	put_last(&s->journal, &m);
	if (no)
		MSG_SET(&m, op_state, refused, SPAN(no));
	put_warning(s, &m, broken, sizeof broken);
	for (int i = 0; i < TIMER_COUNT; i++)
		timers[i] = s->conf->timer[i];
	m.op_state.timers = (struct uints){ .n = TIMER_COUNT, .v = timers };
	if (left)
		MSG_SET(&m, op_state, left, left);
	put_totals(&m, s);
	caller_send(o, &m);
	free(names.address);
	free(names.name);
}
