/* libhandoff below a supervisor that lies: the environment that it gives, and all that it says. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/chan.h"
#include "fuzz.h"
#include "handoff.h"

struct run {
	struct feed feed;
	handoff *h;
	struct chan s;              /* the supervisor's end */
	char data[200];
};

static void set(const char *name, struct feed *f, const char *right)
{
	const uint8_t how = feed_u8(f);
	char text[256];

	if (how & 1)
		setenv(name, right, 1);
	else if (how & 2)
		setenv(name, feed_text(f, text, sizeof text), 1);
	else
		unsetenv(name);
}

/* ----------------------------------------------------------- the supervisor --- */

static void likely(struct run *r, struct msg *m, uint8_t which)
{
	static const uint64_t revisions[] = { 1, 2 };

	*m = (struct msg){ 0 };
	switch (which % 8) {
	case 0:
		m->type = MSG_hello_ack;
		m->hello_ack.version = 1;
		m->hello_ack.deadline_ms = m->hello_ack.commit_ms = 10000;
		m->hello_ack.heartbeat_ms = 1000;
		m->hello_ack.fence_ms = 4000;
		break;
	case 1: m->type = MSG_prepare; m->prepare.deadline_ms = m->prepare.drain_ms = 1000; break;
	case 2: m->type = MSG_seal_request; break;
	case 3:
		m->type = MSG_begin;
		m->begin.sealed = feed_u8(&r->feed) & 1;
		MSG_SET(m, begin, revisions, ((struct uints){ .n = 2, .v = revisions }));
		break;
	case 4: m->type = MSG_commit; m->commit.final = feed_u8(&r->feed) & 1; break;
	case 5: m->type = MSG_resume; break;
	case 6: m->type = MSG_abort; break;
	default: m->type = MSG_heartbeat; break;
	}
}

static void sockets(struct run *r)
{
	char name[64];
	struct msg m = { .type = MSG_sockets };
	struct span names[2] = { SPAN(feed_text(&r->feed, name, sizeof name)), SPAN("main") };
	int fds[2] = { r->s.fd, r->s.fd };
	const unsigned n = 1 + (feed_u8(&r->feed) & 1u);

	m.sockets.batch = m.sockets.of = 1;
	m.sockets.names = (struct texts){ .n = n, .v = names };
	/* as many as it says, or not */
	chan_send(&r->s, &m, fds, feed_u8(&r->feed) % 8 ? n : n - 1);
}

static void supervisor(struct run *r, uint8_t which)
{
	uint8_t raw[256];
	struct msg m;

	switch (which & 7) {
	case 0: case 1: case 2: likely(r, &m, which >> 3); chan_send(&r->s, &m, NULL, 0); break;
	case 3: feed_message(&r->feed, 0, false, &m); chan_send(&r->s, &m, NULL, 0); break;
	case 4: sockets(r); break;
	case 5: chan_close(&r->s); break;
	default: {
		const size_t n = feed_bytes(&r->feed, raw, sizeof raw);
		if (r->s.fd >= 0 && n)
			send(r->s.fd, raw, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	}
}

/* ----------------------------------------------------------------- the daemon --- */

static void known(int e)
{
	HOLDS(e >= 0 || e == -EAGAIN || e == -EINVAL || e == -ECANCELED || e == -ENOENT || e == -EWOULDBLOCK ||
	      e == -EBADF, "%d", e);
}

static void daemon_calls(struct run *r, uint8_t which)
{
	const uint64_t revisions[] = { 1, 2 };
	struct handoff_state state = { .size = sizeof state, .revisions = revisions, .shards = 2, .healthy = 1 };
	struct handoff_sealed sealed = { .size = sizeof sealed };
	struct handoff_event e = { .size = sizeof e };
	handoff *h = r->h;
	int fd;

	switch (which % 12) {
	case 0: case 1: known(handoff_begin(h, &sealed)); break;
	case 2: known(handoff_ready(h, &state)); break;
	case 3: known(handoff_drained(h, which)); break;
	case 4: known(handoff_sealed(h, &state)); break;
	case 5: known(handoff_seal_failed(h, which & 64 ? "no space" : "\xff")); break;
	case 6: known(handoff_resumed(h)); break;
	case 7: known(handoff_seal_progress(h, 1, 2, 3)); break;
	case 8:
		if ((fd = handoff_take_fd(h, "main")) >= 0)
			close(fd);
		break;
	default:
		handoff_dispatch(h);
		while (handoff_next(h, &e) > 0)
			HOLDS(e.type >= HANDOFF_BEGIN && e.type <= HANDOFF_LOST, "event %d", e.type);
	}
}

static void hear(struct run *r)
{
	struct msg m;
	int e;

	while (r->s.fd >= 0 && (e = chan_recv(&r->s, &m)) != 0)
		if (e < 0) {
			HOLDS(e != -EBADMSG, "the library sends what is not the protocol: %s", r->s.error);
			chan_close(&r->s);
		}
}

void fuzz_library(const uint8_t *p, size_t n)
{
	static struct run r;
	struct handoff_options o = { .size = sizeof o, .flags = HANDOFF_NONBLOCK };
	const unsigned before = fuzz_count_fds();
	char fd[16];
	int pair[2];

	r = (struct run){ .feed = { p, n } };
	snprintf(r.data, sizeof r.data, "%s/data", fuzz_dir());
	mkdir(r.data, 0700);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		abort();
	chan_init(&r.s, pair[1]);
	snprintf(fd, sizeof fd, "%d", pair[0]);
	set("HANDOFF_FD", &r.feed, fd);
	set("HANDOFF_ROLE", &r.feed, "successor");
	set("HANDOFF_DIR", &r.feed, r.data);
	set("HANDOFF_LOCK_DIR", &r.feed, r.data);
	o.data_dir = feed_u8(&r.feed) & 1 ? r.data : NULL;
	if (handoff_open(&o, &r.h)) {
		if (fcntl(pair[0], F_GETFD) >= 0)
			close(pair[0]);
	} else {
		const bool alone = handoff_role(r.h) == HANDOFF_STANDALONE;

		while (r.feed.n) {
			const uint8_t what = feed_u8(&r.feed), which = feed_u8(&r.feed);

			if (what & 1)
				daemon_calls(&r, which);
			else
				supervisor(&r, which);
			hear(&r);
		}
		handoff_close(r.h);
		if (alone)
			close(pair[0]);
	}
	chan_close(&r.s);
	HOLDS(fuzz_count_fds() == before, "%u descriptors, before it %u", fuzz_count_fds(), before);
}
