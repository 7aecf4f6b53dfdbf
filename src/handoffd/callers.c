#include "handoffd/callers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/service.h"

#define MAX_AT_ONCE     16     /* requests of one connection, before others have their turn */
#define PATIENCE_S      10     /* for a whole request, and for the reading of an answer */
#define REQUEST_MAX     16384  /* bytes: the largest request of msg.def */
#define REQUESTS_BURST  20     /* of a user without rights at once, */
#define REQUESTS_MS     100    /* and then one in so long */
#define LINES_BURST     20     /* about users without rights, of all together */
#define LINES_MS        1000
#define DOOR_PAUSE_MS   2

static const struct timeval patience = { PATIENCE_S, 0 };

static void stop_waiting(struct caller *c)
{
	event_del(c->late);
	c->held = false;
}

/* It is closed behind what is under way: who is under way may still look at it. */
static void give_up(struct caller *c)
{
	c->broken = true;
	event_active(c->late, EV_TIMEOUT, 0);
}

/* What comes next from it, and how long it may take: it reads what is on its way to it, or
 * sends a request, or waits for an answer that it is owed. Who watches may read as late as it
 * likes: no more than one event is kept for it. */
static void expect(struct caller *c)
{
	const bool pending = chan_pending(&c->chan);
	const bool limited = c->waits == WAITS_NOT || (pending && c->waits != WAITS_WATCH);
	const bool timed = limited && !event_pending(c->late, EV_TIMEOUT, NULL);

	if (c->broken || c->held)
		return;
	if (c->again && !pending) {
		event_del(c->read);
		event_del(c->late);
		return;
	}
	if (pending)
		event_del(c->read);
	/* without memory for an event (epoll(7) needs some, too) nobody would hear it any more */
	if (event_add(pending ? c->write : c->read, NULL) || (timed && event_add(c->late, &patience)))
		give_up(c);
}

void caller_expect(struct caller *c)
{
	c->waits = WAITS_NOT;
	c->missed = 0;
	expect(c);
}

static void complain(struct caller *c, const char *fmt, va_list ap)
{
	char what[300];

	vsnprintf(what, sizeof what, fmt, ap);
	if (c->may)
		log_warning("uid %d (pid %d) %s", (int)c->who.uid, (int)c->who.pid, what);
	else
		log_limited(&c->all->strangers, LOG_L_WARNING, "uid %d (pid %d) %s", (int)c->who.uid, (int)c->who.pid, what);
}

void caller_end(struct caller *c, const char *fmt, ...)
{
	va_list ap;

	if (c->broken)
		return;
	va_start(ap, fmt);
	complain(c, fmt, ap);
	va_end(ap);
	c->broken = true;
}

static void end_silent_reader(struct caller *c)
{
	caller_end(c, "does not read its answers from control.sock: closed");
}

void caller_send(struct caller *c, const struct msg *m)
{
	const bool was_pending = chan_pending(&c->chan);
	int e;

	log_flush();   /* who is told something finds in the log how it came to that */
	e = c->broken ? 0 : chan_send(&c->chan, m, NULL, 0);
	if (e == -ENOBUFS)
		end_silent_reader(c);
	if (e)   /* gone, or does not read: it costs only itself */
		give_up(c);
	if (chan_pending(&c->chan) && !was_pending) {
		stop_waiting(c);
		expect(c);
	}
}

void caller_offer(struct caller *c, const struct msg *m)
{
	if (chan_pending(&c->chan))
		c->missed++;
	else
		caller_send(c, m);
}

static void say_missed(struct caller *c)
{
	struct msg m = { .type = MSG_op_event };
	char text[80];

	snprintf(text, sizeof text, "%" PRIu64 " event%s, not read in time", c->missed, c->missed == 1 ? "" : "s");
	m.op_event.phase = SPAN("missed");
	MSG_SET(&m, op_event, text, SPAN(text));
	MSG_SET(&m, op_event, at_ms, sys_wall_ms());
	MSG_SET(&m, op_event, missed, c->missed);
	c->missed = 0;
	caller_send(c, &m);
}

static void caller_free(struct caller *c)
{
	if (c->read)
		event_free(c->read);
	if (c->write)
		event_free(c->write);
	if (c->late)
		event_free(c->late);
	chan_close(&c->chan);
	free(c);
}

