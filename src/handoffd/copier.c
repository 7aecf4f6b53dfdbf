#include "handoffd/copier.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

#define CLOSE_MS 1000   /* at its supervisor's end */

/* ---- the child ---- */

/* All but two, and stdin to stderr. Channels and listeners are not for it. */
static void close_others(int a, int b)
{
	const unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

	if (low > 3)
		sys_close_range(3, low - 1);
	if (high > low + 1)
		sys_close_range(low + 1, high - 1);
	sys_close_range(high + 1, ~0u);
}

static void die_with(pid_t parent)
{
	sys_prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(ECANCELED);
}

/* Its exit status is 0 or the errno. Signals stay blocked: a write beyond RLIMIT_FSIZE fails. */
static void __attribute__((noreturn)) child(const struct service *s, pid_t parent)
{
	const struct copier *p = &s->copier;
	const struct exe *e = p->old ? &s->old_exe : &s->exe;
	int from;

	die_with(parent);
	sys_setpriority(19);
	sys_ioprio_idle();
	from = exe_read(s->conf, e);
	die_with(parent);   /* again: a change of the user for files has cleared it, prctl(2) */
	if (from < 0)
		_exit(from == -EACCES ? EPERM : -from);
	sys_prctl(PR_SET_NAME, (unsigned long)"handoffd-copy");   /* for people */
	close_others(s->keep.dir, from);
	_exit(-keep_write(s->keep.dir, &s->keep.c, e, from, p->number));
}

/* ---- what it leaves ---- */

static struct kept *what(struct service *s)
{
	return s->copier.old ? &s->keep.c.before : &s->keep.c.now;
}

static void on_again(evutil_socket_t fd, short what_, void *arg)
{
	(void)fd;
	(void)what_;
	service_settle(arg);
}

/* Said once for each reason. While it lasts, and no longer, an idle service has a timer. */
static void failed(struct service *s, const char *why)
{
	struct copier *p = &s->copier;
	const unsigned delay = p->tries < 12 ? 1u << p->tries : 3600;
	char text[sizeof s->keep.why];

	snprintf(text, sizeof text, "no copy of the %sexecutable %.120s could be made: %.120s",
	         p->old ? "previous " : "", what(s)->path, why);
	if (strcmp(text, s->keep.why))
		log_warning("%s; after a crash what lies at its path by then would run; it is tried again", text);
	memcpy(s->keep.why, text, sizeof text);
	p->tries++;
	if (!p->again)
		p->again = evtimer_new(s->base, on_again, s);
	if (p->again)
		event_add(p->again, &(struct timeval){ .tv_sec = delay });
}

static const char *describe(const struct copier *p, char out[100])
{
	const int code = p->status != -1 && WIFEXITED(p->status) ? WEXITSTATUS(p->status) : -1;

	if (p->late)
		snprintf(out, 100, "it took longer than start-timeout");
	else if (code == ESTALE)
		snprintf(out, 100, "the file has been written to since it was started");
	else if (code == EPERM)
		snprintf(out, 100, "the daemon's user may not read it");
	else if (code == EACCES)
		snprintf(out, 100, "the state directory is mounted noexec");
	else if (code >= 0)
		snprintf(out, 100, "%s", strerror(code));
	else
		snprintf(out, 100, "its child was killed by signal %d", p->status == -1 ? 0 : WTERMSIG(p->status));
	return out;
}

static void take(struct service *s)
{
	struct copier *p = &s->copier;
	struct exe *e = p->old ? &s->old_exe : &s->exe;
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
	if (p->old)
		exe_close(&s->old_exe);
}

static void forget(struct copier *p)
{
	event_free(p->end);
	p->end = NULL;
	sys_closep(&p->pidfd);
}

static void kill_it(struct copier *p)
{
	p->ended = true;
	sys_pidfd_signal(p->pidfd, SIGKILL);
	event_add(p->end, NULL);
}

static void on_end(evutil_socket_t fd, short what_, void *arg)
{
	struct service *s = arg;
	struct copier *p = &s->copier;
	char why[100];

	(void)fd;
	if (what_ & EV_TIMEOUT) {
		p->late = true;
		kill_it(p);
		return;
	}
	service_reap(s);
	forget(p);
	if (p->late || (!p->ended && p->status != 0))
		failed(s, describe(p, why));
	else if (!p->ended)
		take(s);
	service_settle(s);
}

/* ---- its life ---- */

static int watch(struct service *s, pid_t pid)
{
	struct copier *p = &s->copier;
	const uint32_t ms = s->conf->timer[TIMER_START];
	const struct timeval limit = { ms / 1000, (suseconds_t)(ms % 1000 * 1000) };

	p->pid = pid;
	p->status = -1;
	p->ended = p->late = false;
	if ((p->pidfd = sys_pidfd_open(pid)) < 0)
		return p->pidfd;
	p->end = event_new(s->base, p->pidfd, EV_READ, on_end, s);
	if (p->end && !event_add(p->end, &limit))
		return 0;
	if (p->end)
		event_free(p->end);
	p->end = NULL;
	sys_closep(&p->pidfd);
	return -ENOMEM;
}

static void start(struct service *s, bool old)
{
	const pid_t parent = getpid();
	sigset_t all, before;
	pid_t pid;
	int e;

	s->copier.old = old;
	if ((e = keep_reopen(&s->keep, s->state_dir))) {
		failed(s, strerror(-e));
		return;
	}
	s->copier.number = keep_number(&s->keep);
	/* no handler of handoffd's may run in the child: they share its signal sockets */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = sys_fork();
	if (pid == 0)
		child(s, parent);
	sigprocmask(SIG_SETMASK, &before, NULL);
	e = pid < 0 ? (int)pid : watch(s, pid);
	if (e && pid > 0) {
		kill(pid, SIGKILL);   /* not reaped yet: it is that child */
		sys_waitpid(pid, NULL, 0);
	}
	if (e)
		failed(s, strerror(-e));
}

/* Is e what the record calls w, and is there no copy of it yet? */
static bool lacks(const struct kept *w, const struct exe *e)
{
	return !w->copy && !e->script && exe_is(e, w->path, &w->id);
}

void copier_settle(struct service *s)
{
	struct copier *p = &s->copier;
	const bool rest = s->s.state == S_IDLE && !s->s.stop && s->exe_served && peer_connected(s->o);

	if (p->end) {
		if (!rest && !p->ended)
			kill_it(p);
		return;
	}
	if (!rest)   /* after the next handoff or start it is another file, or there is room */
		p->tries = 0;
	if (!rest && p->again)
		event_del(p->again);
	/* dirty: the copies that the record on disk names are not removed before it names others */
	if (!rest || s->keep.dirty || (p->again && evtimer_pending(p->again, NULL)))
		return;
	if (lacks(&s->keep.c.now, &s->exe))
		start(s, false);
	else if (lacks(&s->keep.c.before, &s->old_exe))
		start(s, true);
	else
		exe_close(&s->old_exe);
}

bool copier_reaped(struct service *s, pid_t pid, int status)
{
	if (!s->copier.end || s->copier.pid != pid)
		return false;
	s->copier.status = status;
	return true;
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
	if (!s->copier.end)
		return;
	sys_pidfd_signal(s->copier.pidfd, SIGKILL);
	await(s->copier.pidfd);
	forget(&s->copier);
}
