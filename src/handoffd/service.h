/*
 * service: the supervisor of one service. Carries out what the machine of
 * proto/super.h asks for; owns the daemons' peers, the listening sockets, the journal.
 *
 *   service.c   what happens becomes events of the machine; time
 *   boot.c      the beginning and the end of a supervisor's life
 *   upgrade.c   what can be refused before anything is begun
 *   served.c    whether somebody serves
 *   act.c       the machine's actions, one function each
 *   greet.c     Hello, the sockets' way to a daemon and back
 *   register.c  daemon.sock: a daemon that outlived a supervisor
 *   lockwait.c  who has the lock that a daemon waits for
 *   unit.c      what systemd is told
 *   callers.c   control.sock: who is there, and how much of it
 *   ops.c       what operators ask for; ops_tell.c what they are told, ops_state.c what they see
 *   history.c   what is remembered of each handoff
 *   candidate.c what an upgrade would start, before it begins
 *   copier.c    copies of executables, sums of files
 *   reexec.c    another binary of handoffd itself
 */
#ifndef HANDOFF_SERVICE_H
#define HANDOFF_SERVICE_H

#include <event2/event.h>
#include <stdbool.h>

#include "handoffd/conf.h"
#include "handoffd/conf_kept.h"
#include "handoffd/copier.h"
#include "handoffd/disruption.h"
#include "handoffd/generation.h"
#include "handoffd/history.h"
#include "handoffd/keep.h"
#include "handoffd/listen.h"
#include "handoffd/peer.h"
#include "handoffd/planned.h"
#include "handoffd/reexec.h"
#include "handoffd/spawn.h"
#include "handoffd/store.h"
#include "handoffd/unit.h"
#include "proto/super.h"

struct caller;
struct callers;
struct ops;
struct reg;

/* What an operator may say of an attempt; strings "" if not. */
struct attempt {
	struct hid id;
	bool plan, planned;            /* planned: the candidate got as far as Hello */
	bool back;                     /* to the previous executable */
	bool told;                     /* its result, to those who wait */
	char binary[4096];             /* "" as configured */
	char reason[1025], trace_parent[257], correlation_id[257], tenant[257];
	uid_t uid;                     /* who asked */
	uint32_t deadline_ms, drain_ms;  /* 0: as configured */
	uint32_t max_stall_ms;         /* 0: any */
	bool pinned;                   /* only an executable with this SHA-256: */
	struct fprint pin;
	bool if_changed;               /* only if the files or the configuration are others */
	struct sums sums;              /* of what it would start; all 0: not known */
	bool compared, changed;        /* ... and whether these are others than what runs */
	uint64_t asked_us, released_us, prepared_us, serving_us;   /* monotonic; 0 not yet */
	bool sealed_late;              /* what is read before the clock: a seal that took all the time there was */
	char why[1200];                /* why it ended, with details; "" */
};

/* What was said with it, in a message that has keys for it. */
#define SET_CONTEXT(m, name, a) do { \
	if ((a)->reason[0]) MSG_SET(m, name, reason, SPAN((a)->reason)); \
	if ((a)->trace_parent[0]) MSG_SET(m, name, trace_parent, SPAN((a)->trace_parent)); \
	if ((a)->correlation_id[0]) MSG_SET(m, name, correlation_id, SPAN((a)->correlation_id)); \
	if ((a)->tenant[0]) MSG_SET(m, name, tenant, SPAN((a)->tenant)); \
} while (0)

/* What an upgrade would start, while the copier looks at it. */
struct candidate {
	struct attempt attempt;
	struct conf *conf;
	struct exe exe;
};

/* Somebody else has the lock that a daemon waits for. */
struct lockwait {
	struct event *timer;
	char text[700];                /* who; "": nobody does */
	pid_t told;                    /* whom the log has named; 0: nobody */
};

#define PENDING_MAX 32

