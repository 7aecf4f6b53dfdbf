/*
 * resp: the little of RESP2 (the Redis protocol) that a load generator needs.
 * Pure: bytes in, replies out.
 */
#ifndef KVLOAD_RESP_H
#define KVLOAD_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RESP_MAX_BULK (1u << 20)

enum resp_type { RESP_SIMPLE = '+', RESP_ERROR = '-', RESP_INTEGER = ':', RESP_BULK = '$',
	RESP_NIL = '_' };

struct resp {
	enum resp_type type;
	const char *text;   /* SIMPLE, ERROR, BULK: into the buffer that was read */
	size_t len;
	int64_t integer;    /* INTEGER */
	bool last;          /* the server has said that it ends the connection */
};

/*
 * Reads one reply from the start of buf. Returns how many bytes it took, 0 if it
 * is not complete yet, -EPROTO if it is none of RESP2's (or an array: kvload
 * sends no command that answers with one).
 */
ssize_t resp_parse(const char *buf, size_t len, struct resp *ret);

/* One argument of a command, in RESP's array form: the number of bytes written
 * to buf, which must hold them all (len + 32 is enough). */
size_t resp_header(char *buf, unsigned args);
size_t resp_arg(char *buf, const char *arg, size_t len);

#endif
