/* queue: how many connections wait in a listening socket's queue, as the kernel counts. */
#ifndef HANDOFF_BASE_QUEUE_H
#define HANDOFF_BASE_QUEUE_H

#include <stdint.h>

struct queue {
	uint32_t waiting;    /* connections that nobody has accepted yet */
	uint32_t backlog;    /* so many may wait: the smaller of listen(2)'s and somaxconn */
	uint32_t drops;      /* since it listens; 0 for unix sockets, whose clients wait instead */
};

/*
 * A microsecond for TCP (TCP_INFO, SO_MEMINFO); ten for a unix socket, about which only
 * sock_diag(7) knows: diag is such a socket (queue_open), -1: they are -EOPNOTSUPP.
 * 0, or -errno: not a listening socket, or of another kind. Never waits.
 */
int queue_look(int fd, int diag, struct queue *ret);
int queue_open(void);   /* a descriptor, the caller's, or -errno */

#endif
