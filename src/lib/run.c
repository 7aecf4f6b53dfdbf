/* Drives the machine: reads, ticks, carries out its actions. */
#include "lib/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/sys.h"

/* ---------------------------------------------------------------- events --- */

/* For events that handoff_dispatch has not just told its caller of. */
void h_wake(handoff *h)
{
	uint64_t one = 1;

	if (!h->woken && h->nevents) {
		h->woken = true;
		sys_write(h->wake, &one, sizeof one);
	}
}

static unsigned left(uint64_t until)
{
	uint64_t now = sys_now_ms();

	return until > now ? (unsigned)(until - now) : 0;
}

static bool is_queued(const handoff *h, int type)
{
	for (unsigned i = 0; i < h->nevents; i++)
		if (h->events[(h->first_event + i) % MAX_EVENTS].type == type)
			return true;
	return false;
}

void h_queue(handoff *h, int type)
{
	struct handoff_event *e;

	/* these could pile up, and once is enough; all others wait for an answer */
	if ((type == HANDOFF_LOST || type == HANDOFF_FINAL || type == HANDOFF_BEGIN) && is_queued(h, type))
		return;
	if (h->nevents == MAX_EVENTS)
		return;
	e = &h->events[(h->first_event + h->nevents++) % MAX_EVENTS];
	*e = (struct handoff_event){ .type = type };
	if (type == HANDOFF_DRAIN)
		e->deadline_ms = left(h->drain_until);
	else if (type == HANDOFF_SEAL)
		e->deadline_ms = left(h->seal_until);
}

void h_forget(handoff *h, int type)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < h->nevents; i++) {
		struct handoff_event e = h->events[(h->first_event + i) % MAX_EVENTS];
		if (e.type != type)
			h->events[(h->first_event + kept++) % MAX_EVENTS] = e;
	}
	h->nevents = kept;
	if (!kept && h->woken)
		h_unwake(h);
}

static void queue_resume(handoff *h, bool reopen)
{
	/* the flag is that of the open file: a successor may have cleared it for all who share it */
	for (unsigned i = 0; i < h->nlisten; i++)
		sys_nonblock(h->listen[i].fd);
	/* a DRAIN or SEAL that the daemon has not yet seen is overtaken, not skipped: it sees
	 * both, in order, and answers the first with -ECANCELED */
	h_queue(h, HANDOFF_RESUME);
	h->events[(h->first_event + h->nevents - 1) % MAX_EVENTS].reopen = reopen;
}

/* --------------------------------------------------------------- actions --- */

static void close_channel(handoff *h)
{
	if (h->chan.fd < 0)
		return;
	sys_epoll_ctl(h->ep, EPOLL_CTL_DEL, h->chan.fd, 0);
	pthread_mutex_lock(&h->helper.mutex);
	chan_close(&h->chan);
	pthread_mutex_unlock(&h->helper.mutex);
	h->writing = false;
}

void h_drop(handoff *h)
{
	h->canceled = true;
	close_channel(h);
	lockfile_close(&h->lock);
	take_free(h);
	for (unsigned i = 0; i < h->nlisten; i++) {
		sys_closep(&h->listen[i].fd);
		sys_closep(&h->listen[i].out);
	}
	if (h->flags & HANDOFF_NONBLOCK)
		h_queue(h, HANDOFF_DECIDED);
	h->d.state = D_EXIT;
}

/* Behind Ready and not before it: meanwhile the supervisor looks at it, and writes its decision. It
 * is not taken before the record lasts, or has ended this process. */
static void keep_record(handoff *h)
{
	const int e = lockfile_sync(&h->lock);

	if (!e)
		return;
	h_give_up(h, e, LOCKFILE_NAME " could not be written: %s", strerror(-e));
	h_drop(h);
}

/* Somebody has had the lock since the incumbent sealed: who opens what was sealed then, from a cache
 * say, loses what that one has written, and no revision shows it. */
static bool is_passed(const handoff *h)
{
	return h->lock.held && h->sealed_epoch && h->lock.epoch - 1 > h->sealed_epoch;
}

static enum d_event try_lock(handoff *h)
{
	int e = h->lock.dir < 0 ? 0 : lockfile_try(&h->lock, h->build, h->build_size);

	h->next_lock_try = sys_now_ms() + D_LOCK_POLL_MS;
	if (e == -EWOULDBLOCK)
		return D_E_LOCK_HELD;
	if (!e && d_is_successor(&h->d) && is_passed(h)) {
		h_give_up(h, -ECANCELED, "another process has had the lock since the incumbent has sealed");
		return D_E_LOCK_FAILED;
	}
	if (!e && !d_is_successor(&h->d))
		lockfile_sync(&h->lock);
	/* who opens for the first time must be able to say so; who resumes only logs it */
	if (!e && h->lock.record_error && d_is_successor(&h->d)) {
		e = h->lock.record_error;
		lockfile_release(&h->lock);
	} else if (!e && h->lock.record_error) {
		h_log(h, HANDOFF_LOG_WARNING, "the lock's record could not be written: %s",
		      strerror(-h->lock.record_error));
	}
	if (!e)
		return D_E_LOCKED;
	h_fail(h, e, "%s%s", h->lock.record_error ? LOCKFILE_NAME " could not be written: " : "",
	       h->lock.record_error ? strerror(-e) : h->lock.error);
	if (d_is_successor(&h->d)) {
		h_give_up(h, e, "%s", h->error);
	} else if (e != h->lock_error) {   /* it is tried again every D_LOCK_POLL_MS */
		h->lock_error = e;
		h_log(h, HANDOFF_LOG_ERROR, "the lock cannot be taken again: %s", h->error);
	}
	return D_E_LOCK_FAILED;
}

