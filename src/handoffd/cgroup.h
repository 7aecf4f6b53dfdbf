/*
 * cgroup: control groups, version 2, as far as they hold a process and all that it starts.
 * Only cgroup.procs and cgroup.kill are written, never cgroup.subtree_control: the kernel
 * refuses controllers while a process (handoffd) sits in the group above.
 */
#ifndef HANDOFF_CGROUP_H
#define HANDOFF_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * The group that handoffd is in, if it was delegated: whoever runs the machine has marked it
 * (systemd: Delegate=yes; by hand: the attribute user.delegate = 1), and groups can be made in
 * it. A descriptor of its directory; or -ENOENT: there is no version 2 here, -EPERM: it was not
 * delegated, ...
 */
int cgroup_own(void);
/* The group of a path that systemd gives, "/system.slice/x.service". As above. */
int cgroup_find(const char *path);
/* Makes a group below dir. A descriptor of its directory, or -errno. */
int cgroup_make(int dir, const char *name);
/* Opens one that exists. */
int cgroup_open(int dir, const char *name);
/* Moves a process into the group; what it starts from now on is in it too. 0 or -errno. */
int cgroup_enter(int group, pid_t pid);
/* Calls fn for each process of the group. 0 or -errno. */
int cgroup_each(int group, void (*fn)(void *arg, pid_t pid), void *arg);
bool cgroup_has(int group, pid_t pid);
/* SIGKILL for all of the group and of those below. 0 or -errno (-ENOENT: before Linux 5.14). */
int cgroup_kill(int group);
/* Removes the group, and what was made below it. 0 or -errno (-EBUSY: a process is in it). */
int cgroup_remove(int dir, const char *name);
/* Calls fn for each group below dir. */
void cgroup_list(int dir, void (*fn)(void *arg, const char *name), void *arg);

#endif
