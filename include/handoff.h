/*
 * libhandoff: replace the binary of a running daemon without a lost request.
 *
 * This header is the manual in miniature; libhandoff(3) and the pages of the functions say more.
 *
 * A daemon's start-up is one straight line, the same for a cold start, for a
 * successor and for a run by hand without a supervisor:
 *
 *     handoff_open()      who am I? a supervisor's child, or standalone
 *     ... warm-up ...     read the state READ-ONLY, follow it; accept nobody
 *     handoff_begin()     waits until the incumbent has sealed, takes the lock
 *     ... open state ...  from disk; trust no cache that was not revalidated
 *     handoff_take_fd()   the listening sockets, by name
 *     handoff_ready()     0: serve. -ECANCELED: exit
 *
 * Then handoff_fd() goes into the daemon's own loop; when it is readable:
 * handoff_dispatch(), and handoff_next() until it returns 0.
 *
 * Rules that hold for every function, where it does not say otherwise:
 *  - returns 0 or more, or a negative errno; handoff_error() has a sentence;
 *  - "ret" arguments stay untouched on failure;
 *  - a handle belongs to one thread at a time (the library's own thread is the
 *    library's business); functions never call back, but for options.log,
 *    which is called in the calling thread only;
 *  - never exits, never raises a signal, never changes the environment;
 *  - every descriptor is close-on-exec from birth;
 *  - losing the supervisor never stops a daemon.
 */
#ifndef HANDOFF_H
#define HANDOFF_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HANDOFF_MAX_SHARDS   1024 /* revisions in one state */
#define HANDOFF_FINGERPRINT  32   /* bytes */

typedef struct handoff handoff;

/* What this process was when it was opened. */
enum handoff_role {
	HANDOFF_STANDALONE, /* no supervisor: bind your own sockets */
	HANDOFF_FIRST,      /* cold start below a supervisor: nobody to take over from */
	HANDOFF_SUCCESSOR   /* an incumbent serves while this process warms up */
};

enum handoff_log_level {
	HANDOFF_LOG_ERROR, HANDOFF_LOG_WARNING, HANDOFF_LOG_INFO, HANDOFF_LOG_DEBUG
};

/* flags of struct handoff_options */
#define HANDOFF_NONBLOCK 1u /* handoff_begin, handoff_ready return -EAGAIN; the answer
                             * comes from handoff_next (HANDOFF_BEGIN, HANDOFF_DECIDED) */
#define HANDOFF_CONNECTIONS 2u /* moves live connections: gives them to a successor, and takes
                                * an incumbent's; see handoff_give and handoff_receive */

/* All strings are copied by handoff_open. */
struct handoff_options {
	size_t size;          /* sizeof(struct handoff_options): older callers keep working */
	const char *data_dir; /* the directory that only one process may write; the lock
	                       * <data_dir>/.handoff.lock guards it. NULL: none */
	const char *build_id; /* for people, 64 bytes at most; NULL: the GNU build-id */
	const char *version;  /* for people, 64 bytes at most; NULL: none */
	void (*log)(void *arg, int level, const char *line); /* NULL: silent */
	void *log_arg;
	unsigned flags;       /* HANDOFF_NONBLOCK, HANDOFF_CONNECTIONS */
	unsigned reserved;    /* 0 */
};

/*
 * A state of the data, as said by who seals it and by who has opened it. The
 * supervisor commits only if both agree in all of it.
 */
struct handoff_state {
	size_t size;                 /* sizeof(struct handoff_state) */
	const uint64_t *revisions;   /* one for each shard, e.g. records applied */
	unsigned shards;             /* 0 to HANDOFF_MAX_SHARDS */
	int healthy;                 /* handoff_ready only: 0 refuses the handoff */
	const char *reason;          /* unhealthy: why, a sentence; else NULL */
	unsigned char fingerprint[HANDOFF_FINGERPRINT]; /* all 0: none */
};

/* What handoff_begin tells. Pointers stay valid until the next call that takes
 * the handle. */
