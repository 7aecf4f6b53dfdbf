#include "handoffctl/out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffctl/json.h"

static bool is_screen(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
}

void out_init(struct out *o, bool json)
{
	const char *no_color = getenv("NO_COLOR");
	const bool may = !json && !(no_color && *no_color);

	memset(o, 0, sizeof *o);
	json_init();
	o->json = json;
	o->live = !json && is_screen(STDOUT_FILENO);
	o->color = may && is_screen(STDOUT_FILENO);
	o->color_err = may && is_screen(STDERR_FILENO);
}

void out_color(FILE *f, bool color, enum out_color c)
{
	static const char *const code[] = {
		[OUT_PLAIN] = "0", [OUT_GOOD] = "32", [OUT_BAD] = "1;31", [OUT_WARN] = "33",
		[OUT_DIM] = "2",
	};

	if (color)
		fprintf(f, "\033[%sm", code[c]);
}

void out_text(FILE *f, struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		const unsigned char c = (unsigned char)s.p[i];
		/* in UTF-8, 0xc2 and then 0x80 to 0x9f: terminals take some of them as escapes */
		const bool c1 = c == 0xc2 && i + 1 < s.n && (unsigned char)s.p[i + 1] < 0xa0;

		if (c1)
			i++;
		putc(c1 || c < 0x20 || c == 0x7f ? '?' : c, f);
	}
}

