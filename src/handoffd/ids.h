/* ids: users and groups, by number and by name. */
#ifndef HANDOFF_IDS_H
#define HANDOFF_IDS_H

#include "handoffd/conf.h"

/*
 * Resolves user, group, groups and operators of c into uid, gid, gids, operators_gid,
 * in a short-lived child: the name service's modules would stay mapped in handoffd.
 * No child where no name is given. Blocks up to 5 s. 0, or -EINVAL (-ETIMEDOUT,
 * -EAGAIN, ...) with the option at fault in *ret_option (NULL: none) and a sentence in why.
 */
int ids_resolve(struct conf *c, const char **ret_option, char *why, size_t why_size);

/*
 * From ids_enter to ids_leave this (single-threaded) process meets the file system as
 * the daemon's user and groups, where it is root and c names a user: what it binds,
 * opens and asks for is theirs. Only the ids for the file system change: nobody may
 * signal or trace the supervisor meanwhile who could not before. 0 or -errno.
 */
struct ids_saved { bool on; gid_t *gids; int n; };
int ids_enter(uid_t uid, gid_t gid, const gid_t *gids, unsigned ngids, struct ids_saved *ret);
/*
 * The same as the user that the process has: without CAP_SYS_PTRACE the kernel shows the executable
 * and the environment of another user's process to nobody, not to root either, and a path that
 * belongs to that user is not followed to where the user could not go: an open(2) by root has
 * effects (a device that begins to run, a writer of a FIFO that waits for a reader).
 */
int ids_enter_pid(pid_t pid, struct ids_saved *ret);
void ids_leave(struct ids_saved *s);
/* proc_env() as that user. -EACCES: the process is not dumpable, only CAP_SYS_PTRACE reads it. */
int ids_proc_env(pid_t pid, const char *name, char *ret, size_t size);

#endif
