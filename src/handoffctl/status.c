/* status, list and metrics: questions with a limit of time. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffctl/ask.h"
#include "handoffctl/ctl.h"
#include "handoffctl/json.h"
#include "handoffctl/metrics.h"
#include "handoffctl/place.h"
#include "proto/timers.h"

#define STATUS_MS 10000
#define LIST_MS   2000

#define HAS(m, field) MSG_HAS(m, op_state, field)

/* ---- JSON ---- */

#define QUEUES_MAX 64

/* Of the first listeners; what is not known is UINT64_MAX. */
struct queues { unsigned n; uint64_t waiting[QUEUES_MAX], backlog[QUEUES_MAX], drops[QUEUES_MAX]; };

static void take_queues(const struct msg *m, struct queues *q)
{
	q->n = HAS(m, waiting) ? uints_copy(&m->op_state.waiting, q->waiting, QUEUES_MAX) : 0;
	if (uints_copy(&m->op_state.backlogs, q->backlog, QUEUES_MAX) < q->n ||
	    uints_copy(&m->op_state.drops, q->drops, QUEUES_MAX) < q->n)
		q->n = 0;
}

static json_t *queues_array(const struct msg *m)
{
	struct span name[QUEUES_MAX];
	const unsigned n = texts_copy(&m->op_state.listeners, name, QUEUES_MAX);
	json_t *a = json_array();
	struct queues q;

	take_queues(m, &q);
	for (unsigned i = 0; i < n && i < q.n; i++) {
		const char *blank = memchr(name[i].p, ' ', name[i].n);
		json_t *j = json_object();

		if (blank)
			name[i].n = (size_t)(blank - name[i].p);
		json_put_span(j, "listener", true, name[i]);
		json_put_uint(j, "waiting", q.waiting[i] != UINT64_MAX, q.waiting[i]);
		json_put_uint(j, "backlog", q.backlog[i] != UINT64_MAX, q.backlog[i]);
		json_put_uint(j, "drops", q.drops[i] != UINT64_MAX, q.drops[i]);
		json_array_append_new(a, j);
	}
	return a;
}

static json_t *listeners_array(const struct texts *t)
{
	json_t *a = json_array();
	struct span *v = calloc(t->n ? t->n : 1, sizeof *v);
	const unsigned n = v ? texts_copy(t, v, t->n) : 0;

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(a, json_text(v[i]));
	free(v);
	return a;
}

static json_t *timers_object(const struct uints *t)
{
	uint64_t v[TIMER_COUNT];
	const unsigned n = uints_copy(t, v, TIMER_COUNT);
	json_t *j = json_object();

	for (unsigned i = 0; i < n; i++)
		json_put_uint(j, timer_desc[i].name, true, v[i]);
	return j;
}

static json_t *last_object(const struct msg *m)
{
	json_t *j;

	if (!HAS(m, last_outcome))
		return json_null();
	j = json_object();
	json_put_hid(j, "handoff", HAS(m, last_id), &m->op_state.last_id);
	json_put_span(j, "outcome", true, m->op_state.last_outcome);
	json_put_span(j, "message", HAS(m, last_message), m->op_state.last_message);
	return j;
}

