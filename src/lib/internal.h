/*
 * The library's inside. One handle = the machine of proto/daemon.h, a channel to the
 * supervisor, the lock, and one thread.
 *
 * Who touches what: everything belongs to the thread that calls, but for struct helper,
 * which its mutex guards. The helper sends heartbeats while a hook is slow, so the channel's
 * socket, version and queue are changed under that mutex; it changes none of them itself.
 */
#ifndef HANDOFF_LIB_INTERNAL_H
#define HANDOFF_LIB_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/chan.h"
#include "base/lockfile.h"
#include "handoff.h"
#include "proto/daemon.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define EXPORT __attribute__((visibility("default")))

struct listener {
	char *name;
	int fd;              /* the library's own copy, for a supervisor that comes back without */
	int out;             /* the copy for the daemon, made in the warm-up; -1: given out */
	bool taken;          /* the daemon listens on it */
};

/* What an upgrade's context carries, as strings. */
struct context { char *reason, *trace_parent, *correlation_id, *tenant; };

struct giver;   /* give.c */
struct taker;   /* receive.c */

#define MAX_EVENTS 16

struct helper {
	pthread_t thread;
	bool running;
	pthread_mutex_t mutex;
	pthread_cond_t done;     /* tie is TIE_IDLE again */
	int wake;                /* eventfd: something below has changed */
	int beat;                /* timerfd of the heartbeats: armed without waking the thread */
	bool quit, connect, beats;
	uint32_t beat_ms;
	uint32_t retry_ms;       /* until the next try to connect, after this one */
	uint64_t connect_at;     /* not before */
	enum { TIE_IDLE, TIE_WANTED, UNTIE_WANTED } tie;
	int connected;           /* a new channel for the caller to fetch; -1 */
};

struct handoff {
	struct d d;
	enum handoff_role role;
	struct chan chan;
	int ep, timer, wake;     /* wake: events wait (woken), or helper.connected is one */
	bool woken, writing;     /* writing: EPOLLOUT is asked for */
	unsigned flags;
	void (*log)(void *, int, const char *);
	void *log_arg;
	unsigned char build[64];
	size_t build_size;
	char software[65];
	uid_t uid;               /* when the helper was tied */
	gid_t gid;
	int data_dir;            /* O_DIRECTORY; of the lock; -1: none */
	bool has_data_dir;       /* Hello names its inode */
	int run_dir;             /* O_PATH, where daemon.sock is; -1 */
	struct lockfile lock;
	uint64_t next_lock_try, armed;   /* armed: what the timerfd is set to */
	struct listener *listen;
	unsigned nlisten, sent_sockets;
	uint64_t welcome_at;     /* ms: when this channel's Hello was acknowledged; 0: not yet */
	int lock_error;          /* the last one that was logged */
	unsigned next_take;      /* most daemons take them in their order */
	struct context context;
	char *resume_reason;
	/* what was sealed, from Begin; or by the caller, on its way out */
	bool sealed;
	unsigned nrevisions;
	uint64_t *revisions;
	struct fprint fingerprint;
	uint64_t sealed_epoch;   /* of the lock's record, as the incumbent left it; 0: not said */
	const struct handoff_state *answer;   /* the caller's, during one call */
	struct helper helper;
	struct giver *giver;     /* as an incumbent, from Prepare to the next; NULL: no channel */
	struct taker *taker;     /* as a successor, from HelloAck to the final Commit; NULL */
	unsigned connections;
	const char *failure;
	uint64_t drain_until, seal_until;
	struct handoff_event events[MAX_EVENTS];
	unsigned first_event, nevents;
	bool canceled;           /* dropped: the daemon has to exit */
	int end_code;            /* what handoff_begin and handoff_ready return then */
	char end[200];           /* and why; the first reason counts */
	char error[256];
};

