/*
 * The handoff's side of kvd, and nothing else: what a daemon's author reads to
 * see how libhandoff is used by a daemon with state.
 */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define FOLLOW_MS 2 /* a successor reads the log's end so often while it waits */

static enum fault_lie fault(const struct server *sv, enum fault_point point)
{
	return fault_at(&sv->opt->faults, point);
}

static void on_log(void *arg, int level, const char *line)
{
	const struct server *sv = arg;

	if (level <= HANDOFF_LOG_INFO || sv->opt->debug)
		log_line("%s", line);
}

/* What this process has, as sealed or as opened, and the lies that tests ask for. */
static void state(struct server *sv, struct handoff_state *s, uint64_t *revs, enum fault_lie lie)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	s->healthy = 1;
	s->revisions = revs;
	s->shards = sv->store.shards;
	store_state(&sv->store, revs, s->fingerprint);
	if (lie == LIE_BADREV)
		revs[0]++;
	if (lie == LIE_BADFP)
		s->fingerprint[0] ^= 1;
	if (lie == LIE_UNHEALTHY) {
		s->healthy = 0;
		s->reason = "--fault=ready:unhealthy";
	}
}

/* -- the start, one straight line ---------------------------------------- */

static int open_handoff(struct server *sv)
{
	const struct handoff_options o = {
		.size = sizeof(o), .data_dir = sv->opt->data_dir, .version = kvd_version,
		.log = on_log, .log_arg = sv, .flags = HANDOFF_NONBLOCK | HANDOFF_CONNECTIONS,
	};
	int r = handoff_open(&o, &sv->h);

	if (r < 0) /* the sentence came through on_log */
		log_line("handoff_open: %s", strerror(-r));
	else
		sv->role = handoff_role(sv->h);
	return r;
}

/* Reads all there is, read-only, until only crumbs are new. Nobody waits for it. */
static int warm_up(struct server *sv)
{
	uint64_t began = mono_ms();
	int64_t n;
	int r = store_load(&sv->store);

	if (r < 0)
		return r;
	do
		n = store_follow(&sv->store);
	while (n > 1000);
	log_line("read %llu keys in %llu ms", (unsigned long long)store_count(&sv->store),
		 (unsigned long long)(mono_ms() - began));
	return n < 0 ? (int)n : 0;
}

/* Sleeps until the library has something, or for ms. Returns if it had. No event is taken here:
 * the call that waits takes its own, and what has come behind that is for life_dispatch. */
static int wait_handoff(struct server *sv, int ms)
{
	struct pollfd p = { .fd = handoff_fd(sv->h), .events = POLLIN };

	return poll(&p, 1, ms) > 0 && handoff_dispatch(sv->h) > 0;
}

/* Waits for the turn and follows the log meanwhile: so what is left to read after
 * it is what was written in the last two milliseconds, however much there is. */
static int begin(struct server *sv, struct handoff_sealed *sealed)
{
	int64_t n = 0;
	int r;

	while ((r = handoff_begin(sv->h, sealed)) == -EAGAIN)
		if (!move_take(sv) && !wait_handoff(sv, FOLLOW_MS) && n >= 0)
			n = store_follow(&sv->store); /* an error will be said with Ready */
	return r;
}

static int same_as_sealed(const struct server *sv, const struct handoff_sealed *sealed)
{
	unsigned char fingerprint[HANDOFF_FINGERPRINT];
	uint64_t revs[MAX_SHARDS];

	if (sealed->shards != sv->store.shards)
		return 0;
	store_state(&sv->store, revs, fingerprint);
	return !memcmp(revs, sealed->revisions, sealed->shards * sizeof(*revs)) &&
	       !memcmp(fingerprint, sealed->fingerprint, sizeof(fingerprint));
}

/* The state for real, from disk. What was followed counts only if it is exactly
 * what was sealed: the incumbent may have taken back a failed write meanwhile. */
static int open_state(struct server *sv, const struct handoff_sealed *sealed)
{
	struct store *st = &sv->store;
	int r = 0;

	if (store_follow(st) < 0 || (sealed->sealed && !same_as_sealed(sv, sealed))) {
		log_line("what was followed is not what was sealed: reading again");
		r = store_load(st);
	}
	return r < 0 ? r : store_prepare(st, sealed->epoch, sealed->sealed);
}

static int take_listeners(struct server *sv)
{
	const char *name;
	unsigned i;
	int r;

	for (i = 0; (name = handoff_fd_name(sv->h, i)) != NULL; i++) {
		r = handoff_take_fd(sv->h, name);
		r = r < 0 ? r : net_listen(sv, r, NULL);
		if (r < 0)
			log_line("listener %s: %s", name, strerror(-r));
	}
	for (i = 0; sv->role == HANDOFF_STANDALONE && i < sv->opt->listens; i++) {
		r = net_bind(sv, sv->opt->listen[i]);
		if (r < 0) {
			log_line("--listen %s: %s", sv->opt->listen[i],
				 r == -EDESTADDRREQ ? "not an address" : strerror(-r));
			return r;
		}
	}
	if (sv->listeners)
		return 0;
	log_line("nothing to listen on: %s", sv->role == HANDOFF_STANDALONE ?
		 "give --listen HOST:PORT" : "add a `listen` section to the service");
	return -EDESTADDRREQ;
}

/* 0: serve. */
static int ready(struct server *sv, int opened)
{
	enum fault_lie lie = fault(sv, FAULT_READY);
	uint64_t revs[MAX_SHARDS];
	struct handoff_state s;
	int r;

	state(sv, &s, revs, lie);
	if (opened < 0) {
		s.healthy = 0;
		s.reason = sv->store.error[0] ? sv->store.error : "no listening socket";
	}
	r = handoff_ready(sv->h, &s);
	fault(sv, FAULT_TAKE);
	while (r == -EAGAIN) {
		wait_handoff(sv, -1);
		r = handoff_ready(sv->h, NULL);
	}
	return r;
}

