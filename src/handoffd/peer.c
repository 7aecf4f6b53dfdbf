#include "handoffd/peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/log.h"

/* A daemon sends some frames in a second, and in a seal one for each shard. One that goes on and
 * on is read more slowly: the rest waits in its socket, and then it has to wait itself. */
#define FRAMES_BURST 8192
#define FRAMES_MS    1
#define RETRY_MS     100
#define LINES_BURST  1000
#define LINES_MS     100

static void drop_event(struct event **e)
{
	if (*e)
		event_free(*e);
	*e = NULL;
}

bool peer_connected(const struct peer *p)
{
	return p && p->chan.fd >= 0;
}

bool peer_dead(const struct peer *p)
{
	return p->pidfd < 0 || proc_ended(p->pidfd);
}

void peer_detach(struct peer *p)
{
	drop_event(&p->read);
	drop_event(&p->write);
	drop_event(&p->again);
	chan_close(&p->chan);
	p->greeted = p->registering = p->sending = false;
}

static void lost(struct peer *p, int e)
{
	if (e == -EBADMSG)
		log_limited(&p->lines, LOG_L_WARNING, "pid %d sent what is not the protocol: %s; its channel is closed",
		            (int)p->pid, p->chan.error);
	peer_detach(p);
	p->owner->lost(p->owner->arg, p, e);
}

/* The owner may close the channel meanwhile; it frees peers only between two callbacks. */
static void read_some(struct peer *p, unsigned max)
{
	struct msg m;
	int e;

	while (max-- && peer_connected(p) && (e = chan_recv(&p->chan, &m)))
		if (e > 0) {
			bucket_take(&p->frames, sys_now_ms(), FRAMES_MS);
			p->owner->message(p->owner->arg, p, &m);
		} else if (e == -EMFILE || e == -ENFILE || e == -ENOMEM) {
			break;
		} else {
			lost(p, e);
		}
}

/* More frames than a socket's buffer can hold at once (each costs it some 700 bytes): who goes
 * on sending does not keep the supervisor here. */
void peer_read(struct peer *p)
{
	read_some(p, 1024);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;
	uint64_t ms = bucket_wait(&p->frames, sys_now_ms(), FRAMES_BURST, FRAMES_MS);
	const struct timeval tv = { (time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000) };

	(void)fd;
	(void)what;
	if (ms && !event_add(p->again, &tv)) {
		event_del(p->read);
		return;
	}
	read_some(p, 64);   /* the rest is there in the next turn, behind everybody else */
	p->owner->settled(p->owner->arg);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;

	(void)fd;
	(void)what;
	if (event_add(p->read, NULL))   /* epoll_ctl(2) had no memory: who is not read is deaf for ever */
		event_add(p->again, &(struct timeval){ .tv_usec = RETRY_MS * 1000 });
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;
	int e = chan_flush(&p->chan);

	(void)fd;
	(void)what;
	if (e <= 0)
		event_del(p->write);
	if (e < 0)
		chan_end(&p->chan);   /* as in peer_send */
}

/*
 * The process has ended. A forked helper may hold its socket open: read until EAGAIN,
 * never wait for EOF.
 */
static void on_death(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;
	const struct peer_owner *o = p->owner;

	(void)fd;
	(void)what;
	peer_read(p);
	o->dying(o->arg, p);
	peer_read(p);
	peer_detach(p);
	drop_event(&p->death);
	sys_closep(&p->pidfd);
	sys_closep(&p->gate);
	o->gone(o->arg, p);
	o->settled(o->arg);
}

struct peer *peer_new(const struct peer_owner *owner, pid_t pid, uint64_t start, int pidfd)
{
	struct peer *p = calloc(1, sizeof *p);

	if (!p)
		return NULL;
	p->owner = owner;
	p->pid = pid;
	p->start = start;
	p->gate = -1;
	p->status = -1;
	p->lines = (struct log_limit){ .burst = LINES_BURST, .interval_ms = LINES_MS };
	chan_init(&p->chan, -1);
	p->death = event_new(owner->base, pidfd, EV_READ, on_death, p);
	if (!p->death || event_add(p->death, NULL)) {
		drop_event(&p->death);
		free(p);
		return NULL;
	}
	p->pidfd = pidfd;
	return p;
}

int peer_attach(struct peer *p, int fd)
{
	peer_detach(p);
	chan_init(&p->chan, fd);
	p->send_error = 0;
	p->read = event_new(p->owner->base, fd, EV_READ | EV_PERSIST, on_read, p);
	p->write = event_new(p->owner->base, fd, EV_WRITE | EV_PERSIST, on_write, p);
	p->again = event_new(p->owner->base, -1, 0, on_again, p);
	if (p->read && p->write && p->again && !event_add(p->read, NULL))
		return 0;
	peer_detach(p);
	return -ENOMEM;
}

struct peer *peer_free(struct peer *p)
{
	if (!p)
		return NULL;
	peer_detach(p);
	drop_event(&p->death);
	sys_closep(&p->pidfd);
	sys_closep(&p->gate);
	free(p);
	return NULL;
}

int peer_send(struct peer *p, const struct msg *m, const int *fds, unsigned nfds)
{
	int e;

	if (!peer_connected(p))
		return -EPIPE;
	e = chan_send(&p->chan, m, fds, nfds);
	if (m->type != MSG_heartbeat)   /* which has no answer */
		p->sent_us = sys_now_us();
	if (!e && chan_pending(&p->chan) && event_add(p->write, NULL))
		e = -ENOMEM;
	/* Both would wait for what is lost: so they find that the channel has ended, now; the reader
	 * has what the peer sent before its end. A peer that only reads no more meets that, too. */
	if (e)
		chan_end(&p->chan);
	if (e && e != -EPIPE && e != -ECONNRESET) {
		log_limited(&p->lines, LOG_L_WARNING, "%s could not be sent to pid %d: %s; its channel is closed",
		            msg_name(m->type), (int)p->pid, strerror(-e));
		p->send_error = e;
	}
	return e;
}

int peer_signal(struct peer *p, int sig)
{
	p->killed |= sig == SIGKILL;
	return p->pidfd < 0 ? -ESRCH : sys_pidfd_signal(p->pidfd, sig);
}

const char *peer_end(const struct peer *p, char buf[64])
{
	int signal_ = p->status != -1 && WIFSIGNALED(p->status) ? WTERMSIG(p->status) : 0;
	const char *name = signal_ ? sigabbrev_np(signal_) : NULL;   /* none for real-time signals */

	if (p->status == -1)
		snprintf(buf, 64, "is gone");
	else if (p->cut && signal_ == SIGKILL)
		snprintf(buf, 64, "closed its channel and was killed");
	else if (name)
		snprintf(buf, 64, "was killed by signal %d (%s)", signal_, name);
	else if (signal_)
		snprintf(buf, 64, "was killed by signal %d", signal_);
	else
		snprintf(buf, 64, "exited with %d", WEXITSTATUS(p->status));
	return buf;
}