/* What this supervisor has seen, for those who watch many of them. */
struct totals {
	uint64_t since_ms;             /* wall: when it was started */
	uint64_t outcomes[OUTCOME_COUNT], cold_starts;
	uint64_t pause_us, total_us;   /* of the last handoff; 0: not known */
	uint64_t moved, stayed;        /* connections, in handoffs that were committed */
	bool handed;                   /* there was one: */
	uint64_t stall_us;
	struct disruption last;
};

struct service {
	struct event_base *base;
	struct peer_owner owner;       /* this service, as its peers know it */
	struct s s;
	struct conf *conf, *new_conf;  /* of the incumbent; of the attempt under way */
	char conf_error[1200];         /* why the file could not be used when this life began; "" */
	uint32_t conf_sum;             /* of the text that is kept */
	struct exe exe, new_exe;
	struct exe old_exe;            /* the previous one, while it has no copy */
	bool exe_served;               /* exe has served: a cold start may rely on it */
	bool asked;                    /* somebody asked for the cold start: a restart, or after a stop */
	bool back;                     /* ... and for the previous executable */
	bool superseded;               /* the start under way was ended for one that was asked for */
	struct keep keep;
	struct copier copier;
	struct candidate *candidate;   /* NULL: none is looked at */
	struct reexec reexec;
	struct listeners listeners;
	struct store store;
	struct journal journal;
	struct history history;
	struct log_about about;        /* what the log is about while a handoff is under way */
	char about_id[37];
	struct disruption disruption;  /* of the attempt under way, or of the last one */
	struct peer *o, *n, *grave;    /* grave: freed when the callback under way is over */
	char runtime_dir[4096], state_dir[4096];
	char *lock_dir;                /* of a service without data-dir */
	struct attempt attempt;
	int transfer;                  /* the incumbent's end of the transfer channel; -1: none */
	bool awake, in_vain;           /* behind what was sent in a handoff: stays_awake() */
	bool reported;                 /* the outcome waits for the cold start that follows it */
	bool stuck;                    /* who waits for the handoff knows that it waits for a daemon that hangs */
	struct event *timer, *child, *term, *interrupt, *hangup;
	uint64_t next_beat;            /* ms; 0: no heartbeats now */
	enum s_event pending[PENDING_MAX];  /* what an action brought, in order */
	unsigned npending;
	bool running, ended;
	bool ending;                   /* the daemon has ended; what it left behind is on its way */
	uint64_t stop_by;              /* ms; 0: no daemon was told to end */
	enum s_state shown;            /* the last state that was logged */
	uint64_t shown_at_us;
	struct planned *planned;       /* what a plan has found out; NULL */
	char no[500];                  /* service_refuses */
	char cold_error[600];          /* why the last cold start came to nothing */
	struct lockwait lockwait;
	struct generations *generations;
	struct ops *ops;
	struct reg *reg;
	struct unit unit;
	struct totals totals;
};

/*
 * Reads the journal and begins: adopts what runs, or starts the daemon. *s comes zeroed (most of it is
 * never written to, and has no pages then). carried: goes on where an
 * earlier life of this process has stopped (reexec.h); NULL: there was none. conf is taken
 * over. 0, or -errno with one line in err; -ENOEXEC: nobody runs, and there is nothing to
 * start: command is wrong, and not only out of reach for the moment. The loop is the caller's: event_base_dispatch.
 */
int service_start(struct service *s, struct event_base *base, struct conf *conf, const struct carried *carried,
                  char *err, size_t err_size);
/* The kernel says that pid has the lock on the data, and it is of the daemon's user. False: not, or nobody
 * can say. */
bool service_owns_lock(const struct service *s, pid_t pid, uint64_t *ret_start);
/* Who does, as far as a glance shows: for a line of the log. 0: none, or nobody can say. */
pid_t service_lock_holder(const struct service *s);
/* Where that lock lies. */
const char *service_lock_dir(const struct service *s);
/* In COLD: pid, which no journal named, is the incumbent if it has the lock. False: it is not, or
 * nobody can say. */
