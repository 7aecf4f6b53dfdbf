/* What a supervisor says, as others read it: numbers for Prometheus, traces for a collector. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exporter/span.h"
#include "fuzz.h"
#include "handoffctl/metrics.h"

/* The message as it comes from the wire. */
static bool received(const struct msg *m, struct msg *ret)
{
	static uint8_t frame[1 << 17];
	char err[200];
	const int n = msg_encode(m, 1, frame, sizeof frame);

	return n > 0 && !msg_decode(frame + FRAME_HEADER, (size_t)n - FRAME_HEADER, ret, err, sizeof err);
}

static void trace(const struct msg *m, const char *service)
{
	char *line = span_line(service, m);
	json_t *j = line ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;

	HOLDS(line && j, "no JSON: %.300s", line ? line : "");
	HOLDS(strchr(line, '\n') == line + strlen(line) - 1, "more than one line");
	json_decref(j);
	free(line);
}

static void numbers(const struct msg *m, const char *service, bool openmetrics)
{
	char *text = NULL, *line;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	struct metrics_of of[2];

	metrics_read(&of[0], service, m);
	metrics_read(&of[1], "other", NULL);
	metrics_write(f, of, 2, openmetrics);
	fclose(f);
	HOLDS(utf8_valid(text, size) && size == strlen(text), "not a text");
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		HOLDS(!strncmp(line, "# ", 2) || !strncmp(line, "handoff_", 8), "a line of its own: %.200s", line);
	free(text);
}

void fuzz_exporter(const uint8_t *p, size_t n)
{
	struct feed f = { p, n };
	const uint8_t how = feed_u8(&f);
	char service[65];
	struct msg m, in;

	feed_text(&f, service, sizeof service);
	utf8_mend(service);
	feed_message(&f, how & 1 ? MSG_handoff : MSG_op_state, how & 2, &m);
	if (!received(&m, &in))
		return;
	if (how & 1)
		trace(&in, service);
	else
		numbers(&in, service, how & 4);
}