/* A supervisor that died is back in a moment, also one that died soon after its HelloAck. One that
 * ends the channel without it does not want this daemon, and is asked less and less often. */
static void reconnect(handoff *h)
{
	const enum helper_hope hope = !h->welcome_at                           ? HOPE_LITTLE
				      : sys_now_ms() - h->welcome_at >= 1000 ? HOPE_BACK
									     : HOPE_SOON;

	close_channel(h);
	h->welcome_at = 0;
	helper_connect(h, hope);
}

/* Carries out one action; returns the event that answers it, if it has one. */
static enum d_event act(handoff *h, enum d_action a)
{
	switch (a) {
	case D_A_SEND_HELLO: wire_hello(h); break;
	case D_A_TRY_LOCK: return try_lock(h);
	case D_A_UNLOCK: lockfile_release(&h->lock); break;
	case D_A_SEND_READY:
		wire_ready(h);
		keep_record(h);
		break;
	case D_A_SEND_STATUS: wire_simple(h, MSG_status); break;
	case D_A_SEND_DRAINED: wire_simple(h, MSG_drained); break;
	case D_A_SEND_SEALED: wire_simple(h, MSG_seal_complete); break;
	case D_A_SEND_SEAL_FAILED:
	case D_A_SEND_REFUSED: wire_simple(h, MSG_seal_failed); break;
	case D_A_UNTIE: helper_untie(h); break;
	case D_A_TELL_BEGIN:
		if (h->flags & HANDOFF_NONBLOCK)
			h_queue(h, HANDOFF_BEGIN);
		break;
	case D_A_TELL_DECIDED:
		take_over(h);   /* behind SEND_STATUS, before the daemon touches one */
		if (h->flags & HANDOFF_NONBLOCK)
			h_queue(h, HANDOFF_DECIDED);
		break;
	case D_A_TELL_DRAIN: h_queue(h, HANDOFF_DRAIN); break;
	case D_A_TELL_SEAL: h_queue(h, HANDOFF_SEAL); break;
	case D_A_TELL_RESUME: queue_resume(h, false); break;
	case D_A_TELL_REOPEN:
		give_settle(h);
		queue_resume(h, true);
		break;
	case D_A_TELL_COMMIT: h_queue(h, HANDOFF_COMMIT); break;
	case D_A_TELL_FINAL:
		take_free(h);
		h_queue(h, HANDOFF_FINAL);
		break;
	case D_A_TELL_LOST:
		if (h->welcome_at)   /* once, and not for each try that is refused */
			h_queue(h, HANDOFF_LOST);
		break;
	case D_A_RECONNECT: reconnect(h); break;
	case D_A_DROP: h_drop(h); break;
	case D_A_POLL: h->next_lock_try = 0; break;   /* the machine has noted it */
	case D_A_NONE:
	case D_ACTION_COUNT: break;
	}
	return D_E_NONE;
}

static void on_row(void *arg, const struct d_row *row)
{
	h_log(arg, HANDOFF_LOG_DEBUG, "rule \"%s\": %s --%s--> %s", row->rule, d_state_id[row->state],
	      d_event_name[row->event], d_state_id[row->next]);
}

void h_trace(handoff *h)
{
	h->d.trace = on_row;
	h->d.trace_arg = h;
}

#define SILENT "the supervisor was silent, or the deadline has passed"

/* Why the attempt ends that this process takes part in, for people. */
static void note_end(handoff *h, enum d_event e)
{
	const char *why = e == D_E_TIMEOUT ? SILENT : "the supervisor went away";

	if (h->d.state == D_LOCK && e == D_E_LOCK_HELD)
		h_give_up(h, -ECANCELED, "another process holds the lock, although the incumbent has sealed");
	if (e != D_E_TIMEOUT && e != D_E_EOF)
		return;
	if (d_is_successor(&h->d))
		h_end(h, "%s", e == D_E_TIMEOUT ? SILENT : "the supervisor is gone");
	else if (h->d.state == D_DRAINING || h->d.state == D_DRAINED || h->d.state == D_SEALING ||
	         h->d.state == D_SEALED)
		wire_resume_reason(h, why, strlen(why));
}

void h_step(handoff *h, enum d_event e)
{
	while (e != D_E_NONE) {
		struct d_out out;
		enum d_event answer = D_E_NONE, got;

		note_end(h, e);
		d_step(&h->d, e, sys_now_ms(), &out);
		for (unsigned i = 0; i < out.n; i++)
			if ((got = act(h, out.action[i])) != D_E_NONE)
				answer = got;
		e = answer;
	}
	if (h->d.state == D_SERVE)
		give_close(h);   /* the attempt is over, and S knows it */
	if (h->role != HANDOFF_STANDALONE)
		helper_beats(h, d_beats(&h->d));
}

