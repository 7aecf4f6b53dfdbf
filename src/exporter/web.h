/* web: what is asked over HTTP: /metrics, /health, /ready, and these two of one service. */
#ifndef HANDOFF_EXPORTER_WEB_H
#define HANDOFF_EXPORTER_WEB_H

#include <event2/event.h>
#include <stdint.h>

struct web;

/* Listens. NULL, and one line in err. port 0: one that is free, *ret_port. */
struct web *web_open(struct event_base *base, const char *host, uint16_t port, uint16_t *ret_port,
                     char *err, size_t err_size);
void web_close(struct web *w);   /* takes NULL */

#endif
