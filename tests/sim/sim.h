/*
 * sim: a seeded simulator. The real machines S (struct s) and O, N (struct d) run
 * against each other over a simulated kernel in virtual time: streams with EOF and
 * RST, flock, death and its verification, a journal. Faults strike between any two
 * visible actions; the eight guarantees of README.md are checked all the time and
 * when the world has come to rest. A run is a function of its seed.
 *
 * kernel.c   streams, flock, processes, journal      (what the kernel does)
 * super.c    carries out S's actions                 (what handoffd does)
 * daemon.c   carries out a daemon's actions          (what the library and a daemon do)
 * fault.c    what goes wrong, and when
 * check.c    the guarantees
 * cover.c    what was seen: rows, histogram
 * facts.c    what a machine knew, in bits; under which a row is taken
 * mutant.c   rules broken on purpose
 * rules.c    for each rule of the tables: that its loss is noticed
 * world.c    one run
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/daemon.h"
#include "proto/msg.h"
#include "proto/super.h"

#define SHARDS    3u
#define MAX_PROC  24u
#define MAX_HAND  12u       /* attempts in a run; 0 is none */
#define MAX_FAULT 8u
#define PIPE_SIZE 4096u
#define NEVER     UINT64_MAX
#define MS        1000u     /* virtual time is in us, the machines' in ms */

/* ---- kernel ---- */
struct pipe_ { unsigned at, n; uint8_t b[PIPE_SIZE]; };

struct conn {               /* a daemon's stream to S */
	bool s_open, d_open;
	bool accepted;          /* else it lies in the accept queue of S */
	bool s_reset, d_reset;  /* the other end was closed with data unread: ECONNRESET, not EOF */
	bool s_eof;             /* S has read the end */
	bool has_hello;         /* a Hello of a reconnect waits for its sockets */
	/* ghosts: it is not the daemon's first; what S has sent over it */
	bool again, told /* Resume or Commit */, final;
	struct msg hello;
	struct pipe_ to_s, to_d;
};

struct state { uint64_t rev[SHARDS], print; };

enum life { FREE, ALIVE, DYING, DEAD };

struct proc {
	const struct world *world;   /* for its trace */
	unsigned pid;
	enum life life;
	unsigned hand, ver;     /* attempt it was started for (0: cold start), its binary */
	struct d d;
	struct conn conn;
	bool gated;             /* waits for S to write its pid down */
	bool tied;              /* PDEATHSIG */
	bool stopped, termed, dropped;
	bool listens;           /* has the listening sockets */
	bool writer, unacked;
	bool bad;               /* a binary that never gets ready */
	struct state mem;
	struct d_out q;
	unsigned qi;
	uint64_t epoch, sealed_epoch;   /* of the lock's record: its own; the one that Begin names */
	enum d_event answer, app_event;
	uint64_t busy, app_at, beat_at, poll_at, connect_at, write_at, exit_at, bad_at;
	/* the kernel's: */
	uint64_t cont_at, eof_at, unlock_at, reap_at, helper_until, pdeath_at;
};

struct journal {
	unsigned phase, outcome, hand, inc, succ, cur, new;
	bool served;
};
#define JSIZE 512u

struct sup {
	bool alive, stopped, booted, ended, listens, reading_o, writing;
	unsigned broken;        /* the channel of this pid was ended by S */
	bool o_told, n_told;    /* GONE was given */
	struct s s;
	struct s_out q;
	unsigned qi;
	enum s_event answer;
	unsigned o, n;          /* pids; 0: none */
	unsigned hand, cur, new;
	bool new_bad;
	struct journal j;       /* as S believes that it is */
	uint64_t jseq;
	unsigned jslot;         /* the one to write next */
	unsigned kill_pid;      /* at kill_n_at */
	uint64_t unbound_at;    /* a ghost: the last bind(2) that failed */
	uint64_t busy, beat_at, kill_n_at, cont_at, restart_at;
};

/* ---- faults ---- */
#define FAULTS(X) \
	X(KILL_S, "kill S") X(KILL_O, "kill O") X(KILL_N, "kill N") \
	X(HANG_S, "hang S") X(HANG_O, "hang O") X(HANG_N, "hang N") \
	X(HELPER, "kill O, helper stays") \
	X(BREAK_O, "break O's channel") X(BREAK_N, "break N's channel") \
	X(OP_ABORT, "operator aborts") X(OP_STOP, "stop") X(OP_RESTART, "restart daemon") \
	X(JOURNAL, "journal write fails") X(LOST, "journal lost") X(SPAWN, "spawn fails") X(LOCK, "lock fails") \
	X(SEAL, "seal fails") X(UNHEALTHY, "unhealthy") X(STALE, "stale open") \
	X(BAD, "bad binary") X(SLOW, "hook over its time")
