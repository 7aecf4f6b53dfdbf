/* Messages to and from the supervisor. */
#include "lib/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sys.h"
#include "proto/move.h"

void wire_send(handoff *h, const struct msg *m, const int *fds, unsigned nfds)
{
	int e;

	if (h->chan.fd < 0)
		return;
	pthread_mutex_lock(&h->helper.mutex);
	e = chan_send(&h->chan, m, fds, nfds);
	/* What the supervisor has sent is still read, then the end, and an incumbent connects again.
	 * At EPIPE too: a peer that only reads no more would be waited for for ever. */
	if (e)
		chan_end(&h->chan);
	pthread_mutex_unlock(&h->helper.mutex);
	if (e && e != -EPIPE && e != -ECONNRESET)
		h_log(h, HANDOFF_LOG_WARNING, "%s could not be sent: %s", msg_name(m->type), strerror(-e));
}

/* A daemon's words: cut, and never what the peer would refuse the whole frame for. */
static struct span words(const char *s)
{
	struct span w = { s, strlen(s) };

	while (w.n > 1024 || (w.n > 1000 && !utf8_valid(w.p, w.n)))
		w.n--;
	return utf8_valid(w.p, w.n) ? w : SPAN("(a text that is not UTF-8)");
}

void wire_simple(handoff *h, enum msg_type type)
{
	struct msg m = { .type = type };

	switch (type) {
	case MSG_drained:
		m.drained.id = h->d.id;
		m.drained.connections = h->connections;
		m.drained.accept_closed = true;
		break;
	case MSG_seal_complete:
		m.seal_complete.id = h->d.id;
		m.seal_complete.revisions = (struct uints){ .n = h->answer->shards, .v = h->answer->revisions };
		memcpy(m.seal_complete.fingerprint.b, h->answer->fingerprint, FINGERPRINT_SIZE);
		if (h->lock.epoch && !h->lock.record_error)   /* the next one finds it there */
			MSG_SET(&m, seal_complete, epoch, h->lock.epoch);
		give_count(h, &m);
		break;
	case MSG_seal_failed:
		m.seal_failed.id = h->d.id;
		m.seal_failed.error = words(h->failure ? h->failure : "not asked to seal: it serves");
		if (h->failure && give_failed_by_n(h))
			MSG_SET(&m, seal_failed, by_successor, true);
		break;
	case MSG_status:
		m.status.serving = true;
		if (!hid_none(&h->d.id))
			MSG_SET(&m, status, id, h->d.id);
		MSG_SET(&m, status, epoch, h->lock.epoch);
		if (h->failure && give_failed_by_n(h))
			MSG_SET(&m, status, by_successor, true);
		break;
	default:
		return;
	}
	wire_send(h, &m, NULL, 0);
}

void wire_hello(handoff *h)
{
	struct msg m = { .type = MSG_hello };
	bool again = !d_is_successor(&h->d);
	struct stat st;

	m.hello.role = again ? 2 : h->role == HANDOFF_SUCCESSOR;
	m.hello.pid = (uint64_t)getpid();
	m.hello.build = (struct span){ (const char *)h->build, h->build_size };
	m.hello.version_min = PROTO_VERSION_MIN;
	m.hello.version_max = PROTO_VERSION_MAX;
	m.hello.capabilities = h->flags & HANDOFF_CONNECTIONS ? CAP_CONNECTIONS : 0;
	if (h->has_data_dir && !sys_fstat(h->data_dir, &st)) {
		MSG_SET(&m, hello, dev, st.st_dev);
		MSG_SET(&m, hello, ino, st.st_ino);
	}
	if (h->software[0])
		MSG_SET(&m, hello, software, words(h->software));
	if (again) {
		if (!hid_none(&h->d.id))
			MSG_SET(&m, hello, id, h->d.id);
		MSG_SET(&m, hello, phase, h->d.state);
		MSG_SET(&m, hello, locked, h->lock.held);
		MSG_SET(&m, hello, sockets, h->nlisten);
		MSG_SET(&m, hello, epoch, h->lock.epoch);
	}
	wire_send(h, &m, NULL, 0);
}

void wire_ready(handoff *h)
{
	struct msg m = { .type = MSG_ready };
	const struct handoff_state *s = h->answer;
	struct span names[64];
	unsigned n = 0;

	for (unsigned i = 0; i < h->nlisten && n < 64; i++)
		if (h->listen[i].taken)
			names[n++] = SPAN(h->listen[i].name);
	if (!hid_none(&h->d.id))
		MSG_SET(&m, ready, id, h->d.id);
	m.ready.listening = (struct texts){ .n = n, .v = names };
	m.ready.healthy = s->healthy;
	m.ready.revisions = (struct uints){ .n = s->shards, .v = s->revisions };
	memcpy(m.ready.fingerprint.b, s->fingerprint, FINGERPRINT_SIZE);
	if (!s->healthy && s->reason)
		MSG_SET(&m, ready, why, words(s->reason));
	wire_send(h, &m, NULL, 0);
}

/* Batches of at most 64, the next one when this one is acknowledged. */
static void send_sockets(handoff *h)
{
	struct msg m = { .type = MSG_sockets };
	struct span names[FRAME_MAX_FDS];
	int fds[FRAME_MAX_FDS];
	unsigned n = 0, batches = (h->nlisten + FRAME_MAX_FDS - 1) / FRAME_MAX_FDS;

	for (; n < FRAME_MAX_FDS && h->sent_sockets + n < h->nlisten; n++) {
		names[n] = SPAN(h->listen[h->sent_sockets + n].name);
		fds[n] = h->listen[h->sent_sockets + n].fd;
	}
	if (n == 0)
		return;
	m.sockets.batch = h->sent_sockets / FRAME_MAX_FDS + 1;
	m.sockets.of = batches;
	m.sockets.names = (struct texts){ .n = n, .v = names };
	h->sent_sockets += n;
	wire_send(h, &m, fds, n);
}

