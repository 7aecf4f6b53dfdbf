#include "server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LEAVE_MS    2000 /* so long the rest of replies may take at the end */

static void set_mode(struct server *sv, enum mode mode)
{
	sv->mode = mode;
	sv->mode_since_ms = mono_ms();
}

/* -- timers -------------------------------------------------------------- */

static void arm_tick(struct server *sv)
{
	static const struct timeval second = { 1, 0 };

	if (sv->tick_armed)
		return;
	event_add(sv->tick, &second);
	sv->tick_armed = 1;
}

/* Begins with a shard where that is wanted and possible; else the next tick asks again. */
static void compact_some(struct server *sv)
{
	int r, i = (int)sv->compact_next; /* asked for by a client */

	if (sv->compact_next >= sv->store.shards)
		i = compact_candidate(&sv->store, sv->opt->compact_min);
	if (!sv->compact_ok || sv->mode != MODE_SERVE || i < 0 || sv->compaction.job.running)
		return;
	r = compact_start(&sv->compaction, &sv->store, (unsigned)i, sv->wake_fd);
	if (!r && sv->compact_next < sv->store.shards)
		sv->compact_next++;
	if (r < 0)
		arm_tick(sv);
}

/* Once a second, but only after something was written. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;

	(void)fd, (void)what;
	sv->tick_armed = 0;
	if (sv->mode != MODE_SERVE)
		return;
	if (sync_start(&sv->syncing, &sv->store, sv->wake_fd) < 0)
		log_line("no thread for a sync; trying again");
	if (store_dirty(&sv->store))
		arm_tick(sv);
	compact_some(sv);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof(n)) < 0)
		return;
	sync_reap(&sv->syncing, &sv->store, 0);
	if (compact_reap(&sv->compaction, &sv->store, 0))
		compact_some(sv);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;

	(void)fd, (void)what;
	sv->expiry_armed = 0;
	if (sv->mode == MODE_SERVE)
		store_expire_due(&sv->store, wall_ms(), 1000);
}

static void arm_expiry(struct server *sv)
{
	uint64_t at = store_next_expiry(&sv->store), now, wait;
	struct timeval tv;

	if (!at || at == sv->expiry_armed || sv->mode != MODE_SERVE)
		return;
	now = wall_ms();
	wait = at > now ? at - now : 0;
	if (sv->write_errors && wait < 1000)
		wait = 1000; /* the log takes nothing now */
	tv.tv_sec = (time_t)(wait / 1000);
	tv.tv_usec = (suseconds_t)(wait % 1000 * 1000);
	event_add(sv->expiry, &tv);
	sv->expiry_armed = at;
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;

	(void)fd, (void)what;
	sv->drain_over = 1;
}

static void wait_at_most(struct server *sv, unsigned ms)
{
	const struct timeval tv = { ms / 1000, ms % 1000 * 1000 };

	event_add(sv->deadline, &tv);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct server *sv = arg;

	(void)fd, (void)what;
	if (sv->mode == MODE_SERVE)
		net_accept(sv, 1);
}

static void on_term(evutil_socket_t sig, short what, void *arg)
{
	struct server *sv = arg;

	(void)what;
	log_line("signal %d: ending", (int)sig);
	server_leave(sv, 0);
}

static void on_handoff(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	life_dispatch(arg);
}

/* -- modes --------------------------------------------------------------- */

void server_serve(struct server *sv)
{
	set_mode(sv, MODE_SERVE);
	event_del(sv->deadline);
	sv->expiry_armed = 0;
	if (sv->compact_ok)
		compact_open(&sv->compaction);
	net_accept(sv, 1);
	net_resume(sv);
	if (store_dirty(&sv->store))
		arm_tick(sv);
}

void server_drain(struct server *sv, unsigned deadline_ms)
{
	set_mode(sv, MODE_DRAIN);
	sv->drain_turns = sv->drain_over = 0;
	net_accept(sv, 0);
	event_del(sv->accept_again);
	compact_close(&sv->compaction);
	/* answered a little before the time is up, with what is left then */
	wait_at_most(sv, deadline_ms ? deadline_ms - deadline_ms / 4 : 1500);
}

