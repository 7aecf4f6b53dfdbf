/*
 * daemon: the daemon's state machine, first as successor N, then as incumbent O, as
 * a table of transitions. Pure, like super.h. The library drives it.
 */
#ifndef HANDOFF_PROTO_DAEMON_H
#define HANDOFF_PROTO_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/msg.h"

/* state, name; the order is the `phase` of Hello and never changes */
#define D_STATES(X) \
	X(START,    "start")     /* warming up, read-only */ \
	X(WBEGIN,   "waiting")   /* Hello sent */ \
	X(LOCK,     "locking")   /* Begin(sealed) came: tries the flock once */ \
	X(LOCK_DEAD,"locking")   /* Begin(nothing sealed): a helper of the dead may hold it */ \
	X(OPEN,     "opening")   /* has the flock, opens the state */ \
	X(READY,    "ready")     /* Ready sent */ \
	X(SERVE,    "serving")   /* the writer */ \
	X(DRAINING, "draining") \
	X(DRAINED,  "drained") \
	X(UNDRAIN,  "resuming")  /* told the daemon to serve again; it never gave up the flock */ \
	X(SEALING,  "sealing") \
	X(UNSEAL,   "sealing")   /* the seal is no longer wanted, the daemon still works on it */ \
	X(SEALED,   "sealed")    /* no flock, serves nothing */ \
	X(RELOCK,   "relocking") /* told to resume: waits for the flock */ \
	X(REOPEN,   "reopening") /* has it again, reopens from disk */ \
	X(EXIT,     "exit")

enum d_state {
#define X(id, name) D_##id,
	D_STATES(X)
#undef X
	D_STATE_COUNT
};

#define D_EVENTS(X) \
	X(NONE) \
	X(APP_BEGIN)     /* warm-up done */ \
	X(BEGIN_SEALED) X(BEGIN_NOTHING) \
	X(LOCKED) X(LOCK_HELD) X(LOCK_FAILED) \
	X(APP_READY) X(COMMIT) X(FINAL) X(ABORT) \
	X(PREPARE) X(SEAL_REQUEST) X(RESUME) \
	X(APP_DRAINED) X(APP_SEALED) X(APP_SEAL_FAILED) X(APP_RESUMED) \
	X(EOF)           /* S's end is closed, and what it had sent was read */ \
	X(CONNECTED)     /* to a supervisor that came back */ \
	X(TIMEOUT)       /* own deadline, or S silent for self-fence */

enum d_event {
#define X(id) D_E_##id,
	D_EVENTS(X)
#undef X
	D_EVENT_COUNT
};

#define D_ACTIONS(X) \
	X(NONE) \
	X(SEND_HELLO)      /* with phase, lock and sockets when it is a reconnect */ \
	X(TRY_LOCK)        /* * LOCKED, LOCK_HELD or LOCK_FAILED */ \
	X(UNLOCK) \
	X(SEND_READY) X(SEND_STATUS) X(SEND_DRAINED) X(SEND_SEALED) X(SEND_SEAL_FAILED) \
	X(SEND_REFUSED)    /* SealFailed to a request that comes while serving */ \
	X(UNTIE)           /* no longer dies with S: clears PDEATHSIG */ \
	X(TELL_BEGIN) X(TELL_DECIDED) X(TELL_DRAIN) X(TELL_SEAL) X(TELL_RESUME) X(TELL_REOPEN) \
	X(TELL_COMMIT) X(TELL_FINAL) X(TELL_LOST) \
	X(POLL)            /* the machine's own: tries the flock until it has it */ \
	X(RECONNECT) \
	X(DROP)            /* closes everything, the flock with it: the daemon has to exit */

enum d_action {
#define X(id) D_A_##id,
	D_ACTIONS(X)
#undef X
	D_ACTION_COUNT
};

struct d_row {
	const char *rule;
	enum d_state state;
	enum d_event event;
	enum d_action action[4];
	enum d_state next;
};

extern const struct d_row d_table[];     /* rule NULL at the end */
extern const char *const d_state_name[D_STATE_COUNT];   /* for people */
extern const char *const d_state_id[D_STATE_COUNT];
extern const char *const d_event_name[D_EVENT_COUNT];
extern const char *const d_action_name[D_ACTION_COUNT];

#define D_OUT_MAX 16
struct d_out { unsigned n; enum d_action action[D_OUT_MAX]; };

struct d {
	const struct d_row *table;
	enum d_state state;
	bool connected;
	bool polling;            /* SEALED: tries the flock by itself */
	struct hid id;           /* of the attempt it takes part in */
	uint32_t deadline_ms, commit_ms, heartbeat_ms, fence_ms;   /* from HelloAck, Prepare */
	uint64_t deadline;       /* ms; UINT64_MAX: none */
	uint64_t heard;          /* S, ms */
	uint64_t rows_taken;
	void (*trace)(void *arg, const struct d_row *row);
	void *trace_arg;
};

void d_init(struct d *d, const struct d_row *table);

/* One event; out is filled from its start. What answers TRY_LOCK comes before all else. */
void d_step(struct d *d, enum d_event e, uint64_t now_ms, struct d_out *out);

/*
 * The event that a message of S means; D_E_NONE: none (stale id: dropped; heartbeat).
 * Notes that S was heard; HelloAck and Prepare set the timers and the id.
 */
enum d_event d_event_of(struct d *d, const struct msg *m, uint64_t now_ms);

uint64_t d_next(const struct d *d);                       /* UINT64_MAX: never */
enum d_event d_tick(const struct d *d, uint64_t now_ms);  /* read the socket first */

/* The flock has to be tried again every D_LOCK_POLL_MS: feed LOCKED or LOCK_HELD. */
bool d_wants_lock(const struct d *d);
#define D_LOCK_POLL_MS 20u

/* Heartbeats are due to S. */
bool d_beats(const struct d *d);
/* A daemon in this phase (of Hello) serves. */
bool d_phase_serves(uint64_t phase);
/* N before its Commit: ends with S. */
bool d_is_successor(const struct d *d);

#endif
