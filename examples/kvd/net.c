#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_CHUNK (64u << 10)
#define OUT_LIMIT  (1u << 20)  /* unsent replies above which nothing more is executed */
#define KEEP_BUFFER (16u << 10) /* an idle connection keeps no larger one */
#define NEWCOMER_MS 250 /* so long a drain waits for a new connection's first request */
#define YOUNG_MS    20  /* and so long for its next ones, or for its end */

static size_t unsent(const struct conn *c)
{
	return c->out.len - c->out_at;
}

static void unlink_conn(struct conn *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
}

static void link_conn(struct conn *c, struct conn **list)
{
	c->next = *list;
	c->prev = list;
	if (c->next)
		c->next->prev = &c->next;
	*list = c;
}

void net_relink(struct conn *c, struct conn **list)
{
	unlink_conn(c);
	link_conn(c, list);
}

void net_close(struct conn *c)
{
	struct server *sv = c->sv;

	unlink_conn(c);
	sv->nconns--;
	event_free(c->readable);
	event_free(c->writable);
	if (c->fd >= 0)
		close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	resp_free(&c->resp);
	free(c);
}

/* The end of a connection. While the incumbent it came from has a copy close(2) alone would
 * send nothing to the client. */
static void conn_end(struct conn *c)
{
	if (c->taken)
		shutdown(c->fd, SHUT_RDWR);
	net_close(c);
}

/* A drain serves them still: closed now, they would look refused to their clients. Most
 * clients of this kind ask once or twice, at once, and leave. */
static int newcomer(const struct conn *c, uint64_t now)
{
	return now - c->since_ms <= (c->commands ? YOUNG_MS : NEWCOMER_MS);
}

static int may_read(const struct conn *c)
{
	enum mode mode = c->sv->mode;

	if (c->closing || unsent(c) >= OUT_LIMIT)
		return 0;
	/* a drain reads once more what is in the kernel already */
	return mode == MODE_SERVE ||
	       (mode == MODE_DRAIN && (c->sv->drain_turns < 2 || newcomer(c, mono_ms())));
}

/* Keeps the armed events as they should be now. A pause does not touch every
 * connection (ten thousand epoll_ctl take milliseconds): only one that has
 * something to say is disarmed, then. */
static void conn_arm(struct conn *c)
{
	int runs = c->sv->mode == MODE_SERVE || c->sv->mode == MODE_DRAIN;
	int want_read = may_read(c), want_write = unsent(c) || (c->stalled && runs);

	if (want_read != c->reading)
		want_read ? event_add(c->readable, NULL) : event_del(c->readable);
	if (want_write != c->writing)
		want_write ? event_add(c->writable, NULL) : event_del(c->writable);
	c->reading = want_read;
	c->writing = want_write;
}

/* -- the turn ------------------------------------------------------------ */

static void enter_turn(struct conn *c)
{
	if (c->in_turn)
		return;
	c->in_turn = 1;
	c->turn_in = resp_done(&c->resp);
	c->turn_out = c->out.len;
	c->turn_closing = c->closing;
	c->turn_next = c->sv->turn;
	c->sv->turn = c;
}

/* Executes what was read whole. Replies stay in c->out until the turn ends. */
static void conn_run(struct conn *c)
{
	int r = c->stalled;

	while (!c->closing && unsent(c) < OUT_LIMIT &&
	       (r = resp_parse(&c->resp, c->in.p, c->in.len)) > 0)
		if (c->resp.argc)
			cmd_run(c);
	c->stalled = !c->closing && r > 0;
	if (r < 0) {
		reply_error(&c->out, "ERR Protocol error: %s", c->resp.error);
		c->closing = 1;
	}
}

