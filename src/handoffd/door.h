/* door: a unix socket in the runtime directory that others connect to. */
#ifndef HANDOFF_DOOR_H
#define HANDOFF_DOOR_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Who only knocks, or comes again and again, keeps this process busy for that part of its time:
 * after so many it accepts nobody for a moment. Who is welcome waits that long, in the queue. */
#define DOOR_AT_ONCE 16

struct door {
	int fd;
	char path[108];
	struct event *accept, *pause;
	/* fd consumed; false: who comes like this is one of DOOR_AT_ONCE before a pause */
	bool (*visitor)(void *arg, int fd, const struct ucred *who);
	void *arg;
	unsigned pause_ms, strangers;  /* how long that pause is; how many since the last one */
	bool draining;                 /* inside door_drain */
};

/*
 * Binds dir/name, unlinking what a dead supervisor left (the caller holds the supervisor's
 * lock, the directory is the supervisor's alone). owner (uid_t)-1: own. When descriptors run
 * out it stops accepting for a second instead of spinning. 0 or -errno, a sentence in err.
 */
int door_open(struct door *d, struct event_base *base, const char *dir, const char *name, mode_t mode,
              uid_t owner, char *err, size_t err_size);
/* The same of a socket that an earlier life of this process has bound there: who waits in its queue is
 * let in. fd consumed in every case. */
int door_reopen(struct door *d, struct event_base *base, const char *dir, const char *name, int fd,
                char *err, size_t err_size);
/* Lets in all that wait now. */
void door_drain(struct door *d);
void door_close(struct door *d);

#endif
