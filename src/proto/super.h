/*
 * super: the supervisor's state machine S, as a table of transitions. Pure: no
 * descriptor, no clock, no allocation; events and time in, actions out.
 *
 * A row of s_table is a rule: "in this state, at this event, if this guard holds:
 * these actions, then that state". Its `rule` names the row of the protocol's law
 * (tests/model/rules.md). The first row that fits is taken; if none fits the event
 * is dropped. Rows with the event S_NOW are taken without an event, as soon as
 * their guard holds.
 */
#ifndef HANDOFF_PROTO_SUPER_H
#define HANDOFF_PROTO_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"
#include "proto/timers.h"

/* state, name in logs and status, timer that bounds it (TIMER_COUNT: none), since when */
#define S_STATES(X) \
	X(IDLE,       "idle",         TIMER_COUNT,     ENTRY) \
	X(SPAWNING,   "starting",     TIMER_COUNT,     ENTRY) \
	X(NAMING,     "starting",     TIMER_COUNT,     ENTRY) /* STARTED, with N's pid, is being journaled */ \
	X(WARM,       "warm",         TIMER_START,     ENTRY) \
	X(AWAIT_O,    "warm",         TIMER_DEAD,      ENTRY) /* N is warm, O's channel is lost */ \
	X(DRAIN,      "drain",        TIMER_DRAIN,     PREPARE) \
	X(SEAL,       "seal",         TIMER_DEADLINE,  PREPARE) \
	X(READY,      "ready",        TIMER_DEADLINE,  PREPARE) \
	X(CHECK,      "ready",        TIMER_DEADLINE,  PREPARE) /* what lies in O's socket is being read */ \
	X(DECIDING,   "commit",       TIMER_COUNT,     ENTRY) /* COMMITTED is being journaled */ \
	X(TAKE,       "take",         TIMER_COMMIT,    ENTRY) \
	X(PROBATION,  "probation",    TIMER_PROBATION, ENTRY) \
	X(TELL_O,     "exit",         TIMER_DEAD,      ENTRY) /* waits for O to be connected */ \
	X(OEXIT,      "exit",         TIMER_EXIT,      ENTRY) \
	X(ABORT,      "abort",        TIMER_COUNT,     ENTRY) /* N is being killed */ \
	X(BACK,       "abort",        TIMER_DEAD,      ENTRY) /* waits for O to be connected */ \
	X(RESUMING,   "resume",       TIMER_START,     ENTRY) \
	X(COLD,       "cold",         TIMER_COUNT,     BACKOFF) \
	X(COLD_STOP,  "cold",         TIMER_COUNT,     ENTRY) /* a stop: who waits to register is being looked at */ \
	X(COLD_SPAWN, "cold",         TIMER_COUNT,     ENTRY) \
	X(COLD_NAME,  "cold",         TIMER_COUNT,     ENTRY) \
	X(COLD_WARM,  "cold",         TIMER_START,     ENTRY) \
	X(COLD_READY, "cold",         TIMER_START,     ENTRY) \
	X(COLD_ENDING,"cold",         TIMER_COUNT,     ENTRY) /* what was being started is ended: it is not heard */ \
	X(COLD_TAKE,  "cold",         TIMER_START,     ENTRY) \
	X(R_IDLE,     "adopt",        TIMER_DEAD,      ENTRY) /* restarted, journal idle */ \
	X(R_COMMITTED,"adopt",        TIMER_DEAD,      ENTRY) /* restarted, journal committed */ \
	X(STOPPING,   "stopping",     TIMER_STOP,      ENTRY) \
	X(RESTARTING, "restarting",   TIMER_STOP,      ENTRY) \
	X(STOPPED,    "stopped",      TIMER_COUNT,     ENTRY)

enum s_since { SINCE_ENTRY, SINCE_PREPARE, SINCE_BACKOFF };

enum s_state {
#define X(id, name, timer, since) S_##id,
	S_STATES(X)
#undef X
	S_STATE_COUNT
};

