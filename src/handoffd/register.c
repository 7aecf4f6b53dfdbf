/* daemon.sock: a daemon whose supervisor was restarted finds the new one here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/sys.h"
#include "handoffd/door.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

struct reg { struct door door; };

static void turn_away(int fd, pid_t pid, const char *why)
{
	struct msg m = { .type = MSG_abort };
	struct chan c;

	log_warning("pid %d is turned away from daemon.sock: %s", (int)pid, why);
	chan_init(&c, fd);
	m.abort.why = SPAN(why);
	chan_send(&c, &m, NULL, 0);
	chan_close(&c);
}

/*
 * Who it is says the kernel (SO_PEERCRED), not the message: the pid of a process that the
 * journal names. Nobody else can have that pid until its death has been told (its pidfd is
 * closed then): what a dying daemon sent over a new channel is heard, too.
 */
static void on_daemon(void *arg, int fd, const struct ucred *who)
{
	struct service *s = arg;
	struct peer *p = s->o && s->o->pid == who->pid ? s->o : s->n && s->n->pid == who->pid ? s->n : NULL;

	if (p && peer_connected(p))
		peer_read(p);   /* its end of the channel before may lie there unread */
	if (!p || p->pidfd < 0)
		turn_away(fd, who->pid, "it is not a daemon of this service that this supervisor knows");
	else if (peer_connected(p))
		turn_away(fd, who->pid, "that daemon is registered already");
	else if (peer_attach(p, fd))
		log_error("no memory for the channel of pid %d", (int)who->pid);
	if (!s->reg->door.draining)
		service_settle(s);
}

void register_drain(struct service *s)
{
	if (s->reg && s->reg->door.accept)
		door_drain(&s->reg->door);
}

int register_open(struct service *s, char *err, size_t size)
{
	int e;

	if (!(s->reg = calloc(1, sizeof *s->reg))) {
		snprintf(err, size, "no memory");
		return -ENOMEM;
	}
	s->reg->door.visitor = on_daemon;
	s->reg->door.arg = s;
	e = door_open(&s->reg->door, s->base, s->runtime_dir, "daemon.sock", 0600, s->conf->uid, err, size);
	return e;
}

void register_close(struct service *s)
{
	if (!s->reg)
		return;
	door_close(&s->reg->door);
	free(s->reg);
	s->reg = NULL;
}
