#include "exporter/span.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handoffctl/json.h"
#include "handoffctl/trace.h"

#define STEPS_MAX   64
#define KIND_INTERNAL 1     /* SpanKind and StatusCode of OTLP */
#define STATUS_OK     1
#define STATUS_ERROR  2

struct trace { char id[33], parent[17]; uint64_t span, start_ns; };

static void put_hex(json_t *j, const char *key, uint64_t v)
{
	char text[17];

	snprintf(text, sizeof text, "%016" PRIx64, v);
	json_put_text(j, key, text);
}

/* 64-bit numbers are strings in OTLP's JSON. */
static void put_time(json_t *j, const char *key, uint64_t ns)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, ns);
	json_put_text(j, key, text);
}

static void attribute(json_t *list, const char *key, bool has, struct span text)
{
	json_t *a, *v;

	if (!has)
		return;
	a = json_object();
	v = json_object();
	json_put_text(a, "key", key);
	json_put_span(v, "stringValue", true, text);
	json_object_set_new(a, "value", v);
	json_array_append_new(list, a);
}

static void attribute_number(json_t *list, const char *key, bool has, uint64_t n)
{
	json_t *a, *v;

	if (!has)
		return;
	a = json_object();
	v = json_object();
	json_put_text(a, "key", key);
	put_time(v, "intValue", n);
	json_object_set_new(a, "value", v);
	json_array_append_new(list, a);
}

/* ---- which trace ---- */

/* Another text is no parent. */
static bool parent_of(struct trace *t, struct span s)
{
	if (!trace_parent_valid(s))
		return false;
	memcpy(t->id, s.p + TRACE_ID_AT, TRACE_ID_SIZE);
	memcpy(t->parent, s.p + TRACE_PARENT_AT, TRACE_PARENT_SIZE);
	return true;
}

static void trace_of(struct trace *t, const struct msg *m)
{
	const uint8_t *id = m->handoff.id.b;

	*t = (struct trace){ .start_ns = m->handoff.asked_ms * 1000000 };
	for (int i = 0; i < 8; i++)
		t->span = t->span << 8 | id[8 + i];
	t->span += !t->span;
	if (MSG_HAS(m, handoff, trace_parent) && parent_of(t, m->handoff.trace_parent))
		return;
	hex_format(id, 16, t->id);
}

/* ---- spans ---- */

static json_t *new_span(const struct trace *t, const char *name, uint64_t id, uint64_t from_us, uint64_t to_us)
{
	json_t *j = json_object();

	json_put_text(j, "traceId", t->id);
	put_hex(j, "spanId", id);
	json_put_text(j, "name", name);
	json_object_set_new(j, "kind", json_integer(KIND_INTERNAL));
	put_time(j, "startTimeUnixNano", t->start_ns + from_us * 1000);
	put_time(j, "endTimeUnixNano", t->start_ns + to_us * 1000);
	return j;
}

#define HAS(field) MSG_HAS(m, handoff, field)

static json_t *whole(const struct trace *t, const struct msg *m, uint64_t end_us)
{
	const struct msg_handoff *h = &m->handoff;
	const bool committed = h->outcome.n == 9 && !memcmp(h->outcome.p, "committed", 9);
	json_t *j = new_span(t, "handoff", t->span, 0, end_us), *a = json_array(), *status = json_object();
	char id[37];

	if (*t->parent)
		json_put_text(j, "parentSpanId", t->parent);
	hid_format(&h->id, id);
	attribute(a, "handoff.id", true, SPAN(id));
	attribute_number(a, "handoff.number", true, h->number);
	attribute(a, "handoff.outcome", true, h->outcome);
	attribute(a, "handoff.reason", HAS(reason), h->reason);
	attribute(a, "handoff.correlation_id", HAS(correlation_id), h->correlation_id);
	attribute(a, "handoff.tenant", HAS(tenant), h->tenant);
	attribute_number(a, "handoff.uid", HAS(uid), h->uid);
	attribute_number(a, "handoff.pause_us", HAS(pause_us), h->pause_us);
	attribute(a, "handoff.from.version", HAS(old_software), h->old_software);
	attribute(a, "handoff.from.build", HAS(old_build), h->old_build);
	attribute(a, "handoff.to.version", HAS(new_software), h->new_software);
	attribute(a, "handoff.to.build", HAS(new_build), h->new_build);
	attribute(a, "handoff.failed.role", HAS(failed_role), h->failed_role);
	attribute(a, "handoff.failed.phase", HAS(failed_phase), h->failed_phase);
	json_object_set_new(j, "attributes", a);
	json_object_set_new(status, "code", json_integer(committed ? STATUS_OK : STATUS_ERROR));
	if (!committed)
		json_put_span(status, "message", HAS(message), h->message);
	json_object_set_new(j, "status", status);
	return j;
}