/* --------------------------------------------------------------- reading --- */

static void lost(handoff *h, int e)
{
	if (e == -EBADMSG)
		h_log(h, HANDOFF_LOG_ERROR, "the supervisor sent what is not the protocol: %s", h->chan.error);
	else if (e != -ENODATA && e != -ECONNRESET && e != -EPIPE)
		h_log(h, HANDOFF_LOG_ERROR, "the supervisor's channel: %s", strerror(-e));
	if (e == -EBADMSG)
		h_end(h, "the supervisor sent what is not the protocol: %s", h->chan.error);
	close_channel(h);
	h_step(h, D_E_EOF);
}

static void flush(handoff *h)
{
	int e;

	if (!chan_pending(&h->chan))
		return;
	pthread_mutex_lock(&h->helper.mutex);
	e = chan_flush(&h->chan);
	if (e < 0)
		chan_end(&h->chan);   /* as in wire_send */
	pthread_mutex_unlock(&h->helper.mutex);
}

/* A version that was not offered would stand in each frame that is sent from here on. */
static bool agreed(handoff *h, const struct msg *m)
{
	const uint64_t v = m->type == MSG_hello_ack ? m->hello_ack.version : PROTO_VERSION_MAX;

	if (v >= PROTO_VERSION_MIN && v <= PROTO_VERSION_MAX)
		return true;
	snprintf(h->chan.error, sizeof h->chan.error, "HelloAck chooses protocol version %u, which was not offered",
	         (unsigned)v);
	return false;
}

static void read_all(handoff *h)
{
	struct msg m;
	int n;

	while (h->chan.fd >= 0 && (n = chan_recv(&h->chan, &m)))
		if (n > 0 && agreed(h, &m))
			wire_in(h, &m);
		else if (n == -EMFILE || n == -ENOMEM)
			break;   /* tried again at the next turn */
		else
			lost(h, n > 0 ? -EBADMSG : n);
}

static void connected(handoff *h)
{
	int fd = helper_fetch(h);

	if (fd < 0)
		return;
	close_channel(h);
	if (sys_epoll_ctl(h->ep, EPOLL_CTL_ADD, fd, EPOLLIN)) {
		sys_close(fd);
		helper_connect(h, HOPE_LITTLE);
		return;
	}
	pthread_mutex_lock(&h->helper.mutex);
	chan_init(&h->chan, fd);
	pthread_mutex_unlock(&h->helper.mutex);
	h_step(h, D_E_CONNECTED);
}

static void poll_lock(handoff *h)
{
	if (d_wants_lock(&h->d) && sys_now_ms() >= h->next_lock_try)
		h_step(h, try_lock(h));
}

void h_rearm(handoff *h)
{
	uint64_t at = d_next(&h->d);
	bool writing = chan_pending(&h->chan);

	if (d_wants_lock(&h->d) && h->next_lock_try < at)
		at = h->next_lock_try ? h->next_lock_try : sys_now_ms();
	if (at != h->armed) {
		sys_timerfd_set(h->timer, at == UINT64_MAX ? 0 : at ? at : 1);
		h->armed = at;
	}
	if (writing != h->writing && h->chan.fd >= 0) {
		sys_epoll_ctl(h->ep, EPOLL_CTL_MOD, h->chan.fd, EPOLLIN | (writing ? EPOLLOUT : 0u));
		h->writing = writing;
	}
}

void h_unwake(handoff *h)
{
	uint64_t n;

	/* unless the helper's new channel keeps it so: that is set and announced in one */
	pthread_mutex_lock(&h->helper.mutex);
	if (h->helper.connected < 0)
		sys_read(h->wake, &n, sizeof n);
	pthread_mutex_unlock(&h->helper.mutex);
	h->woken = false;
}

int h_dispatch(handoff *h)
{
	enum d_event e;

	if (h->role == HANDOFF_STANDALONE)
		return (int)h->nevents;
	if (h->woken)
		h_unwake(h);
	if (h->chan.fd < 0)
		connected(h);
	flush(h);
	give_turn(h);
	take_turn(h);
	read_all(h);   /* before the clock is asked: what has come counts */
	while ((e = d_tick(&h->d, sys_now_ms())) != D_E_NONE)
		h_step(h, e);
	poll_lock(h);
	h_rearm(h);
	return (int)h->nevents;
}

int h_poll(handoff *h, int timeout_ms)
{
	struct pollfd p = { .fd = h->ep, .events = POLLIN };

	return sys_poll(&p, 1, timeout_ms);
}

int h_watch(const handoff *h, int fd, uint32_t *watched, uint32_t events)
{
	int e;

	if (events == *watched || fd < 0)
		return 0;
	e = sys_epoll_ctl(h->ep, !events ? EPOLL_CTL_DEL : *watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, events);
	if (!e)
		*watched = events;
	return e;
}
