#include "handoffd/copier.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

#define CLOSE_MS 1000   /* at its supervisor's end */

static bool about_candidate(const struct copier *p)
{
	return p->job == LOOK || p->job == PIN;
}

static const struct exe *its_exe(const struct service *s)
{
	return about_candidate(&s->copier) ? &s->candidate->exe : s->copier.job == COPY_PREVIOUS ? &s->old_exe : &s->exe;
}

static const struct conf *its_conf(const struct service *s)
{
	return about_candidate(&s->copier) ? s->candidate->conf : s->conf;
}

/* ---- the child ---- */

static void close_range_between(const int *keep, unsigned n)
{
	int from = 3;

	for (unsigned i = 0; i < n; i++) {
		int next = INT_MAX;

		for (unsigned j = 0; j < n; j++)
			if (keep[j] >= from && keep[j] < next)
				next = keep[j];
		if (next == INT_MAX)
			break;
		if (next > from)
			sys_close_range((unsigned)from, (unsigned)next - 1);
		from = next + 1;
	}
	sys_close_range((unsigned)from, ~0u);
}

/* The copy is what will run, so that is what is hashed: nobody but this user can write to it.
 * Nothing is written behind sums_rest: see there. */
static int pin(const struct service *s, int from, struct sums *sums)
{
	const struct candidate *c = s->candidate;
	int copy, e = c->exe.id.size > SUMS_FILE_MAX ? -EFBIG : 0;

	if (!e)
		e = keep_write(s->keep.dir, &s->keep.c, &c->exe, from, s->copier.number);
	if (e)
		return e;
	copy = keep_read(s->keep.dir, &c->exe, s->copier.number);
	e = copy < 0 ? copy : sums_exe(copy, NULL, sums);
	if (e || !sum_same(&sums->exe, &c->attempt.pin))
		keep_sweep(s->keep.dir, &s->keep.c);
	else
		sums_rest(c->conf, sums);
	return e;
}

/* A script is read again while it runs, and can be written to: it must be what was started. */
static int sum(const struct service *s, int from, struct sums *sums)
{
	const struct exe *exe = its_exe(s);
	const int e = sums_exe(from, exe->script ? &exe->id : NULL, sums);

	if (!e)
		sums_rest(its_conf(s), sums);
	return e;
}

static int work(const struct service *s, int from, struct sums *sums)
{
	const struct copier *p = &s->copier;

	switch (p->job) {
	case COPY_CURRENT:
	case COPY_PREVIOUS:
		return keep_write(s->keep.dir, &s->keep.c, its_exe(s), from, p->number);
	case SUM_CURRENT:
	case LOOK:
		return sum(s, from, sums);
	case PIN:
		return pin(s, from, sums);
	case SWEEP:
		keep_sweep(s->keep.dir, &s->keep.c);
	}
	return 0;
}

/* Its exit status is 0 or the errno. Signals stay blocked: a write beyond RLIMIT_FSIZE fails. */
static void child(void *arg, pid_t parent, int out)
{
	const struct service *s = arg;
	const struct copier *p = &s->copier;
	struct sums sums = { 0 };
	int from = -1, e;

	if (p->job != SWEEP)
		from = exe_read(its_conf(s), its_exe(s));
	answerer_tie(parent);   /* again: a change of the user for files has cleared it, prctl(2) */
	if (p->job != SWEEP && from < 0)
		_exit(from == -EACCES ? EPERM : -from);
	sys_prctl(PR_SET_NAME, (unsigned long)"handoffd-copy");   /* for people */
	close_range_between((const int[]){ s->keep.dir, from, out }, 3);
	/* not before: on a busy machine who has no priority would keep the sockets of a supervisor that
	 * has died meanwhile. Somebody waits for what is done for a candidate */
	if (!about_candidate(p)) {
		sys_setpriority(19);
		sys_ioprio_idle();
	}
	e = work(s, from, &sums);
	/* 96 bytes: whole or not at all, pipe(7) */
	if (!e && sys_write(out, &sums, sizeof sums) != sizeof sums)
		e = -EIO;
	_exit(-e);
}

/* ---- what it leaves ---- */

static struct kept *what(struct service *s)
{
	return s->copier.job == COPY_PREVIOUS ? &s->keep.c.before : &s->keep.c.now;
}

static void on_again(evutil_socket_t fd, short what_, void *arg)
{
	(void)fd;
	(void)what_;
	service_settle(arg);
}

