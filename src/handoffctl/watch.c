/* watch: what happens at a service, as it happens. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sys.h"
#include "handoffctl/ask.h"
#include "handoffctl/ctl.h"
#include "handoffctl/json.h"
#include "handoffctl/place.h"

/* When it happened; an older supervisor does not say it. */
static uint64_t time_of(const struct msg *m)
{
	return MSG_HAS(m, op_event, at_ms) ? m->op_event.at_ms : sys_wall_ms();
}

static void print_json(struct out *o, const struct msg *m)
{
	json_t *j = json_object();

	json_put_text(j, "event", "watch");
	json_put_uint(j, "at_ms", true, time_of(m));
	json_put_hid(j, "handoff", MSG_HAS(m, op_event, id), &m->op_event.id);
	json_put_span(j, "phase", true, m->op_event.phase);
	json_put_uint(j, "us", true, m->op_event.us);
	json_put_span(j, "text", MSG_HAS(m, op_event, text), m->op_event.text);
	json_put_counts(j, m);
	json_put_uint(j, "missed", MSG_HAS(m, op_event, missed), m->op_event.missed);
	json_put_span(j, "reason", MSG_HAS(m, op_event, reason), m->op_event.reason);
	json_put_span(j, "trace_parent", MSG_HAS(m, op_event, trace_parent), m->op_event.trace_parent);
	json_put_span(j, "correlation_id", MSG_HAS(m, op_event, correlation_id), m->op_event.correlation_id);
	json_put_span(j, "tenant", MSG_HAS(m, op_event, tenant), m->op_event.tenant);
	out_json(o, j);
}

static void print_clock(const struct out *o, uint64_t ms)
{
	const time_t t = (time_t)(ms / 1000);
	char at[16] = "?";
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(at, sizeof at, "%H:%M:%S", &tm);
	out_color(stdout, o->color, OUT_DIM);
	printf("%s.%03u  ", at, (unsigned)(ms % 1000));
	out_color(stdout, o->color, OUT_PLAIN);
}

/* The phase that ends with this event, and how long it took; not for progress within one. */
struct before { struct hid id; char phase[65]; uint64_t us; };

static void print_line(struct out *o, const struct msg *m, struct before *b)
{
	const struct msg_op_event *e = &m->op_event;
	const bool same = MSG_HAS(m, op_event, id) && hid_equal(&b->id, &e->id);
	char id[37] = "", took[32];

	print_clock(o, time_of(m));
	if (MSG_HAS(m, op_event, id))
		hid_format(&e->id, id);
	printf("%-8.8s  ", id);
	out_text(stdout, e->phase);
	if (MSG_HAS(m, op_event, text)) {
		printf(": ");
		out_text(stdout, e->text);
	}
	if (same && *b->phase && strncmp(b->phase, e->phase.p, e->phase.n) && e->us >= b->us) {
		out_color(stdout, o->color, OUT_DIM);
		printf("  (%s took %s)", b->phase, out_duration(e->us - b->us, took));
		out_color(stdout, o->color, OUT_PLAIN);
	}
	putchar('\n');
	out_flush(o);
	if (same && !strncmp(b->phase, e->phase.p, e->phase.n) && !b->phase[e->phase.n])
		return;
	b->id = e->id;
	b->us = e->us;
	snprintf(b->phase, sizeof b->phase, "%.*s", (int)e->phase.n, e->phase.p);
}

/* Until the supervisor ends, or stdout has no reader any more. -errno, or a result's exit code. */
static int follow_events(struct ctl *c, struct chan *chan)
{
	struct before before = { .phase = "" };
	struct msg m;
	int r;

	for (;;) {
		struct pollfd p[2] = { { chan->fd, POLLIN, 0 }, { fileno(stdout), 0, 0 } };

		while ((r = chan_recv(chan, &m)) == 1) {
			if (m.type == MSG_op_result)
				return out_error(&c->out, (int)m.op_result.code, "%.*s",
				                 (int)m.op_result.message.n, m.op_result.message.p);
			if (m.type != MSG_op_event)
				return -EBADMSG;
			if (c->json)
				print_json(&c->out, &m);
			else
				print_line(&c->out, &m, &before);
			if (ferror(stdout))
				return CTL_OK;
		}
		if (r < 0)
			return r;
		sys_poll(p, 2, -1);
		if (p[1].revents & POLLERR)   /* a pipe without a reader */
			return CTL_OK;
	}
}

static int start(struct chan *chan, const char *socket)
{
	const struct msg m = { .type = MSG_op_watch };
	const int fd = ask_connect_within(socket, ASK_CONNECT_MS);

	if (fd < 0)
		return fd;
	chan_init(chan, fd);
	return chan_send(chan, &m, NULL, 0);
}

int ctl_watch(struct ctl *c)
{
	struct chan chan = { .fd = -1 };
	char *socket, *name;
	int r = place_find(c, &socket, &name);

	if (!r && (r = start(&chan, socket)) >= 0)
		r = follow_events(c, &chan);
	if (r < 0)
		r = place_error(c, name, socket, r, chan.error);
	chan_close(&chan);
	free(socket);
	free(name);
	return r;
}
