#include "stats.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>

enum failure { NEVER, ALWAYS, KIND_FRESH };

struct counter {
	const char *name, *text;
	size_t offset;
	enum failure failure;
};

static const struct counter kind_counters[] = {
#define X(name, failure, text) { #name, text, offsetof(struct kind_stats, name), failure },
	KIND_COUNTERS(X)
#undef X
};

static const struct counter total_counters[] = {
#define X(name, text) { #name, text, offsetof(struct stats, name), NEVER },
	TOTAL_COUNTERS(X)
#undef X
};

static const struct { const char *name; double share; } quantiles[] = {
	{ "p50_us", 0.5 }, { "p90_us", 0.9 }, { "p99_us", 0.99 }, { "p999_us", 0.999 },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t value(const void *base, const struct counter *c)
{
	return *(const uint64_t *)((const char *)base + c->offset);
}

void stats_start(struct stats *s, uint64_t now_us)
{
	s->start_us = now_us;
	s->last_ok_us = now_us;
	s->signal_window.since_us = s->line_window.since_us = now_us;
}

static void window_reply(struct window *w, uint64_t latency, uint64_t gap)
{
	if (latency > w->max_us)
		w->max_us = latency;
	if (gap > w->stall_us)
		w->stall_us = gap;
}

void stats_reply(struct stats *s, struct kind_stats *kind, uint64_t due_us, uint64_t now_us)
{
	uint64_t latency = now_us > due_us ? now_us - due_us : 0;
	uint64_t gap = now_us > s->last_ok_us ? now_us - s->last_ok_us : 0;

	kind->ok++;
	hist_add(&kind->latency, latency);
	if (gap > s->stall_us) {
		s->stall_us = gap;
		s->stall_at_us = s->last_ok_us - s->start_us;
	}
	s->last_ok_us = now_us;
	window_reply(&s->signal_window, latency, gap);
	window_reply(&s->line_window, latency, gap);
}

uint64_t stats_kind_failed(const struct kind_stats *kind, bool fresh)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < COUNT(kind_counters); i++)
		if (kind_counters[i].failure == ALWAYS ||
		    (kind_counters[i].failure == KIND_FRESH && fresh))
			n += value(kind, &kind_counters[i]);
	return n;
}

uint64_t stats_failed(const struct stats *s)
{
	return stats_kind_failed(&s->fresh, true) + stats_kind_failed(&s->keepalive, false);
}

int stats_exit_code(const struct stats *s)
{
	return stats_failed(s) != 0 || s->lost_writes != 0 || s->wrong_values != 0 ||
	       s->verify.lost != 0 || s->verify.wrong != 0 || s->verify.error[0] != '\0';
}

static uint64_t cpu_ms(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) < 0)
		return 0;
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

static void json_kind(FILE *f, const char *name, const struct kind_stats *kind, bool fresh)
{
	size_t i;

	fprintf(f, ",\"%s\":{", name);
	for (i = 0; i < COUNT(kind_counters); i++)
		fprintf(f, "\"%s\":%" PRIu64 ",", kind_counters[i].name,
		        value(kind, &kind_counters[i]));
	fprintf(f, "\"failed\":%" PRIu64, stats_kind_failed(kind, fresh));
	for (i = 0; i < COUNT(quantiles); i++)
		fprintf(f, ",\"%s\":%" PRIu64, quantiles[i].name,
		        hist_quantile(&kind->latency, quantiles[i].share));
	fprintf(f, ",\"max_us\":%" PRIu64 "}", kind->latency.max);
}

/* The error holds no quote and no control character: see client.c. */
static void json_verify(FILE *f, const struct verify_stats *v)
{
	if (!v->done) {
		fprintf(f, ",\"verify\":null");
		return;
	}
	fprintf(f, ",\"verify\":{\"keys\":%" PRIu64 ",\"good\":%" PRIu64 ",\"lost\":%" PRIu64
	        ",\"wrong\":%" PRIu64 ",\"applied\":%" PRIu64 ",\"not_applied\":%" PRIu64,
	        v->keys, v->good, v->lost, v->wrong, v->applied, v->not_applied);
	if (v->error[0] != '\0')
		fprintf(f, ",\"error\":\"%s\"}", v->error);
	else
		fprintf(f, ",\"error\":null}");
}

