#include "handoffd/reexec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/callers.h"
#include "handoffd/log.h"
#include "handoffd/service.h"
#include "handoffd/version.h"

#define ARGS    64

static struct { int n; char *argv[ARGS + 3], path[4096]; } own;

/* ---- which binary ---- */

/* The path as it was given, where it is one: a link that a package moves on is followed anew. */
void reexec_arguments(int argc, char **argv)
{
	char dir[2048];
	ssize_t n;

	if (argc < 1 || argc > ARGS)
		return;
	own.n = argc;
	memcpy(own.argv, argv, (size_t)argc * sizeof *argv);
	if (argv[0][0] == '/')
		snprintf(own.path, sizeof own.path, "%s", argv[0]);
	else if (strchr(argv[0], '/') && getcwd(dir, sizeof dir))
		snprintf(own.path, sizeof own.path, "%s/%s", dir, argv[0]);
	else if ((n = readlink("/proc/self/exe", own.path, sizeof own.path - 1)) > 0)
		own.path[n] = '\0';
}

static int look(struct exe_id *ret)
{
	struct stat st;
	const int e = sys_stat(own.path, &st);

	*ret = e ? (struct exe_id){ 0 } : exe_id(&st);
	return e;
}

/* ---- what it is told ---- */

/* Arrays that a message borrows. */
struct queues {
	struct span name[DISRUPTION_QUEUES];
	uint64_t deepest[DISRUPTION_QUEUES], drops[DISRUPTION_QUEUES];
};

static void put_last(const struct totals *t, struct msg *m, struct queues *a)
{
	unsigned n = 0;

	if (!t->handed)
		return;
	for (unsigned i = 0; i < t->last.n; i++) {
		const struct disruption_queue *q = &t->last.q[i];

		if (!q->known)
			continue;
		a->name[n] = SPAN(q->name);
		a->deepest[n] = q->deepest.waiting;
		a->drops[n++] = q->deepest.drops;
	}
	MSG_SET(m, carry, stall_us, t->stall_us);
	MSG_SET(m, carry, queues, ((struct texts){ .n = n, .v = a->name }));
	MSG_SET(m, carry, deepest, ((struct uints){ .n = n, .v = a->deepest }));
	MSG_SET(m, carry, drops, ((struct uints){ .n = n, .v = a->drops }));
}

static void put_totals(const struct totals *t, struct msg *m, struct queues *a)
{
	struct msg_carry *c = &m->carry;

	c->since_ms = t->since_ms;
	c->committed = t->outcomes[OUTCOME_COMMITTED];
	c->aborted = t->outcomes[OUTCOME_ABORTED];
	c->rolled_back = t->outcomes[OUTCOME_ROLLED_BACK];
	c->cold_starts = t->cold_starts;
	c->pause_us = t->pause_us;
	c->total_us = t->total_us;
	MSG_SET(m, carry, moved, t->moved);
	MSG_SET(m, carry, stayed, t->stayed);
	put_last(t, m, a);
}

static void put_head(const struct service *s, struct carry *to)
{
	struct msg m = { .type = MSG_carry };
	struct msg_carry *c = &m.carry;
	struct queues queues;

	c->version = carry_version;
	c->pid = (uint64_t)getpid();
	c->software = SPAN(handoffd_version);
	c->lock = (uint64_t)s->store.lock;
	c->control = (uint64_t)ops_callers(s)->door.fd;
	c->daemon = (uint64_t)register_socket(s);
	put_totals(&s->totals, &m, &queues);
	c->served_since = s->s.served_since;
	c->cold_tries = s->s.cold_tries;
	c->strangers = generations_strangers(s->generations);
	if (s->conf_error[0] && utf8_valid(s->conf_error, strlen(s->conf_error)))
		MSG_SET(&m, carry, conf_error, SPAN(s->conf_error));
	carry_put(to, &m);
}

static void put_peer(const struct peer *p, struct carry *to)
{
	struct msg m = { .type = MSG_carry_peer };
	struct msg_carry_peer *c = &m.carry_peer;

	c->pid = (uint64_t)p->pid;
	c->start = p->start;
	c->pidfd = (uint64_t)p->pidfd;
	c->channel = (uint64_t)p->chan.fd;
	c->version = p->chan.version;
	c->child = p->child;
	c->moves = p->moves;
	c->build = (struct span){ (const char *)p->build, p->build_size };
	c->software = SPAN(p->software);
	c->epoch = p->epoch;
	if (p->has_data) {
		MSG_SET(&m, carry_peer, dev, p->dev);
		MSG_SET(&m, carry_peer, ino, p->ino);
	}
	carry_put(to, &m);
	carry_put_chan(to, &p->chan);
}