void callers_sweep(struct callers *a)
{
	for (struct caller **p = &a->list; *p; ) {
		struct caller *c = *p;
		if (!c->broken) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		a->n--;
		caller_free(c);
	}
}

/* Who has asked too often is not read until its user has a request again. */
static bool hold(struct caller *c)
{
	const uint64_t ms = c->quota ? bucket_wait(&c->quota->requests, sys_now_ms(), REQUESTS_BURST,
	                                           REQUESTS_MS) : 0;
	struct timeval tv = { (time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000) };

	if (!ms)
		return false;
	event_del(c->read);
	event_add(c->late, &tv);
	return c->held = true;
}

static void read_requests(struct caller *c)
{
	struct callers *a = c->all;
	struct msg m;
	int e = 1;

	for (int i = 0; i < MAX_AT_ONCE && !c->again && !c->broken && !chan_pending(&c->chan) && !hold(c); i++) {
		if ((e = chan_recv(&c->chan, &m)) <= 0)
			break;
		stop_waiting(c);
		if (c->quota)
			bucket_take(&c->quota->requests, sys_now_ms(), REQUESTS_MS);
		a->serve(c, &m);
	}
	if (e == -EBADMSG)
		caller_end(c, "sent what is not the protocol to control.sock: %s", c->chan.error);
	else if (e < 0 && e != -EMFILE && e != -ENFILE && e != -ENOMEM)
		c->broken = true;
	expect(c);
	callers_sweep(a);
	service_settle(a->service);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	read_requests(arg);
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	struct caller *c = arg;
	struct callers *a = c->all;
	int e = chan_flush(&c->chan);

	(void)fd;
	(void)what;
	if (e < 0)
		c->broken = true;
	if (e <= 0) {
		event_del(c->write);
		stop_waiting(c);
		if (c->missed)
			say_missed(c);
		expect(c);
	}
	callers_sweep(a);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct caller *c = arg;
	struct callers *a = c->all;

	(void)fd;
	(void)what;
	if (c->held) {
		c->held = false;
		read_requests(c);
		return;
	}
	if (chan_pending(&c->chan))
		end_silent_reader(c);
	else
		caller_end(c, "sent no whole request to control.sock for %d s: closed", PATIENCE_S);
	callers_sweep(a);
}

/* ----------------------------------------------------------------- the door --- */

static bool in_group(int fd, gid_t gid)
{
	socklen_t n = 0;
	gid_t *gids;
	bool found = false;

	/* the kernel says how many there are, if there are any */
	if (sys_getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &n) != -ERANGE || !(gids = malloc(n)))
		return false;
	if (!sys_getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, gids, &n))
		for (socklen_t i = 0; i < n / sizeof *gids; i++)
			found |= gids[i] == gid;
	free(gids);
	return found;
}

/* Root, handoffd's own user, or a member of the group `operators`. */
static bool has_rights(const struct service *s, int fd, const struct ucred *who)
{
	const gid_t gid = s->conf->operators_gid;

	return who->uid == 0 || who->uid == geteuid() ||
	       (gid != (gid_t)-1 && (who->gid == gid || in_group(fd, gid)));
}

/* That of a user without rights; NULL: all are in use by others. One that is full knows
 * nothing of its user any more. */
static struct quota *quota_of(struct callers *a, uid_t uid)
{
	const uint64_t now = sys_now_ms();
	struct quota *unused = NULL;

	for (struct quota *q = a->quotas; q < a->quotas + STRANGERS_MAX; q++) {
		bool used = q->requests.full_ms > now;

		for (const struct caller *c = a->list; c && !used; c = c->next)
			used = c->quota == q;
		if (used && q->uid == uid)
			return q;
		if (!used)
			unused = q;
	}
	if (unused)
		*unused = (struct quota){ .uid = uid };
	return unused;
}

static bool has_place(const struct callers *a, bool may, uid_t uid)
{
	unsigned n = 0;

	for (const struct caller *c = a->list; c; c = c->next)
		n += c->who.uid == uid;
	return may ? a->n < CALLERS_MAX : a->n < STRANGERS_MAX && n < STRANGER_PLACES;
}

