/* Listeners and connections. */
#include "httpd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BATCH 64
#define BACKLOG      1024
#define LINGER_S     2

/* -- connections --------------------------------------------------------- */

static void link_conn(struct conn *c, struct conn **list)
{
	c->next = *list;
	c->prev = list;
	if (c->next)
		c->next->prev = &c->next;
	*list = c;
}

static void unlink_conn(struct conn *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
}

void conn_relink(struct conn *c, struct conn **list)
{
	unlink_conn(c);
	link_conn(c, list);
}

void conn_sleep(struct conn *c)
{
	evtimer_del(c->timer);
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
}

void conn_free(struct conn *c)
{
	struct server *sv = c->sv;

	/* out of epoll before close(2), which takes nothing out of it while somebody else has the
	 * socket, too; bufferevent_free alone may do that later */
	conn_sleep(c);
	bufferevent_free(c->bev);
	event_free(c->timer);
	close(c->fd);
	unlink_conn(c);
	sv->nconns--;
	free(c);
	if (sv->leaving && !sv->conns)
		event_base_loopbreak(sv->base);
}

/* While the incumbent that it came from has a copy, close(2) alone would send nothing. */
static void conn_end(struct conn *c)
{
	shutdown(c->fd, SHUT_RDWR);
	conn_free(c);
}

/* The client is told that no more comes, and its end is waited for: a close(2) with something
 * unread would reset the connection, and what is on its way to the client would be lost. */
static void linger(struct conn *c)
{
	const struct timeval tv = { LINGER_S, 0 };

	c->lingering = 1;
	shutdown(c->fd, SHUT_WR);
	bufferevent_set_timeouts(c->bev, &tv, NULL);
}

void conn_step(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev), *out = bufferevent_get_output(c->bev);
	int r = 1;

	while (r && !c->s.closing && evbuffer_get_length(out) < OUT_HIGH) {
		if (c->s.replying) {
			r = reply_more(c);
			continue;
		}
		r = http_parse(c);
		if (r == 1)
			reply_begin(c);
		else if (r)
			reply_error(c, r);
		else
			c->s.closing = (uint64_t)c->eof;
	}
	if (c->s.closing)
		evbuffer_drain(in, evbuffer_get_length(in));
	if (!c->s.closing || evbuffer_get_length(out) || c->lingering)
		return;
	if (c->eof)
		conn_end(c);
	else
		linger(c);
}

static void on_bytes(struct bufferevent *bev, void *arg)
{
	(void)bev;
	conn_step(arg);
}

static int is_idle(const struct conn *c)
{
	return !c->s.replying && !evbuffer_get_length(bufferevent_get_output(c->bev));
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	const short silent = BEV_EVENT_TIMEOUT | BEV_EVENT_READING;
	struct conn *c = arg;

	if ((what & silent) == silent && !is_idle(c) && !c->lingering) {
		bufferevent_enable(bev, EV_READ); /* who is being answered need not say anything */
	} else if (!(what & BEV_EVENT_EOF) || c->lingering) {
		conn_end(c);
	} else {
		c->eof = 1;
		conn_step(c);
	}
}

struct conn *conn_adopt(struct server *sv, int fd)
{
	const struct timeval idle = { (time_t)sv->opt->idle_s, 0 };
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->sv = sv;
	c->fd = fd;
	c->timer = evtimer_new(sv->base, reply_on_time, c);
	c->bev = bufferevent_socket_new(sv->base, fd, 0); /* 0: never closes fd */
	if (!c->timer || !c->bev) {
		if (c->timer)
			event_free(c->timer);
		if (c->bev)
			bufferevent_free(c->bev);
		free(c);
		return NULL;
	}
	bufferevent_disable(c->bev, EV_READ | EV_WRITE); /* it begins with EV_WRITE */
	bufferevent_setcb(c->bev, on_bytes, on_bytes, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, IN_HIGH);
	bufferevent_setwatermark(c->bev, EV_WRITE, OUT_LOW, 0);
	bufferevent_set_timeouts(c->bev, &idle, &idle);
	http_init(c);
	link_conn(c, &sv->conns);
	sv->nconns++;
	return c;
}

void conn_wake(struct conn *c)
{
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	conn_step(c);
}

/* -- listeners ----------------------------------------------------------- */