#define S_EVENTS(X) \
	X(NOW) \
	X(START) X(JOURNALED) X(JOURNAL_FAILED) X(SPAWNED) X(SPAWN_FAILED) \
	X(N_HELLO)       /* N is warm: Hello came and the last socket was acknowledged */ \
	X(N_READY) X(N_STATUS) X(N_SERVING) /* registered again */ \
	X(N_GONE)        /* death verified, and what it had sent was read */ \
	X(N_LOST)        /* S itself has ended its channel: a frame that could not be read */ \
	X(N_SILENT) \
	X(O_DRAINED) X(O_SEALED) X(O_SEAL_FAILED) \
	X(O_GIVE_FAILED) /* the same, and N is to blame: it did not take what it was given */ \
	X(O_STATUS) \
	X(O_SERVING)     /* registered again, with its sockets: it serves */ \
	X(O_STANDBY)     /* registered again: drained, sealed, or on its way back */ \
	X(O_LOST)        /* its channel is at its end; the process need not be */ \
	X(O_BROKEN)      /* S itself has ended it: what O says now is not heard */ \
	X(O_GONE)        /* as N_GONE */ \
	X(O_SILENT) \
	X(O_FOUND)       /* nobody knew of it: it comes to register, and has the flock */ \
	X(O_READ)        /* what lay in O's socket, and who waited to register, has been delivered */ \
	X(LISTENING) X(NOT_LISTENING) \
	X(TIMEOUT) X(ABORT) X(STOP) X(RESTART) \
	X(REEXEC)        /* another binary of S is there, and has said that it can go on */

enum s_event {
#define X(id) S_E_##id,
	S_EVENTS(X)
#undef X
	S_EVENT_COUNT
};
#define S_NOW S_E_NOW

#define S_GUARDS(X) \
	X(ALWAYS) \
	X(O_CONNECTED) X(O_GONE) X(O_ALIVE) X(O_AWAY) X(N_GONE) \
	X(READY_OK)      /* healthy, and what was sealed, if anything was */ \
	X(NO_PROBATION) \
	X(UNTOUCHED)     /* O is alive and was never sent Prepare: it serves */ \
	X(SERVED)        /* the journal says that the incumbent has served */ \
	X(STOP)          /* a stop was asked for */ \
	X(STANDBY)       /* O has registered, and did not serve */ \
	X(STARTABLE)     /* O is connected, does not stand by, and no stop was asked for */

enum s_guard {
#define X(id) S_G_##id,
	S_GUARDS(X)
#undef X
	S_GUARD_COUNT
};

/* What the driver has to do, in this order. Those marked * are answered by an event. */
#define S_ACTIONS(X) \
	X(NONE) \
	X(BEGIN_ATTEMPT)     /* bookkeeping of a new handoff */ \
	X(SPAWN)             /* * SPAWNED or SPAWN_FAILED: N, at its gate */ \
	X(JOURNAL_STARTED)   /* * the attempt and N's pid: JOURNALED or JOURNAL_FAILED */ \
	X(RELEASE)           /* N goes through its gate */ \
	X(PREPARE) X(SEAL_REQUEST) X(BEGIN_SEALED) X(BEGIN_NOTHING) \
	X(READ_O)            /* * deliver all that lies in O's socket, and who waits to register; then O_READ */ \
	X(JOURNAL_COMMITTED) /* * */ \
	X(COMMIT_N) X(COMMIT_O) X(FINAL) \
	X(KILL_N)            /* SIGKILL by its pidfd; N_GONE follows when it is verified */ \
	X(KILL_O) X(TERM_O) \
	X(RESUME_O) \
	X(MAY)               /* the machine's own: N may have served */ \
	X(PROMOTE)           /* N is the incumbent from here on */ \
	X(OUTCOME)           /* the machine's own: sets s->outcome */ \
	X(JOURNAL_OUTCOME)   /* idle again; a failure is repaired later */ \
	X(REPORT) \
	X(LISTEN)            /* * bind what is not in hand: LISTENING or NOT_LISTENING */ \
	X(SPAWN_COLD)        /* * the current binary, as N */ \
	X(JOURNAL_COLD)      /* * incumbent's pid, not serving yet */ \
	X(JOURNAL_SERVES)    /* it serves; a failure is repaired later */ \
	X(JOURNAL_FOUND)     /* the incumbent is who was found; a failure is repaired later */ \
	X(COLD_FAILED)       /* for the log: one attempt came to nothing */ \
	X(END)               /* the daemon has ended: the supervisor may */ \
	X(REEXEC)            /* exec: another life of S goes on (s_go_on); this one does if it fails */

enum s_action {
#define X(id) S_A_##id,
	S_ACTIONS(X)
#undef X
	S_ACTION_COUNT
};

enum s_outcome { OUTCOME_NONE, OUTCOME_COMMITTED, OUTCOME_ABORTED, OUTCOME_ROLLED_BACK, OUTCOME_COUNT };

