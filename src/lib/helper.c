/*
 * The library's one thread. Asleep in poll(2) while nothing happens. It ties a successor
 * to its supervisor, sends heartbeats while the daemon's hooks are slow, and finds a
 * supervisor that was restarted. It takes no signal and calls nothing of the daemon's.
 */
#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"

#define STACK_SIZE 65536
#define RETRY_MIN_MS 5
#define RETRY_MAX_MS 200       /* nobody listens: a supervisor may be back any moment */
#define REFUSED_MAX_MS 2000    /* it listens, and does not want this daemon */

static void poke(int eventfd_)
{
	uint64_t one = 1;

	sys_write(eventfd_, &one, sizeof one);   /* full means that it is awake already */
}

static void drain(int fd)
{
	uint64_t n;

	sys_read(fd, &n, sizeof n);
}

/*
 * A successor ends with its supervisor (PR_SET_PDEATHSIG, prctl(2)): the setting belongs to
 * the thread that made it, fires when the parent's thread ends, and does nothing when
 * the parent has gone before; so the parent must be the one at the channel's other end,
 * and is looked at afterwards. Below a launcher it would fire at the launcher's exit.
 */
static void tie(handoff *h)
{
	struct ucred peer;
	socklen_t n = sizeof peer;
	struct pollfd p = { .fd = h->chan.fd, .events = POLLRDHUP };

	if (sys_getsockopt(h->chan.fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) || peer.pid != getppid())
		return;
	if (sys_prctl(PR_SET_PDEATHSIG, SIGKILL))
		return;
	if (getppid() != peer.pid || (sys_poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLRDHUP)))
		sys_prctl(PR_SET_PDEATHSIG, 0);   /* EOF says the rest */
}

/* Its socket, by the directory descriptor taken at the start: a chroot does not matter. */
static int try_connect(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "daemon.sock" };
	int fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	int e = fd < 0 ? fd : sys_connect(fd, (struct sockaddr *)&sa, sizeof sa);

	if (fd >= 0 && e)
		sys_close(fd);
	return e ? e : fd;
}

static void beat(handoff *h)
{
	struct msg m = { .type = MSG_heartbeat };

	m.heartbeat.ms = sys_now_ms();
	chan_offer(&h->chan, &m);   /* a dead peer is read as EOF by the caller */
}

static void later(struct helper *t, uint32_t max)
{
	t->connect_at = sys_now_ms() + t->retry_ms;
	t->retry_ms = t->retry_ms * 2 > max ? max : t->retry_ms * 2;
}

/* One round, under the mutex. Returns how long to sleep. */
static int work(handoff *h)
{
	struct helper *t = &h->helper;
	uint64_t now = sys_now_ms();

	if (t->tie != TIE_IDLE) {
		if (t->tie == TIE_WANTED)
			tie(h);
		else
			sys_prctl(PR_SET_PDEATHSIG, 0);
		t->tie = TIE_IDLE;
		pthread_cond_signal(&t->done);
	}
	if (!t->connect)
		return -1;
	if (now < t->connect_at)
		return (int)(t->connect_at - now);
	int fd = try_connect();
	if (fd < 0) {
		int wait = (int)t->retry_ms;
		later(t, RETRY_MAX_MS);
		return wait;
	}
	t->connect = false;
	t->connected = fd;
	poke(h->wake);
	return -1;
}

static void *run(void *arg)
{
	handoff *h = arg;
	struct helper *t = &h->helper;
	bool quit = false;

	sys_prctl(PR_SET_NAME, (unsigned long)"libhandoff");   /* of this thread, for people */
	/* a working directory of its own, so that connect(2) can be relative */
	bool can_connect = h->run_dir >= 0 && !sys_unshare(CLONE_FS) && !sys_fchdir(h->run_dir);
	while (!quit) {
		struct pollfd p[2] = { { .fd = t->wake, .events = POLLIN }, { .fd = t->beat, .events = POLLIN } };
		pthread_mutex_lock(&t->mutex);
		t->connect &= can_connect;
		int wait = work(h);
		quit = t->quit;
		pthread_mutex_unlock(&t->mutex);
		if (quit || sys_poll(p, 2, wait) <= 0)
			continue;
		if (p[0].revents)
			drain(t->wake);
		if (p[1].revents) {
			drain(t->beat);
			pthread_mutex_lock(&t->mutex);
			if (t->beats) {
				beat(h);
				sys_timerfd_set(t->beat, sys_now_ms() + t->beat_ms);
			}
			pthread_mutex_unlock(&t->mutex);
		}
	}
	return NULL;
}

