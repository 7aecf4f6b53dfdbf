/*
 * metrics: what a State says, as Prometheus and OpenMetrics read it. One table makes the rows of
 * `handoffctl metrics` and of handoff-exporter, and is compared with the manual.
 */
#ifndef HANDOFF_CTL_METRICS_H
#define HANDOFF_CTL_METRICS_H

#include <stdbool.h>
#include <stdio.h>

#include "proto/msg.h"

struct metric {
	const char *name;          /* of the family: a counter's without _total */
	const char *type;          /* "gauge", "counter", "info" */
	const char *unit;          /* that the name ends with; NULL: none */
	const char *help;
};
extern const struct metric metrics[];       /* .name NULL at the end */

#define METRICS_QUEUES 64   /* listeners of a service whose queues a State has */

/* One supervisor's answer, or that it gave none. Plain data. */
struct metrics_of {
	char service[65];
	bool up;                   /* it answered; else nothing below is known */
	char state[65], build[129], software[65];
	bool serving, connected, refuses, in_handoff;
	uint64_t has;              /* of the State */
	uint64_t epoch, since_ms, supervisor_since_ms, left;
	uint64_t committed, aborted, rolled_back, cold_starts;
	uint64_t last_pause_us, last_total_us, last_stall_us, moved, stayed;
	unsigned nqueues;
	/* in the order of the configuration; UINT64_MAX: not known */
	char listener[METRICS_QUEUES][65];
	uint64_t waiting[METRICS_QUEUES], backlog[METRICS_QUEUES], drops[METRICS_QUEUES];
	uint64_t deepest[METRICS_QUEUES], dropped[METRICS_QUEUES];   /* in the last handoff */
};

/* service: as the place is called; state NULL: it gave no answer. */
void metrics_read(struct metrics_of *ret, const char *service, const struct msg *state);

/* All rows of n services. A text that open_memstream or stdout takes; ferror(f) says if not. */
void metrics_write(FILE *f, const struct metrics_of *v, size_t n, bool openmetrics);

#endif
