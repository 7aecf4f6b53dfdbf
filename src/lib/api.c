/* The daemon's calls: the straight line of a start, the events, the answers. */
#include "lib/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"

static int canceled(handoff *h)
{
	h_forget(h, HANDOFF_BEGIN);
	h_forget(h, HANDOFF_DECIDED);
	return h_fail(h, h->end_code, "%s", h->end);
}

static bool state_ok(const struct handoff_state *s)
{
	return s && s->size >= sizeof *s && s->shards <= HANDOFF_MAX_SHARDS && (!s->shards || s->revisions);
}

/* Reads and waits until done(h), which the event type announces, or the end of the attempt. */
static int wait_for(handoff *h, bool (*done)(const handoff *), int type)
{
	int e = 0;

	while (h_dispatch(h), !h->canceled && !done(h)) {
		if (h->flags & HANDOFF_NONBLOCK)
			return -EAGAIN;
		h_poll(h, -1);
	}
	if (h->canceled)
		e = canceled(h);
	h_forget(h, type);
	h_wake(h);   /* what came behind it is still to be taken */
	return e;
}

/* ----------------------------------------------------------------- start --- */

static bool is_open(const handoff *h) { return h->d.state == D_OPEN; }
static bool is_open_or_asks(const handoff *h) { return is_open(h) || take_waits(h); }
static bool is_decided(const handoff *h) { return h->d.state >= D_SERVE; }

static int begin_alone(handoff *h)
{
	struct lock_owner o = { 0 };
	int e = h->lock.dir < 0 ? 0 : lockfile_try(&h->lock, h->build, h->build_size);

	if (e == -EWOULDBLOCK && !lockfile_read(h->lock.dir, &o))
		return h_fail(h, -EBUSY, "the data directory is in use by pid %llu", (unsigned long long)o.pid);
	if (e == -EWOULDBLOCK)
		return h_fail(h, -EBUSY, "the data directory is in use");
	if (!e && (e = lockfile_sync(&h->lock)))
		return h_fail(h, e, LOCKFILE_NAME " could not be written: %s", strerror(-e));
	if (e)
		return h_fail(h, e, "%s", h->lock.error);
	h->d.state = D_OPEN;
	return 0;
}

EXPORT int handoff_begin(handoff *h, struct handoff_sealed *ret)
{
	struct handoff_sealed all;
	int e = 0;

	/* the first version ended there */
	if (!ret || ret->size < offsetof(struct handoff_sealed, reason) || (h->d.state > D_OPEN && !h->canceled))
		return h_fail(h, -EINVAL, "handoff_begin: called twice, or without ret->size");
	if (h->role == HANDOFF_STANDALONE) {
		e = begin_alone(h);
	} else {
		if (h->d.state == D_START && !h->canceled) {
			/* before the incumbent has stopped for it */
			if (h->lock.dir >= 0 && (e = lockfile_open(&h->lock)))
				return h_fail(h, e, "%s", h->lock.error);
			if (geteuid() != h->uid || getegid() != h->gid)
				helper_tie(h);   /* a change of user clears it, prctl(2) */
			/* who says Hello may get the lock, and then hang: it must end with S */
			helper_tied(h);
			h_step(h, D_E_APP_BEGIN);
			lockfile_prepare(&h->lock);   /* while Hello is on its way: not in the pause */
		}
		e = wait_for(h, is_open_or_asks, HANDOFF_BEGIN);
		if (!e && ((e = is_open(h) ? take_begin(h) : -EAGAIN)))
			return h->canceled ? canceled(h) : e;
	}
	if (e)
		return e;
	all = (struct handoff_sealed){
		.size = ret->size, .sealed = h->sealed, .revisions = h->revisions,
		.shards = h->nrevisions, .epoch = h->lock.epoch, .reason = h->context.reason,
		.trace_parent = h->context.trace_parent, .correlation_id = h->context.correlation_id,
		.tenant = h->context.tenant,
	};
	memcpy(all.fingerprint, h->fingerprint.b, sizeof all.fingerprint);
	memcpy(ret, &all, all.size < sizeof all ? all.size : sizeof all);
	return 0;
}

EXPORT int handoff_take_fd(handoff *h, const char *name)
{
	if (h->canceled)
		return canceled(h);
	for (unsigned i = 0; i < h->nlisten; i++) {
		unsigned at = (h->next_take + i) % h->nlisten;
		struct listener *l = &h->listen[at];
		if (strcmp(l->name, name))
			continue;
		int fd = l->out >= 0 ? l->out : sys_dup(l->fd, 3);
		if (fd < 0)
			return h_fail(h, fd, "listener %s: %s", name, strerror(-fd));
		l->out = -1;
		l->taken = true;
		h->next_take = at + 1;
		return fd;
	}
	return h_fail(h, -ENOENT, "no listener is called %s", name);
}

EXPORT const char *handoff_fd_name(const handoff *h, unsigned i)
{
	return i < h->nlisten ? h->listen[i].name : NULL;
}

