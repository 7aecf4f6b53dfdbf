#include "handoffctl/plan.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffctl/expect.h"
#include "handoffctl/json.h"
#include "handoffctl/records.h"
#include "proto/move.h"

#define ASKED      10u   /* the last handoffs that are looked at */
#define LISTENERS  16u
#define NAMES      17u

#define HAS(field) MSG_HAS(m, op_planned, field)

struct plan {
	const struct msg *m;
	const json_t *records;   /* the last handoffs; NULL: not known */
	struct expected pause;
	json_t *limits;          /* a sentence for each that would be hit */
};

/* ---- what is to be expected ---- */

static void expect(struct plan *p)
{
	uint64_t us[ASKED];
	unsigned n = 0;
	const json_t *r;
	size_t i;

	json_array_foreach(p->records, i, r)
		if (n < ASKED && !strcmp(record_text(r, "outcome"), "committed") && record_uint(r, "pause_us"))
			us[n++] = record_uint(r, "pause_us");
	expect_pause(us, n, &p->pause);
}

/* Connections a second that came at a listener in a stall, at most. */
static uint64_t rate_of(const struct plan *p, const char *listener)
{
	const json_t *r, *q;
	uint64_t most = 0;
	size_t i, k;

	json_array_foreach(p->records, i, r)
		json_array_foreach(json_object_get(r, "queues"), k, q)
			if (!strcmp(record_text(q, "listener"), listener)) {
				const uint64_t rate = expect_rate(record_uint(q, "deepest"), record_uint(r, "stall_us"));

				most = rate > most ? rate : most;
			}
	return most;
}

/* ---- limits ---- */