static bool is_phase(struct span s)
{
	return s.n > 6 && !memcmp(s.p, "phase ", 6);
}

/* A phase lasts until the next one, the last one until the end. */
static void phases(json_t *spans, const struct trace *t, const struct msg *m, uint64_t end_us)
{
	struct span what[STEPS_MAX];
	uint64_t us[STEPS_MAX];
	unsigned n = texts_copy(&m->handoff.steps, what, STEPS_MAX), timed = uints_copy(&m->handoff.steps_us, us, STEPS_MAX);

	n = n < timed ? n : timed;
	for (unsigned i = 0, next; i < n; i = next) {
		char name[80], parent[17];
		json_t *j;

		for (next = i + 1; next < n && !is_phase(what[next]); next++)
			;
		if (!is_phase(what[i]))
			continue;
		snprintf(name, sizeof name, "handoff.%.*s", (int)(what[i].n - 6), what[i].p + 6);
		utf8_mend(name);
		j = new_span(t, name, t->span + i + 1, us[i], next < n ? us[next] : end_us);
		snprintf(parent, sizeof parent, "%016" PRIx64, t->span);
		json_put_text(j, "parentSpanId", parent);
		json_array_append_new(spans, j);
	}
}

/* ---- the line ---- */

static json_t *resource_of(const char *service)
{
	json_t *j = json_object(), *a = json_array();

	attribute(a, "service.name", true, SPAN(service));
	json_object_set_new(j, "attributes", a);
	return j;
}

static json_t *list_of(json_t *only)
{
	json_t *a = json_array();

	json_array_append_new(a, only);
	return a;
}

/* Its end, where the record does not say how long it took: the last step. */
static uint64_t end_of(const struct msg *m)
{
	uint64_t us[STEPS_MAX];
	const unsigned n = uints_copy(&m->handoff.steps_us, us, STEPS_MAX);

	return MSG_HAS(m, handoff, total_us) ? m->handoff.total_us : n ? us[n - 1] : 0;
}

char *span_line(const char *service, const struct msg *m)
{
	json_t *line = json_object(), *resource = json_object(), *scope = json_object(), *named = json_object();
	json_t *spans = json_array();
	const uint64_t end_us = end_of(m);
	struct trace t;
	char *text, *ret;
	size_t n;

	trace_of(&t, m);
	json_array_append_new(spans, whole(&t, m, end_us));
	phases(spans, &t, m, end_us);
	json_put_text(named, "name", "handoff");
	json_object_set_new(scope, "scope", named);
	json_object_set_new(scope, "spans", spans);
	json_object_set_new(resource, "resource", resource_of(service));
	json_object_set_new(resource, "scopeSpans", list_of(scope));
	json_object_set_new(line, "resourceSpans", list_of(resource));
	text = json_whole(line, JSON_COMPACT);
	n = text ? strlen(text) : 0;
	ret = text ? realloc(text, n + 2) : NULL;
	if (!ret) {
		free(text);
		return NULL;
	}
	memcpy(ret + n, "\n", 2);
	return ret;
}
