/* table: the one table that a run prints. */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include "stat.h"

enum aim { AIM_NONE, AIM_VALUE, AIM_RATIO };   /* of the median, or of its ratio */

struct row {
	const char *what, *unit;     /* "us", ... */
	struct samples *s;
	const char *beside;          /* what it is compared with; NULL: nothing */
	struct samples *with;
	enum aim aim;
	double limit;                /* at most */
};

void table_head(void);
void table_section(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints it: 1 if its aim was missed. Frees no samples. */
int table_row(const struct row *r);

#endif
