/*
 * reap: ends what handoff@NAME left behind. The guard unit's ExecStop, for when a stop finds
 * a supervisor that is dead or hangs, and a daemon that serves without it.
 */
#ifndef HANDOFF_REAP_H
#define HANDOFF_REAP_H

#include <stdint.h>

/*
 * Does nothing unless systemd says that handoff@NAME is inactive or failed. Then: SIGTERM to
 * every process in that unit's cgroup and below it, at most stop_ms until they have ended,
 * cgroup.kill; then the cgroups below it and the runtime directory are removed, if no
 * supervisor runs there. Blocks. The exit code: 0 nothing is left; 1, with a line in the log: it is.
 */
int reap(const char *name, uint32_t stop_ms);

#endif
