/*
 * traces: looks at what the supervisors remember of their handoffs, and writes each that has
 * ended to a file or a pipe, once. A file says by itself what is in it: an exporter that is
 * started again adds what is missing. A pipe gets what was asked for since this one was started.
 */
#ifndef HANDOFF_EXPORTER_TRACES_H
#define HANDOFF_EXPORTER_TRACES_H

#include <event2/event.h>
#include <stddef.h>

struct traces;

#define TRACES_MS 2000   /* from one look to the next */

/* The path need not be there yet. NULL, and one line in err. */
struct traces *traces_open(struct event_base *base, const char *path, unsigned every_ms, char *err,
                           size_t err_size);
void traces_close(struct traces *t);   /* takes NULL */

#endif
