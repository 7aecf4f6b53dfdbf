/*
 * tail: what the daemons have written lately, where it can be read again: a file that the
 * option `output` names, or handoffd's own stderr, if that is a file.
 */
#ifndef HANDOFF_TAIL_H
#define HANDOFF_TAIL_H

#include <stddef.h>

#include "handoffd/conf.h"

/* Where the file ends now; 0: there is none. */
off_t tail_mark(const struct conf *c);
/*
 * The last whole lines behind mark that fit into size bytes, as text; lines of handoffd's own
 * are left out. "" if there are none. Opened as the daemon's user; never waits for a FIFO.
 */
void tail_read(const struct conf *c, off_t mark, char *out, size_t size);

#endif