enum fault_kind {
#define X(id, name) F_##id,
	FAULTS(X)
#undef X
	F_COUNT
};
extern const char *const fault_name[F_COUNT];

enum trigger { AT_STEP, AT_S, AT_O, AT_N };
struct fault {
	enum fault_kind kind;
	enum trigger trigger;
	unsigned state;         /* of S, of the daemon */
	unsigned count;         /* that many steps (in that state) */
	uint64_t length;        /* hang: us */
	bool after;             /* waits until the fault before it has struck */
	bool done;
};

struct mutant {
	const char *name, *what;
	void (*s)(struct s_row *t);
	void (*d)(struct d_row *t);
	unsigned flags;
};
enum {   /* drivers that break a rule */
	M_IDS = 1, M_MEMORY = 2, M_NO_REV = 4, M_AT_EOF = 8, M_BOTH_NEW = 16, M_OLD_N = 32,
	M_UNREAD_N = 64, M_NEWFMT = 128, M_WARM_TRUST = 256, M_OLDREV = 512, M_UNREAD_O = 1024,
	M_QUEUE = 2048, M_STRANGER = 4096, M_EPOCH = 8192,
};
extern const struct mutant mutants[];
extern const struct s_row *sim_s_table;   /* the law, or a mutant's copy */
extern const struct d_row *sim_d_table;
extern unsigned sim_flags;

struct world {
	uint64_t seed, rnd, now, steps;
	bool verbose, failed;
	char violation[256];
	uint32_t timer[TIMER_COUNT];
	bool tight;             /* timers of milliseconds: each fires early and late */
	bool fast;              /* hooks and turns take well under every timer */
	bool pdeath;            /* daemons are tied to S */
	bool clean;             /* the last upgrade: no fault */
	bool hasty;             /* the operator asks again at once, in a turn with other events */
	struct sup sup;
	struct proc proc[MAX_PROC];
	unsigned nproc, last_pid;
	unsigned lock;          /* pid of the flock's holder; 0: free */
	uint64_t epoch;         /* of its record */
	struct state disk;
	uint64_t acked[SHARDS];
	unsigned fmt;
	uint8_t slot[2][JSIZE], jnew[JSIZE];
	unsigned jlen;
	struct journal j;       /* the truth on disk */
	unsigned kept;          /* the current binary, in a record of its own */
	/* the operator */
	unsigned upgrades;      /* still to be asked for */
	uint64_t op_at, last_fault;
	bool cold;              /* the run begins with a cold start */
	bool want_abort, want_stop, want_restart;
	/* faults */
	struct fault fault[MAX_FAULT];
	unsigned nfault;
	bool arm[F_COUNT];      /* strikes at the next occasion */
	unsigned seen;          /* bits of fault kinds that have struck */
	unsigned strikes;
	/* ghosts */
	unsigned nhand, cold_starts;
	unsigned left;          /* pid that had the lock when S ended, and had not come to register */
	uint64_t struck_at, hang_end, begun_at[MAX_HAND + 1];
	bool decided[MAX_HAND + 1], said[MAX_HAND + 1], served[MAX_HAND + 1], sealed[MAX_HAND + 1];
	bool lost[MAX_HAND + 1];      /* with the journal, or with S before it was there: nobody can report it */
	bool unheard;           /* O has ended its channel itself */
	bool prepared[MAX_HAND + 1];  /* O was sent Prepare */
	bool begun[MAX_HAND + 1], badbin[MAX_HAND + 1];
	enum s_outcome out[MAX_HAND + 1];
	struct { unsigned kind, phase; } open[MAX_FAULT * 4];   /* histogram: outcome to come */
	unsigned nopen;
};

/* ---- mutant.c ---- */
const struct mutant *mutant_find(const char *name);
void mutant_become(const struct mutant *m);        /* NULL: the law again */
bool mutant_without(const char *rule);             /* its rows removed; false: there are none */
void mutant_without_s_row(unsigned i);             /* one row of the table removed */
void mutant_without_d_row(unsigned i);

