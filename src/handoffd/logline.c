#include "handoffd/logline.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/scbor.h"

static const char *const level_name[] = {
	[LOG_L_ERROR] = "error",
	[LOG_L_WARNING] = "warning",
	[LOG_L_INFO] = "info",
	[LOG_L_DEBUG] = "debug",
};

static const struct { const char *name, *id; } events[] = {
#define X(ID, name, id) [LOG_E_##ID] = { name, id },
	LOG_EVENTS(X)
#undef X
};

static const struct log_about nothing;

struct line { char *p; size_t n, size; };

static void add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->p + l->n, l->size - l->n, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->n = l->n + (size_t)n < l->size ? l->n + (size_t)n : l->size - 1;
}

/*
 * What is said may come from outside: a line stays a line. Room for what has to follow is
 * left; cut between characters.
 */
static void add_message(struct line *l, const char *s, bool json, size_t behind)
{
	const size_t end = l->size - behind - 4;
	size_t step;

	for (; *s; s += step) {
		const bool escape = json && (*s == '"' || *s == '\\');

		for (step = 1; ((unsigned char)s[step] & 0xc0) == 0x80; step++)
			;
		if (l->n + step + escape > end) {
			add(l, "...");
			return;
		}
		if (escape)
			l->p[l->n++] = '\\';
		memcpy(l->p + l->n, (unsigned char)*s < ' ' || *s == 127 ? "?" : s, step);
		l->n += step;
	}
	l->p[l->n] = '\0';
}

static void add_time(struct line *l, uint64_t ms)
{
	const time_t s = (time_t)(ms / 1000);
	char at[32];
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &tm);
	add(l, "%s.%03uZ", at, (unsigned)(ms % 1000));
}

size_t logline_text(const struct log_entry *e, bool journal, char *out, size_t size)
{
	struct line l = { out, 0, size };

	utf8_mend(e->message);
	if (journal) {
		add(&l, "<%d>", e->level);
	} else {
		add_time(&l, e->wall_ms);
		add(&l, " handoffd[%s]: %s: ", e->service, level_name[e->level]);
	}
	add_message(&l, e->message, false, 2);
	add(&l, "\n");
	return l.n;
}

/* "" is not known: null. */
static void add_key(struct line *l, const char *key, const char *value)
{
	add(l, ", \"%s\": ", key);
	if (!value || !*value) {
		add(l, "null");
		return;
	}
	add(l, "\"");
	add_message(l, value, true, 1);
	add(l, "\"");
}

#define MESSAGE_ROOM 1200   /* of a line of JSON, whatever its other keys have */

size_t logline_json(const struct log_entry *e, char *out, size_t size)
{
	const struct log_about *a = e->about ? e->about : &nothing;
	struct line l = { out, 0, size - MESSAGE_ROOM };

	utf8_mend(e->message);
	add(&l, "{\"time\": \"");
	add_time(&l, e->wall_ms);
	add(&l, "\", \"level\": \"%s\"", level_name[e->level]);
	add_key(&l, "service", e->service);
	add_key(&l, "event", events[e->event].name);
	add_key(&l, "handoff", a->handoff);
	add_key(&l, "phase", a->phase);
	add_key(&l, "trace_parent", a->trace_parent);
	add_key(&l, "correlation_id", a->correlation_id);
	add_key(&l, "tenant", a->tenant);
	l.size = size;
	add(&l, ", \"message\": \"");
	add_message(&l, e->message, true, 4);
	add(&l, "\"}\n");
	return l.n;
}

static void add_field(struct line *l, const char *name, const char *value)
{
	if (!value || !*value)
		return;
	add(l, "%s=", name);
	add_message(l, value, false, 2);
	add(l, "\n");
}

size_t logline_fields(const struct log_entry *e, char *out, size_t size)
{
	const struct log_about *a = e->about ? e->about : &nothing;
	struct line l = { out, 0, size };

	utf8_mend(e->message);
	add(&l, "PRIORITY=%d\nMESSAGE=", e->level);
	add_message(&l, e->message, false, MESSAGE_ROOM);
	add(&l, "\nSYSLOG_IDENTIFIER=handoffd\n");
	add_field(&l, "MESSAGE_ID", events[e->event].id);
	add_field(&l, "HANDOFF_SERVICE", e->service);
	add_field(&l, "HANDOFF_ID", a->handoff);
	add_field(&l, "HANDOFF_PHASE", a->phase);
	add_field(&l, "HANDOFF_TRACE_PARENT", a->trace_parent);
	add_field(&l, "HANDOFF_CORRELATION_ID", a->correlation_id);
	add_field(&l, "HANDOFF_TENANT", a->tenant);
	return l.n;
}
