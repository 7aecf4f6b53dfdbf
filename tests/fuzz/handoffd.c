/*
 * All of handoffd in one process: daemons, operators and time are played by the input. In the
 * end it is told to stop, daemons do what they are told, and it has to end.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "handoffd/fdstore.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

#define CALLERS 3
#define LIMITS "start-timeout = 60s\n drain-grace = 1s\n deadline = 5s\n"

static struct service service;
static struct feed feed;
static struct chan heard[FAKES];     /* the fakes' ends of their channels */
static struct chan caller[CALLERS];
static char run_dir[200];

/* ------------------------------------------------------------- what it does --- */

/* A Commit to N in a handoff: what a supervisor that is started now would read says so. */
static void decided(const struct s_row *row)
{
	static uint8_t buf[SLOTS_PAYLOAD_MAX + 64];
	struct slots slots;
	struct msg m;
	char err[200] = "";
	const int e = slots_load(&slots, service.store.journal_fd, SLOTS_PAYLOAD_MAX, buf, &m, err, sizeof err);

	HOLDS(!e && m.type == MSG_journal && m.journal.phase == BOOT_COMMITTED && hid_equal(&m.journal.id, &service.s.id),
	      "%s: Commit, and the journal does not say so: %d %s", row->rule, e, err);
}

static void on_row(void *arg, const struct s_row *row)
{
	(void)arg;
	for (size_t i = 0; i < sizeof row->action / sizeof *row->action; i++) {
		if (row->action[i] == S_A_COMMIT_N && row->state == S_DECIDING)
			decided(row);
		if (row->action[i] == S_A_SPAWN_COLD)
			HOLDS(fakes_alive() == 0, "a cold start beside %u daemons", fakes_alive());
		if (row->action[i] == S_A_RESUME_O)
			HOLDS(!service.n || service.n->pidfd < 0, "the incumbent is to serve beside a successor");
	}
}

static void turn(void)
{
	for (int i = 0; i < 3 && !service.ended; i++)
		event_base_loop(service.base, EVLOOP_NONBLOCK);
	HOLDS(fakes_alive() <= 2, "%u daemons", fakes_alive());
}

/* -------------------------------------------------------------- daemons --- */

static struct chan *channel_of(struct fake *f)
{
	struct chan *c = &heard[f - fakes];

	if (c->fd != f->channel) {
		c->fd = -1;        /* it was closed by the death of the fake */
		chan_close(c);
		chan_init(c, f->channel);
	}
	return c;
}

static void drop_channel(struct fake *f)
{
	struct chan *c = channel_of(f);

	chan_close(c);
	f->channel = -1;
}

static void hear(struct fake *f)
{
	struct chan *c = channel_of(f);
	struct msg m;
	int e;

	while (c->fd >= 0 && (e = chan_recv(c, &m)))
		if (e < 0) {
			HOLDS(e != -EBADMSG, "handoffd sends what is not the protocol: %s", c->error);
			drop_channel(f);
		}
}

static void right_message(struct msg *m, uint8_t which)
{
	static const uint64_t revision = 1;
	const struct uints one = { .n = 1, .v = &revision };

	*m = (struct msg){ 0 };
	switch (which & 7) {
	case 0:
		m->type = MSG_hello;
		m->hello.role = fakes_alive() > 1;
		m->hello.pid = 1;
		m->hello.build = SPAN("build");
		m->hello.version_min = m->hello.version_max = 1;
		break;
	case 1: m->type = MSG_sockets_ack; m->sockets_ack.batch = 1; break;
	case 2: m->type = MSG_drained; m->drained.id = service.s.id; break;
	case 3: m->type = MSG_seal_complete; m->seal_complete.id = service.s.id; m->seal_complete.revisions = one; break;
	case 4:
		m->type = MSG_ready;
		MSG_SET(m, ready, id, service.s.id);
		m->ready.healthy = true;
		m->ready.revisions = one;
		break;
	case 5:
		m->type = MSG_status;
		MSG_SET(m, status, id, service.s.id);
		m->status.serving = true;
		break;
	case 6: m->type = MSG_seal_failed; m->seal_failed.id = service.s.id; m->seal_failed.error = SPAN("disk"); break;
	default: m->type = MSG_heartbeat; break;
	}
	if (hid_none(&service.s.id) && (m->type == MSG_ready || m->type == MSG_status))
		m->has = 0;
}