static void destroy_locks(struct helper *t)
{
	pthread_mutex_destroy(&t->mutex);
	pthread_cond_destroy(&t->done);
}

int helper_start(handoff *h)
{
	struct helper *t = &h->helper;
	pthread_attr_t a;
	sigset_t all, before;
	size_t stack = STACK_SIZE;
	int e;

	t->connected = -1;
	t->retry_ms = RETRY_MIN_MS;
	if ((t->wake = sys_eventfd()) < 0)
		return t->wake;
	if ((t->beat = sys_timerfd()) < 0)
		return t->beat;
	if ((e = pthread_attr_init(&a)))
		return -e;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	stack *= 16;   /* their frames are larger */
#endif
	if (stack < (size_t)PTHREAD_STACK_MIN)
		stack = (size_t)PTHREAD_STACK_MIN;
	pthread_attr_setstacksize(&a, stack);
	pthread_mutex_init(&t->mutex, NULL);
	pthread_cond_init(&t->done, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&t->thread, &a, run, h);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&a);
	if (!(t->running = !e))
		destroy_locks(t);
	return -e;
}

void helper_stop(handoff *h)
{
	struct helper *t = &h->helper;

	if (t->running) {
		pthread_mutex_lock(&t->mutex);
		t->quit = true;
		pthread_mutex_unlock(&t->mutex);
		poke(t->wake);
		pthread_join(t->thread, NULL);
		destroy_locks(t);
		t->running = false;
	}
	sys_closep(&t->connected);
	sys_closep(&t->wake);
	sys_closep(&t->beat);
}

void helper_connect(handoff *h, enum helper_hope hope)
{
	struct helper *t = &h->helper;

	pthread_mutex_lock(&t->mutex);
	t->connect = true;
	if (hope == HOPE_BACK) {
		t->retry_ms = RETRY_MIN_MS;
		t->connect_at = 0;
	} else {
		later(t, hope == HOPE_SOON ? RETRY_MAX_MS : REFUSED_MAX_MS);
	}
	pthread_mutex_unlock(&t->mutex);
	poke(t->wake);
}

int helper_fetch(handoff *h)
{
	struct helper *t = &h->helper;
	int fd;

	pthread_mutex_lock(&t->mutex);
	fd = t->connected;
	t->connected = -1;
	if (fd >= 0)
		drain(h->wake);
	pthread_mutex_unlock(&t->mutex);
	return fd;
}

void helper_tie(handoff *h)
{
	struct helper *t = &h->helper;

	h->uid = geteuid();
	h->gid = getegid();
	pthread_mutex_lock(&t->mutex);
	t->tie = TIE_WANTED;
	pthread_mutex_unlock(&t->mutex);
	poke(t->wake);
}

void helper_tied(handoff *h)
{
	struct helper *t = &h->helper;

	pthread_mutex_lock(&t->mutex);
	while (t->tie != TIE_IDLE)
		pthread_cond_wait(&t->done, &t->mutex);
	pthread_mutex_unlock(&t->mutex);
}

void helper_untie(handoff *h)
{
	struct helper *t = &h->helper;

	pthread_mutex_lock(&t->mutex);
	t->tie = UNTIE_WANTED;
	pthread_mutex_unlock(&t->mutex);
	poke(t->wake);
	helper_tied(h);
}

void helper_beats(handoff *h, bool on)
{
	struct helper *t = &h->helper;

	if (t->beats == on)   /* only the caller's thread changes it */
		return;
	pthread_mutex_lock(&t->mutex);
	t->beats = on;
	t->beat_ms = h->d.heartbeat_ms;
	sys_timerfd_set(t->beat, on ? sys_now_ms() + t->beat_ms : 0);
	pthread_mutex_unlock(&t->mutex);
}