void net_accept(struct server *sv, int on)
{
	unsigned i;

	event_del(sv->accept_again);
	on = on && !sv->leaving;
	/* event_del takes it out of epoll; the socket is shared, and stays open */
	for (i = 0; i < sv->listeners; i++)
		on ? event_add(sv->listener[i].event, NULL) : event_del(sv->listener[i].event);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	net_accept(arg, 1);
}

static void conn_new(struct server *sv, int fd)
{
	static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
				   "Connection: close\r\n\r\n";
	const int one = 1;
	struct conn *c = sv->nconns < sv->opt->max_connections ? conn_adopt(sv, fd) : NULL;

	if (!c) {
		(void)!send(fd, full, sizeof(full) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* a unix socket has none */
	conn_wake(c);
}

/* O_NONBLOCK is in the hands of each process that shares the socket: one that clears it must not
 * leave this one asleep in accept4. */
static int waits(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval soon = { 0, 100000 };
	struct listener *l = arg;
	int i, s;

	(void)what;
	for (i = 0; i < ACCEPT_BATCH && waits(fd); i++) {
		s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (s >= 0) {
			conn_new(l->sv, s);
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

int net_listen(struct server *sv, int fd)
{
	struct listener *l = &sv->listener[sv->listeners];

	if (sv->listeners == MAX_LISTENERS) {
		close(fd);
		return -E2BIG;
	}
	l->event = event_new(sv->base, fd, EV_READ | EV_PERSIST, on_accept, l);
	if (!l->event) {
		close(fd);
		return -ENOMEM;
	}
	l->sv = sv;
	l->fd = fd;
	sv->listeners++;
	return 0;
}

/* A listening socket that whoever has started us holds, too: systemd's first is 3. */
static int inherited(struct server *sv, const char *number)
{
	int yes = 0;
	socklen_t n = sizeof(yes);
	char *end;
	const long fd = strtol(number, &end, 10);

	if (*number < '0' || *number > '9' || *end || fd > INT_MAX)
		return -EBADF;
	if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &n) < 0)
		return -errno;
	if (!yes)
		return -EINVAL;
	evutil_make_socket_nonblocking((int)fd);
	evutil_make_socket_closeonexec((int)fd);
	return net_listen(sv, (int)fd);
}

int net_bind(struct server *sv, const char *address)
{
	struct sockaddr_storage sa;
	int n = sizeof(sa), fd, r;
	const int one = 1;

	if (!strncmp(address, "fd:", 3))
		return inherited(sv, address + 3);
	if (evutil_parse_sockaddr_port(address, (struct sockaddr *)&sa, &n) < 0)
		return -EDESTADDRREQ;
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, (socklen_t)n) == 0 && listen(fd, BACKLOG) == 0)
		return net_listen(sv, fd);
	r = -errno;
	close(fd);
	return r;
}

/* -- from birth to end --------------------------------------------------- */

static void on_leave(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;

	(void)fd, (void)what;
	event_base_loopbreak(sv->base);
}

int net_init(struct server *sv)
{
	sv->base = event_base_new();
	if (!sv->base)
		return -ENOMEM;
	sv->accept_again = evtimer_new(sv->base, on_accept_again, sv);
	sv->leave_timer = evtimer_new(sv->base, on_leave, sv);
	return sv->accept_again && sv->leave_timer ? 0 : -ENOMEM;
}

/* A stream is told that it ends, what else is under way is finished. Who is idle may just be
 * asking: it gets one more reply, which says that it is the last; only a stop does not wait. */
void net_leave(struct server *sv, int at_once)
{
	const struct timeval tv = { (time_t)sv->opt->leave_s, 0 };
	struct conn *c, *next;

	sv->leaving = 1;
	net_accept(sv, 0);
	evtimer_add(sv->leave_timer, &tv);
	for (c = sv->conns; c; c = next) {
		next = c->next;
		if (at_once && is_idle(c))
			conn_end(c);
		else
			conn_step(c);
	}
	if (!sv->conns)
		event_base_loopbreak(sv->base);
}

static void free_event(struct event *e)
{
	if (e)
		event_free(e);
}

void net_free(struct server *sv)
{
	unsigned i;

	while (sv->conns)
		conn_free(sv->conns);
	while (sv->given)
		conn_free(sv->given);
	for (i = 0; i < sv->listeners; i++) {
		event_free(sv->listener[i].event);
		close(sv->listener[i].fd);
	}
	free_event(sv->accept_again);
	free_event(sv->leave_timer);
	free_event(sv->handoff_event);
	free_event(sv->term[0]);
	free_event(sv->term[1]);
	if (sv->base)
		event_base_free(sv->base);
}