static void put_exe(const struct exe *e, bool old, struct carry *to)
{
	const uint64_t file[] = { e->id.ino, e->id.size, e->id.mtime, e->id.ctime };
	struct msg m = { .type = MSG_carry_exe };
	struct msg_carry_exe *c = &m.carry_exe;

	if (e->fd < 0)
		return;
	c->old = old;
	c->path = SPAN(e->path);
	c->fd = (uint64_t)e->fd;
	c->dev = e->dev;
	c->ino = e->ino;
	c->file = (struct uints){ .n = 4, .v = file };
	c->copy = e->copy;
	c->script = e->script;
	c->pinned = e->pinned;
	carry_put(to, &m);
}

/* 0 or -errno; the descriptor is the caller's in any case. */
static int put_all(const struct service *s, struct carry *to)
{
	int e = carry_begin(to);

	if (e)
		return e;
	put_head(s, to);
	put_peer(s->o, to);
	for (unsigned i = 0; i < s->listeners.n; i++) {
		const struct listener *l = &s->listeners.v[i];
		const struct msg m = { .type = MSG_carry_listener,
		                       .carry_listener = { .name = SPAN(l->name), .fd = (uint64_t)l->fd } };

		carry_put(to, &m);
	}
	put_exe(&s->exe, false, to);
	put_exe(&s->old_exe, true, to);
	callers_carry(ops_callers(s), to);
	return carry_end(to);
}

/* ---- whether it can ---- */

static const char *words(struct reexec *r, char out[300])
{
	const ssize_t n = sys_read(r->child.out, out, 299);

	out[n > 0 ? n : 0] = '\0';
	for (char *p = out; *p; p++)
		if (*p == '\n')
			*p = p[1] ? ' ' : '\0';
	utf8_mend(out);
	return out;
}

/* "": yes. */
static void answer(struct reexec *r, char out[400])
{
	const int status = r->child.status;
	const bool exited = status != -1 && WIFEXITED(status);
	char said[300];

	words(r, said);
	out[0] = '\0';
	if (r->late)
		snprintf(out, 400, "it did not say within presumed-dead whether it can go on");
	else if (exited && WEXITSTATUS(status) == 0)
		return;
	else if (*said)
		snprintf(out, 400, "%s", said);
	else if (exited)
		snprintf(out, 400, "it exited with %d when it was asked", WEXITSTATUS(status));
	else
		snprintf(out, 400, "it was killed by signal %d when it was asked", status == -1 ? 0 : WTERMSIG(status));
}

static void stays(struct service *s, const char *why)
{
	char text[6000];

	snprintf(text, sizeof text, "%s: %s; handoffd %s (pid %d) goes on, nothing has changed", own.path, why,
	         handoffd_version, (int)getpid());
	utf8_mend(text);
	log_warning("%s", text);
	ops_reexeced(s, 1, text);
	callers_now(ops_callers(s));
}

static void forget(struct reexec *r)
{
	answerer_forget(&r->child);
	r->answered = false;
}

/* One that is late is killed, and not waited for: it may hang in the kernel. */
static void on_end(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;
	struct reexec *r = &s->reexec;

	(void)fd;
	r->late = what & EV_TIMEOUT;
	if (r->late)
		answerer_kill(&r->child);
	service_reap(s);
	answer(r, r->why);
	r->answered = true;
}

/* Why this one goes on; NULL: the other one may. Much may have happened since it was asked. */
static const char *hindrance(struct service *s)
{
	return s->reexec.why[0] ? s->reexec.why : service_refuses(s);
}

/* What an earlier daemon has left is ended first: whose it is, the next one could not tell. That
 * ends, GENERATION_KILL_MS behind the SIGKILL at the latest. */
static bool waits(struct service *s)
{
	return s->ended || !s->reexec.answered || (!hindrance(s) && !generations_settled(s->generations, 0));
}

static void decide(struct service *s)
{
	struct reexec *r = &s->reexec;
	const char *no = hindrance(s);

	forget(r);
	if (!no) {
		snprintf(r->why, sizeof r->why, "it was not the time for it");
		service_event(s, S_E_REEXEC, NULL);
		no = r->why;
	}
	stays(s, no);
	callers_sweep(ops_callers(s));
	service_settle(s);
}

/* A signal that has come is in this process's hands, in libevent's, and would die with it: so
 * others wait in the kernel's, over the exec until the next one has its handlers, and the loop
 * serves what it has. It does not nest: this runs outside of it. */
void reexec_turn(struct service *s)
{
	if (waits(s))
		return;
	service_hold_signals(true);
	event_base_loop(s->base, EVLOOP_NONBLOCK);
	if (!waits(s))
		decide(s);
	service_hold_signals(false);
}