/* open.c */
HIDDEN int h_fail(handoff *h, int e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
HIDDEN void h_end(handoff *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* ... for a reason that only this process knows: it is logged now, while the channel is open, for who
 * closes it is killed, and maybe before it can say more. */
HIDDEN void h_give_up(handoff *h, int e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
HIDDEN void h_log(handoff *h, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
HIDDEN size_t build_id_of_program(unsigned char out[64]);

/* run.c: the machine and what it asks for */
HIDDEN void h_trace(handoff *h);   /* each row it takes is a line of HANDOFF_LOG_DEBUG */
HIDDEN void h_step(handoff *h, enum d_event e);
HIDDEN int h_dispatch(handoff *h);
HIDDEN void h_queue(handoff *h, int type);
HIDDEN void h_rearm(handoff *h);
HIDDEN void h_forget(handoff *h, int type);   /* it was answered before it was taken */
HIDDEN void h_wake(handoff *h);              /* the descriptor is readable if events wait */
HIDDEN void h_unwake(handoff *h);
HIDDEN int h_poll(handoff *h, int timeout_ms);
/* The epoll set asks for these events of fd, 0: for none; *watched: for which it did. An error is
 * possible only where it did for none. */
HIDDEN int h_watch(const handoff *h, int fd, uint32_t *watched, uint32_t events);
HIDDEN void h_drop(handoff *h);

/* wire.c: messages out and in */
HIDDEN void wire_send(handoff *h, const struct msg *m, const int *fds, unsigned nfds);
HIDDEN void wire_hello(handoff *h);
HIDDEN void wire_ready(handoff *h);
HIDDEN void wire_simple(handoff *h, enum msg_type type);
HIDDEN void wire_in(handoff *h, const struct msg *m);
HIDDEN void wire_resume_reason(handoff *h, const char *p, size_t n);
HIDDEN void context_clear(struct context *c);

/* give.c: connections to the successor */
HIDDEN void give_open(handoff *h, int fd, uint64_t limit);   /* consumes fd */
HIDDEN void give_turn(handoff *h);           /* reads and writes what can be, while it is waited for */
HIDDEN void give_settle(handoff *h);         /* the lock is here again: is there a Taking? Closes it */
HIDDEN void give_close(handoff *h);
HIDDEN void give_free(handoff *h);
HIDDEN void give_abandon(const handoff *h);  /* in a forked child */
HIDDEN void give_count(const handoff *h, struct msg *seal_complete);   /* what has moved, what stays */
HIDDEN bool give_failed_by_n(const handoff *h);  /* they were not moved, and N is to blame */
HIDDEN bool give_open_ended(const handoff *h);   /* connections were given, not all answered */

/* receive.c: connections from the incumbent */
HIDDEN int take_open(handoff *h, int fd, uint64_t limit);   /* consumes fd */
HIDDEN void take_turn(handoff *h);
HIDDEN bool take_waits(const handoff *h);    /* some wait for handoff_receive */
HIDDEN int take_begin(handoff *h);           /* 0: all are taken; -EAGAIN: some wait, or canceled */
HIDDEN void take_over(handoff *h);           /* says Taking: they may be touched */
HIDDEN void take_free(handoff *h);
HIDDEN void take_abandon(const handoff *h);

/* helper.c: the library's thread */
HIDDEN int helper_start(handoff *h);
HIDDEN void helper_stop(handoff *h);
enum helper_hope {
	HOPE_BACK,     /* the supervisor has gone; another one may be there any moment */
	HOPE_SOON,     /* the same, but they die one after another */
	HOPE_LITTLE,   /* it has turned this daemon away */
};
HIDDEN void helper_connect(handoff *h, enum helper_hope hope);  /* find the supervisor again */
HIDDEN int helper_fetch(handoff *h);             /* a new channel's descriptor, or -1; resets wake */
HIDDEN void helper_tie(handoff *h);              /* soon */
HIDDEN void helper_tied(handoff *h);             /* waits until it is: nothing is left to do */
HIDDEN void helper_untie(handoff *h);            /* done when it returns */
HIDDEN void helper_beats(handoff *h, bool on);

#endif
