/*
 * out: what people and scripts read. Lines of text (live and coloured on a terminal)
 * or, with --json, one object a line. That a line could not be printed is told by the
 * end, out_end(): until then all goes on, for the exit code still tells the outcome.
 */
#ifndef HANDOFF_CTL_OUT_H
#define HANDOFF_CTL_OUT_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/msg.h"

struct out {
	bool json;
	bool live;                 /* stdout is a terminal that can rewrite a line */
	bool color, color_err;     /* of stdout and of stderr */
	/* the phase whose line is still being rewritten */
	char phase[65];
	char *text;                /* owned */
	uint64_t phase_us;         /* its beginning, as the supervisor counts */
	uint64_t heard_us;         /* when that was read here */
	int lost;                  /* errno of the first line that could not be printed; 0: none */
};

enum out_color { OUT_PLAIN, OUT_GOOD, OUT_BAD, OUT_WARN, OUT_DIM };

/* Looks at stdout, stderr, TERM and NO_COLOR. */
void out_init(struct out *o, bool json);
/* Ends a line that is still being rewritten, and frees. 0, or the errno of the first line that
 * stdout did not get. */
int out_end(struct out *o);

/* Ends a line that is still being rewritten. */
void out_settle(struct out *o);

/* What has been printed goes out now. */
void out_flush(struct out *o);
/* j on a line of stdout, flushed; releases j. NULL: there was no memory for it. */
void out_json(struct out *o, json_t *j);

/* An op_event: one phase. */
void out_event(struct out *o, const struct msg *event);
/* Rewrites the line of the phase under way with its age. Without a terminal: nothing. */
void out_tick(struct out *o);
/* An op_result: the last line. On stderr when its code is not 0 (JSON: stdout always). */
void out_result(struct out *o, const struct msg *result);

/* One line for people on stderr; with --json an object on stdout. The error returns code. */
int out_error(struct out *o, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int out_verror(struct out *o, int code, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
void out_note(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text of others: control characters, which could drive the terminal, become '?'. */
void out_text(FILE *f, struct span s);
/* Switches a colour on, or off with OUT_PLAIN; nothing when colour is false. */
void out_color(FILE *f, bool color, enum out_color c);
/* "0.41 ms", "31 ms", "1.23 s", "2 min 5 s" */
const char *out_duration(uint64_t us, char buf[32]);

#endif
