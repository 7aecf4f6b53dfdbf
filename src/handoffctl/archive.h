/* archive: what a supervisor remembers, read from its state directory while it does not run. */
#ifndef HANDOFF_ARCHIVE_H
#define HANDOFF_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/msg.h"

/*
 * Hands the records of that service to take, the newest first, until it returns false; a
 * record borrows from bytes that are gone then. 0, or -errno: -ENOENT: there is no such file.
 * ret_path: which file it is.
 */
int archive_read(const char *name, bool (*take)(void *arg, const struct msg *m), void *arg,
                 char *ret_path, size_t path_size);

#endif