bool service_find(struct service *s, pid_t pid);
/* What could not be read or written of the executables is, now. 0, or -errno and a sentence. */
int service_record(struct service *s, char *err, size_t size);
/* c is what the daemon runs with from now on. */
void service_keep_conf(struct service *s, struct conf *c);
/* SIGTERM, SIGINT and SIGHUP stay held behind it. */
void service_end(struct service *s);
/* Those wait in the kernel while they are held; service_start ends that. */
void service_hold_signals(bool hold);

/* An event for the machine, and all that follows from it. */
void service_event(struct service *s, enum s_event e, const struct msg *m);
/* Carries out what a step asked for, and all that follows from it. */
void service_run(struct service *s, struct s_out *out);
/* Notes an event that an action brought; it comes after the actions under way. */
void service_pend(struct service *s, enum s_event e);
/* The end of a callback: buries the dead, arms the timer. */
void service_settle(struct service *s);
/* What its peers tell goes to s. */
void service_own(struct service *s, struct event_base *base);
/* p has said that it serves, in a Status or in its Hello. */
void service_heard_serving(struct service *s, const struct peer *p);
/* The channel of p has ended, or was ended here (error -EBADMSG). */
void service_lost(struct service *s, struct peer *p, int error);
/* Nothing is left of the daemons that have ended: a stop goes on. */
void service_generations(void *s);
/* Collects the ends of children, and of what they left behind (subreaper). */
void service_reap(struct service *s);
/* Forgets a peer once the callback under way is over. */
void service_bury(struct service *s, struct peer **p);
void service_free_grave(struct service *s);
/* A row that the machine has taken (s.trace). */
void service_on_row(void *s, const struct s_row *row);
/* row blames the successor, whom the seal has left no time. */
bool service_late_seal(const struct service *s, const struct s_row *row);
/* Waits for what comes next, and answers it: one turn of the loop. 0, or the loop has failed. */
int service_turn(struct service *s);
/* The timer's callback. */
void service_on_timer(evutil_socket_t fd, short what, void *s);

/*
 * Begins an upgrade or a plan. 0, or the exit code of a refusal (1, 2, 4) with its sentence
 * in err: nothing was begun.
 */
int service_upgrade(struct service *s, const struct attempt *a, char *err, size_t err_size);
/* The same, once all that can be refused is known; takes c and exe over, also if it fails. */
int service_begin(struct service *s, const struct attempt *a, struct conf *c, struct exe *exe,
                  char *err, size_t err_size);
/* What the last handoffs could not meet, the next one is not expected to: 0, or 1 and a sentence in err. */
int service_check_stall(struct service *s, const struct attempt *a, char *err, size_t err_size);
/*
 * Reads the configuration again and starts the daemon anew, with what lies at its binary's path;
 * also while cold starts fail. back: with the previous executable, while nobody serves who could
 * hand over to it. 0, or the exit code of a refusal, as above.
 */
int service_restart(struct service *s, bool back, char *err, size_t err_size);
/* What an attempt or a start back to e, the previous executable, has for --binary; "": the
 * configured command is it. */
void service_binary_back(const struct service *s, const struct conf *c, const struct exe *e, char *ret,
                         size_t size);
/* Why an upgrade would be refused now, until it is asked again; NULL: it would not. */
const char *service_refuses(struct service *s);
/* How handoffctl finds it, whatever the configuration calls it. */
const char *service_name(const struct service *s);

/* served.c */
/* The daemon is dead, or has never served. */
bool service_nobody_serves(const struct service *s);
/* A daemon lives that has been told to serve; or is between two such in a handoff, and the pause is no longer
 * than was accepted. */
bool service_serves(const struct service *s);
/* A handoff waits for an incumbent that hangs, and nobody serves: what gets out of that, in words. */
bool service_stuck(const struct service *s, char *ret, size_t size);
/* ... and tells it, once. */
void service_look_stuck(struct service *s);