static struct caller *caller_new(struct callers *a, int fd, const struct ucred *who, bool may)
{
	struct quota *q = may || !has_place(a, may, who->uid) ? NULL : quota_of(a, who->uid);
	struct caller *c = (may ? has_place(a, may, who->uid) : q != NULL) ? calloc(1, sizeof *c) : NULL;

	if (!c)
		return NULL;
	*c = (struct caller){ .all = a, .who = *who, .may = may, .quota = q };
	c->read = event_new(a->service->base, fd, EV_READ | EV_PERSIST, on_read, c);
	c->write = event_new(a->service->base, fd, EV_WRITE | EV_PERSIST, on_write, c);
	c->late = event_new(a->service->base, -1, 0, on_late, c);
	chan_init(&c->chan, -1);
	if (c->read && c->write && c->late)
		return c;
	caller_free(c);
	return NULL;
}

/* fd is consumed. NULL: there is no place for it. */
static struct caller *admit(struct callers *a, int fd, const struct ucred *who, bool may)
{
	static const char why[] = "no place for another connection to control.sock: uid %d is turned away";
	struct caller *c = caller_new(a, fd, who, may);

	if (!c) {
		if (may)
			log_warning(why, (int)who->uid);
		else
			log_limited(&a->strangers, LOG_L_WARNING, why, (int)who->uid);
		sys_close(fd);
		return NULL;
	}
	chan_init(&c->chan, fd);
	chan_limit(&c->chan, REQUEST_MAX);
	c->next = a->list;
	a->list = c;
	a->n++;
	return c;
}

static bool on_visitor(void *arg, int fd, const struct ucred *who)
{
	struct callers *a = arg;
	const bool may = has_rights(a->service, fd, who);
	struct caller *c = admit(a, fd, who, may);

	if (c)
		expect(c);
	return may;
}

int callers_open(struct callers *a, struct service *s, int fd, char *err, size_t err_size)
{
	a->service = s;
	a->strangers = (struct log_limit){ .burst = LINES_BURST, .interval_ms = LINES_MS };
	a->door.visitor = on_visitor;
	a->door.arg = a;
	a->door.pause_ms = DOOR_PAUSE_MS;
	if (fd >= 0)
		return door_reopen(&a->door, s->base, s->runtime_dir, "control.sock", fd, err, err_size);
	/* everybody may ask for the status; rights are looked up for the rest */
	return door_open(&a->door, s->base, s->runtime_dir, "control.sock", 0666, (uid_t)-1, err, err_size);
}

void callers_close(struct callers *a)
{
	for (struct caller *c = a->list, *next; c; c = next) {
		next = c->next;
		caller_free(c);
	}
	a->list = NULL;
	door_close(&a->door);
}

/* ------------------------------------------------------- from life to life --- */

void caller_later(struct caller *c)
{
	chan_unread(&c->chan);
	c->again = true;
}

void callers_now(struct callers *a)
{
	for (struct caller *c = a->list; c; c = c->next) {
		if (!c->again)
			continue;
		c->again = false;
		expect(c);
		event_active(c->read, EV_READ, 1);   /* it has been read: nothing else tells of it */
	}
}

void callers_carry(const struct callers *a, struct carry *to)
{
	for (const struct caller *c = a->list; c; c = c->next) {
		struct msg m = { .type = MSG_carry_caller };

		if (c->broken)
			continue;
		m.carry_caller.fd = (uint64_t)c->chan.fd;
		m.carry_caller.waits = c->waits;
		if (c->missed)
			MSG_SET(&m, carry_caller, missed, c->missed);
		carry_put(to, &m);
		carry_put_chan(to, &c->chan);
	}
}

void callers_carried(struct callers *a, const struct msg_carry_caller *m)
{
	const int fd = (int)m->fd;
	struct ucred who;
	socklen_t n = sizeof who;
	struct caller *c;

	if (sys_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n)) {
		sys_close(fd);   /* nobody knows what it may: it is lost, and nothing else */
		return;
	}
	if ((c = admit(a, fd, &who, has_rights(a->service, fd, &who))))
		c->waits = (enum waits)m->waits, c->again = true, c->missed = m->missed;
}

void callers_restore(struct callers *a, const struct msg_carry_bytes *m)
{
	for (struct caller *c = a->list; c; c = c->next)
		if (c->chan.fd == (int)m->channel && carry_restore(&c->chan, m))
			give_up(c);
}