/* The gap that is open now belongs to the stall, too: a server that never
 * answers again would else show none. */
static uint64_t with_open_gap(const struct stats *s, uint64_t stall, uint64_t now_us)
{
	uint64_t end = s->end_us != 0 ? s->end_us : now_us;
	uint64_t gap = end > s->last_ok_us ? end - s->last_ok_us : 0;

	return gap > stall ? gap : stall;
}

static void window_reset(struct window *w, const struct stats *s, uint64_t now_us)
{
	*w = (struct window){
		.requests = s->fresh.requests + s->keepalive.requests,
		.ok = s->fresh.ok + s->keepalive.ok,
		.failed = stats_failed(s),
		.since_us = now_us,
	};
}

void stats_json(FILE *f, struct stats *s, struct window *w, const char *event, uint64_t now_us)
{
	uint64_t requests = s->fresh.requests + s->keepalive.requests;
	uint64_t ok = s->fresh.ok + s->keepalive.ok, failed = stats_failed(s);
	uint64_t end = s->end_us != 0 ? s->end_us : now_us;
	size_t i;

	fprintf(f, "{\"event\":\"%s\",\"elapsed_ms\":%" PRIu64 ",\"requests\":%" PRIu64
	        ",\"ok\":%" PRIu64 ",\"failed\":%" PRIu64, event, (end - s->start_us) / 1000,
	        requests, ok, failed);
	for (i = 0; i < COUNT(total_counters); i++)
		fprintf(f, ",\"%s\":%" PRIu64, total_counters[i].name,
		        value(s, &total_counters[i]));
	fprintf(f, ",\"unknown_writes\":%" PRIu64 ",\"unknown_open\":%" PRIu64,
	        s->fresh.unknown_writes + s->keepalive.unknown_writes, s->open_unknown);
	fprintf(f, ",\"stall_us\":%" PRIu64 ",\"stall_at_ms\":%" PRIu64,
	        with_open_gap(s, s->stall_us, now_us), s->stall_at_us / 1000);
	fprintf(f, ",\"lag_us\":%" PRIu64 ",\"cpu_ms\":%" PRIu64, s->lag_us, cpu_ms());
	json_kind(f, "fresh", &s->fresh, true);
	json_kind(f, "keepalive", &s->keepalive, false);
	fprintf(f, ",\"window\":{\"ms\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"ok\":%" PRIu64
	        ",\"failed\":%" PRIu64 ",\"stall_us\":%" PRIu64 ",\"max_us\":%" PRIu64 "}",
	        (end - w->since_us) / 1000, requests - w->requests, ok - w->ok,
	        failed - w->failed, with_open_gap(s, w->stall_us, now_us), w->max_us);
	json_verify(f, &s->verify);
	fprintf(f, "}\n");
	fflush(f);
	window_reset(w, s, now_us);
}

void stats_progress(FILE *f, struct stats *s, struct window *w, uint64_t now_us)
{
	uint64_t requests = s->fresh.requests + s->keepalive.requests;
	double seconds = (now_us - w->since_us) / 1e6;

	fprintf(f, "%6.1f s  %6.0f requests/s  failed %" PRIu64 "  lost %" PRIu64
	        "  longest stall %.1f ms  latency %.1f ms\n", (now_us - s->start_us) / 1e6,
	        seconds > 0 ? (requests - w->requests) / seconds : 0, stats_failed(s),
	        s->lost_writes, with_open_gap(s, w->stall_us, now_us) / 1e3, w->max_us / 1e3);
	fflush(f);
	window_reset(w, s, now_us);
}

