/* Hello and what follows it: version, capabilities, the sockets' way to a daemon and back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"
#include "proto/daemon.h"
#include "proto/move.h"

void greet_refuse(struct service *s, struct peer *p, const char *why)
{
	struct msg m = { .type = MSG_abort };

	log_limited(&p->lines, LOG_L_WARNING, "pid %d is refused: %s", (int)p->pid, why);
	m.abort.why = SPAN(why);
	peer_send(p, &m, NULL, 0);
	if (p == s->n)
		snprintf(s->attempt.why, sizeof s->attempt.why, ": %s", why);
	peer_detach(p);
	service_lost(s, p, -EBADMSG);
}

/* ----------------------------------------------------- sockets to a daemon --- */

/* What the daemon was started with: in a handoff there are others in hand, too, which only
 * the incumbent still has. */
static const struct conf *conf_of(const struct service *s, const struct peer *p)
{
	return p == s->n && s->new_conf ? s->new_conf : s->conf;
}

static void send_sockets(struct service *s, struct peer *p)
{
	const struct conf *c = conf_of(s, p);
	struct msg m = { .type = MSG_sockets };
	struct span names[FRAME_MAX_FDS];
	int fds[FRAME_MAX_FDS];
	unsigned n = 0;

	for (; n < FRAME_MAX_FDS && p->sockets_sent + n < c->nlisten; n++) {
		const struct listener *l = listeners_find(&s->listeners, &c->listen[p->sockets_sent + n]);

		if (!l) {
			greet_refuse(s, p, "a listening socket that it should get is not there");
			return;
		}
		names[n] = SPAN(l->name);
		fds[n] = l->fd;
	}
	if (n == 0) {
		p->sending = false;
		if (p == s->n)
			service_event(s, S_E_N_HELLO, NULL);   /* the warm-up is over */
		return;
	}
	m.sockets.batch = p->sockets_sent / FRAME_MAX_FDS + 1;
	m.sockets.of = (c->nlisten + FRAME_MAX_FDS - 1) / FRAME_MAX_FDS;
	m.sockets.names = (struct texts){ .n = n, .v = names };
	p->sockets_sent += n;
	int e = peer_send(p, &m, fds, n);
	if (e == -ETOOMANYREFS)
		greet_refuse(s, p, "too many descriptors are on their way (raise limit-nofile)");
	else if (e && e != -EPIPE && e != -ECONNRESET)   /* those are read as the channel's end */
		greet_refuse(s, p, "its listening sockets could not be sent");
}

void greet_sockets_ack(struct service *s, struct peer *p, const struct msg *m)
{
	if (!p->sending || m->sockets_ack.batch != (p->sockets_sent + FRAME_MAX_FDS - 1) / FRAME_MAX_FDS) {
		greet_refuse(s, p, "an acknowledgement of sockets that were not sent");
		return;
	}
	send_sockets(s, p);
}

/* ------------------------------------------------------------------- back --- */

/* Told at once, before its sockets have come: whether it serves decides what to do with a
 * successor. What needs the sockets waits for them (service_refuses). */
static void registered(struct service *s, struct peer *p, const struct msg *m)
{
	bool serving = d_phase_serves(m->hello.phase);
	enum s_event e = s_event_of_hello(&s->s, p == s->n, m, serving, sys_now_ms());

	log_limited(&p->lines, LOG_L_INFO, "the %s (pid %d) has registered: it %s",
	            p == s->n ? "successor" : "daemon", (int)p->pid, serving ? "serves" : "stands by");
	if (serving)
		service_heard_serving(s, p);
	if (e != S_NOW)
		service_event(s, e, NULL);
}

void greet_sockets(struct service *s, struct peer *p, const struct msg *m)
{
	struct msg ack = { .type = MSG_sockets_ack };
	struct span names[FRAME_MAX_FDS];
	int fds[FRAME_MAX_FDS];
	unsigned n = chan_take_fds(&p->chan, fds);
	char name[256], err[300];
	bool lack = false;

	if (!p->registering || n > p->sockets_left || n == 0) {
		while (n)
			sys_close(fds[--n]);
		greet_refuse(s, p, "sockets that were not announced");
		return;
	}
	texts_copy(&m->sockets.names, names, FRAME_MAX_FDS);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%.*s", (int)names[i].n, names[i].p);
		int e = listeners_adopt(&s->listeners, s->conf, name, fds[i], err, sizeof err);
		if (e && e != -EEXIST && e != -ENOENT)
			log_limited(&p->lines, LOG_L_WARNING, "pid %d sent a socket that is not used: %s", (int)p->pid, err);
		lack |= e == -ENOMEM || e == -ENOBUFS;
	}
	if (lack) {   /* it still has what this process could not keep, and sends it again */
		chan_end(&p->chan);
		return;
	}
	p->sockets_left -= n;
	ack.sockets_ack.batch = m->sockets.batch;
	p->registering = p->sockets_left > 0;
	peer_send(p, &ack, NULL, 0);
}

/* ------------------------------------------------------------------ hello --- */

/* O, N and the configuration must mean the same data directory. "" or why not. */
static void check_data(struct service *s, struct peer *p, char *why, size_t size)
{
	const struct conf *c = conf_of(s, p);
	struct stat st;

	why[0] = '\0';
	if (!c->data_dir && !p->has_data)
		return;
	if (!c->data_dir)
		snprintf(why, size, "the daemon has a data directory, the configuration names none: add data-dir");
	else if (!p->has_data)
		snprintf(why, size, "the configuration names data-dir %s, the daemon opened none", c->data_dir);
	else if (sys_stat(c->data_dir, &st) || st.st_dev != p->dev || st.st_ino != p->ino)
		snprintf(why, size, "the daemon opened another directory than data-dir %s", c->data_dir);
	else if (p == s->n && s->o && s->o->has_data && (s->o->dev != p->dev || s->o->ino != p->ino))
		snprintf(why, size, "the successor opened another data directory than the incumbent");
}

