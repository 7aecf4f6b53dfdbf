/*
 * moves: a seeded simulator of live connections on their way from O to N. The real machines of
 * proto/move (struct give, struct take) speak over a simulated channel, as the codec encodes it;
 * S, O, N, their clients and what may befall them are those of tests/model/connections.pml, whose
 * names they bear. What the model has of one or two connections, these have of many: batches, a
 * window, states beside their batch, a limit.
 *
 * A connection is two streams of bytes, and a byte's place in its stream says which request or
 * reply it belongs to (BYTES of each). So a stream is a number, and each process has its own idea
 * of it. A run is a function of its seed.
 *
 * moves.c        the command line, the scheduler, the clients, S, faults
 * moves_old.c    O
 * moves_new.c    N
 * moves_conn.c   the kernel's part; what who owns a connection does with it
 * moves_check.c  the guarantees; the rules that a mutant breaks
 */
#ifndef MOVES_H
#define MOVES_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/move.h"

#define BYTES     2u      /* of a request, of a reply */
#define MAX_CONN  150u    /* more than two batches */
#define MAX_QUEUE (MAX_CONN + 2)
#define FRAME_MAX 2048u
#define MAX_FAULT 3u

enum who { O, N, NOBODY };

/* What O has done with a connection. */
enum given { KEEP, SENT, GONE, STAY };

enum o_state { O_DEAD, O_SERVE, O_DRAIN, O_DRAINED, O_MOVING, O_SEALING, O_SEALSND, O_SEALED,
	O_RELOCK, O_REOPEN, O_AGAIN /* it serves behind a seal: for faults only */ };
enum n_state { N_DEAD, N_WARM, N_LOCK, N_OPEN, N_READY, N_COMM, N_TELL, N_SERVE };
enum sup { S_DOWN, S_PREP, S_WDRAINED, S_SEALREQ, S_WSEAL, S_BEGIN, S_WREADY, S_JCOMMIT, S_COMMITN,
	S_WSERVING, S_PROB, S_COMMITO, S_WOEXIT, S_ABORT, S_DRAINN, S_RESUMEO, S_WRES, S_RCOMM, S_DONE };
enum word { PREPARE, SEALREQ, RESUME, COMMIT, BEGIN, BEGIN_UNSEALED, DRAINED, SEALOK, SEALFAIL,
	READY, STATUS };
enum fault { KILL_O, KILL_N, KILL_S, BREAK, FAULTS };
enum trigger { AT_ANY, AT_O, AT_N, AT_S, TRIGGERS };   /* when that one is in a state */
enum outcome { UNDECIDED, COMMITTED, ABORTED, ROLLED_BACK, BOTH_DEAD, OUTCOMES };

/* One process's idea of a connection: read, applied, written. */
struct view { unsigned rd, ap, wo; };

struct conn {
	unsigned requests;             /* that the client will send */
	unsigned sent, con, out;       /* bytes: sent, taken from the socket, come to the client */
	unsigned appm, appd;           /* requests: in the writer's memory, on disk */
	bool ref[2], in_channel;       /* who refers to it, descriptors on their way too */
	bool fin, odd;                 /* the client has seen the end; before all was answered */
	bool own[2];                   /* that process reads, applies, writes */
	struct view view[2];
	enum given given;
	bool n_has;
	bool large;                    /* its state lies beside its batch */
	unsigned came;                 /* read, when N got it */
};

/* A message on the transfer channel, and what came with it. */
struct moved {
	uint8_t frame[FRAME_MAX];
	unsigned len, n, conn[MOVE_BATCH];
	struct view view[MOVE_BATCH];  /* that lie beside it */
};
struct moves { struct moved m[MAX_QUEUE]; unsigned at, n; };
struct words { enum word w[16]; unsigned at, n; };

struct world {
	uint64_t seed, rnd;
	bool verbose, failed;
	char violation[160];
	unsigned nconn, nfault;
	unsigned hurry;                /* a timer expires in one of so many steps */
	unsigned slow, how;            /* who acts only in one of so many of its turns */
	struct { enum fault kind; enum trigger at; unsigned state; bool done; } fault[MAX_FAULT];
	struct conn conn[MAX_CONN];
	struct words s2o, o2s, s2n, n2s;
	bool eof[2];                   /* S has died; its words can still be read */
	bool broken;                   /* the transfer channel: an end is closed */
	enum who lock;
	/* O */
	enum o_state o;
	struct give give;
	unsigned next, nbatch, nfds, norder;
	unsigned batch[MOVE_BATCH], order[MAX_CONN];
	bool owes;
	/* N */
	enum n_state n;
	struct take take;
	bool unsealed, late_taking;
	/* S */
	enum sup s;
	bool committed, may, nothing_sealed;
	enum outcome outcome;
	/* ghosts */
	bool o_crashed, n_crashed, took;
	struct moves x, y;             /* of O, of N; the last: what is not in them is not cleared */
};

