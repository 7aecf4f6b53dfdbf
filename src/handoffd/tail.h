/*
 * tail: what the daemons have written lately, where it can be read again: a file that the
 * option `output` names, or handoffd's own stderr, if that is a file.
 */
#ifndef HANDOFF_TAIL_H
#define HANDOFF_TAIL_H

#include <stddef.h>
#include <sys/types.h>

#include "handoffd/conf.h"

/* Where the file ends now; 0: there is none. */
off_t tail_mark(const struct conf *c);
/*
 * The last whole lines behind mark that fit into size bytes, as text; lines of handoffd's own
 * are left out, and, where others are there, those that bear the pid `but` in brackets (0: none): one
 * that goes on writing would hide what another said last. "" if there are none. Opened as the
 * daemon's user; never waits for a FIFO.
 */
void tail_read(const struct conf *c, off_t mark, pid_t but, char *out, size_t size);

#endif
