/*
 * stage: a supervisor made of a socket and the codec, and the puppet it plays with. What
 * does not happen within its (generous) limit ends the test with a sentence.
 */
#ifndef TESTS_LIB_STAGE_H
#define TESTS_LIB_STAGE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/chan.h"

#define LIMIT_MS 20000

struct puppet {
	pid_t pid;
	int to, from;            /* its standard input and output */
	char line[4096];         /* its last answer */
	struct chan c;           /* the supervisor's end; c.fd -1: none */
	struct msg m;            /* the last message got; borrows from c */
	char *launcher;          /* "sh": the puppet's parent is a shell */
};

extern char stage_dir[64];   /* data directory and HANDOFF_DIR; made by stage_setup */
void stage_setup(void);
void stage_teardown(void);
/* The data directory's lock, held as an incumbent or its helper does. */
int stage_hold_lock(void);
bool stage_lock_is_free(void);
/* How many descriptors this process has. */
int stage_fds(void);

/* Starts one. role: "first", "successor", or NULL: without a supervisor. */
void puppet_start(struct puppet *p, const char *role);
/* The same with a channel whose peer process is another: fd is the puppet's end. */
void puppet_start_with(struct puppet *p, const char *role, int fd);
void puppet_say(struct puppet *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Its next line of answer. */
const char *puppet_heard(struct puppet *p);
const char *puppet_ask(struct puppet *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Asks, and the answer must be this; "text*": begin with it. */
#define ASK(p, question, answer) puppet_must(p, __FILE__, __LINE__, question, answer)
void puppet_must(struct puppet *p, const char *file, int line, const char *question,
                 const char *answer);
/* Lets it end, waits for it: it must exit with 0. */
void puppet_end(struct puppet *p);
/* SIGKILL, and reaps it. */
void puppet_kill(struct puppet *p);
/* Waits until it has died of a signal, which is returned; -1: it lives on after ms. */
int puppet_died(struct puppet *p, int ms);

/* The next message, heartbeats apart, which must be of that type. */
struct msg *stage_get(struct puppet *p, enum msg_type type);
/* Any next message, heartbeats too; false: none within ms. */
bool stage_any(struct puppet *p, int ms);
/* The puppet has closed its end, and sent nothing more. */
void stage_eof(struct puppet *p);
void stage_put(struct puppet *p, const struct msg *m);
void stage_put_fds(struct puppet *p, const struct msg *m, const int *fds, unsigned n);
/* Listens on stage_dir/daemon.sock, and takes the puppet's new channel. */
int stage_listen(void);
void stage_accept(struct puppet *p, int listener);

/* ---- what a supervisor says ---- */
struct hid stage_id(int n);
struct stage_timers { unsigned deadline, commit, heartbeat, fence, drain; };
extern struct stage_timers stage_timers;   /* long ones; a test shortens them */
void stage_ack(struct puppet *p, int id);              /* HelloAck; 0: no handoff */
void stage_prepare(struct puppet *p, int id);
/* The same with an end of a transfer channel, which is closed here. */
void stage_ack_with(struct puppet *p, int id, int fd, uint64_t limit);
void stage_prepare_with(struct puppet *p, int id, int fd, uint64_t limit);
void stage_begin(struct puppet *p, int id, int rev);   /* rev -1: nothing sealed */
/* SealRequest, Commit, Resume, Abort, Heartbeat */
void stage_simple(struct puppet *p, enum msg_type type, int id);
void stage_final(struct puppet *p);

/* ---- whole scenes ---- */
/* Opens, begins, serves; a first one. */
void scene_serve(struct puppet *p, const char *options);
void scene_drained(struct puppet *p, int id);
void scene_sealed(struct puppet *p, int id);
/* A successor up to Begin, its lock taken. */
void scene_successor(struct puppet *p, int id);

#endif
