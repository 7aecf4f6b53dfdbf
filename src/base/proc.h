/*
 * proc: who a process is. A pid alone says nothing, since pids are reused; a pid with
 * its start time and the boot id does.
 */
#ifndef HANDOFF_BASE_PROC_H
#define HANDOFF_BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BOOT_ID_SIZE 37

/* The kernel's random id of this boot, "" if /proc is not there. */
void proc_boot_id(char out[BOOT_ID_SIZE]);

/* A line of /proc/PID/stat, as far as it is needed. */
struct proc_stat {
	char name[32];       /* as the process likes it: any bytes */
	char state;          /* 'Z': a zombie, 'D': nothing can end it now */
	pid_t parent, session;
	uint64_t start;      /* clock ticks since boot */
};

/* 0 or -errno (-ESRCH: there is no such process). */
int proc_stat(pid_t pid, struct proc_stat *ret);

/* The start time alone. 0 or -errno (-ESRCH). */
int proc_start_time(pid_t pid, uint64_t *ret);

/*
 * A variable of its environment, as it was at its exec (what a process has written over it
 * since is what is read): 0, -ENOENT: it is not there, or -errno. It is the process's own word.
 */
int proc_env(pid_t pid, const char *name, char *ret, size_t size);

/* Now, in the unit of start times. */
uint64_t proc_now(void);

/*
 * Calls fn for each child of this thread, zombies too; there is no other thread that reaps, so
 * that none is missed. 0 or -errno (-ENOENT: a kernel without CONFIG_PROC_CHILDREN).
 */
int proc_children(void (*fn)(void *arg, pid_t pid), void *arg);

/* Calls fn for each process of /proc. 0 or -errno. */
int proc_all(void (*fn)(void *arg, pid_t pid), void *arg);

/*
 * A pidfd of exactly that process: opened first, then its start time compared, so that no
 * reuse of the pid can come between. A descriptor, or -ESRCH: it is gone; -EMFILE, -EIO (no
 * /proc), ...: that is not known.
 */
int proc_open(pid_t pid, uint64_t start);
/* Has the process of this pidfd ended? */
bool proc_ended(int pidfd);

#endif
