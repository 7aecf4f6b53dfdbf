/*
 * stats: what kvload counts. The tables FRESH, KEEPALIVE and TOTALS feed the
 * counters, the JSON and --help.
 */
#ifndef KVLOAD_STATS_H
#define KVLOAD_STATS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "hist.h"

/* name, is it a failure?, what it counts */
#define KIND_COUNTERS(X) \
	X(connections, 0, "connections made") \
	X(requests, 0, "requests sent or given up") \
	X(ok, 0, "answered as they should be") \
	X(refused, 1, "connection refused") \
	X(connect_error, 1, "connection not made for another reason") \
	X(reset, KIND_FRESH, "connection reset before the reply") \
	X(eof, KIND_FRESH, "connection ended before the reply") \
	X(error_reply, 1, "the server answered with an error, or not in RESP2") \
	X(timeout, 1, "no reply within --timeout of the due time") \
	X(unanswered_reads, 0, "reads without a reply (reset or eof)") \
	X(unknown_writes, 0, "writes without a reply: applied or not") \
	X(lost, 0, "connections lost with a request under way") \
	X(closed_idle, 0, "connections that ended with no request under way")

/* name, what it counts */
#define TOTAL_COUNTERS(X) \
	X(acked_writes, "writes that the server acknowledged") \
	X(checked_reads, "reads compared with what was acknowledged") \
	X(unknown_applied, "unknown writes that a later read has found applied") \
	X(unknown_not_applied, "unknown writes that a later read has found not applied") \
	X(lost_writes, "acknowledged writes that a later reply shows to be lost") \
	X(wrong_values, "values that were never written")

struct kind_stats {
#define X(name, failure, text) uint64_t name;
	KIND_COUNTERS(X)
#undef X
	struct hist latency;
};

/* What happened since a line was printed last. */
struct window {
	uint64_t requests, failed, ok;
	uint64_t stall_us, max_us;
	uint64_t since_us;
};

struct stats {
#define X(name, text) uint64_t name;
	TOTAL_COUNTERS(X)
#undef X
	struct kind_stats fresh, keepalive;
	uint64_t start_us, end_us;      /* end_us: 0 while it runs */
	uint64_t last_ok_us;
	uint64_t stall_us, stall_at_us; /* at: when it began, since start_us */
	uint64_t lag_us;                /* longest time from a due time to kvload's own waking */
	uint64_t open_unknown;
	struct window signal_window;    /* since SIGUSR1's last line */
	struct window line_window;      /* since the last progress line */
	struct verify_stats {
		bool done;
		uint64_t keys, good, lost, wrong, applied, not_applied;
		char error[160];        /* "": none */
	} verify;
};

void stats_start(struct stats *s, uint64_t now_us);

/* A reply came at now_us for what was due at due_us. */
void stats_reply(struct stats *s, struct kind_stats *kind, uint64_t due_us, uint64_t now_us);

/* Requests of one kind, or of both, that failed: the rows marked as failure. */
uint64_t stats_kind_failed(const struct kind_stats *kind, bool fresh);
uint64_t stats_failed(const struct stats *s);

/* 0: nothing failed, nothing was lost; else 1: kvload's exit code. */
int stats_exit_code(const struct stats *s);

/* One line of JSON; window is reset. event: "stats", "progress" or "result". */
void stats_json(FILE *f, struct stats *s, struct window *w, const char *event, uint64_t now_us);
void stats_progress(FILE *f, struct stats *s, struct window *w, uint64_t now_us);
void stats_summary(FILE *f, const struct stats *s);

/* The part of --help that explains the JSON. */
void stats_help(FILE *f);

#endif
