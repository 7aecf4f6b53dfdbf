#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "conn.h"
#include "request.h"

#define RECONNECT_MS 20      /* after a refused connection */
#define SWEEP_MS     50      /* how exactly timeouts are kept */

/* A client: a connection that stays, or a fresh one. */
struct client {
	struct conn conn;    /* first: the callbacks get its address */
	struct load *load;
	struct kind_stats *kind;
	struct share share;
	struct request request;     /* OP_NONE: nothing under way */
	uint64_t index, taken;      /* keep-alive: its number; requests it has taken */
	bool settle;                /* keep-alive: read settle_key first */
	unsigned settle_key;
	unsigned left;              /* fresh: requests that follow this one */
	TAILQ_ENTRY(client) link;   /* fresh: oldest first */
};

struct load {
	const struct load_options *o;
	struct keys *keys;
	struct stats *stats;
	struct event_base *base;
	struct event tick, sweep, end, report, sigint, sigterm, sigusr1;
	struct client *keepalive;
	TAILQ_HEAD(, client) fresh;
	struct share fresh_share;
	uint64_t start_us, rng;
	uint64_t fresh_due, keepalive_due;  /* how many of each have become due */
	bool ending;
};

static uint64_t due_at(const struct load *l, uint64_t i, double rate)
{
	return l->start_us + (uint64_t)(i * 1e6 / rate);
}

/* The due times of a connection need no queue: they follow from its number. */
static bool has_due(const struct client *c, uint64_t *ret)
{
	const struct load *l = c->load;
	uint64_t i = c->index + c->taken * l->o->keepalive;

	if (i >= l->keepalive_due)
		return false;
	*ret = due_at(l, i, l->o->keepalive_rate);
	return true;
}

static bool all_done(const struct load *l)
{
	uint64_t due;
	unsigned i;

	if (!TAILQ_EMPTY(&l->fresh))
		return false;
	for (i = 0; i < l->o->keepalive; i++)
		if (l->keepalive[i].request.op != OP_NONE || has_due(&l->keepalive[i], &due))
			return false;
	return true;
}

static void send_request(struct client *c)
{
	const char *same = c->load->o->target.request;
	size_t n = same != NULL ? (size_t)sprintf(c->conn.out, "%s", same)
	                        : request_encode(c->load->keys, &c->request, c->conn.out);
	int r = conn_send(&c->conn, n);

	/* Nothing left: the next connection can send the same request. */
	if (r < 0) {
		conn_close(&c->conn);
		c->conn.ops->closed(&c->conn, r);
	}
}

/* --- connections that stay --- */

static void next_keepalive(struct client *c)
{
	uint64_t due = 0;

	if (!c->conn.connected || c->request.op != OP_NONE)
		return;
	if (c->settle) {
		c->request = request_read(c->load->keys, c->settle_key, now_us());
		c->settle = false;
	} else if (has_due(c, &due)) {
		c->request = request_pick(c->load->keys, &c->share, &c->load->rng, due);
		c->taken++;
	} else {
		return;
	}
	c->kind->requests++;
	send_request(c);
}

static void keepalive_ready(struct conn *conn)
{
	struct client *c = (struct client *)conn;

	c->kind->connections++;
	if (c->request.op != OP_NONE)
		send_request(c); /* it had not left when the last connection ended */
	else
		next_keepalive(c);
}

static void keepalive_closed(struct conn *conn, int err);

static void keepalive_reply(struct conn *conn, const struct resp *reply)
{
	struct client *c = (struct client *)conn;

	request_reply(c->load->keys, &c->request, reply, c->load->stats, c->kind);
	if (reply->last)
		keepalive_closed(conn, 0);
	else
		next_keepalive(c);
}

static void lose_keepalive(struct client *c, bool late)
{
	c->settle = c->request.op != OP_PING;
	c->settle_key = c->request.key;
	request_lost(c->load->keys, &c->request, conn_sent(&c->conn), late, c->kind);
}

