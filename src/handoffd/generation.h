/*
 * generation: a daemon with all that it has started. When it ends, what is left of it is ended
 * too, and said: SIGTERM, after GENERATION_TERM_MS SIGKILL. Nothing waits for that: several
 * generations may be on their way out while the next daemon serves.
 *
 * What belongs to a daemon says the kernel: the cgroup, where one was delegated; else the
 * session, and for who has left it that it has become handoffd's child (a subreaper) and is
 * older than every daemon that lives; younger ones are asked for the HANDOFF_GENERATION that
 * they were given, which is their own word, but about nobody else. No process is signalled but
 * through a pidfd that was compared with that after it was opened. What is in handoffd's own
 * session is never touched.
 */
#ifndef HANDOFF_GENERATION_H
#define HANDOFF_GENERATION_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define GENERATION_TERM_MS    1000   /* SIGTERM to SIGKILL */
#define GENERATION_KILL_MS    5000   /* SIGKILL to "cannot be ended" */

struct generations;

/* A daemon that has ended. Times in clock ticks since boot, as start times of processes. */
struct past { pid_t pid; uint64_t start, ended; };

/*
 * Finds the cgroup, and in it the groups that an earlier handoffd of this service has left.
 * settled: called behind each change of what generations_settled(g, 0) says. NULL: no memory.
 */
struct generations *generations_new(struct event_base *base, const char *service,
                                    void (*settled)(void *arg), void *arg);
/* Ends nothing. Takes NULL. */
void generations_free(struct generations *g);

/* A daemon that was started here and waits at its gate; name: its HANDOFF_GENERATION. */
void generation_begin(struct generations *g, pid_t pid, uint64_t start, const char *name);
/* A daemon that lives, of an earlier handoffd. */
void generation_adopt(struct generations *g, pid_t pid, uint64_t start);
/* One that lives, as an earlier life of this process knew it. child: that had started it;
 * strangers: as generations_strangers() had it there. */
void generation_goes_on(struct generations *g, pid_t pid, uint64_t start, bool child, bool strangers);
/* A child of handoffd's may be nobody's here. */
bool generations_strangers(const struct generations *g);
/* One that has ended while there was no handoffd; p->ended: not before that. */
void generation_past(struct generations *g, const struct past *p);
/* The daemon is verified dead: what it has left is looked for in the loop's next turn. */
void generation_ended(struct generations *g, pid_t pid);

/* Those that have ended and of which something is left, newest first; how many, to max. */
unsigned generations_past(const struct generations *g, struct past *ret, unsigned max);
/* How many processes are being ended. */
unsigned generations_left(const struct generations *g);
/* Nothing is left, or nothing that could be ended; of `but` (0: of none) it does not matter. */
bool generations_settled(const struct generations *g, pid_t but);
/* The supervisor is being stopped: SIGKILL at the latest at that time (ms). */
void generations_stop(struct generations *g, uint64_t at);

#endif
