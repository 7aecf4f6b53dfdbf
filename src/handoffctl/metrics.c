#include "handoffctl/metrics.h"

#include <inttypes.h>
#include <string.h>

/* ---- a State as plain values ---- */

static void copy(char *out, size_t size, bool has, struct span s)
{
	const size_t n = !has ? 0 : s.n < size ? s.n : size - 1;

	if (n)
		memcpy(out, s.p, n);
	out[n] = '\0';
	utf8_mend(out);
}

static bool is(struct span s, const char *text)
{
	return s.n == strlen(text) && !memcmp(s.p, text, s.n);
}

static void read_column(const struct uints *u, bool has, uint64_t *ret)
{
	const unsigned n = has ? uints_copy(u, ret, METRICS_QUEUES) : 0;

	for (unsigned i = n; i < METRICS_QUEUES; i++)
		ret[i] = UINT64_MAX;
}

/* A listener is its name, a blank, its address. */
static void read_queues(struct metrics_of *ret, const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;
	struct span name[METRICS_QUEUES];

	ret->nqueues = texts_copy(&s->listeners, name, METRICS_QUEUES);
	for (unsigned i = 0; i < ret->nqueues; i++) {
		const char *blank = memchr(name[i].p, ' ', name[i].n);

		name[i].n = blank ? (size_t)(blank - name[i].p) : name[i].n;
		copy(ret->listener[i], sizeof ret->listener[i], true, name[i]);
	}
	read_column(&s->waiting, MSG_HAS(m, op_state, waiting), ret->waiting);
	read_column(&s->backlogs, MSG_HAS(m, op_state, backlogs), ret->backlog);
	read_column(&s->drops, MSG_HAS(m, op_state, drops), ret->drops);
	read_column(&s->last_deepest, MSG_HAS(m, op_state, last_deepest), ret->deepest);
	read_column(&s->last_drops, MSG_HAS(m, op_state, last_drops), ret->dropped);
}

void metrics_read(struct metrics_of *ret, const char *service, const struct msg *m)
{
	const struct msg_op_state *s;

	memset(ret, 0, sizeof *ret);
	snprintf(ret->service, sizeof ret->service, "%s", service);
	utf8_mend(ret->service);
	if (!m)
		return;
	s = &m->op_state;
	ret->up = true;
	ret->has = m->has;
	copy(ret->state, sizeof ret->state, true, s->state);
	copy(ret->build, sizeof ret->build, MSG_HAS(m, op_state, build), s->build);
	copy(ret->software, sizeof ret->software, MSG_HAS(m, op_state, software), s->software);
	ret->serving = MSG_HAS(m, op_state, serves) && s->serves;
	ret->connected = ret->serving && !is(s->state, "unregistered") && !is(s->state, "adopt");
	ret->refuses = MSG_HAS(m, op_state, refused);
	ret->in_handoff = MSG_HAS(m, op_state, id);
	ret->epoch = s->epoch;
	ret->since_ms = s->since_ms;
	ret->supervisor_since_ms = s->supervisor_since_ms;
	ret->left = s->left;
	ret->committed = s->committed;
	ret->aborted = s->aborted;
	ret->rolled_back = s->rolled_back;
	ret->cold_starts = s->cold_starts;
	ret->last_pause_us = s->last_pause_us;
	ret->last_total_us = s->last_total_us;
	ret->moved = s->moved;
	ret->stayed = s->stayed;
	ret->last_stall_us = s->last_stall_us;
	read_queues(ret, m);
}

/* ---- the table ---- */

/* Where one sample of a service goes. */
struct to {
	FILE *f;
	const struct metric *metric;
	const struct metrics_of *of;
};