static void count_end(struct kind_stats *kind, int err)
{
	if (err == -EPROTO)
		kind->error_reply++;
	else if (err == 0)
		kind->eof++;
	else
		kind->reset++;
}

static void keepalive_closed(struct conn *conn, int err)
{
	struct client *c = (struct client *)conn;
	bool never = !conn_sent(conn);

	if (err == -ECONNREFUSED || err == -ENOENT) {
		c->kind->refused++;
		complain(c->load->stats, "keep-alive", "connection refused");
		conn_open(conn, RECONNECT_MS);
		return;
	}
	if (err == -EMFILE || err == -ENFILE || err == -ETIMEDOUT || err == -EADDRNOTAVAIL) {
		c->kind->connect_error++;
		complain(c->load->stats, "keep-alive", strerror(-err));
	} else if (c->request.op != OP_NONE && !never) {
		c->kind->lost++;
		count_end(c->kind, err);
		lose_keepalive(c, false);
	} else {
		c->kind->closed_idle++;
		if (err == -EPROTO)
			c->kind->error_reply++;
	}
	conn_open(conn, err == 0 || err == -ECONNRESET || err == -EPIPE ? 0 : RECONNECT_MS);
}

static const struct conn_ops keepalive_ops = { keepalive_ready, keepalive_reply, keepalive_closed };

/* --- fresh connections --- */

static void fresh_end(struct client *c)
{
	TAILQ_REMOVE(&c->load->fresh, c, link);
	conn_free(&c->conn);
	free(c);
}

static void fresh_ready(struct conn *conn)
{
	struct client *c = (struct client *)conn;

	c->kind->connections++;
	send_request(c);
}

static void fresh_reply(struct conn *conn, const struct resp *reply)
{
	struct client *c = (struct client *)conn;
	unsigned key = c->request.key;
	bool ping = c->request.op == OP_PING;

	if (!request_reply(c->load->keys, &c->request, reply, c->load->stats, c->kind) ||
	    c->left == 0 || ping || reply->last) {
		fresh_end(c);
		return;
	}
	/* Reads what it has just written. */
	c->left--;
	c->kind->requests++;
	c->request = request_read(c->load->keys, key, now_us());
	send_request(c);
}

static void fresh_closed(struct conn *conn, int err)
{
	struct client *c = (struct client *)conn;
	struct stats *s = c->load->stats;

	if (err == -ECONNREFUSED || err == -ENOENT)
		c->kind->refused++;
	else if (err == -EMFILE || err == -ENFILE || err == -ETIMEDOUT || err == -EADDRNOTAVAIL)
		c->kind->connect_error++;
	else
		count_end(c->kind, err);
	complain(s, "fresh connection", err == 0 ? "ended before the reply" : strerror(-err));
	request_lost(c->load->keys, &c->request, conn_sent(conn), false, c->kind);
	fresh_end(c);
}

static const struct conn_ops fresh_ops = { fresh_ready, fresh_reply, fresh_closed };

static void start_fresh(struct load *l, uint64_t due)
{
	struct client *c = calloc(1, sizeof(*c));

	if (c == NULL || conn_init(&c->conn, &fresh_ops, l->base, &l->o->target,
	                           l->keys->value_size + 2048) < 0) {
		free(c);
		l->stats->fresh.connect_error++;
		complain(l->stats, "fresh connection", "out of memory");
		return;
	}
	c->load = l;
	c->kind = &l->stats->fresh;
	c->request = request_pick(l->keys, &l->fresh_share, &l->rng, due);
	c->left = random_next(&l->rng) >> 63;
	c->kind->requests++;
	TAILQ_INSERT_TAIL(&l->fresh, c, link);
	conn_open(&c->conn, 0);
}

/* --- time --- */

static void arm(struct event *e, uint64_t us)
{
	struct timeval t = { us / 1000000, us % 1000000 };

	event_add(e, &t);
}

static void make_fresh_due(struct load *l, uint64_t now)
{
	uint64_t due;

	while (l->o->fresh_rate > 0 && (due = due_at(l, l->fresh_due, l->o->fresh_rate)) <= now) {
		l->fresh_due++;
		start_fresh(l, due);
	}
}

