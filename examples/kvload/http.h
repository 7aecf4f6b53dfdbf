/*
 * http: the little of HTTP/1.1 that a load generator needs. A reply looks like one of RESP2's to
 * the rest of kvload: SIMPLE for a 2xx, ERROR for any other. Pure: bytes in, replies out.
 */
#ifndef KVLOAD_HTTP_H
#define KVLOAD_HTTP_H

#include "resp.h"

#define HTTP_MAX_PATH 512

/* As resp_parse. -EPROTO also for a reply that only the connection's end would complete. */
ssize_t http_parse(const char *buf, size_t len, struct resp *ret);

/* A GET of path, as text, into buf (HTTP_MAX_PATH + 64 is enough). */
void http_get(char *buf, const char *path);

#endif