/* ---- the rules that can be broken: connections.pml's M_NAME, the seed of a run that notices */
#define MUTANTS(X) \
	X(NO_INPUT, 21, "a state without the part of a request that was read") \
	X(NO_OUTPUT, 27, "a state without the replies that were not written") \
	X(NO_FLUSH, 569, "sent before the effects are on disk") \
	X(NO_EPOLL_DEL, 21, "O reads what it has sent") \
	X(BREAK_STAYS, 100, "the channel breaks: what is not answered is O's") \
	X(NO_END, 14568, "sealed without an answer to the End") \
	X(REJ_FORGET, 108, "a rejected one counts as moved") \
	X(EXIT_OWING, 108, "O exits with a reply half written") \
	X(O_SHUTDOWN, 21, "O shuts its copies down when it exits") \
	X(N_EARLY, 23, "N touches them before Commit") \
	X(TAKING_LATE, 5664, "N touches them before it has said Taking") \
	X(TAKING_FIRST, 358, "Taking before Status") \
	X(NO_KICK, 27, "N waits for an event, though input came along") \
	X(REJ_SHUTDOWN, 84, "N rejects by shutdown") \
	X(CLOSE_ONLY, 163, "N ends a connection by close only") \
	X(UNREAD_X, 2594, "O is dead: N leaves the rest of the channel unread") \
	X(STALE, 98, "O goes on with its copies after N has taken them") \
	X(CLOSE_ALL, 23, "O closes what it had sent at any abort") \
	X(TOUCH_FIRST, 153224, "O touches them before it has told S") \
	X(READY_FIRST, 147764, "S believes Ready while O's Status lies unread") \
	/* of the machines, which the model has not */ \
	X(KEPT_SHIFTED, 21, "an answer's bits are those of the next connection") \
	X(FIRST_FORGOTTEN, 191, "an answer counts from the first connection, not from its batch's") \
	X(OUT_OF_ORDER, 27, "states in another order than their descriptors")
enum mutant {
#define X(name, seed, what) M_##name,
	MUTANTS(X)
#undef X
	LAW
};
extern enum mutant moves_mutant;
static inline bool breaks(enum mutant m) { return moves_mutant == m; }

/* ---- moves.c */
unsigned rnd(struct world *w, unsigned below);
void say(const struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void put(struct words *q, enum word word);
bool get(struct words *q, enum word *ret);
static inline bool lies(const struct words *q, enum word word)
{
	return q->n && q->w[q->at] == word;
}
/* timers: what needs none can come to nothing, so they expire, too. True: something was done. */
bool sup_step(struct world *w, bool timers);

/* ---- moves_conn.c */
typedef bool step_fn(struct world *w);
bool any(struct world *w, step_fn *const *f, unsigned n);      /* one of them that can be taken */
#define ANY(w, list) any(w, list, sizeof(list) / sizeof(*(list)))
void last_reference(struct world *w, unsigned c);   /* was it? Then the client sees the end */
void release(struct world *w, enum who p, unsigned c);
struct moved *push(struct moves *q);
struct moved *pop(struct moves *q);
void encode(struct world *w, struct moved *to, const struct msg *m);
bool decode(struct world *w, const struct moved *from, struct msg *ret);
void channel_breaks(struct world *w);
void unlock(struct world *w, enum who p);
void recover(struct world *w);
void flush(struct world *w);
void old_dies(struct world *w);
void new_dies(struct world *w);
bool touch(struct world *w, enum who p, unsigned c);

/* ---- moves_old.c, moves_new.c */
bool old_step(struct world *w, bool timers);
bool new_step(struct world *w, bool timers);

/* ---- moves_check.c */
void violated(struct world *w, const char *what, unsigned c);
void check_touch(struct world *w, enum who p, unsigned c);
void check_recovered(struct world *w);
void check_exit(struct world *w);
void check_end(struct world *w);
bool cases_print(bool require);        /* what was reached; false: not all, and that is required */

#endif