struct handoff_sealed {
	size_t size;                /* set by the caller: sizeof(struct handoff_sealed). A smaller
	                             * one, of an older header, gets what fits */
	int sealed;                 /* 1: an incumbent sealed this state and has stopped;
	                             * 0: nobody sealed (cold start, standalone, or the
	                             * incumbent died): recover as after a crash */
	const uint64_t *revisions;  /* if sealed */
	unsigned shards;
	unsigned char fingerprint[HANDOFF_FINGERPRINT];
	uint64_t epoch;             /* grows by one with every owner of the lock; 0 without lock */
	/* of a successor: why the upgrade, as it was given, or NULL; valid until handoff_ready */
	const char *reason, *trace_parent, *correlation_id, *tenant;
};

enum handoff_event_type {
	HANDOFF_BEGIN = 1, /* NONBLOCK only: call handoff_begin again, it answers now, or connections
	                    * wait for handoff_receive */
	HANDOFF_DECIDED,   /* NONBLOCK only: call handoff_ready again, it answers now */
	HANDOFF_DRAIN,     /* stop accepting, finish and answer what was read, fsync;
	                    * then handoff_drained(). New connections wait in the kernel. If it fails:
	                    * the same, and handoff_seal_failed() at the seal */
	HANDOFF_SEAL,      /* close the writer, fsync; then handoff_sealed() or
	                    * handoff_seal_failed(). Afterwards serve nothing, not even reads */
	HANDOFF_RESUME,    /* the attempt is over, you serve again. If event.reopen: you had
	                    * sealed, so read the state from disk again, trust no memory.
	                    * Then handoff_resumed(), then serve */
	HANDOFF_COMMIT,    /* the successor serves: finish, exit with 0 */
	HANDOFF_FINAL,     /* you are the incumbent for good: the on-disk format may change. It may
	                    * come again, after a lost supervisor or an attempt that came to nothing */
	HANDOFF_LOST       /* the supervisor went away: for your log. Keep serving; the
	                    * library reconnects by itself */
};

struct handoff_event {
	size_t size;              /* set by the caller: sizeof(struct handoff_event); a smaller one,
	                           * of an older header, gets what fits */
	int type;                 /* enum handoff_event_type */
	int reopen;               /* RESUME: 1 if the state must be read from disk again */
	unsigned deadline_ms;     /* DRAIN, SEAL: time left for it; 0: none */
	const char *reason;       /* DRAIN: why the upgrade; RESUME: why it ended; or NULL.
	                           * Valid until the next call that takes the handle */
	const char *trace_parent, *correlation_id, *tenant; /* DRAIN: as given, or NULL */
	int can_give;             /* DRAIN: 1 if the successor takes connections: what is in flight
	                           * may move in the SEAL and need not be finished */
};

/*
 * A live connection on its way from incumbent to successor. Its state is the daemon's own
 * business, and both versions must know its form: what was read and not yet applied (a part
 * of a request too), the replies that are not written yet, what belongs to the session.
 */
struct handoff_connection {
	size_t size;        /* sizeof(struct handoff_connection) */
	int fd;             /* a stream socket: tcp or unix */
	const char *name;   /* what kind of connection it is, UTF-8, 64 bytes at most; NULL: "" */
	const void *state;
	size_t state_size;
};

/*
 * Finds out the role, starts the library's thread (all signals blocked, 64 KiB
 * of stack; asleep while nothing happens). Call it after dropping privileges
 * and after daemonising options are off: a supervised daemon stays in the
 * foreground. Reads and keeps what the supervisor passed in the environment
 * (HANDOFF_FD, HANDOFF_DIR, ...). Never blocks.
 * Errors: -EINVAL options; -ENOENT, -ENOTDIR, -EACCES data_dir; -EREMOTE data_dir
 * is on NFS, whose flock has other rules (flock(2)); -EBADF the supervisor's
 * descriptor is not one; -ENOMEM, -EMFILE, -EAGAIN (thread).
 * On failure *ret is untouched and the sentence was given to options.log.
 */
