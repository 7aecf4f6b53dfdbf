/* transient: errors that say nothing of what was asked for. The machine is short of something, or a
 * disk or a server does not answer: who tries again may not meet them, a configuration that is
 * wrong stays so. It decides between the exit statuses 1 and 2. */
#ifndef HANDOFF_TRANSIENT_H
#define HANDOFF_TRANSIENT_H

#include <stdbool.h>

bool transient(int error);   /* a negative errno */
/* What to do about it, as the end of a line: "; raise LimitNOFILE=". "": it is not transient. */
const char *transient_hint(int error);

#endif
