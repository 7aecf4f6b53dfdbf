#include "handoffctl/records.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffctl/archive.h"
#include "handoffctl/ask.h"
#include "handoffctl/json.h"
#include "handoffctl/place.h"

#define ANSWER_MS 10000
#define STEPS_MAX 64
#define QUEUES_MAX 16

/* ---- a record as an object ---- */

/* "successor exited with 1": who, and what. */
static json_t *step_object(struct span s, uint64_t us)
{
	const char *blank = memchr(s.p, ' ', s.n);
	const size_t n = blank ? (size_t)(blank - s.p) : s.n;
	json_t *j = json_object();

	json_put_uint(j, "us", true, us);
	json_put_span(j, "who", true, (struct span){ s.p, n });
	json_put_span(j, "what", true, blank ? (struct span){ blank + 1, s.n - n - 1 } : SPAN(""));
	return j;
}

static json_t *steps_array(const struct msg_handoff *h)
{
	struct span what[STEPS_MAX];
	uint64_t us[STEPS_MAX];
	const unsigned n = texts_copy(&h->steps, what, STEPS_MAX);
	const unsigned timed = uints_copy(&h->steps_us, us, STEPS_MAX);
	json_t *a = json_array();

	for (unsigned i = 0; i < n && i < timed; i++)
		json_array_append_new(a, step_object(what[i], us[i]));
	return a;
}

static json_t *queues_array(const struct msg_handoff *h)
{
	struct span name[QUEUES_MAX];
	uint64_t deepest[QUEUES_MAX], backlog[QUEUES_MAX], drops[QUEUES_MAX];
	unsigned n = texts_copy(&h->queues, name, QUEUES_MAX);
	json_t *a = json_array();

	if (uints_copy(&h->deepest, deepest, QUEUES_MAX) < n || uints_copy(&h->backlogs, backlog, QUEUES_MAX) < n ||
	    uints_copy(&h->drops, drops, QUEUES_MAX) < n)
		n = 0;
	for (unsigned i = 0; i < n; i++) {
		json_t *j = json_object();

		json_put_span(j, "listener", true, name[i]);
		json_put_uint(j, "deepest", true, deepest[i]);
		json_put_uint(j, "backlog", true, backlog[i]);
		json_put_uint(j, "drops", true, drops[i]);
		json_array_append_new(a, j);
	}
	return a;
}

