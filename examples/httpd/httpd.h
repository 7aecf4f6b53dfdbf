/*
 * httpd: an HTTP/1.1 server whose binary can be replaced under its clients. It has no data, so
 * there is no writer and nothing to seal: what is left of a handoff are the connections. One
 * thread, one libevent loop, a bufferevent for each connection, and http-parser's parser.
 *
 * To read in this order: life.c (the handoff), move.c (what a connection carries along), http.c
 * (how a parser goes on in another process); net.c and reply.c are a server like any other.
 */
#ifndef HTTPD_H
#define HTTPD_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <handoff.h>
#include <http_parser.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_LISTENERS 16
#define IN_HIGH  (64u << 10)  /* unread requests above which nothing more is read */
#define OUT_HIGH (256u << 10) /* unsent replies above which nothing more is made ... */
#define OUT_LOW  (64u << 10)  /* ... until so few are left */
#define MAX_HEAD (16u << 10)  /* bytes of a request's head, and of the lines between chunks */

/*
 * What a connection is in the middle of, beside what lies in its two buffers. All of it moves: in
 * this order, which is that of the state's form (see move.c).
 */
#define SESSION(F)                                                                              \
	F(closing)   /* 1: no request is read any more, it ends when the replies are out */     \
	F(method)    /* the request: as http-parser numbers them */                             \
	F(minor)     /* ... 1: HTTP/1.1 */                                                      \
	F(last)      /* ... its reply is the last one */                                        \
	F(route)     /* ... who answers it: a row of reply.c's table */                         \
	F(number)    /* ... the number at the end of its path */                                \
	F(event)     /* ... the last event that it knows of */                                  \
	F(continued) /* ... it was told to go on with its body */                               \
	F(body)      /* 1: the parser is within a body, the input begins there */               \
	F(chunked)   /* ... which comes in chunks */                                            \
	F(left)      /* ... bytes to come: of the body, or of this chunk */                     \
	F(count)     /* ... bytes that have come */                                             \
	F(sum)       /* ... and their Adler-32 */                                               \
	F(replying)  /* 1: a reply is under way */                                              \
	F(at)        /* ... so many bytes or events of it are made */                           \
	F(due)       /* ... and when the next one is to come, ms of the monotonic clock */

struct session {
#define FIELD(name) uint64_t name;
	SESSION(FIELD)
#undef FIELD
};

struct text {
	char p[128];
	size_t n;
	int cut; /* there was more */
};

struct server;

struct conn {
	struct conn *next, **prev;
	struct server *sv;
	struct bufferevent *bev; /* never closes fd */
	struct event *timer;     /* the next event of a stream */
	int fd;
	int eof;                 /* the client sends no more */
	int lingering;           /* all was said: until the client has read it, and closes */
	unsigned ticket;         /* given to a successor under this number */
	struct session s;

	/* http.c's; made anew, not moved */
	http_parser parser;
	size_t parsed;           /* bytes of the input that the parser has seen */
	size_t settled;          /* ... of which so many will not be needed again */
	uint64_t left;           /* as in the session, but of the parser's place */
	const char *piece;       /* what it is reading */
	struct text url, field, value;
	int in_value, expects;
};

struct listener {
	struct event *event;
	struct server *sv;
	int fd;
};

enum fault { FAULT_NONE, FAULT_UNHEALTHY, FAULT_DIE, FAULT_HANG };

struct options {
	const char *version;
	const char *listen[MAX_LISTENERS];
	unsigned listens, max_connections, idle_s, leave_s;
	enum fault fault;
};

struct server {
	const struct options *opt;
	handoff *h;
	int role;
	int can_give;           /* the successor takes connections */
	int leaving;            /* each reply is the last one on its connection */
	struct event_base *base;
	struct event *handoff_event, *accept_again, *leave_timer, *term[2];
	struct listener listener[MAX_LISTENERS];
	unsigned listeners;
	struct conn *conns;
	struct conn *given;     /* the successor's, unless the attempt ends: not touched */
	unsigned nconns;        /* of both lists */
};

/* net.c: listeners and connections. */
int net_init(struct server *sv);
int net_listen(struct server *sv, int fd);            /* takes fd over */
int net_bind(struct server *sv, const char *address); /* without a supervisor */
void net_accept(struct server *sv, int on);
void net_leave(struct server *sv, int at_once);       /* finishes, then the loop ends */
void net_free(struct server *sv);
struct conn *conn_adopt(struct server *sv, int fd);   /* asleep; NULL: no memory */
void conn_sleep(struct conn *c);                      /* out of epoll, no timer */
void conn_wake(struct conn *c);                       /* goes on, with what is here first */
void conn_step(struct conn *c);                       /* does what can be done; may end it */
void conn_relink(struct conn *c, struct conn **list);
void conn_free(struct conn *c);                       /* close(2) and no more */

/* http.c: bytes to requests. */
void http_init(struct conn *c);
int http_parse(struct conn *c);  /* 1: a request is whole; 0: not yet; else a refusal's status */
int http_resume(struct conn *c); /* the parser, after a move; -1: it cannot be */
size_t piece_at(struct evbuffer *b, size_t at, const char **p); /* what lies there in a row */

/* reply.c: requests to bytes. */
void route_find(struct conn *c, const char *path, size_t n); /* sets route and number */
int route_known(uint64_t route, int replying);
void reply_begin(struct conn *c);
int reply_more(struct conn *c);               /* 1: that was all of it; 0: later */
void reply_error(struct conn *c, int status); /* and no request is read any more */
void reply_on_time(evutil_socket_t fd, short what, void *arg);

/* move.c: connections that go to a successor, or come from an incumbent. */
int move_give(struct server *sv);  /* 0; -EPIPE, -ECANCELED: the seal has to fail */
void move_back(struct server *sv); /* the attempt is over: those that are this process's still */
void move_wake(struct server *sv); /* those that are asleep */
void move_take(struct server *sv); /* all that have come */
void move_encode(const struct conn *c, struct evbuffer *state);
int move_decode(struct conn *c, const void *state, size_t n); /* 0, -EBADMSG */

/* life.c: the handoff's side. */
int life_start(struct server *sv); /* 0: serve; 1: exit with 0 */
void life_dispatch(struct server *sv);

/* main.c */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint64_t mono_ms(void);

#endif
