/* check: `handoffd --check`, in words. */
#ifndef HANDOFF_CHECK_H
#define HANDOFF_CHECK_H

#include <stdio.h>

#include "handoffd/conf.h"

/* Says on f what would be done with c, a line for a thing. 0, or -EIO (f's error). */
int check_print(const struct conf *c, FILE *f);

#endif