void server_leave(struct server *sv, int exit_code)
{
	sv->exit_code = exit_code;
	net_accept(sv, 0);
	event_del(sv->accept_again);
	compact_close(&sv->compaction);
	set_mode(sv, MODE_LEAVE);
	wait_at_most(sv, LEAVE_MS);
}

void server_end(struct server *sv, int exit_code)
{
	sv->exit_code = exit_code;
	sv->ending = 1;
}

static void drain_step(struct server *sv)
{
	unsigned waiting;

	if (++sv->drain_turns < 2 && !sv->can_give)
		return;
	/* what is in flight moves along */
	waiting = sv->can_give ? 0 : net_unsent(sv) + net_newcomers(sv);
	if (!waiting || sv->drain_over) {
		event_del(sv->deadline);
		set_mode(sv, MODE_PAUSE);
		life_drained(sv);
	} else if (!net_unsent(sv) && !evtimer_pending(sv->tick, NULL)) {
		/* only newcomers: look again when the youngest is too old */
		const struct timeval soon = { 0, 2000 };

		event_add(sv->tick, &soon);
	}
}

int server_run(struct server *sv)
{
	int flags;

	while (!sv->ending) {
		/* the first round of a drain takes what is there and waits for nothing */
		flags = EVLOOP_ONCE;
		if (sv->mode == MODE_DRAIN && sv->drain_turns < 2)
			flags |= EVLOOP_NONBLOCK;
		if (event_base_loop(sv->base, flags) < 0)
			die("the event loop failed");
		if (store_turn_open(&sv->store))
			arm_tick(sv);
		net_end_turn(sv);
		arm_expiry(sv);
		if (sv->mode == MODE_DRAIN)
			drain_step(sv);
		if (sv->mode == MODE_LEAVE && (!net_unsent(sv) || sv->drain_over))
			sv->ending = 1;
	}
	return sv->exit_code;
}

/* -- from birth to end --------------------------------------------------- */

static struct event *new_event(struct server *sv, int fd, short what, event_callback_fn fn)
{
	struct event *e = event_new(sv->base, fd, what, fn, sv);

	if (!e)
		die("out of memory for an event");
	return e;
}

void server_init(struct server *sv, const struct options *opt)
{
	memset(sv, 0, sizeof(*sv));
	sv->opt = opt;
	sv->started_ms = mono_ms();
	sv->compact_next = MAX_SHARDS;
	sv->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sv->base = event_base_new();
	if (!sv->base || sv->wake_fd < 0)
		die("no event loop: %s", strerror(errno));
	compact_init(&sv->compaction);
	sv->tick = new_event(sv, -1, 0, on_tick);
	sv->expiry = new_event(sv, -1, 0, on_expiry);
	sv->deadline = new_event(sv, -1, 0, on_deadline);
	sv->accept_again = new_event(sv, -1, 0, on_accept_again);
	sv->wake = new_event(sv, sv->wake_fd, EV_READ | EV_PERSIST, on_wake);
	event_add(sv->wake, NULL);
}

/* What is needed to serve, and not before: a signal still ends a successor at once. */
void server_attach(struct server *sv)
{
	sv->handoff_event = new_event(sv, handoff_fd(sv->h), EV_READ | EV_PERSIST, on_handoff);
	event_add(sv->handoff_event, NULL);
	sv->term[0] = new_event(sv, SIGTERM, EV_SIGNAL | EV_PERSIST, on_term);
	sv->term[1] = new_event(sv, SIGINT, EV_SIGNAL | EV_PERSIST, on_term);
	event_add(sv->term[0], NULL);
	event_add(sv->term[1], NULL);
}

static void free_event(struct event *e)
{
	if (e)
		event_free(e);
}

void server_free(struct server *sv)
{
	compact_close(&sv->compaction);
	compact_reap(&sv->compaction, &sv->store, 1);
	sync_reap(&sv->syncing, &sv->store, 1);
	net_close_all(sv);
	free_event(sv->tick);
	free_event(sv->expiry);
	free_event(sv->deadline);
	free_event(sv->accept_again);
	free_event(sv->wake);
	free_event(sv->handoff_event);
	free_event(sv->term[0]);
	free_event(sv->term[1]);
	event_base_free(sv->base);
	close(sv->wake_fd);
	store_close(&sv->store);
}