static void make_keepalive_due(struct load *l, uint64_t now)
{
	while (l->o->keepalive > 0 && l->o->keepalive_rate > 0 &&
	       due_at(l, l->keepalive_due, l->o->keepalive_rate) <= now)
		next_keepalive(&l->keepalive[l->keepalive_due++ % l->o->keepalive]);
}

static uint64_t next_due(const struct load *l)
{
	uint64_t next = UINT64_MAX, due;

	if (l->o->fresh_rate > 0)
		next = due_at(l, l->fresh_due, l->o->fresh_rate);
	if (l->o->keepalive > 0 && l->o->keepalive_rate > 0) {
		due = due_at(l, l->keepalive_due, l->o->keepalive_rate);
		next = due < next ? due : next;
	}
	return next;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct load *l = arg;
	uint64_t now = now_us(), due = next_due(l);

	(void)fd;
	(void)what;
	if (l->ending || due == UINT64_MAX)
		return;
	if (now > due && now - due > l->stats->lag_us)
		l->stats->lag_us = now - due;
	make_fresh_due(l, now);
	make_keepalive_due(l, now);
	due = next_due(l);
	now = now_us();
	arm(&l->tick, due > now ? due - now : 0);
}

static void expire_keepalive(struct client *c, uint64_t before)
{
	uint64_t due;

	if (c->request.op != OP_NONE && c->request.due_us < before) {
		c->kind->timeout++;
		complain(c->load->stats, "keep-alive", "no reply in time");
		lose_keepalive(c, true);
		conn_close(&c->conn);
		conn_open(&c->conn, 0);
	}
	while (!c->conn.connected && has_due(c, &due) && due < before) {
		c->taken++;
		c->kind->requests++;
		c->kind->timeout++;
	}
}

/* Gives up what is overdue; at the end, sees when nothing is left. */
static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct load *l = arg;
	uint64_t before = now_us() - l->o->timeout_us;
	struct client *c;
	unsigned i;

	(void)fd;
	(void)what;
	while ((c = TAILQ_FIRST(&l->fresh)) != NULL && c->request.due_us < before) {
		c->kind->timeout++;
		complain(l->stats, "fresh connection", "no reply in time");
		request_lost(l->keys, &c->request, conn_sent(&c->conn), true, c->kind);
		fresh_end(c);
	}
	for (i = 0; i < l->o->keepalive; i++)
		expire_keepalive(&l->keepalive[i], before);
	if (l->ending && all_done(l))
		event_base_loopbreak(l->base);
}

static void finish(struct load *l)
{
	struct timeval soon = { 0, 1000 };

	if (l->ending) {
		event_base_loopbreak(l->base);
		return;
	}
	l->ending = true;
	event_del(&l->tick);
	event_del(&l->sweep);
	event_add(&l->sweep, &soon);
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	finish(arg);
}

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	struct load *l = arg;

	(void)fd;
	(void)what;
	l->stats->open_unknown = keys_open(l->keys);
	if (l->o->json)
		stats_json(stdout, l->stats, &l->stats->line_window, "progress", now_us());
	else
		stats_progress(stdout, l->stats, &l->stats->line_window, now_us());
}

static void on_sigusr1(evutil_socket_t fd, short what, void *arg)
{
	struct load *l = arg;

	(void)fd;
	(void)what;
	l->stats->open_unknown = keys_open(l->keys);
	stats_json(stdout, l->stats, &l->stats->signal_window, "stats", now_us());
}

/* --- setting up and ending --- */

/*
 * Half of the keys for the connections that stay, each with its own, half for
 * the fresh ones; every fourth of a share is a counter.
 */