static void label(FILE *f, const char *name, const char *value)
{
	fprintf(f, "%s=\"", name);
	for (; *value; value++)
		if (*value == '\n')
			fputs("\\n", f);
		else
			fprintf(f, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
	putc('"', f);
}

/* The name up to the labels of its own, and those. */
static void begin(const struct to *t, const char *own, const char *value)
{
	const bool counter = !strcmp(t->metric->type, "counter"), info = !strcmp(t->metric->type, "info");

	fprintf(t->f, "%s%s{", t->metric->name, counter ? "_total" : info ? "_info" : "");
	label(t->f, "service", t->of->service);
	if (own) {
		putc(',', t->f);
		label(t->f, own, value);
	}
}

static void number(const struct to *t, uint64_t v)
{
	begin(t, NULL, NULL);
	fprintf(t->f, "} %" PRIu64 "\n", v);
}

/* Seconds from a count of 1/unit of them, with all its digits. */
static void seconds(const struct to *t, uint64_t v, unsigned unit, int digits)
{
	begin(t, NULL, NULL);
	fprintf(t->f, "} %" PRIu64 ".%0*u\n", v / unit, digits, (unsigned)(v % unit));
}

#define HAS(field) (t->of->has >> MSG_BIT_op_state_##field & 1)
#define UP(expr) if (t->of->up) number(t, (expr))

static void up(const struct to *t) { number(t, t->of->up); }
static void serving(const struct to *t) { UP(t->of->serving); }
static void connected(const struct to *t) { UP(t->of->connected); }
static void refuses(const struct to *t) { UP(t->of->refuses); }
static void in_handoff(const struct to *t) { UP(t->of->in_handoff); }
static void leftovers(const struct to *t) { UP(t->of->left); }
static void epoch(const struct to *t) { if (HAS(epoch)) number(t, t->of->epoch); }
static void cold_starts(const struct to *t) { if (HAS(cold_starts)) number(t, t->of->cold_starts); }
static void since(const struct to *t) { if (HAS(since_ms)) seconds(t, t->of->since_ms, 1000, 3); }
static void pause(const struct to *t) { if (HAS(last_pause_us)) seconds(t, t->of->last_pause_us, 1000000, 6); }
static void total(const struct to *t) { if (HAS(last_total_us)) seconds(t, t->of->last_total_us, 1000000, 6); }

static void stall(const struct to *t) { if (HAS(last_stall_us)) seconds(t, t->of->last_stall_us, 1000000, 6); }

static void each_queue(const struct to *t, const uint64_t *v)
{
	for (unsigned i = 0; i < t->of->nqueues; i++) {
		if (v[i] == UINT64_MAX)
			continue;
		begin(t, "listener", t->of->listener[i]);
		fprintf(t->f, "} %" PRIu64 "\n", v[i]);
	}
}

static void waiting(const struct to *t) { each_queue(t, t->of->waiting); }
static void backlog(const struct to *t) { each_queue(t, t->of->backlog); }
static void drops(const struct to *t) { each_queue(t, t->of->drops); }
static void deepest(const struct to *t) { each_queue(t, t->of->deepest); }
static void dropped(const struct to *t) { each_queue(t, t->of->dropped); }

static void supervisor_since(const struct to *t)
{
	if (HAS(supervisor_since_ms))
		seconds(t, t->of->supervisor_since_ms, 1000, 3);
}

static void daemon_info(const struct to *t)
{
	if (!HAS(build) && !HAS(software))
		return;
	begin(t, "build", t->of->build);
	putc(',', t->f);
	label(t->f, "version", t->of->software);
	fputs("} 1\n", t->f);
}

static void labelled(const struct to *t, const char *own, const char *value, uint64_t v)
{
	begin(t, own, value);
	fprintf(t->f, "} %" PRIu64 "\n", v);
}

static void outcomes(const struct to *t)
{
	if (!HAS(committed))
		return;
	labelled(t, "outcome", "committed", t->of->committed);
	labelled(t, "outcome", "aborted", t->of->aborted);
	labelled(t, "outcome", "rolled back", t->of->rolled_back);
}

static void connections(const struct to *t)
{
	if (!HAS(moved))
		return;
	labelled(t, "fate", "moved", t->of->moved);
	labelled(t, "fate", "stayed", t->of->stayed);
}

/* name, type, unit, rows, help */
#define METRICS(X) \
	X("handoff_up", "gauge", NULL, up, "1: the supervisor answered in time.") \
	X("handoff_serving", "gauge", NULL, serving, "1: a daemon serves.") \
	X("handoff_connected", "gauge", NULL, connected, "1: that daemon is registered with the supervisor.") \
	X("handoff_upgrade_refused", "gauge", NULL, refuses, "1: an upgrade would be refused now.") \
	X("handoff_in_progress", "gauge", NULL, in_handoff, "1: a handoff is under way.") \
	X("handoff_daemon", "info", NULL, daemon_info, "Build id and version of the daemon that serves.") \
	X("handoff_epoch", "gauge", NULL, epoch, "How many have owned the lock on the data so far.") \
	X("handoff_serving_since_timestamp_seconds", "gauge", "seconds", since, \
	  "When the daemon that serves began to, in Unix time.") \
	X("handoff_supervisor_since_timestamp_seconds", "gauge", "seconds", supervisor_since, \
	  "When the supervisor was started, in Unix time.") \
	X("handoff_handoffs", "counter", NULL, outcomes, \
	  "Handoffs that have ended since the supervisor was started, by outcome.") \
	X("handoff_cold_starts", "counter", NULL, cold_starts, \
	  "Daemons started with nobody to take over from, since the supervisor was started.") \
	X("handoff_connections", "counter", NULL, connections, \
	  "Connections of committed handoffs since the supervisor was started, by fate.") \
	X("handoff_last_pause_seconds", "gauge", "seconds", pause, \
	  "How long nobody served in the last handoff of this supervisor.") \
	X("handoff_last_duration_seconds", "gauge", "seconds", total, \
	  "From request to outcome of the last handoff of this supervisor.") \
	X("handoff_last_stall_seconds", "gauge", "seconds", stall, \
	  "The longest time without accept in the last handoff of this supervisor.") \
	X("handoff_last_queue_connections", "gauge", NULL, deepest, \
	  "A listener's queue at its deepest in the last handoff of this supervisor.") \
	X("handoff_last_dropped_connections", "gauge", NULL, dropped, \
	  "What a listener's queue had no place for in that handoff.") \
	X("handoff_queue_connections", "gauge", NULL, waiting, \
	  "Connections that wait in a listener's queue now.") \
	X("handoff_queue_backlog", "gauge", NULL, backlog, \
	  "How many may wait in a listener's queue.") \
	X("handoff_queue_drops", "counter", NULL, drops, \
	  "What a listener's queue had no place for, since it was bound.") \
	X("handoff_leftover_processes", "gauge", NULL, leftovers, \
	  "Processes of earlier daemons that are being ended.")

const struct metric metrics[] = {
#define X(name, type, unit, rows, help) { name, type, unit, help },
	METRICS(X)
#undef X
	{ NULL, NULL, NULL, NULL },
};

static void (*const rows_of[])(const struct to *t) = {
#define X(name, type, unit, rows, help) rows,
	METRICS(X)
#undef X
};

/* ---- the text ---- */

/* The older format has no info, and names a family as its samples are called. */
static void head(FILE *f, const struct metric *m, bool openmetrics)
{
	const bool info = !strcmp(m->type, "info");
	const char *suffix = openmetrics ? "" : info ? "_info" : !strcmp(m->type, "counter") ? "_total" : "";

	fprintf(f, "# HELP %s%s %s\n", m->name, suffix, m->help);
	fprintf(f, "# TYPE %s%s %s\n", m->name, suffix, info && !openmetrics ? "gauge" : m->type);
	if (openmetrics && m->unit)
		fprintf(f, "# UNIT %s %s\n", m->name, m->unit);
}

void metrics_write(FILE *f, const struct metrics_of *v, size_t n, bool openmetrics)
{
	for (size_t i = 0; metrics[i].name; i++) {
		head(f, &metrics[i], openmetrics);
		for (size_t k = 0; k < n; k++)
			rows_of[i](&(struct to){ f, &metrics[i], &v[k] });
	}
	if (openmetrics)
		fputs("# EOF\n", f);
}