static void summary_kind(FILE *f, const char *name, const struct kind_stats *kind, bool fresh)
{
	const struct hist *h = &kind->latency;
	size_t i;

	if (kind->requests == 0 && stats_kind_failed(kind, fresh) == 0)
		return;
	fprintf(f, "%-11s %" PRIu64 " requests over %" PRIu64 " connections, %" PRIu64
	        " failed; latency p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms\n",
	        name, kind->requests, kind->connections, stats_kind_failed(kind, fresh),
	        hist_quantile(h, 0.5) / 1e3, hist_quantile(h, 0.9) / 1e3,
	        hist_quantile(h, 0.99) / 1e3, hist_quantile(h, 0.999) / 1e3, h->max / 1e3);
	for (i = 3; i < COUNT(kind_counters); i++)
		if (value(kind, &kind_counters[i]) != 0)
			fprintf(f, "  %8" PRIu64 "  %s: %s\n", value(kind, &kind_counters[i]),
			        kind_counters[i].name, kind_counters[i].text);
}

static void summary_load(FILE *f, const struct stats *s)
{
	uint64_t unknown = s->fresh.unknown_writes + s->keepalive.unknown_writes;

	summary_kind(f, "fresh", &s->fresh, true);
	summary_kind(f, "keep-alive", &s->keepalive, false);
	fprintf(f, "writes      %" PRIu64 " acknowledged, %" PRIu64 " of them lost; %" PRIu64
	        " wrong values\n", s->acked_writes, s->lost_writes, s->wrong_values);
	if (unknown != 0)
		fprintf(f, "unknown     %" PRIu64 " writes: %" PRIu64 " were applied, %" PRIu64
		        " were not\n", unknown, s->unknown_applied, s->unknown_not_applied);
	fprintf(f, "stall       %.2f ms between two replies at most (kvload itself woke up "
	        "to %.2f ms late)\n", with_open_gap(s, s->stall_us, s->end_us) / 1e3,
	        s->lag_us / 1e3);
}

void stats_summary(FILE *f, const struct stats *s)
{
	const struct verify_stats *v = &s->verify;

	if (s->start_us != 0)
		summary_load(f, s);
	if (v->done)
		fprintf(f, "verify      %" PRIu64 " keys read back: %" PRIu64 " good, %" PRIu64
		        " settled, %" PRIu64 " lost, %" PRIu64 " wrong%s%s\n", v->keys, v->good,
		        v->applied + v->not_applied, v->lost, v->wrong,
		        v->error[0] != '\0' ? "; " : "", v->error);
	fflush(f);
}

void stats_help(FILE *f)
{
	size_t i;

	fprintf(f, "\nJSON: one object a line; \"event\" is \"result\" (at the end), \"stats\" "
	        "(on SIGUSR1) or\n\"progress\" (--report-every).\n"
	        "  elapsed_ms, requests, ok, failed: the sums of fresh and keepalive\n");
	for (i = 0; i < COUNT(total_counters); i++)
		fprintf(f, "  %s: %s\n", total_counters[i].name, total_counters[i].text);
	fprintf(f, "  unknown_writes, unknown_open: all of them; those not settled yet\n"
	        "  stall_us: the longest time between two good replies; stall_at_ms: its begin\n"
	        "  lag_us: how late kvload itself woke up at worst; cpu_ms: what it used\n"
	        "  window {ms, requests, ok, failed, stall_us, max_us}: since the last such line\n"
	        "  verify {keys, good, lost, wrong, applied, not_applied, error}: null without "
	        "--verify\n  fresh, keepalive:\n");
	for (i = 0; i < COUNT(kind_counters); i++)
		fprintf(f, "    %s: %s%s\n", kind_counters[i].name, kind_counters[i].text,
		        kind_counters[i].failure == ALWAYS ? " (a failure)" :
		        kind_counters[i].failure == KIND_FRESH ? " (a failure if fresh)" : "");
	fprintf(f, "    failed: the failures' sum\n"
	        "    p50_us p90_us p99_us p999_us max_us: latency, from due to reply\n");
}
