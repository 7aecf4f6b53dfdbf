/*
 * RESP2, the Redis protocol: a parser without a socket, and the replies.
 * Bytes in, commands out; it never copies an argument: they are places in the
 * caller's buffer.
 */
#ifndef KVD_RESP_H
#define KVD_RESP_H

#include "util.h"

#define MAX_ARGS    (1u << 20)   /* of one command */
#define MAX_INLINE  (64u << 10)  /* bytes of a line */
#define MAX_COMMAND (256u << 20) /* bytes of one command */

struct arg {
	size_t at;
	uint32_t len;
};

struct resp {
	size_t start;      /* where the command under way begins */
	size_t pos;        /* all before it was looked at */
	size_t scanned;    /* no end of line between pos and here */
	uint32_t want;     /* arguments still to come; 0: at the start of a command */
	int64_t bulk;      /* bytes of the argument that comes, -1: its head comes first */
	struct arg *argv;
	uint32_t argc, cap;
	char error[96];    /* why resp_parse said -1 */
};

void resp_init(struct resp *p);
void resp_free(struct resp *p);

/* 1: argv[0..argc) is a command (argc may be 0: an empty line); 0: more bytes are
 * needed; -1: this peer does not speak RESP, see error. */
int resp_parse(struct resp *p, const char *buf, size_t len);

/* All before this place in the buffer is done with. */
static inline size_t resp_done(const struct resp *p)
{
	return p->want ? p->start : p->pos;
}

/* The first n bytes of the buffer were dropped; n is at most resp_done. */
void resp_shift(struct resp *p, size_t n);

/* Back to a place where a command begins. */
void resp_rewind(struct resp *p, size_t start);

void reply_text(struct buf *b, const char *text);                 /* +text */
void reply_error(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3); /* "ERR ..." */
void reply_int(struct buf *b, long long v);
void reply_bulk(struct buf *b, const char *p, size_t n);
void reply_string(struct buf *b, const char *s);                  /* a bulk */
void reply_nil(struct buf *b);
void reply_array(struct buf *b, size_t n);                        /* n replies follow */

#endif