static int ended(struct server *sv, const char *where, int r)
{
	log_line("%s: %s", where, handoff_error(sv->h)[0] ? handoff_error(sv->h) : strerror(-r));
	return r == -ECANCELED ? 1 : r;
}

int life_start(struct server *sv)
{
	struct handoff_sealed sealed = { .size = sizeof(sealed) };
	int r, opened;

	fault(sv, FAULT_START);
	r = open_handoff(sv);
	if (r < 0)
		return r;
	fault(sv, FAULT_WARMUP);
	opened = warm_up(sv); /* an error is said with Ready: then all learn the reason */
	if (opened < 0)
		log_line("%s", sv->store.error);
	fault(sv, FAULT_HELLO);
	r = begin(sv, &sealed);
	if (r < 0)
		return ended(sv, "not taking over", r);
	fault(sv, FAULT_BEGIN);
	opened = open_state(sv, &sealed);
	if (opened < 0)
		log_line("%s", sv->store.error);
	else
		opened = take_listeners(sv);
	fault(sv, FAULT_OPEN);
	r = ready(sv, opened);
	if (r < 0)
		return ended(sv, "not serving", r);
	if (fault(sv, FAULT_COMMIT) == LIE_FORGET)
		db_free(&sv->store.shard[0].db);
	if (opened < 0 || store_begin(&sv->store) < 0)
		die("%s", sv->store.error[0] ? sv->store.error : "cannot serve");
	sv->compact_ok = sv->role != HANDOFF_SUCCESSOR;
	if (sv->compact_ok)
		store_sweep(&sv->store);
	server_attach(sv);
	return 0;
}

/* -- serving, and what the supervisor asks for --------------------------- */

void life_drained(struct server *sv)
{
	int r = store_sync(&sv->store);

	if (r < 0)
		log_line("%s", sv->store.error); /* the seal will fail, and say so */
	handoff_drained(sv->h, sv->nconns);
}

static void seal_failed(struct server *sv, const char *reason)
{
	log_line("the seal failed: %s", reason);
	handoff_seal_failed(sv->h, reason);
	move_back(sv);
	server_serve(sv);
}

static void on_seal(struct server *sv)
{
	enum fault_lie lie = fault(sv, FAULT_SEAL);
	uint64_t revs[MAX_SHARDS];
	struct handoff_state s;
	char why[256];

	if (sv->drain_failed)
		lie = LIE_FAIL;
	if (lie == LIE_PROGRESS)
		handoff_seal_progress(sv->h, 0, sv->store.shards, 0);
	if (lie == LIE_FAIL_ONCE && !sv->seal_failed++)
		lie = LIE_FAIL;
	if (lie != LIE_FAIL && lie != LIE_KEEP && !sv->store.broken && move_give(sv) < 0) {
		snprintf(why, sizeof(why), "%s", handoff_error(sv->h));
		seal_failed(sv, why);
		return;
	}
	if (lie == LIE_FAIL || sv->store.broken ||
	    (lie != LIE_KEEP && store_seal(&sv->store) < 0)) {
		seal_failed(sv, sv->drain_failed ? "--fault=drain:fail" :
			    lie == LIE_FAIL ? "--fault=seal:fail" :
			    sv->store.broken ? "an earlier fsync failed" : sv->store.error);
		return;
	}
	state(sv, &s, revs, lie);
	handoff_sealed(sv->h, &s);
	if (lie == LIE_KEEP)
		server_serve(sv);
}

static void on_resume(struct server *sv, const struct handoff_event *e)
{
	struct store *st = &sv->store;
	uint64_t began = mono_us();

	fault(sv, FAULT_RESUME);
	log_line("resuming%s%s", e->reason ? ": " : "", e->reason ? e->reason : "");
	if (e->reopen && (store_reopen(st, handoff_epoch(sv->h)) < 0 || store_begin(st) < 0))
		die("cannot read the data again: %s", st->error);
	if (e->reopen)
		log_line("read again in %llu us", (unsigned long long)(mono_us() - began));
	move_back(sv);
	handoff_resumed(sv->h);
	server_serve(sv);
}

static void on_event(struct server *sv, const struct handoff_event *e)
{
	switch (e->type) {
	case HANDOFF_DRAIN:
		sv->drain_failed = fault(sv, FAULT_DRAIN) == LIE_FAIL;
		sv->can_give = e->can_give;
		server_drain(sv, e->deadline_ms);
		break;
	case HANDOFF_SEAL:
		on_seal(sv);
		break;
	case HANDOFF_RESUME:
		on_resume(sv, e);
		break;
	case HANDOFF_COMMIT:
		fault(sv, FAULT_EXIT);
		server_leave(sv, 0);
		break;
	case HANDOFF_FINAL:
		/* nobody comes back to the old form of the files now */
		sv->compact_ok = 1;
		compact_open(&sv->compaction);
		store_sweep(&sv->store);
		break;
	case HANDOFF_LOST:
		log_line("the supervisor is gone; serving on");
		break;
	}
}

void life_dispatch(struct server *sv)
{
	struct handoff_event e = { .size = sizeof(e) };

	if (handoff_dispatch(sv->h) < 0)
		log_line("handoff: %s", handoff_error(sv->h));
	while (handoff_next(sv->h, &e) > 0)
		on_event(sv, &e);
}

void life_end(struct server *sv)
{
	sv->h = handoff_close(sv->h);
}
