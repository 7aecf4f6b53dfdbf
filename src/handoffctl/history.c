/* history: the handoffs that are remembered, one a line. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "handoffctl/ctl.h"
#include "handoffctl/json.h"
#include "handoffctl/records.h"

static void print_time(uint64_t ms)
{
	const time_t t = (time_t)(ms / 1000);
	char when[40] = "?";
	struct tm tm;

	if (ms && localtime_r(&t, &tm))
		strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
	printf("%-19s", when);
}

/* "2.0", or where no version is known the beginning of the build id. */
static const char *version_of(const json_t *record, const char *side, char buf[80])
{
	const json_t *d = json_object_get(record, side);
	const char *v = record_text(d, "version");

	snprintf(buf, 80, *v ? "%.70s" : "%.8s", *v ? v : record_text(d, "build"));
	return *buf ? buf : "-";
}

static void print_one(const struct out *o, const json_t *r)
{
	const char *outcome = record_text(r, "outcome");
	char from[80], to[80], pause[32];
	const uint64_t us = record_uint(r, "pause_us");

	print_time(record_uint(r, "asked_ms"));
	printf("  %.8s  ", record_text(r, "handoff"));
	out_color(stdout, o->color, !strcmp(outcome, "committed") ? OUT_GOOD : OUT_BAD);
	printf("%-11s", outcome);
	out_color(stdout, o->color, OUT_PLAIN);
	printf("  %9s  ", us ? out_duration(us, pause) : "-");
	out_text(stdout, SPAN(version_of(r, "from", from)));
	printf(" -> ");
	out_text(stdout, SPAN(version_of(r, "to", to)));
	printf("  uid %" PRIu64, record_uint(r, "uid"));
	if (!strcmp(record_text(r, "kind"), "rollback"))
		printf("  rollback");
	if (*record_text(r, "reason")) {
		printf("  ");
		out_text(stdout, SPAN(record_text(r, "reason")));
	}
	putchar('\n');
}

int ctl_history(struct ctl *c)
{
	const struct records_wanted w = { .since_ms = c->since_ms, .count = c->count };
	json_t *records, *r;
	size_t i;
	int code = records_fetch(c, &w, &records);

	if (code)
		return code;
	json_array_foreach(records, i, r)
		if (c->json)
			out_json(&c->out, json_incref(r));
		else
			print_one(&c->out, r);
	if (!c->json && !json_array_size(records))
		puts("no handoff is remembered");
	json_decref(records);
	return CTL_OK;
}
