/* listen_unix: unix listeners and their paths, for listen.c. */
#ifndef HANDOFF_LISTEN_UNIX_H
#define HANDOFF_LISTEN_UNIX_H

#include "handoffd/listen.h"

/*
 * Binds fd to the path or abstract name of cl, as listen.h says; path, dev, ino, uid,
 * gid of l are set for a path. 0 or -errno: -EADDRINUSE with a sentence in why. A trial unlinks
 * no stale path; 1: there is one, and fd is not bound.
 */
int listen_unix_bind(int fd, const struct conf *c, const struct conf_listen *cl, bool trial,
		     struct listener *l, char *why, size_t why_size);

/* An adopted socket: sets path, dev, ino if the inode at the path is fd's own. */
void listen_unix_own(const struct conf *c, const struct conf_listen *cl, struct listener *l);

/* cl has a path, and no socket lies there: nobody reaches a socket that was bound to it. */
bool listen_unix_gone(const struct conf_listen *cl);

/* Unlinks l's path if its inode is the one that was bound. */
void listen_unix_remove(const struct listener *l);

#endif