struct s_row {
	const char *rule;         /* state and event as the law has them */
	enum s_state state;
	enum s_event event;
	enum s_guard guard;
	enum s_action action[5];
	enum s_state next;
	const char *why;          /* for people: why an attempt ends here */
};

extern const struct s_row s_table[];     /* rule NULL at the end */
extern const struct s_state_desc {
	const char *id, *name;
	enum timer timer;
	enum s_since since;
} s_state_desc[S_STATE_COUNT];
extern const char *const s_event_name[S_EVENT_COUNT];
extern const char *const s_guard_name[S_GUARD_COUNT];
extern const char *const s_action_name[S_ACTION_COUNT];
extern const char *const outcome_name[OUTCOME_COUNT];

#define S_OUT_MAX 24
struct s_out { unsigned n; enum s_action action[S_OUT_MAX]; };

/* S reads a little longer than it told the peers: a reply sent at the deadline is
 * still on the wire. */
#define S_SLACK_MS   250u
#define COLD_STABLE_MS 10000u   /* served that long: the next crash starts again at once */
#define COLD_MAX_MS    10000u

struct s {
	const struct s_row *table;
	enum s_state state;
	uint32_t timer[TIMER_COUNT];
	/* facts, as the driver reported them */
	bool o_present, o_gone, o_connected;
	bool o_standby;          /* it registered, and does not serve */
	bool n_present, n_gone;
	bool served;             /* the incumbent has served (journal) */
	bool may;                /* N may have served */
	bool prepared;           /* O was sent Prepare, or a restart cannot know */
	bool stop;
	enum s_outcome outcome;  /* of the last attempt */
	const char *why;         /* why the last attempt ended; NULL: it did not, or committed */
	struct hid id;           /* of the attempt under way; none in a cold start */
	/* what O sealed */
	bool sealed;
	unsigned nrevisions;
	uint64_t revisions[MAX_SHARDS];
	struct fprint fingerprint;
	uint64_t epoch;          /* of the lock's record then; 0: not known */
	/* time, ms */
	uint64_t entered, prepared_at, deadline, heard_o, heard_n, served_since;
	unsigned cold_tries;
	uint64_t rows_taken;     /* for tests: how many */
	void (*trace)(void *arg, const struct s_row *row);  /* each row taken; may be NULL */
	void *trace_arg;
};

/* What the journal says at a start. */
struct s_boot {
	enum { BOOT_IDLE, BOOT_STARTED, BOOT_COMMITTED } phase;
	bool has_incumbent, served, has_successor;
	struct hid id;
};

void s_init(struct s *s, const struct s_row *table, const uint32_t timer[TIMER_COUNT]);
/* The first step of a supervisor's life. */
void s_boot(struct s *s, const struct s_boot *b, uint64_t now_ms, struct s_out *out);

/*
 * The first step of a life that follows another by exec (S_A_REEXEC): idle, with an incumbent that
 * serves and is connected. Nothing else is carried over but what the back-off of cold starts counts.
 */
void s_go_on(struct s *s, uint64_t served_since, unsigned cold_tries);

/*
 * One event. m: the message of N_READY, O_SEALED; else NULL. id of S_E_START: set
 * s->id (and s->timer) before. out is filled from its start; the driver carries the
 * actions out in order, and only then gives the next event; events that answer an
 * action come before all others.
 */
void s_step(struct s *s, enum s_event e, const struct msg *m, uint64_t now_ms, struct s_out *out);

/* The next moment at which s_tick has something to say; UINT64_MAX: never. */
uint64_t s_next(const struct s *s);
/* The event that time brings at now, or S_NOW for none. Read the sockets first. */
enum s_event s_tick(const struct s *s, uint64_t now_ms);

/*
 * The event that a message means for S. from_n: its sender. S_NOW: none (stale id,
 * heartbeat, progress). Notes that the sender was heard.
 */
enum s_event s_event_of(struct s *s, bool from_n, const struct msg *m, uint64_t now_ms);

/*
 * The same for a Hello on a reconnect, when its sockets have come too. serving: the
 * sender's phase says so (d_phase_serves).
 */
enum s_event s_event_of_hello(struct s *s, bool from_n, const struct msg *m, bool serving, uint64_t now_ms);

/* An operator has mended something: the back-off of cold starts begins anew, the next is due now. */
void s_hurry(struct s *s, uint64_t now_ms);

/* An attempt is under way (from SPAWNING until its report). */
bool s_in_handoff(const struct s *s);
/* Heartbeats are due to O, to N. */
bool s_beats_o(const struct s *s);
bool s_beats_n(const struct s *s);

#endif
