/*
 * proc: who a process is. A pid alone says nothing, since pids are reused; a pid with
 * its start time and the boot id does.
 */
#ifndef HANDOFF_BASE_PROC_H
#define HANDOFF_BASE_PROC_H

#include <stdint.h>
#include <sys/types.h>

#define BOOT_ID_SIZE 37

/* The kernel's random id of this boot, "" if /proc is not there. */
void proc_boot_id(char out[BOOT_ID_SIZE]);

/* Start time in clock ticks since boot (proc(5), stat, field 22). 0 or -errno (-ESRCH). */
int proc_start_time(pid_t pid, uint64_t *ret);

/*
 * A pidfd of exactly that process: opened first, then its start time compared, so that no
 * reuse of the pid can come between. A descriptor, or -ESRCH: it is gone; -EMFILE, -EIO (no
 * /proc), ...: that is not known.
 */
int proc_open(pid_t pid, uint64_t start);

#endif