static uint64_t ns(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Does another file lie at the path than the one that serves, or none? -1: not known. It is
 * looked at from here: the path may be one that hangs. */
static int binary_changed(const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;
	uint64_t v[4];
	char path[4096];
	struct stat st;
	int e;

	if (!HAS(m, file) || !HAS(m, binary) || s->binary.n >= sizeof path ||
	    uints_copy(&s->file, v, 4) != 4)
		return -1;
	snprintf(path, sizeof path, "%.*s", (int)s->binary.n, s->binary.p);
	if ((e = sys_stat(path, &st)))
		return e == -ENOENT || e == -ENOTDIR ? 1 : -1;
	return st.st_ino != v[0] || (uint64_t)st.st_size != v[1] || ns(st.st_mtim) != v[2] ||
	       ns(st.st_ctim) != v[3];
}

static json_t *state_object(const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;
	json_t *j = json_object();
	int changed;

	json_put_span(j, "service", true, s->service);
	json_put_span(j, "state", true, s->state);
	json_put_bool(j, "serves", HAS(m, serves), s->serves);
	json_put_uint(j, "pid", HAS(m, pid), s->pid);
	json_put_span(j, "build", HAS(m, build), s->build);
	json_put_span(j, "version", HAS(m, software), s->software);
	json_put_uint(j, "epoch", HAS(m, epoch), s->epoch);
	json_put_uint(j, "since_ms", HAS(m, since_ms), s->since_ms);
	json_put_uint(j, "supervisor_pid", s->supervisor_pid != 0, s->supervisor_pid);
	json_put_span(j, "supervisor_version", HAS(m, supervisor_version), s->supervisor_version);
	json_put_span(j, "binary", HAS(m, binary), s->binary);
	json_put_bool(j, "binary_kept", HAS(m, kept), s->kept);
	changed = binary_changed(m);
	json_put_bool(j, "binary_changed", changed >= 0, changed);
	json_put_sum(j, "sha256", HAS(m, sha256), &s->sha256);
	json_put_span(j, "previous", HAS(m, previous), s->previous);
	json_put_bool(j, "previous_kept", HAS(m, previous_kept), s->previous_kept);
	json_object_set_new(j, "listeners", listeners_array(&s->listeners));
	json_object_set_new(j, "queues", queues_array(m));
	json_put_hid(j, "handoff", HAS(m, id), &s->id);
	json_put_uint(j, "successor_pid", HAS(m, successor_pid), s->successor_pid);
	json_object_set_new(j, "last", last_object(m));
	json_put_span(j, "refused", HAS(m, refused), s->refused);
	json_put_span(j, "warning", HAS(m, warning), s->warning);
	json_put_uint(j, "leftovers", true, HAS(m, left) ? s->left : 0);
	json_object_set_new(j, "timers", timers_object(&s->timers));
	return j;
}

/* ---- for people ---- */

static void field(const char *name)
{
	printf("  %-12s  ", name);
}

static void text_field(const struct out *o, const char *name, bool has, struct span s,
                       enum out_color c)
{
	if (!has)
		return;
	field(name);
	if (c)
		out_color(stdout, o->color, c);
	out_text(stdout, s);
	if (c)
		out_color(stdout, o->color, OUT_PLAIN);
	putchar('\n');
}

/* For how long it has been there; "": it is not, or cannot be seen from here. */
static const char *age(pid_t pid, char buf[32])
{
	const uint64_t now = proc_now(), second = (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t start;

	if (proc_start_time(pid, &start) || start > now)
		return "";
	snprintf(buf, 32, ", for %" PRIu64 " s", (now - start) / second);
	return buf;
}

/* In a cold start it is what the incumbent will be. */
static void show_started(const struct msg *m)
{
	const pid_t pid = (pid_t)m->op_state.successor_pid;
	char buf[32];

	if (HAS(m, successor_pid) && !HAS(m, id))
		printf("; pid %d is being started%s", (int)pid, age(pid, buf));
}

static void show_daemon(const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;

	field("daemon");
	if (HAS(m, pid))
		printf("pid %" PRIu64, s->pid);
	else
		printf("none");
	if (HAS(m, software)) {
		printf(", version ");
		out_text(stdout, s->software);
	}
	if (HAS(m, build)) {
		printf(", build ");
		out_text(stdout, s->build);
	}
	if (HAS(m, epoch))
		printf(", epoch %" PRIu64, s->epoch);
	show_started(m);
	putchar('\n');
}

static void show_since(const struct msg *m)
{
	const uint64_t ms = m->op_state.since_ms, now = sys_wall_ms();
	const time_t t = (time_t)(ms / 1000);
	char when[40] = "?", age[32];
	struct tm tm;

	if (!HAS(m, since_ms))
		return;
	if (localtime_r(&t, &tm))
		strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
	field("serves since");
	printf("%s", when);
	/* the clock may have been set back */
	if (now >= ms + 60000)
		printf(" (%s)", out_duration((now - ms) * 1000, age));
	else if (now >= ms)
		printf(" (%u s)", (unsigned)((now - ms) / 1000));
	putchar('\n');
}

static void show_handoff(const struct msg *m)
{
	char id[37];

	if (!HAS(m, id))
		return;
	hid_format(&m->op_state.id, id);
	field("handoff");
	printf("%s under way", id);
	if (HAS(m, successor_pid))
		printf(", successor pid %" PRIu64, m->op_state.successor_pid);
	putchar('\n');
}

static void show_last(const struct msg *m)
{
	char id[37] = "";

	if (!HAS(m, last_outcome))
		return;
	if (HAS(m, last_id))
		hid_format(&m->op_state.last_id, id);
	field("last handoff");
	out_text(stdout, m->op_state.last_outcome);
	if (*id)
		printf(" (%s)", id);
	if (HAS(m, last_message)) {
		printf(": ");
		out_text(stdout, m->op_state.last_message);
	}
	putchar('\n');
}

static void show_left(const struct msg *m)
{
	const uint64_t n = m->op_state.left;

	if (!HAS(m, left))
		return;
	field("leftovers");
	printf("%" PRIu64 " process%s of earlier daemons %s being ended\n", n, n == 1 ? "" : "es",
	       n == 1 ? "is" : "are");
}

static void show_listeners(const struct msg *m)
{
	const struct texts *t = &m->op_state.listeners;
	struct span *v = calloc(t->n ? t->n : 1, sizeof *v);
	const unsigned n = v ? texts_copy(t, v, t->n) : 0;
	struct queues q;

	take_queues(m, &q);
	for (unsigned i = 0; i < n; i++) {
		field(i ? "" : "listeners");
		out_text(stdout, v[i]);
		if (i < q.n && q.waiting[i] != UINT64_MAX)
			printf(" (%" PRIu64 " of %" PRIu64 " wait, %" PRIu64 " dropped)", q.waiting[i],
			       q.backlog[i], q.drops[i]);
		putchar('\n');
	}
	free(v);
}

static void show_timers(const struct msg *m)
{
	uint64_t v[TIMER_COUNT];
	const unsigned n = uints_copy(&m->op_state.timers, v, TIMER_COUNT);
	char buf[16];

	for (unsigned i = 0; i < n; i++) {
		field(i ? "" : "timers");
		printf("%-14s %s\n", timer_desc[i].name, timers_format((uint32_t)v[i], buf));
	}
}

static void show_binary(const struct msg *m)
{
	char sum[65];

	if (!HAS(m, binary))
		return;
	field("binary");
	out_text(stdout, m->op_state.binary);
	if (binary_changed(m) == 1)
		printf(" (the file there is another by now, or gone)");
	putchar('\n');
	if (HAS(m, sha256)) {
		fprint_format(&m->op_state.sha256, sum);
		field("sha256");
		puts(sum);
	}
	if (!HAS(m, previous))
		return;
	field("previous");
	out_text(stdout, m->op_state.previous);
	if (HAS(m, previous_kept))
		printf(m->op_state.previous_kept ? " (a copy of it is kept)" : " (no copy of it is kept)");
	putchar('\n');
}

static void show_state(const struct out *o, const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;

	out_text(stdout, s->service);
	printf(": ");
	out_color(stdout, o->color, (HAS(m, serves) ? s->serves : HAS(m, pid)) ? OUT_GOOD : OUT_BAD);
	out_text(stdout, s->state);
	if (HAS(m, serves))
		printf(", %s", s->serves ? "served" : "NOT served");
	out_color(stdout, o->color, OUT_PLAIN);
	putchar('\n');
	show_daemon(m);
	show_since(m);
	show_binary(m);
	field("supervisor");
	printf("pid %" PRIu64, s->supervisor_pid);
	if (HAS(m, supervisor_version)) {
		printf(", handoffd ");
		out_text(stdout, s->supervisor_version);
	}
	putchar('\n');
	show_handoff(m);
	show_last(m);
	show_left(m);
	text_field(o, "refuses", HAS(m, refused), s->refused, OUT_WARN);
	text_field(o, "warning", HAS(m, warning), s->warning, OUT_WARN);
	show_listeners(m);
	show_timers(m);
}

int ctl_status(struct ctl *c)
{
	const struct msg question = { .type = MSG_op_status };
	char *socket, *name;
	struct ask a;
	int r = place_find(c, &socket, &name);

	if (r)
		return r;
	a = ASK_INIT(socket);
	ask_all(&a, 1, &question, STATUS_MS, -1);
	if (a.result == 0 && a.msg.type == MSG_op_result)
		/* an error of the supervisor's: permission, for one */
		r = out_error(&c->out, (int)a.msg.op_result.code, "%.*s",
		              (int)a.msg.op_result.message.n, a.msg.op_result.message.p);
	else if (a.result < 0)
		r = place_error(c, name, socket, a.result, a.chan.error);
	else if (c->json)
		out_json(&c->out, state_object(&a.msg));
	else
		show_state(&c->out, &a.msg);
	ask_end(&a);
	free(socket);
	free(name);
	return r;
}

/* ---- list ---- */

enum { COLUMNS = 5 };
struct cell { char text[80]; };
struct row { struct cell c[COLUMNS]; };

static void set_cell(struct cell *c, bool has, struct span s)
{
	snprintf(c->text, sizeof c->text, "%.*s", has ? (int)s.n : 1, has ? s.p : "-");
}

/* What is wrong with a service that gave no state, as its state. */
static const char *fault(int e)
{
	switch (e) {
	case -EACCES:
	case -EPERM:
		return "permission denied";
	case -ECONNREFUSED:
	case -ENOENT:
		return "no supervisor";
	case -ETIMEDOUT:
		return "no answer";
	case -EBADMSG:
		return "not this protocol";
	default:
		return "connection lost";
	}
}

/* A state message for every place, so that both outputs know one shape only. Its name is the one
 * by which handoffctl finds it, whatever the configuration calls the service. */
static void fill_state(struct ask *a, const struct place *p)
{
	const struct msg_op_result *r = &a->msg.op_result;

	if (a->result == 0 && a->msg.type == MSG_op_state) {
		a->msg.op_state.service = SPAN(p->name);
		return;
	}
	if (a->result == 0 && r->code == CTL_DENIED)
		a->result = -EACCES;
	a->msg = (struct msg){ .type = MSG_op_state };
	a->msg.op_state.service = SPAN(p->name);
	a->msg.op_state.state = SPAN(fault(a->result));
}

static void fill_row(struct row *r, const struct msg *m)
{
	const struct msg_op_state *s = &m->op_state;
	char pid[24];

	snprintf(pid, sizeof pid, "%" PRIu64, s->pid);
	set_cell(&r->c[0], true, s->service);
	set_cell(&r->c[1], true, s->state);
	set_cell(&r->c[2], HAS(m, pid), SPAN(pid));
	set_cell(&r->c[3], HAS(m, software), s->software);
	set_cell(&r->c[4], HAS(m, last_outcome), s->last_outcome);
}

static void print_table(const struct row *v, size_t n)
{
	int width[COLUMNS] = { 0 };

	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < COLUMNS; k++)
			if ((int)strlen(v[i].c[k].text) > width[k])
				width[k] = (int)strlen(v[i].c[k].text);
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < COLUMNS; k++) {
			out_text(stdout, SPAN(v[i].c[k].text));
			if (k == COLUMNS - 1)
				putchar('\n');
			else
				printf("%*s", width[k] - (int)strlen(v[i].c[k].text) + 2, "");
		}
}

