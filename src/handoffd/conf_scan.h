/*
 * conf_scan: a look at the text before libconfuse reads it. libconfuse 3.3 takes
 * an unset ${VAR} as empty, accepts a missing } and an unclosed comment, lets the
 * last of two values win, miscounts lines behind comments, and refuses a comment
 * within a list. So this checks the grammar, blanks out the comments in place,
 * and notes where everything stands.
 */
#ifndef HANDOFF_CONF_SCAN_H
#define HANDOFF_CONF_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* "NAME = ..." or "NAME TITLE { ... }" */
struct conf_mark {
	char *name;
	char *title;       /* of a section, as written; NULL: none, or an option */
	int line;
	int parent;        /* the mark of the section around it; -1: top level */
	bool section;
	bool list;         /* an option with a { list } */
};

struct conf_scan {
	struct conf_mark *v;
	int n;
	int open;          /* the innermost section that is never closed; -1: all are */
};

/*
 * Scans text (NUL at its end; comments become blanks, lines stay). 0 and *ret (free
 * with conf_scan_free), or -EINVAL or -ENOMEM with "FILE:LINE: ..." in err.
 * A section that is never closed is left to the caller, who may know better which
 * line lacks the brace: see open.
 */
int conf_scan(const char *file, char *text, struct conf_scan *ret, char *err, size_t err_size);
void conf_scan_free(struct conf_scan *s);

#endif
