/* cause: whose fault the end of an attempt was, from the row of s_table that ended it. Pure. */
#ifndef HANDOFF_PROTO_CAUSE_H
#define HANDOFF_PROTO_CAUSE_H

#include "proto/super.h"

struct s_cause {
	const char *role;    /* "successor", "incumbent", "supervisor", "operator" */
	const char *phase;   /* in which it was, as status says it */
	const char *timer;   /* the time limit that was over, as in the configuration; NULL: none */
};

/* row NULL: an attempt that a restarted supervisor found begun. */
struct s_cause s_cause_of(const struct s_row *row);

#endif