/* Sends what it can. -1: the peer is gone. */
static int conn_send(struct conn *c)
{
	ssize_t n;

	while (unsent(c)) {
		n = send(c->fd, c->out.p + c->out_at, unsent(c), MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		c->out_at += (size_t)n;
	}
	c->out.len = c->out_at = 0;
	if (c->out.cap > KEEP_BUFFER)
		buf_free(&c->out);
	return 0;
}

static void conn_end_turn(struct conn *c)
{
	size_t done = resp_done(&c->resp);

	c->in_turn = 0;
	if (done == c->in.len || done > KEEP_BUFFER) {
		buf_drop(&c->in, done);
		resp_shift(&c->resp, done);
	}
	if (!c->in.len && c->in.cap > KEEP_BUFFER)
		buf_free(&c->in);
	if (conn_send(c) < 0 || (c->closing && !unsent(c)))
		conn_end(c);
	else
		conn_arm(c);
}

/* The log did not take the turn: all of it again, with writes refused. */
static void repeat_turn(struct server *sv, int err)
{
	struct conn *c;

	if (err == -ESTALE)
		die("%s", sv->store.error);
	if (sv->write_errors++ == 0)
		log_line("writes are refused: %s", sv->store.error);
	sv->store.refuse = err;
	for (c = sv->turn; c; c = c->turn_next) {
		c->stalled = 0;
		resp_rewind(&c->resp, c->turn_in);
		c->out.len = c->turn_out;
		c->closing = c->turn_closing;
		conn_run(c);
	}
	sv->store.refuse = 0;
}

void net_end_turn(struct server *sv)
{
	struct conn *c, *next;
	int wrote = store_turn_open(&sv->store);
	int r = store_commit(&sv->store);

	if (r < 0)
		repeat_turn(sv, r);
	else if (wrote)
		sv->write_errors = 0;
	c = sv->turn;
	sv->turn = NULL;
	for (; c; c = next) {
		next = c->turn_next;
		conn_end_turn(c);
	}
}

/* -- connections --------------------------------------------------------- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	static char chunk[READ_CHUNK]; /* shared: an idle connection costs no buffer */
	struct conn *c = arg;
	ssize_t n;

	(void)what;
	if (!may_read(c)) {
		conn_arm(c);
		return;
	}
	do
		n = read(fd, chunk, sizeof(chunk));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return;
	enter_turn(c);
	if (n > 0)
		buf_add(&c->in, chunk, (size_t)n);
	conn_run(c);
	if (n <= 0) /* no more will come; what was asked for is still answered */
		c->closing = 1;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd, (void)what;
	if (c->in_turn) /* has replies that wait for the log: they go when the turn ends */
		return;
	if (conn_send(c) < 0) {
		c->closing = 1;
		c->out.len = c->out_at = 0;
	}
	enter_turn(c);
	/* replies had piled up: go on with what was read long ago */
	if (c->sv->mode == MODE_SERVE || c->sv->mode == MODE_DRAIN)
		conn_run(c);
}

static void name_peer(struct conn *c, const struct sockaddr_storage *sa)
{
	const struct sockaddr_in6 *six = (const void *)sa;
	const struct sockaddr_in *four = (const void *)sa;
	char ip[INET6_ADDRSTRLEN];

	if (sa->ss_family == AF_INET)
		snprintf(c->peer, sizeof(c->peer), "%s:%d",
			 inet_ntop(AF_INET, &four->sin_addr, ip, sizeof(ip)),
			 ntohs(four->sin_port));
	else if (sa->ss_family == AF_INET6)
		snprintf(c->peer, sizeof(c->peer), "[%s]:%d",
			 inet_ntop(AF_INET6, &six->sin6_addr, ip, sizeof(ip)),
			 ntohs(six->sin6_port));
	else
		snprintf(c->peer, sizeof(c->peer), "unix");
}