static void child(void *arg, pid_t parent, int out)
{
	const int carried = *(const int *)arg;
	static const char no[] = "it cannot be executed: ";
	char option[] = "--check-carried", number[12];
	sigset_t none;
	int e;

	(void)parent;
	for (int i = 1; i < NSIG; i++)   /* before the mask: handoffd's handlers share its sockets */
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sys_dup2(out, STDOUT_FILENO);
	sys_dup2(out, STDERR_FILENO);
	sys_fcntl(carried, F_SETFD, 0);
	snprintf(number, sizeof number, "%d", carried);
	own.argv[own.n] = option;
	own.argv[own.n + 1] = number;
	e = sys_execveat(AT_FDCWD, own.path, own.argv, environ, 0);
	sys_write(STDERR_FILENO, no, sizeof no - 1);
	sys_write(STDERR_FILENO, strerror(-e), strlen(strerror(-e)));
	_exit(127);
}

int reexec_begin(struct service *s, char *err, size_t size)
{
	const char *no = service_refuses(s);
	struct exe_id file;
	struct carry c;
	int e;

	if (no) {
		snprintf(err, size, "%s", no);
		return s_in_handoff(&s->s) || s->candidate ? 4 : service_nobody_serves(s) ? 5 : 1;
	}
	look(&file);
	e = !own.n ? -E2BIG : put_all(s, &c);
	s->reexec = (struct reexec){ .file = file };
	if (!e)
		e = answerer_start(&s->reexec.child, s->base, child, &c.fd, s->conf->timer[TIMER_DEAD], on_end, s);
	if (own.n)
		sys_closep(&c.fd);
	if (e) {
		snprintf(err, size, "the other handoffd could not be asked whether it can go on: %s; this one goes on",
		         strerror(-e));
		return 1;
	}
	return 0;
}

void reexec_close(struct service *s)
{
	if (!s->reexec.child.end)
		return;
	answerer_kill(&s->reexec.child);
	forget(&s->reexec);
}

/* ---- exec ---- */

static int become(const struct carried *c, int fd)
{
	char number[12];
	int e;

	snprintf(number, sizeof number, "%d", fd);
	own.argv[own.n] = NULL;
	if (setenv("HANDOFF_CARRIED", number, 1))
		return -ENOMEM;
	e = carry_keep(c, true);
	if (!e)
		e = sys_fcntl(fd, F_SETFD, 0);
	if (!e)
		e = sys_execveat(AT_FDCWD, own.path, own.argv, environ, 0);
	carry_keep(c, false);
	unsetenv("HANDOFF_CARRIED");
	return e;
}

/* By its path, so that the process bears its name and a script finds itself; but for the instant
 * until the exec it is the file that was asked. */
static bool is_another(struct reexec *r)
{
	struct exe_id now;
	const int e = look(&now);

	if (e)
		snprintf(r->why, sizeof r->why, "%s", strerror(-e));
	else if (!exe_id_same(&now, &r->file))
		snprintf(r->why, sizeof r->why, "it was replaced while it was asked whether it can go on: ask again");
	else
		return false;
	return true;
}

void reexec_now(struct service *s)
{
	struct reexec *r = &s->reexec;
	struct carried carried;
	struct carry c;
	int e;

	if (is_another(r))
		return;
	ops_tell(s);
	if (!(e = put_all(s, &c))) {
		if ((e = carry_read(c.fd, &carried, r->why, sizeof r->why))) {
			sys_close(c.fd);
			return;
		}
		history_flush(s);
		copier_kill(s);
		log_flush();
		e = become(&carried, c.fd);
		carry_free(&carried);
	}
	sys_closep(&c.fd);
	snprintf(r->why, sizeof r->why, "%s", strerror(-e));
}

/* ---- the other one ---- */

int reexec_receive(struct carried *ret, char *err, size_t size)
{
	const char *text = getenv("HANDOFF_CARRIED");
	const int fd = text ? atoi(text) : -1;
	int e;

	unsetenv("HANDOFF_CARRIED");
	if (!text)
		return 0;
	if ((e = carry_read(fd, ret, err, size)))
		return e;
	sys_close(fd);
	if (ret->head.carry.pid != (uint64_t)getpid())
		e = -ESRCH;
	if (!e)
		e = carry_keep(ret, false);
	if (!e)
		return 1;
	carry_free(ret);
	snprintf(err, size, "HANDOFF_CARRIED=%d is not meant for this process: %s", fd, strerror(-e));
	return e;
}

struct peer *reexec_peer(struct service *s, const struct carried *c)
{
	const struct msg_carry_peer *m = &c->peer.carry_peer;
	struct peer *p = peer_new(&s->owner, (pid_t)m->pid, m->start, (int)m->pidfd);

