/*
 * answerer: a short-lived child that says something through a pipe: what may block, take long or
 * crash, and must not do so in this process. It ends with it.
 */
#ifndef HANDOFF_ANSWERER_H
#define HANDOFF_ANSWERER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the child does, all signals blocked, until it exits. out: where it answers. */
typedef void answerer_child(void *arg, pid_t parent, int out);

/* The child's pid, and the pipe's other end, which is the caller's; or -errno. */
pid_t answerer_fork(answerer_child *child, void *arg, int *ret_out);
/* In the child: SIGKILL when the parent ends, again after a change of the user. */
void answerer_tie(pid_t parent);

struct answerer {
	struct event *end;       /* NULL: there is none */
	pid_t pid;
	int pidfd;
	int out;                 /* what it says; never waits */
	int status;              /* wait status, once reaped; -1 unknown */
};

/* The same in the loop: on_end when it has ended, or after ms (EV_TIMEOUT). 0 or -errno. */
int answerer_start(struct answerer *a, struct event_base *base, answerer_child *child, void *arg,
                   uint32_t ms, event_callback_fn on_end, void *on_end_arg);
/* A child of this process has ended. True: it was this one. */
bool answerer_reaped(struct answerer *a, pid_t pid, int status);
void answerer_kill(const struct answerer *a);
/* Nothing is heard of it any more. */
void answerer_forget(struct answerer *a);
struct timeval answerer_ms(uint32_t ms);

#endif
