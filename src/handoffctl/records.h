/*
 * records: what a supervisor remembers of its handoffs, as objects: what --json prints, and
 * what history and explain make their lines of.
 */
#ifndef HANDOFF_CTL_RECORDS_H
#define HANDOFF_CTL_RECORDS_H

#include <jansson.h>

#include "handoffctl/ctl.h"

struct records_wanted {
	uint64_t since_ms;         /* wall time; 0: all */
	unsigned count;            /* at most so many, the newest; 0: all */
	const char *id;            /* only that one, by the beginning of its id; NULL: all */
};

/*
 * Asks the supervisor that c means. 0 and an array, oldest first, the caller's; or the exit
 * code of an error that was reported.
 */
int records_fetch(struct ctl *c, const struct records_wanted *w, json_t **ret);

/* The last count that the supervisor at socket remembers, as above; NULL: it does not tell. */
json_t *records_last(struct out *out, const char *socket, unsigned count);

/* A text of a record, "" if it is not known; a number, 0 if not. */
const char *record_text(const json_t *record, const char *key);
uint64_t record_uint(const json_t *record, const char *key);

#endif