/* Said once for each reason. While it lasts, and no longer, an idle service has a timer. */
static void not_copied(struct service *s, const char *why)
{
	struct copier *p = &s->copier;
	const unsigned delay = p->tries < 12 ? 1u << p->tries : 3600;
	char text[sizeof s->keep.why];

	snprintf(text, sizeof text, "no copy of the %sexecutable %.120s could be made: %.120s",
	         p->job == COPY_PREVIOUS ? "previous " : "", what(s)->path, why);
	if (strcmp(text, s->keep.why))
		log_warning("%s; after a crash what lies at its path by then would run; it is tried again", text);
	memcpy(s->keep.why, text, sizeof text);
	p->tries++;
	if (!p->again)
		p->again = evtimer_new(s->base, on_again, s);
	if (p->again)
		event_add(p->again, &(struct timeval){ .tv_sec = delay });
}

static void failed(struct service *s, const char *why)
{
	switch (s->copier.job) {
	case COPY_CURRENT:
	case COPY_PREVIOUS:
		not_copied(s, why);
		break;
	case SUM_CURRENT:
		log_debug("what runs could not be hashed (%s): the next upgrade --if-changed goes ahead", why);
		s->copier.unhashed = true;
		break;
	case SWEEP:
		s->keep.litter = false;   /* the next copy, or the next supervisor, removes it */
		break;
	case LOOK:
	case PIN:
		candidate_looked(s, NULL, why);
	}
}

static const char *describe(const struct copier *p, char out[100])
{
	const int status = p->child.status, code = status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;

	if (code == ESTALE)
		snprintf(out, 100, "somebody has written to the file meanwhile");
	else if (code == EPERM)
		snprintf(out, 100, "the daemon's user may not read it");
	else if (code == EACCES)
		snprintf(out, 100, "the state directory is mounted noexec");
	else if (code >= 0)
		snprintf(out, 100, "%s", strerror(code));
	else
		snprintf(out, 100, "its child was killed by signal %d", status == -1 ? 0 : WTERMSIG(status));
	return out;
}

/* The record on disk is of what is kept, or the one before. */
static void take_copy(struct service *s)
{
	struct copier *p = &s->copier;
	struct exe *e = p->job == COPY_PREVIOUS ? &s->old_exe : &s->exe;
	struct kept *w = what(s);
	int r;

	e->copy = p->number;
	if ((r = keep_copy_dir(&s->keep, e)) >= 0) {
		sys_close(r);
		w->copy = p->number;
		r = store_current(&s->store, &s->keep.c);
	}
	if (r) {   /* the record on disk is the one before, in which there is none */
		w->copy = e->copy = 0;
		failed(s, strerror(-r));
		return;
	}
	s->keep.why[0] = '\0';
	p->tries = 0;
	log_debug("%s has been copied to %s/exe/%llu", w->path, s->state_dir, (unsigned long long)p->number);
	if (p->job == COPY_PREVIOUS)
		exe_close(&s->old_exe);
}

/* True: they are those of what runs. */
static bool take_sums(struct service *s, const struct sums *sums)
{
	s->copier.unhashed = !keep_sums(&s->keep, &s->exe, sums);
	return !s->copier.unhashed;
}

static void take(struct service *s, const struct sums *sums)
{
	int e;

	switch (s->copier.job) {
	case COPY_CURRENT:
	case COPY_PREVIOUS:
		take_copy(s);
		break;
	case SUM_CURRENT:
		if (take_sums(s, sums) && (e = store_current(&s->store, &s->keep.c))) {
			s->keep.c.now.sum = s->keep.c.now.rest = (struct fprint){ { 0 } };   /* as on disk */
			failed(s, strerror(-e));
		}
		break;
	case SWEEP:
		s->keep.litter = false;
		break;
	case LOOK:
	case PIN:
		candidate_looked(s, sums, NULL);
	}
}

static void kill_it(struct copier *p)
{
	p->ended = true;
	answerer_kill(&p->child);
	event_remove_timer(p->child.end);   /* event_add leaves one that is there */
	event_add(p->child.end, NULL);
}

/* The child, which SIGKILL may not end while it waits for a disk: who waits is told now. */
static void late(struct service *s)
{
	struct copier *p = &s->copier;

	if (!p->ended) {
		kill_it(p);
		failed(s, "it took longer than start-timeout");
		return;
	}
	event_add(p->child.end, NULL);
	if (s->candidate)
		candidate_looked(s, NULL, "the child before it does not end");
}