int handoff_open(const struct handoff_options *options, handoff **ret);

/* The role found by handoff_open (enum handoff_role). Never blocks. */
int handoff_role(const handoff *h);

/*
 * Says Hello ("warm-up done"), then waits until it is this process's turn and
 * takes the lock. Blocks, for a successor until the incumbent has sealed; with
 * HANDOFF_NONBLOCK returns -EAGAIN, and again after HANDOFF_BEGIN; with
 * HANDOFF_CONNECTIONS also when handoff_receive has something (HANDOFF_BEGIN tells of that, too).
 * From here on the state may be opened for real, but until handoff_ready has
 * returned 0 nothing may be written into data_dir.
 * Errors: -ECANCELED the attempt ended (handoff_error() says why, a protocol version
 * that is not spoken too): exit; -EBUSY another process holds the lock (standalone),
 * handoff_error() names its pid; -EACCES, -EIO, -EISDIR, -ELOOP, -EMFILE, -ENOSPC the lock file:
 * exit. What it needs is opened before Hello: a lack of descriptors costs no pause.
 */
int handoff_begin(handoff *h, struct handoff_sealed *ret);

/*
 * Gives out a listening socket by its name in the supervisor's configuration,
 * after handoff_begin; with HANDOFF_NONBLOCK also while that returns -EAGAIN, as soon as it has
 * come: many are then registered before the pause, not in it. It is the caller's then: close() it, never shutdown();
 * O_NONBLOCK is set and shared with every process that has it: leave it, and accept
 * only what poll or epoll has announced, since another process may not have left it; take
 * it out of epoll by EPOLL_CTL_DEL. Errors: -ENOENT no such name (standalone:
 * always): bind it yourself.
 */
int handoff_take_fd(handoff *h, const char *name);

/* The name of listener i (0, 1, ...), NULL behind the last. Owned by h. */
const char *handoff_fd_name(const handoff *h, unsigned i);

/*
 * Says what was opened, and waits for the decision. 0: serve now (Status was
 * sent: you are the writer). -ECANCELED: another serves; close all, exit.
 * Blocks; with HANDOFF_NONBLOCK -EAGAIN, and again after HANDOFF_DECIDED (the
 * state may be NULL then). Never blocks longer than the supervisor's deadline.
 */
int handoff_ready(handoff *h, const struct handoff_state *state);

/* One descriptor for poll/epoll/libevent: readable exactly when there is
 * something to do. The handle's, valid until handoff_close; only for reading. */
int handoff_fd(const handoff *h);

/* Reads what has come and keeps the library's timers. Never blocks. Returns
 * how many events wait for handoff_next. Errors: -ENOMEM. */
int handoff_dispatch(handoff *h);

/* Takes the next event: 1 and *ret, or 0 if there is none. Never blocks. */
int handoff_next(handoff *h, struct handoff_event *ret);

/* The same for a thread that blocks: 1 an event; 0 after timeout_ms (-1:
 * never); -EINTR a signal. */
int handoff_wait(handoff *h, int timeout_ms, struct handoff_event *ret);

/*
 * The answers. Each must follow its event; none blocks. -ECANCELED: the attempt
 * has ended meanwhile, HANDOFF_RESUME follows or has followed: go on with
 * handoff_next. -EINVAL: not asked for.
 */
int handoff_drained(handoff *h, unsigned connections_open);
int handoff_seal_progress(handoff *h, unsigned shards_done, unsigned shards_total,
                          uint64_t last_revision);
/* Releases the lock, then says so: write nothing from here on. */
int handoff_sealed(handoff *h, const struct handoff_state *state);
/* The seal failed, this process still is the writer: said first, then serve again
 * (no HANDOFF_RESUME follows). */
int handoff_seal_failed(handoff *h, const char *reason);
/* State reopened: says "I serve again"; serve after it. */
int handoff_resumed(handoff *h);