static void say_right(struct fake *f, uint8_t which)
{
	struct msg m;

	right_message(&m, which);
	chan_send(channel_of(f), &m, NULL, 0);
}

static void any_message(struct chan *c, bool to_operator)
{
	struct msg m;

	feed_message(&feed, 0, false, &m);
	if (!to_operator && m.type == MSG_seal_progress)
		m.seal_progress.id = service.s.id;
	chan_send(c, &m, NULL, 0);
}

static void raw(struct chan *c, bool framed)
{
	uint8_t buf[FRAME_HEADER + 256];
	const size_t n = feed_bytes(&feed, buf + FRAME_HEADER, 255);

	frame_put_header(buf, 1, n);
	if (c->fd >= 0)
		send(c->fd, framed ? buf : buf + FRAME_HEADER, framed ? n + FRAME_HEADER : n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int knock(const char *name, pid_t who, uid_t uid)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%.60s/%.30s", service.runtime_dir, name);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
		close(fd);
		return -1;
	}
	world.visitor = who;
	world.visitor_uid = uid;
	turn();
	world.visitor = 0;
	return fd;
}

/* A daemon that lost its channel finds handoffd again; now and then with sockets. */
static void register_again(struct fake *f, uint8_t how)
{
	const int fd = knock("daemon.sock", how & 8 ? f->pid : getpid(), geteuid());
	struct msg m;

	if (fd < 0)
		return;
	drop_channel(f);
	f->channel = fd;
	right_message(&m, 0);
	m.hello.role = 2;
	MSG_SET(&m, hello, id, service.s.id);
	MSG_SET(&m, hello, phase, how & 16 ? 6 : 8);   /* serving, drained */
	MSG_SET(&m, hello, sockets, how & 1);
	chan_send(channel_of(f), &m, NULL, 0);
	if (how & 1) {
		struct span name = SPAN("main");
		struct msg s = { .type = MSG_sockets };
		s.sockets.batch = s.sockets.of = 1;
		s.sockets.names = (struct texts){ .n = 1, .v = &name };
		chan_send(channel_of(f), &s, &fd, 1);
	}
}

static void daemon_does(uint8_t which)
{
	struct fake *f = &fakes[which % FAKES];
	const uint8_t what = which / FAKES;

	if (!f->pid || f->life < 0)
		return;
	hear(f);
	switch (what & 7) {
	case 0: case 1: case 2: say_right(f, feed_u8(&feed)); break;
	case 3: any_message(channel_of(f), false); break;
	case 4: raw(channel_of(f), what & 8); break;
	case 5: drop_channel(f); break;
	case 6: fake_dies(f); break;
	default: register_again(f, feed_u8(&feed)); break;
	}
}

/* ------------------------------------------------------------- operators --- */

static void request(struct chan *c, uint8_t which)
{
	struct msg m = { 0 };
	const struct hid id = { { 1 + which / 8 % 4 } };

	switch (which & 7) {
	case 0: m.type = MSG_op_upgrade; m.op_upgrade.id = id; break;
	case 1: m.type = MSG_op_plan; m.op_plan.id = id; break;
	case 2: m.type = MSG_op_status; break;
	case 3: m.type = MSG_op_abort; break;
	case 4: m.type = MSG_op_restart; break;
	case 5: m.type = MSG_op_outcome; m.op_outcome.id = id; break;
	case 6: if (which == 6) m.type = MSG_op_stop; else m.type = MSG_op_status; break;
	default: any_message(c, true); return;
	}
	chan_send(c, &m, NULL, 0);
}

static void operator_does(uint8_t which)
{
	struct chan *c = &caller[which % CALLERS];
	struct msg m;
	int e;

	if (c->fd < 0)
		chan_init(c, knock("control.sock", getpid(), which & 128 ? 12345 : geteuid()));
	if (c->fd < 0)
		return;
	switch (which / CALLERS % 6) {
	case 0: case 1: case 2: request(c, feed_u8(&feed)); break;
	case 3: raw(c, which & 64); break;
	case 4: chan_close(c); break;
	default: any_message(c, true); break;
	}
	turn();
	while (c->fd >= 0 && (e = chan_recv(c, &m)))
		if (e < 0) {
			HOLDS(e != -EBADMSG, "an operator is told what is not the protocol: %s", c->error);
			chan_close(c);
		}
}