#define HAS(field) MSG_HAS(m, handoff, field)
#define PUT_TEXT(j, key, field) json_put_span(j, key, HAS(field), m->handoff.field)
#define PUT_UINT(j, key, field) json_put_uint(j, key, HAS(field), m->handoff.field)
#define DAEMON_OBJECT(m, j, side) do { \
	PUT_UINT(j, "pid", side##_pid); \
	PUT_TEXT(j, "build", side##_build); \
	PUT_TEXT(j, "version", side##_software); \
	PUT_TEXT(j, "binary", side##_binary); \
} while (0)

static json_t *failed_object(const struct msg *m)
{
	json_t *j;

	if (!HAS(failed_role))
		return json_null();
	j = json_object();
	PUT_TEXT(j, "role", failed_role);
	PUT_TEXT(j, "phase", failed_phase);
	PUT_TEXT(j, "timer", failed_timer);
	PUT_TEXT(j, "cause", cause);
	return j;
}

static json_t *record_object(const struct msg *m)
{
	json_t *j = json_object(), *from = json_object(), *to = json_object();

	json_put_hid(j, "handoff", true, &m->handoff.id);
	json_put_uint(j, "number", true, m->handoff.number);
	PUT_UINT(j, "asked_ms", asked_ms);
	PUT_UINT(j, "uid", uid);
	PUT_TEXT(j, "kind", kind);
	json_put_span(j, "outcome", true, m->handoff.outcome);
	PUT_UINT(j, "code", code);
	PUT_TEXT(j, "message", message);
	PUT_TEXT(j, "reason", reason);
	PUT_TEXT(j, "trace_parent", trace_parent);
	PUT_TEXT(j, "correlation_id", correlation_id);
	PUT_TEXT(j, "tenant", tenant);
	DAEMON_OBJECT(m, from, old);
	json_object_set_new(j, "from", from);
	DAEMON_OBJECT(m, to, new);
	json_object_set_new(j, "to", to);
	PUT_UINT(j, "pause_us", pause_us);
	PUT_UINT(j, "serving_us", serving_us);
	PUT_UINT(j, "total_us", total_us);
	PUT_UINT(j, "stall_us", stall_us);
	PUT_UINT(j, "connections_left", left);
	PUT_UINT(j, "connections_moved", moved);
	PUT_UINT(j, "connections_stayed", stayed);
	json_object_set_new(j, "queues", queues_array(&m->handoff));
	json_object_set_new(j, "failed", failed_object(m));
	json_object_set_new(j, "steps", steps_array(&m->handoff));
	PUT_TEXT(j, "log", log);
	return j;
}

const char *record_text(const json_t *record, const char *key)
{
	const char *s = json_string_value(json_object_get(record, key));

	return s ? s : "";
}

uint64_t record_uint(const json_t *record, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(record, key));
}

/* ---- asking ---- */

struct fetch {
	const struct records_wanted *wanted;
	struct out *out;
	int code;                  /* of a refusal that was reported; 0: none */
	struct chan chan;
	json_t *found;             /* oldest first */
	uint64_t before;           /* the number of the oldest that has come */
	unsigned came;             /* of one answer */
	bool enough;
};

static void take_record(struct fetch *f, const struct msg *m)
{
	const struct records_wanted *w = f->wanted;
	char id[37];

	f->came++;
	f->before = m->handoff.number;
	hid_format(&m->handoff.id, id);
	if (w->since_ms && MSG_HAS(m, handoff, asked_ms) && m->handoff.asked_ms < w->since_ms)
		f->enough = true;
	if (f->enough || (w->id && strncasecmp(id, w->id, strlen(w->id))))
		return;
	if (json_array_insert_new(f->found, 0, record_object(m)) && !f->code)
		f->code = out_error(f->out, CTL_NOT_COMMITTED, "out of memory");
	f->enough = w->id || (w->count && json_array_size(f->found) >= w->count);
}

/* 1: the answer is whole; 0: more is to come; -errno. */
static int take_answer(struct fetch *f)
{
	struct msg m;
	int r;

	while ((r = chan_recv(&f->chan, &m)) == 1) {
		if (m.type == MSG_op_result && m.op_result.code)
			f->code = out_error(f->out, (int)m.op_result.code, "%.*s", (int)m.op_result.message.n,
			                    m.op_result.message.p);
		if (m.type == MSG_op_result)
			return 1;
		if (m.type != MSG_handoff) {
			snprintf(f->chan.error, sizeof f->chan.error, "%s in place of a record", msg_name(m.type));
			return -EBADMSG;
		}
		take_record(f, &m);
	}
	return r;
}

static int ask_some(struct fetch *f)
{
	struct msg m = { .type = MSG_op_history };
	const uint64_t end = sys_now_ms() + ANSWER_MS;
	int r;

	if (f->before)
		MSG_SET(&m, op_history, before, f->before);
	f->came = 0;
	if ((r = chan_send(&f->chan, &m, NULL, 0)) < 0)
		return r;
	while (!(r = take_answer(f))) {
		const uint64_t now = sys_now_ms();
		struct pollfd p = { f->chan.fd, chan_pending(&f->chan) ? POLLIN | POLLOUT : POLLIN, 0 };

		if (now >= end)
			return -ETIMEDOUT;
		sys_poll(&p, 1, (int)(end - now));
		chan_flush(&f->chan);
	}
	return r < 0 ? r : 0;
}

static int ask_all_of_them(struct fetch *f, const char *socket)
{
	const int fd = ask_connect_within(socket, ASK_CONNECT_MS);
	int r;

	if (fd < 0)
		return fd;
	chan_init(&f->chan, fd);
	do
		r = ask_some(f);
	while (!r && !f->code && f->came && f->before > 1 && !f->enough);
	return r;
}

json_t *records_last(struct out *out, const char *socket, unsigned count)
{
	const struct records_wanted wanted = { .count = count };
	struct fetch f = { .wanted = &wanted, .out = out, .chan = { .fd = -1 }, .found = json_array() };
	const int e = ask_all_of_them(&f, socket);

	chan_close(&f.chan);
	if (!e && !f.code)
		return f.found;
	json_decref(f.found);
	return NULL;
}

/* ---- without a supervisor ---- */

static bool take_from_file(void *arg, const struct msg *m)
{
	struct fetch *f = arg;

	take_record(f, m);
	return !f->enough;
}

/* e: why its supervisor was not reached. 0, or the exit code. */
static int read_file(struct ctl *c, struct fetch *f, const char *name, const char *socket, int e)
{
	char path[4200] = "";
	const bool gone = e == -ENOENT || e == -ENOTDIR || e == -ECONNREFUSED;
	int r = gone && c->name ? archive_read(name, take_from_file, f, path, sizeof path) : -ENOENT;

	if (r == -ENOENT || r == -ENOTDIR)
		return place_error(c, name, socket, e, f->chan.error);
	if (r)
		return out_error(&c->out, CTL_NO_SUPERVISOR, "no supervisor of %s runs here, and what it remembers cannot "
		                 "be read: %s: %s", name, path, strerror(-r));
	if (!c->json)
		out_note(&c->out, "no supervisor of %s runs here; this is from %s", name, path);
	return 0;
}

int records_fetch(struct ctl *c, const struct records_wanted *w, json_t **ret)
{
	struct fetch f = { .wanted = w, .out = &c->out, .chan = { .fd = -1 }, .found = json_array() };
	char *socket, *name;
	int e, r = place_find(c, &socket, &name);

	if (!r && (e = ask_all_of_them(&f, socket)) < 0)
		r = read_file(c, &f, name, socket, e);
	if (!r)
		r = f.code;
	chan_close(&f.chan);
	free(socket);
	free(name);
	if (r)
		json_decref(f.found);
	else
		*ret = f.found;
	return r;
}