static int list_as_table(const struct ask *v, size_t n)
{
	struct row *rows = calloc(n + 1, sizeof *rows);

	if (!rows)
		return -ENOMEM;
	rows[0] = (struct row){
		{ { "SERVICE" }, { "STATE" }, { "PID" }, { "VERSION" }, { "LAST" } }
	};
	for (size_t i = 0; i < n; i++)
		fill_row(&rows[i + 1], &v[i].msg);
	print_table(rows, n + 1);
	free(rows);
	return 0;
}

static void list_as_json(struct out *o, const struct ask *v, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, state_object(&v[i].msg));
	out_json(o, a);
}

/* Asks all that are here, and shows what they have answered. */
static int with_all(struct ctl *c, int (*show)(struct ctl *c, struct ask *v, const struct places *p))
{
	const struct msg question = { .type = MSG_op_status };
	struct places p;
	int e = 0, r = places_scan(c, &p);
	struct ask *v = r ? NULL : calloc(p.n + 1, sizeof *v);

	if (!r && !v)
		e = -ENOMEM;
	for (size_t i = 0; v && i < p.n; i++)
		v[i] = ASK_INIT(p.v[i].socket);
	if (v) {
		ask_all(v, (unsigned)p.n, &question, LIST_MS, -1);
		e = show(c, v, &p);
	}
	for (size_t i = 0; v && i < p.n; i++)
		ask_end(&v[i]);
	free(v);
	places_free(&p);
	return e ? out_error(&c->out, CTL_NO_SUPERVISOR, "out of memory") : r;
}

static int show_list(struct ctl *c, struct ask *v, const struct places *p)
{
	for (size_t i = 0; i < p->n; i++)
		fill_state(&v[i], &p->v[i]);
	if (!c->json)
		return list_as_table(v, p->n);
	list_as_json(&c->out, v, p->n);
	return 0;
}

int ctl_list(struct ctl *c)
{
	return with_all(c, show_list);
}

/* ---- metrics ---- */

static int show_metrics(struct ctl *c, struct ask *v, const struct places *p)
{
	struct metrics_of *m = calloc(p->n + 1, sizeof *m);

	if (!m)
		return -ENOMEM;
	for (size_t i = 0; i < p->n; i++)
		metrics_read(&m[i], p->v[i].name,
		             v[i].result == 0 && v[i].msg.type == MSG_op_state ? &v[i].msg : NULL);
	metrics_write(stdout, m, p->n, c->openmetrics);
	free(m);
	return 0;
}

int ctl_metrics(struct ctl *c)
{
	return with_all(c, show_metrics);
}
