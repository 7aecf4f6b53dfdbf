/*
 * peer: one daemon, as the supervisor knows it: a process by its pidfd, and a channel to
 * it. What comes is handed to its owner; a death is told only when it is verified and
 * all that the process had sent was read.
 */
#ifndef HANDOFF_PEER_H
#define HANDOFF_PEER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/chan.h"
#include "handoffd/bucket.h"
#include "handoffd/log.h"

struct peer;

/* Whom a peer tells. */
struct peer_owner {
	struct event_base *base;
	void *arg;
	void (*message)(void *arg, struct peer *p, const struct msg *m);
	/* the channel's end; -EBADMSG: it was ended here, for what could not be read */
	void (*lost)(void *arg, struct peer *p, int error);
	/* it has died: read what may lie elsewhere (a new channel that nobody has accepted) */
	void (*dying)(void *arg, struct peer *p);
	/* its death is verified, and all that it had sent was read */
	void (*gone)(void *arg, struct peer *p);
	/* a callback is over */
	void (*settled)(void *arg);
};

struct peer {
	const struct peer_owner *owner;   /* outlives it */
	struct peer *next;          /* among the dead that wait to be freed */
	pid_t pid;
	uint64_t start;             /* start time, with which the journal names it */
	int pidfd;                  /* -1: gone, told */
	int gate;                   /* of a child that waits to be journaled; else -1 */
	bool child;                 /* of this very process: it can be waited for */
	int status;                 /* wait status, once reaped; -1 unknown */
	bool killed;                /* SIGKILL was sent */
	bool cut;                   /* and that because it had closed its channel */
	struct chan chan;
	int send_error;             /* why this process has ended it; 0: it has not */
	uint64_t sent_us;           /* when it was last sent something */
	struct event *read, *write, *death, *again;
	struct bucket frames;       /* how many it may still send before it is read more slowly */
	struct log_limit lines;     /* what it may make handoffd say */
	bool greeted;               /* Hello came, HelloAck went out */
	bool registering;           /* a reconnect: its sockets are still coming */
	unsigned sockets_left;      /* to come */
	unsigned sockets_sent;
	bool sending;               /* sockets are on their way to it */
	uint64_t capabilities;   /* as its Hello had them */
	bool moves;                 /* hands over live connections, and takes them */
	/* from Hello */
	uint8_t build[64];
	size_t build_size;
	char software[65];
	bool has_data;
	uint64_t dev, ino;
	uint64_t epoch;
};

/* Takes over pidfd (consumed on success). NULL: no memory. */
struct peer *peer_new(const struct peer_owner *owner, pid_t pid, uint64_t start, int pidfd);
/* Gives it a channel (fd consumed in every case); the one before is closed. 0 or -errno. */
int peer_attach(struct peer *p, int fd);
/* Closes the channel; the process stays known. */
void peer_detach(struct peer *p);
/* Forgets the process: neither kills nor waits. Takes NULL, returns NULL. */
struct peer *peer_free(struct peer *p);

bool peer_connected(const struct peer *p);
/* 0, or -EPIPE and the like, which are no error for the caller: the end will be read. */
int peer_send(struct peer *p, const struct msg *m, const int *fds, unsigned nfds);
int peer_signal(struct peer *p, int sig);
/* The kernel says that it has ended (its pidfd is readable). */
bool peer_dead(const struct peer *p);
/* "exited with 1", "killed by signal 9", "is gone" */
const char *peer_end(const struct peer *p, char buf[64]);
/* Reads all that lies in its socket now, and hands it to the owner. */
void peer_read(struct peer *p);

#endif