static void share_keys(struct load *l)
{
	unsigned n = l->o->keepalive, half = l->keys->count / 2, i;

	if (n == 0)
		half = 0;
	else if (l->o->fresh_rate <= 0)
		half = l->keys->count;
	for (i = 0; i < n; i++)
		l->keepalive[i].share = (struct share){ i, n, (half - i + n - 1) / n };
	l->fresh_share = (struct share){ half, 1, l->keys->count - half };
	for (i = 0; i < l->keys->count; i++)
		l->keys->key[i].counter = (i < half ? i / n : i - half) % 4 == 3;
}

static int open_keepalive(struct load *l)
{
	unsigned i;

	l->keepalive = calloc(l->o->keepalive + 1, sizeof(*l->keepalive));
	if (l->keepalive == NULL)
		return -ENOMEM;
	for (i = 0; i < l->o->keepalive; i++) {
		struct client *c = &l->keepalive[i];

		if (conn_init(&c->conn, &keepalive_ops, l->base, &l->o->target,
		              l->keys->value_size + 2048) < 0)
			return -ENOMEM;
		c->load = l;
		c->kind = &l->stats->keepalive;
		c->index = i;
		conn_open(&c->conn, 0);
	}
	share_keys(l);
	return 0;
}

static void add_events(struct load *l)
{
	struct timeval sweep = { 0, SWEEP_MS * 1000 };
	struct timeval report = { l->o->report_us / 1000000, l->o->report_us % 1000000 };

	evtimer_assign(&l->tick, l->base, on_tick, l);
	arm(&l->tick, 0);
	event_assign(&l->sweep, l->base, -1, EV_PERSIST, on_sweep, l);
	event_add(&l->sweep, &sweep);
	evtimer_assign(&l->end, l->base, on_end, l);
	if (l->o->duration_us > 0)
		arm(&l->end, l->o->duration_us);
	event_assign(&l->report, l->base, -1, EV_PERSIST, on_report, l);
	if (l->o->report_us > 0)
		event_add(&l->report, &report);
	evsignal_assign(&l->sigint, l->base, SIGINT, on_end, l);
	evsignal_assign(&l->sigterm, l->base, SIGTERM, on_end, l);
	evsignal_assign(&l->sigusr1, l->base, SIGUSR1, on_sigusr1, l);
	event_add(&l->sigint, NULL);
	event_add(&l->sigterm, NULL);
	event_add(&l->sigusr1, NULL);
}

static void remove_events(struct load *l)
{
	struct event *all[] = { &l->tick, &l->sweep, &l->end, &l->report, &l->sigint, &l->sigterm,
		&l->sigusr1 };
	unsigned i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		event_del(all[i]);
}

/* What a second signal has cut short stays unknown. */
static void close_all(struct load *l)
{
	struct client *c;
	unsigned i;

	while ((c = TAILQ_FIRST(&l->fresh)) != NULL) {
		request_lost(l->keys, &c->request, conn_sent(&c->conn), true, c->kind);
		fresh_end(c);
	}
	for (i = 0; l->keepalive != NULL && i < l->o->keepalive; i++) {
		c = &l->keepalive[i];
		if (c->request.op != OP_NONE)
			lose_keepalive(c, true);
		if (c->load != NULL)
			conn_free(&c->conn);
	}
	free(l->keepalive);
}

int load_run(const struct load_options *o, struct keys *k, struct stats *s)
{
	struct load l = { .o = o, .keys = k, .stats = s, .rng = o->seed | 1 };
	struct event_config *config = event_config_new();
	int r;

	/* Milliseconds, as epoll_wait has them, would show up in each latency. */
	if (config != NULL) {
		event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER |
		                              EVENT_BASE_FLAG_NOLOCK);
		l.base = event_base_new_with_config(config);
		event_config_free(config);
	}
	if (l.base == NULL)
		return -ENOMEM;
	TAILQ_INIT(&l.fresh);
	r = open_keepalive(&l);
	if (r == 0) {
		l.start_us = now_us();
		stats_start(s, l.start_us);
		add_events(&l);
		event_base_dispatch(l.base);
		s->end_us = now_us();
		remove_events(&l);
	}
	close_all(&l);
	s->open_unknown = keys_open(k);
	event_base_free(l.base);
	return r;
}