static void keep_sockets(handoff *h, const struct msg *m)
{
	struct msg ack = { .type = MSG_sockets_ack };
	struct span names[FRAME_MAX_FDS];
	int fds[FRAME_MAX_FDS];
	unsigned n = chan_take_fds(&h->chan, fds), i = 0;
	struct listener *l = realloc(h->listen, (h->nlisten + n) * sizeof *l);

	texts_copy(&m->sockets.names, names, FRAME_MAX_FDS);
	if (l)
		h->listen = l;
	for (; l && i < n; i++) {
		/* here and not in handoff_take_fd: a descriptor table that grows waits for RCU
		 * (there are two threads), some 10 ms that would lie in the pause */
		int out = sys_dup(fds[i], 3);
		char *name = out < 0 ? NULL : strndup(names[i].p, names[i].n);
		if (!name) {
			sys_closep(&out);
			break;
		}
		h->listen[h->nlisten++] = (struct listener){ .name = name, .fd = fds[i], .out = out };
	}
	if (i == n) {
		ack.sockets_ack.batch = m->sockets.batch;
		wire_send(h, &ack, NULL, 0);
		return;
	}
	for (; i < n; i++)
		sys_close(fds[i]);
	h_give_up(h, -ECANCELED, "no memory or descriptors for the listening sockets (RLIMIT_NOFILE)");
	h_drop(h);
}

static char *copy(const struct span *s)
{
	return s->n ? strndup(s->p, s->n) : NULL;
}

void context_clear(struct context *c)
{
	free(c->reason);
	free(c->trace_parent);
	free(c->correlation_id);
	free(c->tenant);
	*c = (struct context){ NULL };
}

#define KEEP_CONTEXT(h, m, name) do { \
	context_clear(&(h)->context); \
	(h)->context = (struct context){ copy(&(m)->name.reason), copy(&(m)->name.trace_parent), \
		copy(&(m)->name.correlation_id), copy(&(m)->name.tenant) }; \
} while (0)

static void keep_sealed(handoff *h, const struct msg *m)
{
	h->sealed = m->begin.sealed;
	h->nrevisions = 0;
	free(h->revisions);
	h->revisions = calloc(m->begin.revisions.n + 1u, sizeof *h->revisions);
	if (h->revisions)
		h->nrevisions = uints_copy(&m->begin.revisions, h->revisions, m->begin.revisions.n);
	h->fingerprint = m->begin.fingerprint;
	h->sealed_epoch = MSG_HAS(m, begin, epoch) ? m->begin.epoch : 0;
}

void wire_resume_reason(handoff *h, const char *p, size_t n)
{
	free(h->resume_reason);
	h->resume_reason = strndup(p, n);
}

/* What a message brings besides an event of the machine. */
static void note(handoff *h, const struct msg *m)
{
	int fds[FRAME_MAX_FDS];

	switch (m->type) {
	case MSG_hello_ack:
		h->welcome_at = sys_now_ms();
		pthread_mutex_lock(&h->helper.mutex);
		h->chan.version = (uint16_t)m->hello_ack.version;
		pthread_mutex_unlock(&h->helper.mutex);
		if (!d_is_successor(&h->d)) {
			h->sent_sockets = 0;
			send_sockets(h);
		} else {
			KEEP_CONTEXT(h, m, hello_ack);
			if (chan_take_fds(&h->chan, fds) && take_open(h, fds[0], m->hello_ack.transfer)) {
				h_give_up(h, -ECANCELED, "no memory for the incumbent's connections");
				h_drop(h);
			}
		}
		break;
	case MSG_sockets:
		keep_sockets(h, m);
		break;
	case MSG_sockets_ack:
		send_sockets(h);
		break;
	default:
		break;
	}
}

/* What the machine's event brings along; a message that it drops leaves no trace. */
static void note_event(handoff *h, enum d_event e, const struct msg *m)
{
	int fds[FRAME_MAX_FDS];

	switch (e) {
	case D_E_PREPARE:
		KEEP_CONTEXT(h, m, prepare);
		take_free(h);
		give_free(h);
		if (chan_take_fds(&h->chan, fds))
			give_open(h, fds[0], m->prepare.transfer);
		h->drain_until = sys_now_ms() + m->prepare.drain_ms;
		h->seal_until = sys_now_ms() + m->prepare.deadline_ms;
		break;
	case D_E_BEGIN_SEALED:
	case D_E_BEGIN_NOTHING:
		if (h->d.state == D_WBEGIN)
			keep_sealed(h, m);
		break;
	case D_E_ABORT:
		h_end(h, "the supervisor ended it: %.*s", (int)m->abort.why.n, m->abort.why.p);
		break;
	case D_E_RESUME:
		wire_resume_reason(h, m->resume.why.p, m->resume.why.n);
		break;
	default:
		break;
	}
}

void wire_in(handoff *h, const struct msg *m)
{
	enum d_event e = d_event_of(&h->d, m, sys_now_ms());

	note(h, m);
	note_event(h, e, m);
	h_step(h, e);
}