EXPORT int handoff_ready(handoff *h, const struct handoff_state *state)
{
	if (h->canceled)
		return canceled(h);
	if (is_decided(h)) {
		h_forget(h, HANDOFF_DECIDED);
		h_wake(h);   /* the supervisor's next message may have come with the decision */
		return 0;
	}
	if (h->d.state == D_OPEN) {
		if (!state_ok(state))
			return h_fail(h, -EINVAL, "handoff_ready: a state of an unknown shape");
		if (h->role == HANDOFF_STANDALONE) {
			if (!state->healthy)
				return h_fail(h, -ECANCELED, "unhealthy: %s", state->reason ? state->reason : "no reason given");
			h->d.state = D_SERVE;
			return 0;
		}
		h->answer = state;
		h_step(h, D_E_APP_READY);
		h->answer = NULL;
		/* the decision is read when it is asked for: with it this one says that it serves */
		if ((h->flags & HANDOFF_NONBLOCK) && !h->canceled) {
			h_rearm(h);
			return -EAGAIN;
		}
	} else if (h->d.state != D_READY) {
		return h_fail(h, -EINVAL, "handoff_ready: handoff_begin comes first");
	}
	return wait_for(h, is_decided, HANDOFF_DECIDED);
}

/* ---------------------------------------------------------------- events --- */

EXPORT int handoff_fd(const handoff *h)
{
	return h->ep;
}

EXPORT int handoff_dispatch(handoff *h)
{
	return h_dispatch(h);
}

/* What belongs to the handle is read now: it may have changed since the event came. */
static void fill_in(const handoff *h, struct handoff_event *e)
{
	if (e->type == HANDOFF_RESUME)
		e->reason = h->resume_reason;
	if (e->type != HANDOFF_DRAIN)
		return;
	e->can_give = h->giver != NULL;
	e->reason = h->context.reason;
	e->trace_parent = h->context.trace_parent;
	e->correlation_id = h->context.correlation_id;
	e->tenant = h->context.tenant;
}

EXPORT int handoff_next(handoff *h, struct handoff_event *ret)
{
	struct handoff_event e;

	if (ret->size < offsetof(struct handoff_event, can_give))   /* the first version ended there */
		return h_fail(h, -EINVAL, "handoff_next: without ret->size");
	if (!h->nevents)
		return 0;
	e = h->events[h->first_event];
	e.size = ret->size;
	fill_in(h, &e);
	memcpy(ret, &e, e.size < sizeof e ? e.size : sizeof e);
	h->first_event = (h->first_event + 1) % MAX_EVENTS;
	h->nevents--;
	if (!h->nevents && h->woken)
		h_unwake(h);
	return 1;
}

EXPORT int handoff_wait(handoff *h, int timeout_ms, struct handoff_event *ret)
{
	uint64_t until = sys_now_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms), now;

	for (;;) {
		h_dispatch(h);
		int e = handoff_next(h, ret);
		if (e) {
			h_wake(h);
			return e;
		}
		now = sys_now_ms();
		if (timeout_ms >= 0 && now >= until)
			return 0;
		if ((e = h_poll(h, timeout_ms < 0 ? -1 : (int)(until - now))) < 0)
			return e;
	}
}

/* --------------------------------------------------------------- answers --- */

/* The machine is in the state that the answer is for: step. Else the attempt has ended. */
static int answer(handoff *h, enum d_state a, enum d_state b, enum d_event e)
{
	if (h->d.state != a && h->d.state != b) {
		if (h->d.state == D_UNDRAIN || h->d.state == D_REOPEN || h->d.state == D_RELOCK)
			return h_fail(h, -ECANCELED, "the attempt has ended, HANDOFF_RESUME follows");
		return h_fail(h, -EINVAL, "an answer that was not asked for (the state is %s)",
		              d_state_name[h->d.state]);
	}
	h_step(h, e);
	h_rearm(h);
	h_wake(h);
	return 0;
}

EXPORT int handoff_drained(handoff *h, unsigned connections_open)
{
	h->connections = connections_open;
	return answer(h, D_DRAINING, D_DRAINING, D_E_APP_DRAINED);
}

EXPORT int handoff_seal_progress(handoff *h, unsigned done, unsigned total, uint64_t last_revision)
{
	struct msg m = { .type = MSG_seal_progress };

	if (h->d.state != D_SEALING)
		return h_fail(h, h->d.state == D_UNSEAL ? -ECANCELED : -EINVAL, "no seal is under way");
	if (done > total || total > HANDOFF_MAX_SHARDS)
		return h_fail(h, -EINVAL, "handoff_seal_progress: %u of %u shards", done, total);
	m.seal_progress.id = h->d.id;
	m.seal_progress.done = done;
	m.seal_progress.total = total;
	m.seal_progress.revision = last_revision;
	wire_send(h, &m, NULL, 0);
	h_rearm(h);
	return 0;
}

EXPORT int handoff_sealed(handoff *h, const struct handoff_state *state)
{
	int e;

	if (!state_ok(state))
		return h_fail(h, -EINVAL, "handoff_sealed: a state of an unknown shape");
	if (h->d.state == D_SEALING && give_open_ended(h))
		return h_fail(h, -EINVAL, "handoff_sealed: handoff_give_end comes first");
	h->answer = state;
	e = answer(h, D_SEALING, D_UNSEAL, D_E_APP_SEALED);
	h->answer = NULL;
	return e;
}

EXPORT int handoff_seal_failed(handoff *h, const char *reason)
{
	int e;

	h->failure = reason && *reason ? reason : "the daemon gave no reason";
	e = answer(h, D_SEALING, D_UNSEAL, D_E_APP_SEAL_FAILED);
	h->failure = NULL;
	return e;
}

EXPORT int handoff_resumed(handoff *h)
{
	return answer(h, D_UNDRAIN, D_REOPEN, D_E_APP_RESUMED);
}