	if (!p)
		return NULL;
	if (peer_attach(p, (int)m->channel))
		return peer_free(p);
	p->chan.version = (uint16_t)m->version;
	p->child = m->child;
	p->moves = m->moves;
	p->greeted = true;
	p->build_size = m->build.n;
	if (m->build.n)
		memcpy(p->build, m->build.p, m->build.n);
	span_copy(p->software, sizeof p->software, &m->software);
	p->has_data = MSG_HAS(&c->peer, carry_peer, dev) && MSG_HAS(&c->peer, carry_peer, ino);
	p->dev = m->dev;
	p->ino = m->ino;
	p->epoch = m->epoch;
	return p;
}

static void take_last(struct totals *t, const struct msg *m)
{
	const struct msg_carry *c = &m->carry;
	struct disruption *d = &t->last;
	struct queues a = { 0 };

	if (!(t->handed = MSG_HAS(m, carry, stall_us)))
		return;
	t->stall_us = c->stall_us;
	d->n = texts_copy(&c->queues, a.name, DISRUPTION_QUEUES);
	uints_copy(&c->deepest, a.deepest, DISRUPTION_QUEUES);
	uints_copy(&c->drops, a.drops, DISRUPTION_QUEUES);
	for (unsigned i = 0; i < d->n; i++) {
		struct disruption_queue *q = &d->q[i];

		span_copy(q->name, sizeof q->name, &a.name[i]);
		q->known = true;
		q->deepest = (struct queue){ .waiting = (uint32_t)a.deepest[i], .drops = (uint32_t)a.drops[i] };
	}
}

static void take_totals(struct totals *t, const struct msg *m)
{
	const struct msg_carry *c = &m->carry;

	*t = (struct totals){ .since_ms = c->since_ms, .cold_starts = c->cold_starts, .pause_us = c->pause_us,
	                      .total_us = c->total_us, .moved = c->moved, .stayed = c->stayed };
	t->outcomes[OUTCOME_COMMITTED] = c->committed;
	t->outcomes[OUTCOME_ABORTED] = c->aborted;
	t->outcomes[OUTCOME_ROLLED_BACK] = c->rolled_back;
	take_last(t, m);
}

struct taking { struct service *s; char *err; size_t size; };

static int take_listener(void *arg, const struct msg *m)
{
	const struct taking *t = arg;
	char name[CONF_MAX_NAME + 1];
	int e;

	span_copy(name, sizeof name, &m->carry_listener.name);
	e = listeners_adopt(&t->s->listeners, t->s->conf, name, (int)m->carry_listener.fd, t->err, t->size);
	return e == -EEXIST ? 0 : e;
}

static int take_exe(void *arg, const struct msg *m)
{
	const struct msg_carry_exe *c = &m->carry_exe;
	struct service *s = ((const struct taking *)arg)->s;
	struct exe *e = c->old ? &s->old_exe : &s->exe;
	uint64_t file[4] = { 0 };

	uints_copy(&c->file, file, 4);
	exe_close(e);
	*e = (struct exe){ .fd = (int)c->fd, .dev = c->dev, .ino = c->ino, .copy = c->copy, .script = c->script,
	                   .pinned = c->pinned,
	                   .id = { file[0], file[1], file[2], file[3] } };
	span_copy(e->path, sizeof e->path, &c->path);
	return 0;
}

static int take_caller(void *arg, const struct msg *m)
{
	callers_carried(ops_callers(((const struct taking *)arg)->s), &m->carry_caller);
	return 0;
}

static int take_bytes(void *arg, const struct msg *m)
{
	struct service *s = ((const struct taking *)arg)->s;

	if ((int)m->carry_bytes.channel != s->o->chan.fd)
		callers_restore(ops_callers(s), &m->carry_bytes);
	else if (carry_restore(&s->o->chan, &m->carry_bytes))
		chan_end(&s->o->chan);   /* the daemon registers anew */
	return 0;
}

int reexec_take(struct service *s, const struct carried *c, char *err, size_t size)
{
	struct taking t = { s, err, size };
	int e;

	if (s->journal.phase != BOOT_IDLE || s->journal.incumbent.pid != s->o->pid) {
		snprintf(err, size, "the journal is not the one that an earlier handoffd has handed over");
		return -EBADMSG;
	}
	take_totals(&s->totals, &c->head);
	if ((e = carry_each(c, MSG_carry_listener, take_listener, &t)))
		return e;
	e = carry_each(c, MSG_carry_exe, take_exe, &t);
	if (!e)
		e = carry_each(c, MSG_carry_caller, take_caller, &t);
	if (!e)
		e = carry_each(c, MSG_carry_bytes, take_bytes, &t);
	if (e)
		snprintf(err, size, "what an earlier handoffd has handed over cannot be used: %s", strerror(-e));
	else if (chan_pending(&s->o->chan))
		event_add(s->o->write, NULL);
	return e;
}