const char *out_duration(uint64_t us, char buf[32])
{
	const uint64_t s = us / 1000000;

	if (us < 10000)
		snprintf(buf, 32, "%.2f ms", (double)us / 1e3);
	else if (s < 1)
		snprintf(buf, 32, "%.0f ms", (double)us / 1e3);
	else if (s < 60)
		snprintf(buf, 32, "%.2f s", (double)us / 1e6);
	else if (s < 3600)
		snprintf(buf, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 48 * 3600)
		snprintf(buf, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(buf, 32, "%" PRIu64 " days", s / 86400);
	return buf;
}

/* ---- stdout ---- */

void out_flush(struct out *o)
{
	/* ferror: stdio has tried before, and what it could not write is gone from its buffer */
	if ((fflush(stdout) || ferror(stdout)) && !o->lost)
		o->lost = errno;
}

void out_json(struct out *o, json_t *j)
{
	char *text = json_whole(j, 0);

	if (text)
		puts(text);
	else if (!o->lost)
		o->lost = ENOMEM;
	out_flush(o);
	free(text);
}

/* ---- phases ---- */

/* "   0.41 ms  drain" */
static void phase_head(const struct out *o, const char *phase, uint64_t us)
{
	char buf[32];

	out_color(stdout, o->color, OUT_DIM);
	printf("%12s", out_duration(us, buf));
	out_color(stdout, o->color, OUT_PLAIN);
	printf("  %s", phase);
}

static void phase_line(struct out *o, const char *phase, uint64_t us, struct span text)
{
	phase_head(o, phase, us);
	if (text.n) {
		printf("%*s", strlen(phase) < 10 ? 12 - (int)strlen(phase) : 2, "");
		out_text(stdout, text);
	}
	putchar('\n');
	out_flush(o);
}

void out_settle(struct out *o)
{
	if (!*o->phase)
		return;
	fputs("\r\033[K", stdout);
	phase_line(o, o->phase, o->phase_us, o->text ? SPAN(o->text) : SPAN(""));
	*o->phase = '\0';
}

int out_end(struct out *o)
{
	out_settle(o);
	out_flush(o);
	free(o->text);
	o->text = NULL;
	return o->lost;
}

static char *copy_plain(struct span s)
{
	size_t n = 0;
	char *copy = NULL;
	FILE *f = open_memstream(&copy, &n);

	if (!f)
		return NULL;
	out_text(f, s);
	if (fclose(f)) {
		free(copy);
		return NULL;
	}
	return copy;
}

static void json_event(struct out *o, const struct msg *m)
{
	json_t *j = json_object();

	json_put_text(j, "event", "phase");
	json_put_span(j, "phase", true, m->op_event.phase);
	json_put_uint(j, "us", true, m->op_event.us);
	json_put_uint(j, "ms", true, m->op_event.us / 1000);
	json_put_span(j, "text", MSG_HAS(m, op_event, text), m->op_event.text);
	json_put_counts(j, m);
	out_json(o, j);
}

void out_event(struct out *o, const struct msg *m)
{
	const struct span text = MSG_HAS(m, op_event, text) ? m->op_event.text : SPAN("");
	char *phase;

	if (o->json) {
		json_event(o, m);
		return;
	}
	out_settle(o);
	if (!(phase = copy_plain(m->op_event.phase)))
		return;
	if (o->live) {
		free(o->text);
		o->text = copy_plain(text);
		snprintf(o->phase, sizeof o->phase, "%s", phase);
		o->phase_us = m->op_event.us;
		o->heard_us = sys_now_us();
		out_tick(o);
	} else {
		phase_line(o, phase, m->op_event.us, text);
	}
	free(phase);
}

void out_tick(struct out *o)
{
	char buf[32];

	if (!*o->phase)
		return;
	fputs("\r\033[K", stdout);
	phase_head(o, o->phase, o->phase_us);
	out_color(stdout, o->color, OUT_DIM);
	printf("  for %s", out_duration(sys_now_us() - o->heard_us, buf));
	out_color(stdout, o->color, OUT_PLAIN);
	out_flush(o);
}

/* ---- the result ---- */

static void json_result(struct out *o, const struct msg *m)
{
	const struct msg_op_result *r = &m->op_result;
	json_t *j = json_object();

	json_put_text(j, "event", "result");
	json_put_span(j, "outcome", true, r->outcome);
	json_put_hid(j, "handoff", MSG_HAS(m, op_result, id), &r->id);
	json_put_span(j, "message", true, r->message);
	json_put_uint(j, "pause_us", MSG_HAS(m, op_result, pause_us), r->pause_us);
	json_put_uint(j, "serving_us", MSG_HAS(m, op_result, serving_us), r->serving_us);
	json_put_uint(j, "total_us", MSG_HAS(m, op_result, total_us), r->total_us);
	json_put_uint(j, "stall_us", MSG_HAS(m, op_result, stall_us), r->stall_us);
	json_put_uint(j, "connections_moved", MSG_HAS(m, op_result, moved), r->moved);
	json_put_uint(j, "connections_stayed", MSG_HAS(m, op_result, stayed), r->stayed);
	json_put_uint(j, "pid", MSG_HAS(m, op_result, pid), r->pid);
	json_put_span(j, "build", MSG_HAS(m, op_result, build), r->build);
	json_put_span(j, "version", MSG_HAS(m, op_result, software), r->software);
	json_put_uint(j, "code", true, r->code);
	out_json(o, j);
}

/* Durations and who serves now: what is known of them, behind one another. */
static void result_figures(FILE *f, const struct msg *m)
{
	const struct msg_op_result *r = &m->op_result;
	const struct { bool has; const char *name; uint64_t us; } times[] = {
		{ MSG_HAS(m, op_result, pause_us), "pause", r->pause_us },
		{ MSG_HAS(m, op_result, serving_us), "serving after", r->serving_us },
		{ MSG_HAS(m, op_result, total_us), "total", r->total_us },
	};
	const char *sep = "  ";
	char buf[32];

	for (size_t i = 0; i < sizeof times / sizeof *times; i++)
		if (times[i].has) {
			fprintf(f, "%s%s %s", sep, times[i].name, out_duration(times[i].us, buf));
			sep = ", ";
		}
	if (MSG_HAS(m, op_result, pid)) {
		fprintf(f, "%spid %" PRIu64, sep, r->pid);
		sep = ", ";
	}
	if (MSG_HAS(m, op_result, software)) {
		fprintf(f, "%sversion ", sep);
		out_text(f, r->software);
		sep = ", ";
	}
	if (MSG_HAS(m, op_result, build)) {
		fprintf(f, "%sbuild ", sep);
		out_text(f, r->build);
		sep = ", ";
	}
	if (*sep == ',')
		putc('\n', f);
}

void out_result(struct out *o, const struct msg *m)
{
	const bool good = m->op_result.code == 0;
	FILE *f = good ? stdout : stderr;
	const bool color = good ? o->color : o->color_err;

	if (o->json) {
		json_result(o, m);
		return;
	}
	out_settle(o);
	if (!good)
		fprintf(f, "%s: ", program_invocation_short_name);
	out_color(f, color, good ? OUT_GOOD : OUT_BAD);
	out_text(f, m->op_result.outcome);
	out_color(f, color, OUT_PLAIN);
	fputs(": ", f);
	out_text(f, m->op_result.message);
	putc('\n', f);
	result_figures(f, m);
	out_flush(o);
}

/* ---- errors and notes ---- */

static void say(struct out *o, const char *event, int code, enum out_color c, const char *text)
{
	if (o->json) {
		json_t *j = json_object();

		json_put_text(j, "event", event);
		if (code >= 0)
			json_put_uint(j, "code", true, (uint64_t)code);
		json_put_text(j, "message", text);
		out_json(o, j);
		return;
	}
	out_settle(o);
	out_color(stderr, o->color_err, c);
	fprintf(stderr, "%s: ", program_invocation_short_name);   /* the exporter's log, too */
	out_text(stderr, SPAN(text));
	out_color(stderr, o->color_err, OUT_PLAIN);
	putc('\n', stderr);
}

int out_verror(struct out *o, int code, const char *fmt, va_list ap)
{
	char *text = NULL;

	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	say(o, "error", code, OUT_BAD, text ? text : "out of memory");
	free(text);
	return code;
}

int out_error(struct out *o, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	out_verror(o, code, fmt, ap);
	va_end(ap);
	return code;
}

void out_note(struct out *o, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	say(o, "note", -1, OUT_WARN, text ? text : "out of memory");
	free(text);
}
