/* daemon.sock: a daemon whose supervisor was restarted finds the new one here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/door.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

#define DOOR_PAUSE_MS 20
#define LINES_BURST   1000
#define LINES_MS      100

struct reg {
	struct door door;
	struct log_limit lines;
	int found;           /* the connection of an incumbent that nobody knew; -1: none */
	pid_t found_pid;
};

static void turn_away(struct reg *r, int fd, pid_t pid, const char *why)
{
	struct msg m = { .type = MSG_abort };
	struct chan c;

	log_limited(&r->lines, LOG_L_WARNING, "pid %d is turned away from daemon.sock: %s", (int)pid, why);
	chan_init(&c, fd);
	m.abort.why = SPAN(why);
	chan_send(&c, &m, NULL, 0);
	chan_close(&c);
}

/* The pid of a dead process may be another's by now; the start time is not. */
static bool is(const struct peer *p, const struct ucred *who)
{
	uint64_t start;

	if (!p || p->pidfd < 0 || p->pid != who->pid)
		return false;
	return proc_start_time(who->pid, &start) || start == p->start;
}

/*
 * Nobody is known to serve, and yet this one has the lock: the journal was lost, and at the start the
 * lock could not be asked, or was nobody's then. To leave it a stranger would be for ever: nothing
 * that is started beside it gets the lock.
 */
static bool is_found(const struct service *s, pid_t pid)
{
	uint64_t start;

	return s->s.state >= S_COLD && s->s.state <= S_COLD_ENDING && service_owns_lock(s, pid, &start);
}

static void found(struct service *s, int fd, pid_t pid)
{
	sys_closep(&s->reg->found);
	s->reg->found = fd;
	s->reg->found_pid = pid;
	/* register_settle waits for the end of what is being started */
	if (s->s.state == S_COLD_WARM || s->s.state == S_COLD_READY)
		service_event(s, S_E_O_FOUND, NULL);
}

static void let_in(struct peer *p, int fd)
{
	if (peer_attach(p, fd))
		log_error("no memory for the channel of pid %d; it registers again by itself", (int)p->pid);
}

bool register_has_found(const struct service *s)
{
	return s->reg && s->reg->found >= 0;
}

void register_settle(struct service *s)
{
	int fd;

	if (!register_has_found(s) || (s->s.state > S_COLD_STOP && s->s.state <= S_COLD_ENDING))
		return;
	fd = s->reg->found;
	s->reg->found = -1;
	if ((s->s.state == S_COLD || s->s.state == S_COLD_STOP) && service_find(s, s->reg->found_pid))
		let_in(s->o, fd);
	else
		turn_away(s->reg, fd, s->reg->found_pid, "that it has the lock could not be made sure");
}

/*
 * Who it is says the kernel (SO_PEERCRED), not the message: a process that the journal names
 * and whose death has not been told. What a dying daemon sent over a new channel is heard, too.
 */
static bool on_daemon(void *arg, int fd, const struct ucred *who)
{
	struct service *s = arg;
	struct peer *p = is(s->o, who) ? s->o : is(s->n, who) ? s->n : NULL;

	if (p && peer_connected(p))
		peer_read(p);   /* its end of the channel before may lie there unread */
	if (!p && is_found(s, who->pid))
		found(s, fd, who->pid);
	else if (!p)
		turn_away(s->reg, fd, who->pid, "it is not a daemon of this service that this supervisor knows");
	else if (peer_connected(p))
		turn_away(s->reg, fd, who->pid, "that daemon is registered already");
	else
		let_in(p, fd);
	if (!s->reg->door.draining)
		service_settle(s);
	return false;   /* a daemon registers once */
}

void register_drain(struct service *s)
{
	if (s->reg && s->reg->door.accept)
		door_drain(&s->reg->door);
}

void register_owner(struct service *s, uid_t uid)
{
	int e;

	if (uid == (uid_t)-1)
		uid = geteuid();
	if (geteuid() == 0 && s->reg && (e = sys_lchown(s->reg->door.path, uid, (gid_t)-1)))
		log_error("%s cannot be given to uid %d: %s; after a crash of this supervisor its daemon could not "
		          "register", s->reg->door.path, (int)uid, strerror(-e));
}

int register_socket(const struct service *s)
{
	return s->reg->door.fd;
}

int register_open(struct service *s, int fd, char *err, size_t size)
{
	struct door *d;

	if (!(s->reg = calloc(1, sizeof *s->reg))) {
		snprintf(err, size, "no memory");
		return -ENOMEM;
	}
	s->reg->found = -1;
	s->reg->lines = (struct log_limit){ .burst = LINES_BURST, .interval_ms = LINES_MS };
	d = &s->reg->door;
	d->visitor = on_daemon;
	d->arg = s;
	d->pause_ms = DOOR_PAUSE_MS;
	if (fd >= 0)
		return door_reopen(d, s->base, s->runtime_dir, "daemon.sock", fd, err, size);
	return door_open(d, s->base, s->runtime_dir, "daemon.sock", 0600, s->conf->uid, err, size);
}

void register_close(struct service *s)
{
	if (!s->reg)
		return;
	sys_closep(&s->reg->found);
	door_close(&s->reg->door);
	free(s->reg);
	s->reg = NULL;
}