static void limit(struct plan *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void limit(struct plan *p, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	json_array_append_new(p->limits, json_text(SPAN(text)));
}

/* net.core.somaxconn; 0: not known. */
static uint64_t somaxconn(void)
{
	const int fd = sys_open("/proc/sys/net/core/somaxconn", O_RDONLY, 0);
	char text[32] = "";

	if (fd < 0)
		return 0;
	(void)!sys_read(fd, text, sizeof text - 1);
	sys_close(fd);
	return strtoull(text, NULL, 10);
}

static void look_at_queue(struct plan *p, const char *name, uint64_t backlog, uint64_t cap)
{
	const uint64_t places = cap && cap < backlog ? cap : backlog, rate = rate_of(p, name);
	const uint64_t full = expect_full_ms(places, rate);

	if (places < backlog)
		limit(p, "the backlog of %s, %" PRIu64 ", is more than net.core.somaxconn: %" PRIu64 " is what counts; raise it "
		      "with sysctl(8)", name, backlog, cap);
	if (full < p->m->op_planned.deadline_ms)
		limit(p, "at %" PRIu64 " connections a second, the most of the last handoffs, the queue of %s (%" PRIu64
		      " places) is full after %" PRIu64 " ms, and deadline allows %" PRIu64 " ms; raise its backlog, or lower "
		      "deadline", rate, name, places, full, p->m->op_planned.deadline_ms);
}

static void look_at_queues(struct plan *p)
{
	const struct msg_op_planned *d = &p->m->op_planned;
	struct span name[LISTENERS];
	uint64_t backlog[LISTENERS];
	const unsigned n = texts_copy(&d->listeners, name, LISTENERS);
	const uint64_t cap = somaxconn();
	char text[80];

	if (uints_copy(&d->backlogs, backlog, LISTENERS) < n)
		return;
	for (unsigned i = 0; i < n; i++) {
		snprintf(text, sizeof text, "%.*s", (int)name[i].n, name[i].p);
		look_at_queue(p, text, backlog[i], cap);
	}
}

/* Descriptors of a process, if it may be looked at; 0: not. */
static uint64_t open_files(uint64_t pid)
{
	char path[40];
	uint64_t n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%" PRIu64 "/fd", pid);
	if (!(d = opendir(path)))
		return 0;
	for (struct dirent *e; (e = readdir(d)); )
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void look_at_descriptors(struct plan *p)
{
	const struct msg_op_planned *d = &p->m->op_planned;
	uint64_t v[2], now;

	if (uints_copy(&d->nofile, v, 2) < 2 || !(now = open_files(d->old_pid)))
		return;
	if (now >= v[1])
		limit(p, "the daemon has %" PRIu64 " descriptors open, its successor may have %" PRIu64 " (hard limit); raise "
		      "limit-nofile", now, v[1]);
	else if (now >= v[0])
		limit(p, "the daemon has %" PRIu64 " descriptors open, its successor may have %" PRIu64 ", or %" PRIu64 " if it "
		      "raises its limit by itself; raise limit-nofile", now, v[0], v[1]);
}

/* ---- for scripts ---- */

static json_t *texts_array(const struct texts *t)
{
	struct span v[NAMES];
	const unsigned n = texts_copy(t, v, NAMES);
	json_t *a = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(a, json_text(v[i]));
	return a;
}

static json_t *capabilities_array(uint64_t bits)
{
	json_t *a = json_array();
	char text[16];

	for (unsigned i = 0; i < 64; i++)
		if (bits >> i & 1) {
			snprintf(text, sizeof text, "bit %u", i);
			json_array_append_new(a, json_text(SPAN(UINT64_C(1) << i == CAP_CONNECTIONS ? "connections" : text)));
		}
	return a;
}

static json_t *daemon_object(bool has_pid, uint64_t pid, bool has_build, struct span build, bool has_software,
                             struct span software, bool has_binary, struct span binary)
{
	json_t *j = json_object();

	json_put_uint(j, "pid", has_pid, pid);
	json_put_span(j, "build", has_build, build);
	json_put_span(j, "version", has_software, software);
	json_put_span(j, "binary", has_binary, binary);
	return j;
}

static json_t *plan_object(const struct plan *p)
{
	const struct msg *m = p->m;
	const struct msg_op_planned *d = &m->op_planned;
	const bool known = p->pause.handoffs > 0;
	json_t *j = json_object();

	json_put_text(j, "event", "plan");
	json_put_hid(j, "handoff", true, &d->id);
	json_put_bool(j, "starts", true, HAS(start_us));
	json_put_bool(j, "changed", HAS(changed), d->changed);
	json_put_sum(j, "sha256", HAS(sha256), &d->sha256);
	json_object_set_new(j, "from", daemon_object(HAS(old_pid), d->old_pid, HAS(old_build), d->old_build,
	                                             HAS(old_software), d->old_software, HAS(old_binary), d->old_binary));
	json_object_set_new(j, "to", daemon_object(false, 0, HAS(build), d->build, HAS(software), d->software, true,
	                                           d->binary));
	json_put_uint(j, "protocol", HAS(version), d->version);
	json_object_set_new(j, "capabilities", HAS(capabilities) ? capabilities_array(d->capabilities) : json_null());
	json_put_uint(j, "start_us", HAS(start_us), d->start_us);
	json_put_uint(j, "deadline_ms", true, d->deadline_ms);
	json_put_uint(j, "handoffs", p->records != NULL, p->pause.handoffs);
	json_put_uint(j, "pause_median_us", known, p->pause.median_us);
	json_put_uint(j, "pause_max_us", known, p->pause.max_us);
	json_object_set_new(j, "added", texts_array(&d->added));
	json_object_set_new(j, "dropped", texts_array(&d->dropped));
	json_object_set_new(j, "limits", json_incref(p->limits));
	return j;
}

/* ---- for people ---- */

static void field(const char *name)
{
	printf("  %-12s  ", name);
}

static void show_text(const char *name, bool has, struct span s)
{
	if (!has)
		return;
	field(name);
	out_text(stdout, s);
	putchar('\n');
}

static void show_binary(const struct msg *m)
{
	const struct msg_op_planned *d = &m->op_planned;
	char sum[65];

	field("binary");
	out_text(stdout, d->binary);
	puts(!HAS(changed) ? " (whether what runs is another is not known)"
	     : d->changed ? " (it, a file among its arguments or the configuration is another than what runs)"
	     : " (what runs was started from the same bytes)");
	if (HAS(sha256)) {
		fprint_format(&d->sha256, sum);
		show_text("sha256", true, SPAN(sum));
	}
	show_text("build", HAS(build), d->build);
	show_text("version", HAS(software), d->software);
}

static void show_start(const struct msg *m)
{
	const struct msg_op_planned *d = &m->op_planned;
	json_t *names, *one;
	char buf[32];
	size_t i;

	if (!HAS(start_us))
		return;
	field("start");
	printf("%s to its first message\n", out_duration(d->start_us, buf));
	field("protocol");
	printf("%" PRIu64, d->version);
	names = capabilities_array(d->capabilities);
	json_array_foreach(names, i, one)
		printf(", %s", json_string_value(one));
	putchar('\n');
	json_decref(names);
}

static void show_pause(const struct plan *p)
{
	char median[32], most[32], deadline[32];

	field("pause");
	if (p->pause.handoffs)
		printf("%s expected, %s at most: of the last %u that committed", out_duration(p->pause.median_us, median),
		       out_duration(p->pause.max_us, most), p->pause.handoffs);
	else
		printf("not known: no handoff that committed is remembered");
	printf("; beyond %s it is aborted\n", out_duration(p->m->op_planned.deadline_ms * 1000, deadline));
}

static void show_listeners(const char *name, const struct texts *t)
{
	struct span v[NAMES];
	const unsigned n = texts_copy(t, v, NAMES);

	for (unsigned i = 0; i < n; i++)
		show_text(i ? "" : name, true, v[i]);
}

static void show(struct out *o, const struct plan *p)
{
	const json_t *one;
	size_t i;

	show_binary(p->m);
	show_start(p->m);
	show_pause(p);
	show_listeners("added", &p->m->op_planned.added);
	show_listeners("dropped", &p->m->op_planned.dropped);
	json_array_foreach(p->limits, i, one)
		show_text(i ? "" : "limits", true, SPAN(json_string_value(one)));
	out_flush(o);
}

void plan_show(struct ctl *c, const char *socket, const struct msg *m)
{
	json_t *records = records_last(&c->out, socket, ASKED);
	struct plan p = { .m = m, .records = records, .limits = json_array() };

	expect(&p);
	look_at_queues(&p);
	look_at_descriptors(&p);
	if (c->json) {
		out_json(&c->out, plan_object(&p));
	} else {
		out_settle(&c->out);
		show(&c->out, &p);
	}
	json_decref(p.limits);
	json_decref(records);
}
