/*
 * output: where a daemon's stdout and stderr go. Never through handoffd: they outlive it.
 */
#ifndef HANDOFF_OUTPUT_H
#define HANDOFF_OUTPUT_H

#include "handoffd/conf.h"

#define OUTPUT_JOURNAL "/run/systemd/journal/stdout"

/*
 * A stream of the caller's own to the journal that listens at path, blocking as a stdout is.
 * The lines bear the pid of the process that calls this (the kernel notes who connects), and
 * the unit of its cgroup; a leading "<3>" is their priority. Never blocks itself.
 * The descriptor, the caller's; or -errno (-ENOENT, -ECONNREFUSED, -EAGAIN: no journal there).
 */
int output_to_journal(const char *path, const char *identifier);

/*
 * In the child, as the daemon's user: what its stdout and stderr become. The file of c; or
 * where handoffd's own stderr is a stream to the journal, a stream of its own to it.
 * Returns 0 and *ret, the caller's, or -1 there: handoffd's own (no journal answers, too); or
 * -errno of the file.
 */
int output_open(const struct conf *c, const char *exe_path, int *ret);

#endif