/*
 * candidate.c. Has what a would start hashed, and copied if it is pinned; takes c and exe
 * over, also if it fails. 0: the attempt begins, or is refused, when that is done. Else the exit
 * code of a refusal, as service_upgrade().
 */
int candidate_look(struct service *s, const struct attempt *a, struct conf *c, struct exe *exe,
                   char *err, size_t err_size);
/* It is done: sums, or NULL and why not. */
void candidate_looked(struct service *s, const struct sums *sums, const char *why);
/* The attempt does not begin: why, or NULL: as service_refuses() says. */
void candidate_drop(struct service *s, const char *why);

/* act.c. Returns the event that answers the action, or S_NOW. */
enum s_event service_act(struct service *s, enum s_action a);

/* greet.c */
/* Bytes of state that live connections may carry. */
static inline uint64_t transfer_limit(const struct conf *c) { return (uint64_t)c->connection_state << 20; }
void greet_hello(struct service *s, struct peer *p, const struct msg *m);
void greet_sockets_ack(struct service *s, struct peer *p, const struct msg *m);
void greet_sockets(struct service *s, struct peer *p, const struct msg *m);
/* Says no to a peer: why, for its log, and closes. */
void greet_refuse(struct service *s, struct peer *p, const char *why);

/* register.c */
/* fd: the socket of an earlier life (consumed); -1: none. */
int register_open(struct service *s, int fd, char *err, size_t err_size);
int register_socket(const struct service *s);
/* Who may connect to it. */
void register_owner(struct service *s, uid_t uid);
/* Lets in the daemons that wait at daemon.sock now: what they have to say counts. */
void register_drain(struct service *s);
/* Who has the lock, and was not known, waits to be let in. */
bool register_has_found(const struct service *s);
/* Lets it in, once what was being started beside it has ended. */
void register_settle(struct service *s);
void register_close(struct service *s);

/* lockwait.c. 0 or -errno. */
int lockwait_open(struct service *s);
void lockwait_settle(struct service *s);
void lockwait_close(struct service *s);
/* For a line of the log: lockfile_glance(). > 0: it has the lock. */
pid_t lockwait_holder(const struct service *s);

/* ops.c, ops_tell.c */
/* fd as above. */
int ops_open(struct service *s, int fd, char *err, size_t err_size);
struct callers *ops_callers(const struct service *s);
void ops_close(struct service *s);
/* A new phase of the attempt, for those who wait for it. */
void ops_phase(struct service *s, const char *phase, const char *text);
/* Something for those who watch only; text may be NULL. */
void ops_watchers(struct service *s, const char *phase, const char *text);
/* How far the phase is: what text counts is set in an op_event, too, for programs. */
void ops_progress(struct service *s, const char *phase, const char *text, const struct msg *counts, bool watch);
/* The end of the attempt: exit code and message, as in handoffctl(1), EXIT STATUS. */
void ops_result(struct service *s, int code, const char *outcome, const char *message);
/* An attempt that had to wait for its beginning has none. */
void ops_refused(struct service *s, const struct hid *id, int code, const char *outcome, const char *message);
/* The end of a plan. */
void ops_planned(struct service *s);
/* The daemon serves after a restart that was asked for, or could not be started. */
void ops_restarted(struct service *s, bool serves);
/* ... or is not needed: a daemon that was not known has the lock. */
void ops_found(struct service *s);
/* Who has asked for an outcome that waited for a cold start is told: by now it is known. */
void ops_settle(struct service *s);
/* What was noted is sent now: there may be no turn of the loop behind this one. */
void ops_tell(struct service *s);
/* Another handoffd goes on here (code 0), or this one. */
void ops_reexeced(struct service *s, int code, const char *message);

/* ops_state.c */
/* Sends the State. */
void ops_state(struct service *s, struct caller *o);
/* What an operator sees as the state; while a supervisor waits for a daemon that serves and has not
 * registered, that. */
const char *ops_state_name(const struct service *s);

#endif