struct conn *net_adopt(struct server *sv, int fd)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	c->sv = sv;
	c->fd = fd;
	resp_init(&c->resp);
	c->readable = event_new(sv->base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(sv->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
	if (!c->readable || !c->writable)
		die("out of memory for a connection");
	link_conn(c, &sv->conns);
	sv->nconns++;
	return c;
}

void net_disarm(struct conn *c)
{
	event_del(c->readable);
	event_del(c->writable);
	c->reading = c->writing = 0;
}

static void conn_new(struct server *sv, int fd, const struct sockaddr_storage *sa)
{
	struct conn *c = net_adopt(sv, fd);
	const int one = 1;

	c->id = ++sv->next_id;
	c->since_ms = mono_ms();
	name_peer(c, sa);
	if (sa->ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	sv->total_conns++;
	/* the request is often there already: saves a round of the loop */
	on_readable(fd, EV_READ, c);
	if (!c->in_turn)
		conn_arm(c);
}

/* -- listeners ----------------------------------------------------------- */

#define ACCEPT_BATCH 64

static void refuse_conn(struct server *sv, int fd)
{
	static const char text[] = "-ERR max number of clients reached\r\n";

	sv->refused_conns++;
	(void)!send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

/* O_NONBLOCK is that of the open file, and so in the hands of each process that shares it: one
 * that clears it must not leave this one asleep in accept4. */
static int waits(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval soon = { 0, 100000 };
	struct listener *l = arg;
	struct sockaddr_storage sa;
	socklen_t n;
	int i, s;

	(void)what;
	for (i = 0; i < ACCEPT_BATCH && waits(fd); i++) {
		n = sizeof(sa);
		memset(&sa, 0, sizeof(sa));
		s = accept4(fd, (struct sockaddr *)&sa, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (s >= 0 && l->sv->nconns >= l->sv->opt->max_clients) {
			refuse_conn(l->sv, s);
		} else if (s >= 0) {
			conn_new(l->sv, s, &sa);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			   errno == ENOMEM) {
			/* the listener stays readable: without a rest the loop would spin */
			log_line("cannot accept: %s; trying again in 100 ms", strerror(errno));
			net_accept(l->sv, 0);
			evtimer_add(l->sv->accept_again, &soon);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			return;
		}
	}
}

int net_listen(struct server *sv, int fd, char *unlink_path)
{
	struct listener *l = &sv->listener[sv->listeners];

	if (sv->listeners == MAX_LISTENERS) {
		close(fd);
		free(unlink_path);
		return -E2BIG;
	}
	l->event = event_new(sv->base, fd, EV_READ | EV_PERSIST, on_accept, l);
	if (!l->event)
		die("out of memory for a listener");
	l->sv = sv;
	l->fd = fd;
	l->unlink_path = unlink_path;
	sv->listeners++;
	return 0;
}

void net_accept(struct server *sv, int on)
{
	unsigned i;

	/* event_del takes it out of epoll; the socket is shared with another process
	 * and must stay open */
	for (i = 0; i < sv->listeners; i++)
		on ? event_add(sv->listener[i].event, NULL) : event_del(sv->listener[i].event);
}

/* Commands may lie here, whole and not yet executed; and replies, whose sending ends the turn. */
static void run_what_is_here(struct conn *c)
{
	if (c->in.len > resp_done(&c->resp) || unsent(c)) {
		enter_turn(c);
		conn_run(c);
	}
}

void net_resume(struct server *sv)
{
	struct conn *c;

	for (c = sv->conns; c; c = c->next) {
		conn_arm(c);
		run_what_is_here(c);
	}
}

void net_finish(struct server *sv)
{
	struct conn *c;

	for (c = sv->conns; c; c = c->next)
		run_what_is_here(c);
	net_end_turn(sv);
}

unsigned net_unsent(const struct server *sv)
{
	const struct conn *c;
	unsigned n = 0;

	for (c = sv->conns; c; c = c->next)
		n += unsent(c) || c->stalled;
	return n;
}

unsigned net_newcomers(const struct server *sv)
{
	uint64_t now = mono_ms();
	const struct conn *c;
	unsigned n = 0;

	for (c = sv->conns; c; c = c->next)
		n += newcomer(c, now);
	return n;
}

void net_close_all(struct server *sv)
{
	struct listener *l;

	while (sv->conns)
		net_close(sv->conns);
	while (sv->given)
		net_close(sv->given);
	sv->turn = NULL;
	for (l = sv->listener; l < sv->listener + sv->listeners; l++) {
		event_free(l->event); /* takes it out of epoll first: close(2) would not */
		close(l->fd);
		if (l->unlink_path)
			unlink(l->unlink_path);
		free(l->unlink_path);
	}
	sv->listeners = 0;
}
