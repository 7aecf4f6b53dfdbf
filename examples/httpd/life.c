/*
 * The handoff's side of httpd, and nothing else: what a daemon's author reads to see how libhandoff
 * is used by a daemon without data. What is not here, beside examples/kvd/life.c:
 *
 *  - no data_dir and no lock of its own, no shards, no revisions, no fingerprint: there is nothing
 *    that only one process may write, so nothing to seal, and nothing to read again after an abort;
 *  - no warm-up: nothing is followed, so handoff_begin may block, and so may handoff_ready;
 *  - the drain finishes nothing. Clients are served until their connection is given away, and one
 *    that stays is served while the successor serves the others: no reply can be stale.
 */
#include "httpd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_log(void *arg, int level, const char *line)
{
	(void)arg;
	if (level <= HANDOFF_LOG_INFO)
		log_line("%s", line);
}

/* -- the start, one straight line ---------------------------------------- */

static int take_listeners(struct server *sv)
{
	const char *name;
	unsigned i;
	int r;

	for (i = 0; (name = handoff_fd_name(sv->h, i)) != NULL; i++) {
		r = handoff_take_fd(sv->h, name);
		r = r < 0 ? r : net_listen(sv, r);
		if (r < 0)
			log_line("listener %s: %s", name, strerror(-r));
	}
	for (i = 0; sv->role == HANDOFF_STANDALONE && i < sv->opt->listens; i++) {
		r = net_bind(sv, sv->opt->listen[i]);
		if (r < 0)
			log_line("--listen %s: %s", sv->opt->listen[i],
				 r == -EDESTADDRREQ ? "not an address" : strerror(-r));
	}
	return sv->listeners ? 0 : -EDESTADDRREQ;
}

/* What tests ask for, when the connections have come and nobody knows yet if it may serve. */
static void misbehave(enum fault fault)
{
	if (fault == FAULT_DIE)
		raise(SIGKILL);
	while (fault == FAULT_HANG)
		pause();
}

/* 0: serve. */
static int ready(struct server *sv)
{
	struct handoff_state mine = { .size = sizeof(mine), .healthy = 1 };

	if (take_listeners(sv) < 0) {
		mine.healthy = 0;
		mine.reason = sv->role == HANDOFF_STANDALONE ?
			      "nothing to listen on: give --listen" :
			      "nothing to listen on: add a `listen` section to the service";
	} else if (sv->opt->fault == FAULT_UNHEALTHY) {
		mine.healthy = 0;
		mine.reason = "--fault unhealthy";
	}
	misbehave(sv->opt->fault);
	return handoff_ready(sv->h, &mine);
}

int life_start(struct server *sv)
{
	const struct handoff_options o = {
		.size = sizeof(o), .version = sv->opt->version, .log = on_log,
		.flags = HANDOFF_CONNECTIONS, /* and no data_dir */
	};
	struct handoff_sealed sealed = { .size = sizeof(sealed) };
	int r = handoff_open(&o, &sv->h);

	if (r < 0) {
		log_line("handoff_open: %s", strerror(-r));
		return r;
	}
	sv->role = handoff_role(sv->h);
	while ((r = handoff_begin(sv->h, &sealed)) == -EAGAIN)
		move_take(sv); /* not touched before handoff_ready has said so */
	r = r < 0 ? r : ready(sv);
	if (r < 0)
		log_line("not serving: %s", handoff_error(sv->h));
	return r == -ECANCELED && sv->role != HANDOFF_STANDALONE ? 1 : r;
}

/* -- serving, and what the supervisor asks for --------------------------- */

static void on_seal(struct server *sv)
{
	const struct handoff_state nothing = { .size = sizeof(nothing) };
	char why[256];

	if (move_give(sv) == 0) {
		handoff_sealed(sv->h, &nothing);
		return;
	}
	snprintf(why, sizeof(why), "%s", handoff_error(sv->h));
	log_line("the connections stay: %s", why);
	handoff_seal_failed(sv->h, why);
	move_back(sv);
	net_accept(sv, 1);
	move_wake(sv);
}

static void on_resume(struct server *sv, const struct handoff_event *e)
{
	log_line("resuming%s%s", e->reason ? ": " : "", e->reason ? e->reason : "");
	move_back(sv);
	handoff_resumed(sv->h);
	net_accept(sv, 1);
	move_wake(sv);
}

static void on_event(struct server *sv, const struct handoff_event *e)
{
	switch (e->type) {
	case HANDOFF_DRAIN:
		sv->can_give = e->can_give;
		net_accept(sv, 0);
		handoff_drained(sv->h, sv->nconns);
		break;
	case HANDOFF_SEAL:
		on_seal(sv);
		break;
	case HANDOFF_RESUME:
		on_resume(sv, e);
		break;
	case HANDOFF_COMMIT:
		net_leave(sv, 0);
		break;
	case HANDOFF_LOST:
		log_line("the supervisor is gone; serving on");
		break;
	default: /* FINAL: there is no format on disk that could change */
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