/* ---- rules.c ---- */
/* Each row (only: of this rule) removed alone: noticed within so many runs, or in rows.def with
 * what makes up for it. How many are neither. */
unsigned rows_check(struct world *w, uint64_t runs, const char *only);
/* Each rule's mutant and how it was caught, as rules.def has it. runs 0: at the seeds that are
 * written down there; else the first seed that does, up to runs. How many were not caught. */
unsigned rules_check(struct world *w, uint64_t runs);

/* ---- world.c ---- */
uint64_t rnd(struct world *w, uint64_t below);     /* 0 to below - 1 */
bool chance(struct world *w, unsigned one_in);
uint64_t latency(struct world *w);                 /* us until somebody runs again */
void say(const struct world *w, const char *who, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void sim_run(struct world *w, uint64_t seed, bool verbose);
struct hid hid_of(unsigned hand);
unsigned hand_of(const struct hid *id);
const char *pname(unsigned pid);

/* ---- kernel.c ---- */
struct proc *proc_find(struct world *w, unsigned pid);
struct proc *proc_new(struct world *w, unsigned hand, unsigned ver);
void proc_kill(struct world *w, struct proc *p, bool helper);
uint64_t proc_kernel_next(const struct proc *p);
void proc_kernel_step(struct world *w, struct proc *p);
bool send_msg(struct world *w, struct proc *p, bool to_s, const struct msg *m);
/* One frame out of a pipe into *m (borrows the pipe's bytes). False: empty. */
bool recv_msg(struct world *w, struct pipe_ *q, struct msg *m);
bool pipe_empty(const struct pipe_ *q);
void conn_close_d(struct proc *p);
void conn_close_s(struct proc *p);
void sup_die(struct world *w);
void journal_begin(struct world *w, const struct journal *j);
bool journal_end(struct world *w, bool fail);
void journal_lose(struct world *w);
void journal_load(struct world *w, struct journal *ret, uint64_t *ret_seq, unsigned *ret_next);

/* ---- super.c ---- */
void sup_start(struct world *w);
uint64_t sup_next(struct world *w);
void sup_step(struct world *w);

/* ---- daemon.c ---- */
uint64_t daemon_next(struct world *w, struct proc *p);
void daemon_step(struct world *w, struct proc *p);
bool daemon_serves(const struct proc *p);
void daemon_start(struct world *w, struct proc *p);

/* ---- fault.c ---- */
void fault_plan(struct world *w);
void fault_check(struct world *w);                 /* after each step */
bool fault_strikes(struct world *w, enum fault_kind k);   /* armed: takes it */
bool fault_may_lose(const struct world *w);        /* the journal */
void fault_note(struct world *w, enum fault_kind k);
unsigned fault_phase(const struct world *w);

/* ---- check.c ---- */
void violated(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_writer_starts(struct world *w, struct proc *p);
void check_write(struct world *w, struct proc *p);
void check_leaves(struct world *w, struct proc *p);
void check_outcome(struct world *w, unsigned hand, enum s_outcome o);
void check_super_knows(struct world *w, enum s_state was, enum s_event e, const struct msg *m);
void check_super_acts(struct world *w, enum s_action a);
void check_bind(struct world *w);
void check_daemon_obeys(struct world *w, struct proc *p, enum d_state was, enum d_event e);
void check_end(struct world *w);
bool world_settled(struct world *w);

/* ---- facts.c ---- */
unsigned facts_s(const struct s *s);
void facts_print_s(const struct s_row *r);         /* under which facts it may be taken */
void facts_print_d(const struct d_row *r);

/* ---- cover.c ---- */
#define PHASES (S_STATE_COUNT + 1)                 /* the last: S is down */
extern bool sim_trace;                             /* each step, for tests/model/replay.py */
void cover_life(char role, unsigned pid);          /* a machine begins there */
void cover_print_s(const struct s_row *r);         /* STATE EVENT GUARD NEXT ACTIONS */
void cover_print_d(const struct d_row *r);
void cover_s_row(void *arg, const struct s_row *r);
void cover_d_row(void *arg, const struct d_row *r);
void cover_cell(unsigned kind, unsigned phase, unsigned outcome);
void cover_outcome(enum s_outcome o);
unsigned cover_histogram(bool print, bool require);   /* how many reachable cells are empty */
unsigned cover_rows(bool print, bool require);        /* how many rows were never taken */
void cover_dump(uint64_t min);                        /* cover.def as these runs would have it */
uint64_t cover_handoffs(void);

#endif