static void on_end(evutil_socket_t fd, short what_, void *arg)
{
	struct service *s = arg;
	struct copier *p = &s->copier;
	struct sums sums;
	char why[100];
	ssize_t n;

	(void)fd;
	if (what_ & EV_TIMEOUT) {
		late(s);
		return;
	}
	service_reap(s);
	n = sys_read(p->child.out, &sums, sizeof sums);
	answerer_forget(&p->child);
	if (!p->ended && p->child.status != 0)
		failed(s, describe(p, why));
	else if (!p->ended && n != sizeof sums)
		failed(s, "its child has said nothing");
	else if (!p->ended)
		take(s, &sums);
	service_settle(s);
}

/* ---- its life ---- */

/* 0, or -errno and why. */
static int prepare(struct service *s, enum copier_job job, char *why, size_t size)
{
	const int e = job != SUM_CURRENT && job != LOOK ? keep_reopen(&s->keep, s->state_dir, why, size) : 0;

	/* else the copies that the record on disk names would be removed */
	return e || job != PIN ? e : service_record(s, why, size);
}

static void start(struct service *s, enum copier_job job)
{
	char why[400];
	int e;

	s->copier.job = job;
	e = prepare(s, job, why, sizeof why);
	s->copier.number = keep_number(&s->keep);
	s->copier.ended = false;
	if (!e && (e = answerer_start(&s->copier.child, s->base, child, s, s->conf->timer[TIMER_START], on_end, s)))
		snprintf(why, sizeof why, "%s", strerror(-e));
	if (e)
		failed(s, why);
}

/* Is e what the record calls w, and is there no copy of it yet? */
static bool lacks(const struct kept *w, const struct exe *e)
{
	return !w->copy && !e->script && exe_is(e, w->path, &w->id);
}

static bool lacks_sums(const struct service *s)
{
	const struct kept *w = &s->keep.c.now;

	return !sum_known(&w->sum) && sum_known(&w->with) && !s->copier.unhashed && s->exe.fd >= 0;
}

/* Nothing else is under way. */
static bool at_rest(const struct service *s)
{
	return s->s.state == S_IDLE && !s->s.stop;
}

static void keep_up(struct service *s)
{
	struct copier *p = &s->copier;

	/* dirty: the copies that the record on disk names are not removed before it names others */
	if (s->keep.dirty || (p->again && evtimer_pending(p->again, NULL)))
		return;
	if (lacks(&s->keep.c.now, &s->exe))
		start(s, COPY_CURRENT);
	else if (lacks(&s->keep.c.before, &s->old_exe))
		start(s, COPY_PREVIOUS);
	else if (lacks_sums(s))
		start(s, SUM_CURRENT);
	else if (s->keep.litter)
		start(s, SWEEP);
	else
		exe_close(&s->old_exe);
}

void copier_settle(struct service *s)
{
	struct copier *p = &s->copier;
	const bool rest = at_rest(s) && s->exe_served && peer_connected(s->o);

	if (s->candidate && !at_rest(s))
		candidate_drop(s, NULL);
	if (p->child.end) {
		if (!p->ended && !about_candidate(p) && (!rest || s->candidate))
			kill_it(p);
		if (p->ended && s->candidate && !event_pending(p->child.end, EV_TIMEOUT, NULL)) {
			const struct timeval most = answerer_ms(s->conf->timer[TIMER_START]);
			event_add(p->child.end, &most);
		}
		return;
	}
	if (!rest) {   /* after the next handoff or start it is another file, or there is room */
		p->tries = 0;
		p->unhashed = false;
	}
	if (!rest && p->again)
		event_del(p->again);
	if (s->candidate)
		start(s, s->candidate->attempt.pinned ? PIN : LOOK);
	else if (rest)
		keep_up(s);
}

void copier_forget_candidate(struct service *s)
{
	struct copier *p = &s->copier;

	if (!p->child.end || p->ended || !about_candidate(p))
		return;
	s->keep.litter |= p->job == PIN;
	kill_it(p);
}

void copier_kill(struct service *s)
{
	if (s->copier.child.end && !s->copier.ended)
		kill_it(&s->copier);
}

/* SIGKILL has been sent. On a slow disk its fdatasync comes to an end first; it holds nothing
 * of the service's, so nobody has to wait long for that. */
static void await(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	sys_poll(&p, 1, CLOSE_MS);
}

void copier_close(struct service *s)
{
	if (s->copier.again)
		event_free(s->copier.again);
	if (!s->copier.child.end)
		return;
	answerer_kill(&s->copier.child);
	await(s->copier.child.pidfd);
	answerer_forget(&s->copier.child);
}
