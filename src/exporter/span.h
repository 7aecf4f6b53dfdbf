/* span: a handoff's record as a trace for OpenTelemetry: OTLP's JSON, one line. Pure. */
#ifndef HANDOFF_EXPORTER_SPAN_H
#define HANDOFF_EXPORTER_SPAN_H

#include "proto/msg.h"

/*
 * A trace of one span for the handoff and one for each of its phases, below the span that its
 * trace parent (W3C trace context) names, else in a trace of its own, whose id is the handoff's.
 * The same record gives the same ids each time. A line with its end, for free(); NULL: no memory.
 */
char *span_line(const char *service, const struct msg *handoff);

#endif
