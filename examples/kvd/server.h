/*
 * server: what the files of the running daemon share. One thread, one
 * libevent loop; a turn is one round of it (see store_turn.c).
 */
#ifndef KVD_SERVER_H
#define KVD_SERVER_H

#include "compact.h"
#include "options.h"
#include "resp.h"
#include "store.h"

#include <event2/event.h>
#include <handoff.h>

#define MAX_LISTENERS 64

enum mode {
	MODE_START,    /* not serving yet */
	MODE_SERVE,
	MODE_DRAIN,    /* accepts nobody, answers what was read */
	MODE_PAUSE,    /* drained or sealed: reads nothing, writes only rest of replies */
	MODE_LEAVE     /* ends as soon as the rest of the replies is out */
};

struct server;

struct conn {
	struct conn *next, **prev;
	struct conn *turn_next;
	struct server *sv;
	struct event *readable, *writable;
	int fd;
	int reading, writing;  /* which events are armed */
	int in_turn, closing;
	int taken;             /* from an incumbent, which may still have a copy of fd */
	unsigned ticket;       /* given to a successor under this number */
	int stalled;           /* has whole commands that wait until replies are sent */
	uint64_t id, since_ms, commands;
	uint64_t last_wall_ms; /* of the last command */
	struct buf in, out;
	size_t out_at;         /* bytes of out that are sent */
	struct resp resp;
	size_t turn_in, turn_out; /* both as they were before this turn */
	int turn_closing;
	char name[64], peer[64];
};

struct listener {
	struct event *event;
	struct server *sv;
	int fd;
	char *unlink_path;     /* standalone: the path that this process bound */
};

struct server {
	const struct options *opt;
	struct store store;
	struct compaction compaction;
	struct syncing syncing;
	struct event_base *base;
	struct event *tick, *expiry, *wake, *handoff_event, *deadline, *accept_again;
	struct event *term[2];
	int wake_fd;
	int tick_armed;
	int compact_ok;        /* this process is the writer for good */
	unsigned compact_next; /* BGREWRITEAOF: the next shard; store.shards: none */
	uint64_t expiry_armed; /* wall ms, 0: not */
	int ending, exit_code;
	int seal_failed;       /* --fault=seal:fail-once has been told */
	int drain_failed;      /* --fault=drain:fail: what was drained may be on no disk */

	handoff *h;
	int role;
	enum mode mode;
	int can_give;          /* the successor takes connections: a drain waits for none */
	enum fault_lie take_lie;
	int drain_turns;       /* rounds of the loop since the drain began */
	int drain_over;        /* its time is up */
	uint64_t mode_since_ms;

	struct listener listener[MAX_LISTENERS];
	unsigned listeners;
	struct conn *conns, *turn;
	struct conn *given;    /* the successor's, unless the attempt ends: not touched */
	unsigned nconns, taken;
	uint64_t next_id, total_conns, total_commands, refused_conns;
	uint64_t started_ms;
	int write_errors;      /* consecutive turns that could not be written */
};

/* net.c: connections and listeners. Replies leave in net_end_turn only. */
int net_listen(struct server *sv, int fd, char *unlink_path); /* takes both over */
int net_bind(struct server *sv, const char *address);         /* "HOST:PORT", "unix:PATH" */
void net_accept(struct server *sv, int on);
void net_resume(struct server *sv);           /* reads from all connections again */
void net_end_turn(struct server *sv);
unsigned net_unsent(const struct server *sv); /* connections that wait for replies */
unsigned net_newcomers(const struct server *sv);
void net_close_all(struct server *sv);
struct conn *net_adopt(struct server *sv, int fd);       /* not armed, fd not touched */
void net_disarm(struct conn *c);              /* out of epoll */
void net_relink(struct conn *c, struct conn **list);
void net_close(struct conn *c);               /* close(2) and no more */
void net_finish(struct server *sv);           /* what was read whole is applied and answered */

/* move.c: connections that go to a successor, or come from an incumbent. */
int move_give(struct server *sv);             /* 0; -EPIPE, -ECANCELED: the seal has to fail */
void move_back(struct server *sv);            /* the attempt is over: those that are ours still */
unsigned move_take(struct server *sv);        /* all that have come; how many */

/* cmd.c: one command, its reply into c->out. */
void cmd_run(struct conn *c);

/* server.c */
void server_init(struct server *sv, const struct options *opt);
void server_attach(struct server *sv);        /* to the handoff and to signals */
int server_run(struct server *sv);            /* until it is to end: the exit code */
void server_serve(struct server *sv);         /* accepts and reads, for the first time or again */
void server_drain(struct server *sv, unsigned deadline_ms);
void server_leave(struct server *sv, int exit_code); /* the replies out, then the end */
void server_end(struct server *sv, int exit_code);   /* after this turn */
void server_free(struct server *sv);

/* life.c: the handoff's side. */
int life_start(struct server *sv);            /* 0: serve; 1: exit with 0 */
void life_dispatch(struct server *sv);
void life_drained(struct server *sv);
void life_end(struct server *sv);

#endif