/*
 * The incumbent gives its connections away, between HANDOFF_SEAL and handoff_sealed, while it
 * still is the writer. Before: what the replies in the state acknowledge is written (write(2)), and
 * the connection is out of every epoll set (EPOLL_CTL_DEL: its description lives on in the
 * successor). After: it is not touched any more, that is read, written or shut down, and no flag of
 * it is changed (O_NONBLOCK is shared); fd stays the caller's, and open until handoff_gone
 * has been asked at the end.
 * Returns the connection's number, 0, 1, ...; -ENOTSUP the successor takes none; -E2BIG its state
 * is too much (connection-state in the configuration); -EFBIG its state is more than RLIMIT_FSIZE,
 * which holds for memory, too; -EMFILE, -ENOMEM: this one stays.
 * -EPIPE the successor or the channel failed, -ECANCELED the attempt has ended: end with
 * handoff_seal_failed, and then serve all of them again.
 * May block for the successor's answers; ends with the attempt, and takes what comes
 * from the supervisor meanwhile (handoff_next has it).
 */
int handoff_give(handoff *h, const struct handoff_connection *c);

/*
 * All were given: waits for the last answers, as handoff_give does. Returns how many of
 * those given the successor did not want. Finish what stays, these and others: apply and answer what
 * was read whole, for after handoff_sealed it may only be written. handoff_sealed refuses
 * (-EINVAL) to seal without this call if anything was given. -EPIPE, -ECANCELED as above.
 */
int handoff_give_end(handoff *h);

/*
 * 1: connection i is the successor's: close(fd), never shutdown(), and forget its state. 0: it is
 * this process's. Asked after handoff_give_end: whether it was taken; asked after HANDOFF_RESUME,
 * or after handoff_seal_failed: whether the successor may have touched it. Then those with 0
 * go on here, as they were when they were given, once handoff_resumed or
 * handoff_seal_failed has returned. Ask before handoff_resumed, and right after
 * handoff_seal_failed, before the next call that reads (handoff_dispatch, handoff_wait): the next
 * attempt, which such a call may bring, forgets this one. Never blocks.
 */
int handoff_gone(const handoff *h, unsigned i);

/*
 * The successor takes the incumbent's connections: whenever handoff_begin returns -EAGAIN (with
 * HANDOFF_CONNECTIONS it does so without HANDOFF_NONBLOCK too, if one is there), call this until
 * it returns 0, and then handoff_begin again. 1: *ret is the next one; fd is the caller's; name and
 * state are the library's and valid until the next call. Nothing of it is touched before
 * handoff_ready has returned 0. Then first comes what was carried along: apply what was read,
 * write what was not written; no event tells of it. To end such a connection shutdown() and
 * close() it: as long as the incumbent has a copy close() alone sends nothing. If the attempt ends
 * (-ECANCELED) close() them, or just exit.
 * Never blocks. Errors: -ECANCELED, as handoff_begin. -EINVAL: without ret->size.
 */
int handoff_receive(handoff *h, struct handoff_connection *ret);

/* The one that handoff_receive gave out last is not wanted (its state is not understood, there
 * are too many): closes its fd, and it stays with the incumbent. */
int handoff_reject(handoff *h, int fd);

/* The epoch of the lock that this process took last; 0: none. */
uint64_t handoff_epoch(const handoff *h);

/* In a forked worker that goes on without exec: closes the library's
 * descriptors in it, unlocks nothing (LOCK_UN in a child would free the
 * parent's lock, flock(2)), frees nothing of the parent's. The handle is dead in
 * the child. Async-signal-safe. */
void handoff_after_fork(handoff *h);

/* Ends the thread, releases the lock, closes all that was not given out. Takes
 * NULL, returns NULL. May wait some milliseconds for the thread. */
handoff *handoff_close(handoff *h);

/* A sentence about the last failure of a call with this handle; "" if none.
 * Owned by h, valid until the next call. */
const char *handoff_error(const handoff *h);

#ifdef __cplusplus
}
#endif
#endif