/* --------------------------------------------------------------- the run --- */

static void time_passes(uint64_t ms)
{
	world.now_us += ms * 1000;
	service_on_timer(-1, 0, &service);
	turn();
}

static void to_the_next_timer(void)
{
	const uint64_t at = s_next(&service.s);

	time_passes(at == UINT64_MAX || at <= world.now_us / 1000 ? 1 : at - world.now_us / 1000);
}

static void begin(void)
{
	struct conf *c;
	char err[1200], text[300];

	snprintf(text, sizeof text, "service fuzz { command = { \"/bin/true\" }\n" LIMITS
	         "listen main { address = \"unix:@handoff-fuzz-%d\" } }\n", (int)getpid());
	snprintf(run_dir, sizeof run_dir, "%s/run", fuzz_dir());
	fuzz_remove(run_dir);
	setenv("HANDOFF_RUNTIME_DIR", run_dir, 1);
	setenv("HANDOFF_STATE_DIR", run_dir, 1);
	world = (struct world){ .now_us = 1000000000, .daemons = true };
	memset(fakes, 0, sizeof fakes);
	for (unsigned i = 0; i < FAKES; i++) {
		fakes[i].channel = fakes[i].life = -1;
		chan_init(&heard[i], -1);
	}
	for (unsigned i = 0; i < CALLERS; i++)
		chan_init(&caller[i], -1);
	log_open("fuzz", LOG_L_ERROR);
	HOLDS(!conf_read(fuzz_file("handoffd.conf", text, strlen(text)), &c, err, sizeof err), "%s", err);
	memset(&service, 0, sizeof service);
	HOLDS(!service_start(&service, event_base_new(), c, NULL, err, sizeof err), "%s", err);
	service.s.trace = on_row;
	turn();
}

/* The first daemon serves: else most inputs would end before anything is interesting. */
static void cold_start(void)
{
	static const uint8_t words[] = { 0, 1, 4, 5 };

	time_passes(0);
	for (size_t i = 0; i < sizeof words; i++) {
		say_right(&fakes[0], words[i]);
		turn();
		hear(&fakes[0]);
	}
	HOLDS(service.s.state == S_IDLE && service.o, "%s", s_state_desc[service.s.state].id);
}

static void end(void)
{
	service_event(&service, S_E_STOP, NULL);
	service_settle(&service);
	for (int i = 0; i < 1000 && !service.ended; i++) {
		for (unsigned k = 0; k < FAKES; k++) {
			if (fakes[k].pid && fakes[k].life >= 0)
				hear(&fakes[k]);
			if (fakes[k].told_to_end)
				fake_dies(&fakes[k]);
		}
		turn();
		if (!service.ended)
			to_the_next_timer();
	}
	HOLDS(service.ended, "it does not end: %s", s_state_desc[service.s.state].id);
	HOLDS(fakes_alive() == 0, "it ends, and %u daemons live", fakes_alive());
}

static void clean(void)
{
	struct event_base *base = service.base;

	for (unsigned i = 0; i < FAKES; i++) {
		fake_dies(&fakes[i]);
		channel_of(&fakes[i]);
	}
	for (unsigned i = 0; i < CALLERS; i++)
		chan_close(&caller[i]);
	service_end(&service);
	event_base_free(base);
	world = (struct world){ 0 };
}

void fuzz_handoffd(const uint8_t *p, size_t n)
{
	const unsigned before = fuzz_count_fds();

	feed = (struct feed){ p, n };
	begin();
	if (feed_u8(&feed) & 3)
		cold_start();
	while (feed.n && !service.ended) {
		const uint8_t what = feed_u8(&feed), which = feed_u8(&feed);

		switch (what & 7) {
		case 0: case 1: case 2: case 3: daemon_does(which); break;
		case 4: case 5: operator_does(which); break;
		case 6:
			if (which & 1)
				time_passes(which);
			else
				to_the_next_timer();
			break;
		default: world.no_disk = which % 4 == 0; break;
		}
		if (!service.ended)
			turn();
	}
	world.no_disk = false;
	if (!service.ended)
		end();
	clean();
	HOLDS(fuzz_count_fds() == before, "%u descriptors, before it %u", fuzz_count_fds(), before);
}