static void keep(struct peer *p, const struct msg *m)
{
	size_t n = m->hello.software.n;

	p->build_size = m->hello.build.n;
	if (p->build_size)
		memcpy(p->build, m->hello.build.p, p->build_size);
	if (n)
		memcpy(p->software, m->hello.software.p, n);
	p->software[n] = '\0';
	p->has_data = MSG_HAS(m, hello, dev) && MSG_HAS(m, hello, ino);
	p->dev = m->hello.dev;
	p->ino = m->hello.ino;
	p->capabilities = m->hello.capabilities;
	p->moves = p->capabilities & CAP_CONNECTIONS;
	if (MSG_HAS(m, hello, epoch))
		p->epoch = m->hello.epoch;
}

/*
 * The transfer channel, if both daemons move connections and may carry any state: the incumbent's end is kept until
 * Prepare. The successor's goes before the sockets, so that a lack of descriptors ends it here
 * and not in the pause. *ret is the end for the successor; -1: none is needed.
 */
static int open_transfer(struct service *s, const struct peer *p, int *ret)
{
	int pair[2], e;

	*ret = -1;
	if (p != s->n || !p->moves || !s_in_handoff(&s->s) || !s->o || !s->o->moves ||
	    transfer_limit(conf_of(s, p)) == 0)
		return 0;
	if ((e = sys_socketpair(SOCK_STREAM, pair)))
		return e;
	sys_closep(&s->transfer);
	s->transfer = pair[0];
	*ret = pair[1];
	return 0;
}

static void acknowledge(struct service *s, struct peer *p, unsigned sockets, int transfer)
{
	struct msg m = { .type = MSG_hello_ack };
	const struct attempt *a = &s->attempt;

	if (p == s->n && !hid_none(&s->s.id))
		MSG_SET(&m, hello_ack, id, s->s.id);
	m.hello_ack.version = p->chan.version;
	m.hello_ack.deadline_ms = s->s.timer[TIMER_DEADLINE];
	m.hello_ack.commit_ms = s->s.timer[TIMER_COMMIT];
	m.hello_ack.heartbeat_ms = s->s.timer[TIMER_HEARTBEAT];
	m.hello_ack.fence_ms = s->s.timer[TIMER_FENCE];
	m.hello_ack.sockets = sockets;
	m.hello_ack.capabilities = p->moves ? CAP_CONNECTIONS : 0;
	if (transfer >= 0)
		MSG_SET(&m, hello_ack, transfer, transfer_limit(conf_of(s, p)));
	if (p == s->n && s_in_handoff(&s->s))
		SET_CONTEXT(&m, hello_ack, a);
	peer_send(p, &m, &transfer, transfer >= 0);
}

/* A plan ends here: the candidate got as far as Hello, the incumbent knows nothing of it. */
static void end_plan(struct service *s, struct peer *p)
{
	struct msg m = { .type = MSG_abort };

	s->attempt.planned = true;
	planned_hello(s, p);
	m.abort.id = s->s.id;
	m.abort.why = SPAN("this was a plan");
	peer_send(p, &m, NULL, 0);
	service_event(s, S_E_ABORT, NULL);
}

void greet_hello(struct service *s, struct peer *p, const struct msg *m)
{
	bool again = m->hello.role == 2;
	char why[400];
	int version = version_negotiate(m->hello.version_min, m->hello.version_max, PROTO_VERSION_MIN,
	                                PROTO_VERSION_MAX);

	if (p->greeted) {
		greet_refuse(s, p, "a second Hello");
		return;
	}
	if (!again && p != s->n) {
		greet_refuse(s, p, "the incumbent says Hello as if it were new");
		return;
	}
	if (version < 0) {
		snprintf(why, sizeof why, "no common protocol version: the daemon speaks %u to %u, this supervisor %u to %u",
		         (unsigned)m->hello.version_min, (unsigned)m->hello.version_max, PROTO_VERSION_MIN, PROTO_VERSION_MAX);
		greet_refuse(s, p, why);
		return;
	}
	keep(p, m);
	check_data(s, p, why, sizeof why);
	if (why[0]) {
		greet_refuse(s, p, why);
		return;
	}
	if (p == s->n)
		history_successor(s);
	p->chan.version = (uint16_t)version;
	p->greeted = true;
	/* only the candidate: the attempt's words outlive it, and a cold start is no attempt */
	if (!again && p == s->n && s->attempt.plan && s->s.state == S_WARM) {
		end_plan(s, p);
		return;
	}
	int transfer = -1;
	if (!again && open_transfer(s, p, &transfer)) {
		greet_refuse(s, p, "no descriptors for the channel on which live connections move");
		return;
	}
	acknowledge(s, p, again ? 0 : conf_of(s, p)->nlisten, transfer);
	sys_closep(&transfer);
	if (again) {
		p->sockets_left = (unsigned)m->hello.sockets;
		p->registering = p->sockets_left > 0;
		registered(s, p, m);
	} else {
		listeners_nonblock(&s->listeners);
		p->sending = true;
		p->sockets_sent = 0;
		send_sockets(s, p);
	}
}
