/*
 * sdnotify: what a service manager is told, sd_notify(3), without libsystemd: one datagram
 * to $NOTIFY_SOCKET, a path or an abstract name ("@...").
 */
#ifndef HANDOFF_SDNOTIFY_H
#define HANDOFF_SDNOTIFY_H

#include <stdbool.h>

/*
 * Reads $NOTIFY_SOCKET, once for this life, and keeps a socket: what is told later needs no
 * free descriptor. The variable stays where it is: spawn.c keeps it from daemons. 1: there is
 * somebody to tell; 0: there is not; or -errno (-EAFNOSUPPORT: not an address of that kind),
 * and nobody is told anything.
 */
int sdnotify_open(void);
void sdnotify_close(void);
/* Somebody is told. */
bool sdnotify_on(void);

/*
 * Sends state ("READY=1\nSTATUS=...") and nfds descriptors, which stay the caller's and are
 * received with it or not at all. Never blocks. 1: sent; 0: nobody listens (not below a
 * service manager); -EAGAIN: its queue is full, tell it later; -EMSGSIZE, -EINVAL (more than
 * 253 descriptors), -ETOOMANYREFS, -ECONNREFUSED, -ENOENT: other errors of sendmsg(2).
 */
int sdnotify(const char *state, const int *fds, unsigned nfds);

#endif
