#include "handoffd/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/lockfile.h"
#include "base/sys.h"
#include "handoffd/log.h"

/* ---------------------------------------------------------------- events --- */

void service_pend(struct service *s, enum s_event e)
{
	if (s->npending < PENDING_MAX)
		s->pending[s->npending++] = e;
	else
		log_error("too many events at once: %s is dropped", s_event_name[e]);
}

static enum s_event next_pending(struct service *s)
{
	enum s_event e = s->pending[0];

	memmove(s->pending, s->pending + 1, --s->npending * sizeof *s->pending);
	return e;
}

/* One line for each transition that people know by name. */
static void show(struct service *s)
{
	const char *name = s_state_desc[s->s.state].name, *before = s_state_desc[s->shown].name;
	uint64_t now = sys_now_us();
	char id[37];

	if (s->shown == s->s.state || !strcmp(name, before)) {
		s->shown = s->s.state;
		return;
	}
	hid_format(&s->s.id, id);
	if (s_in_handoff(&s->s))
		log_info("handoff %.8s: %s (%s took %.1f ms)", id, name, before, (double)(now - s->shown_at_us) / 1000);
	else if (s->s.state != S_IDLE)   /* how one got there is said by what follows */
		log_info("%s", name);
	s->shown = s->s.state;
	s->shown_at_us = now;
	if (s->s.state != S_IDLE)
		ops_phase(s, name, NULL);
}

static void step(struct service *s, enum s_event e, const struct msg *m)
{
	struct s_out out;

	s_step(&s->s, e, m, sys_now_ms(), &out);
	show(s);
	for (unsigned i = 0; i < out.n; i++) {
		enum s_event answer = service_act(s, out.action[i]);
		if (answer != S_NOW)
			service_pend(s, answer);
	}
}

void service_event(struct service *s, enum s_event e, const struct msg *m)
{
	if (s->running) {   /* an action read a socket: m would not outlive it */
		service_pend(s, e);
		return;
	}
	s->running = true;
	step(s, e, m);
	while (s->npending)
		step(s, next_pending(s), NULL);
	s->running = false;
}

/* ----------------------------------------------------------------- peers --- */

static void note_why(struct service *s, const struct span *words)
{
	snprintf(s->attempt.why, sizeof s->attempt.why, ": %.*s", (int)words->n, words->p);
	utf8_mend(s->attempt.why);
}

/* In what a Ready differs from what was sealed, for people; the machine decides. */
static void note_ready(struct service *s, const struct msg *m)
{
	char *why = s->attempt.why;
	size_t size = sizeof s->attempt.why;
	uint64_t rev[MAX_SHARDS];
	unsigned n = uints_copy(&m->ready.revisions, rev, MAX_SHARDS);

	if (!m->ready.healthy && MSG_HAS(m, ready, why)) {
		note_why(s, &m->ready.why);
	} else if (!m->ready.healthy || !s->s.sealed) {
		return;
	} else if (n != s->s.nrevisions) {
		snprintf(why, size, ": it opened %u shards, %u were sealed", n, s->s.nrevisions);
	} else if (memcmp(&m->ready.fingerprint, &s->s.fingerprint, sizeof s->s.fingerprint)) {
		snprintf(why, size, ": the fingerprint differs");
	}
	for (unsigned i = 0; s->s.sealed && n == s->s.nrevisions && i < n; i++)
		if (rev[i] != s->s.revisions[i]) {
			snprintf(why, size, ": shard %u is at revision %llu, sealed was %llu", i,
			         (unsigned long long)rev[i], (unsigned long long)s->s.revisions[i]);
			return;
		}
}

static void show_progress(struct service *s, const struct msg *m)
{
	char text[100];

	snprintf(text, sizeof text, "%u of %u shards sealed", (unsigned)m->seal_progress.done,
	         (unsigned)m->seal_progress.total);
	ops_phase(s, "seal", text);
}

void service_message(struct service *s, struct peer *p, const struct msg *m)
{
	bool from_n = p == s->n;

	switch (m->type) {
	case MSG_hello: greet_hello(s, p, m); return;
	case MSG_sockets: greet_sockets(s, p, m); return;
	case MSG_sockets_ack: greet_sockets_ack(s, p, m); return;
	default: break;
	}
	if (m->type >= MSG_op_upgrade || !p->greeted) {
		greet_refuse(p, m->type >= MSG_op_upgrade ? "an operator's request on a daemon's channel"
		                                          : "a message before Hello");
		return;
	}
	if (m->type == MSG_seal_failed)
		note_why(s, &m->seal_failed.error);
	if (m->type == MSG_ready && from_n)
		note_ready(s, m);
	if (m->type == MSG_seal_progress && s->s.state == S_SEAL)
		show_progress(s, m);
	if (m->type == MSG_status && MSG_HAS(m, status, epoch))
		p->epoch = m->status.epoch;
	enum s_event e = s_event_of(&s->s, from_n, m, sys_now_ms());
	if (e == S_E_N_STATUS && !s->attempt.serving_us)
		s->attempt.serving_us = sys_now_us();
	if (e != S_NOW)
		service_event(s, e, m);
}

static bool told_to_serve(const struct service *s)
{
	return (s->s.state >= S_TAKE && s->s.state <= S_OEXIT) || s->s.state == S_R_COMMITTED ||
	       s->s.state == S_COLD_TAKE;
}

void service_lost(struct service *s, struct peer *p, int error)
{
	if (p == s->o)
		service_event(s, error == -EBADMSG ? S_E_O_BROKEN : S_E_O_LOST, NULL);
	/* a successor that has not been told to serve cannot be told any more */
	else if (p == s->n && !told_to_serve(s))
		peer_signal(p, SIGKILL);
	/* what it sent last may be among what was not read: its Status, say */
	else if (p == s->n && error != -ENODATA)
		service_event(s, S_E_N_LOST, NULL);
}

void service_gone(struct service *s, struct peer *p)
{
	char end[64];

	peer_end(p, end);
	if (p == s->n && s->s.state >= S_WARM && s->s.state <= S_TAKE && !s->attempt.why[0])
		snprintf(s->attempt.why, sizeof s->attempt.why, ": it %s", end);
	if (p == s->n)
		snprintf(s->cold_error, sizeof s->cold_error, "pid %d %s%.500s", (int)p->pid, end, s->attempt.why);
	if (p == s->o && s->s.state == S_IDLE)
		log_error("the daemon (pid %d) %s: it is started again", (int)p->pid, end);
	else
		log_info("pid %d %s", (int)p->pid, end);
	service_event(s, p == s->n ? S_E_N_GONE : S_E_O_GONE, NULL);
}

void service_bury(struct service *s, struct peer **p)
{
	struct peer *dead = *p;

	*p = NULL;
	if (!dead)
		return;
	/* freed by service_settle: the callback under way may still look at it */
	dead->next = s->grave;
	s->grave = dead;
}

static void note_end(struct service *s, pid_t pid, const siginfo_t *si)
{
	int status = si->si_code == CLD_EXITED ? si->si_status << 8 : si->si_status & 0x7f;

	if (s->o && s->o->pid == pid && s->o->child)
		s->o->status = status;
	else if (s->n && s->n->pid == pid && s->n->child)
		s->n->status = status;
	else
		log_debug("a process left behind by a daemon (pid %d) has ended", (int)pid);
}

void service_reap(struct service *s)
{
	siginfo_t si = { 0 };

	while (!sys_wait_any(&si) && si.si_pid) {
		note_end(s, si.si_pid, &si);
		si.si_pid = 0;
	}
}

/* ------------------------------------------------------------------ time --- */

static void beat(struct service *s)
{
	struct msg m = { .type = MSG_heartbeat };

	m.heartbeat.ms = sys_now_ms();
	if (s->n && s->n->greeted && s_beats_n(&s->s))
		peer_send(s->n, &m, NULL, 0);
	if (s->o && s->o->greeted && s_beats_o(&s->s))
		peer_send(s->o, &m, NULL, 0);
}

static void arm(struct service *s)
{
	uint64_t now = sys_now_ms(), at = s_next(&s->s);
	struct timeval tv;

	if (!s_beats_n(&s->s) && !s_beats_o(&s->s))
		s->next_beat = 0;
	else if (!s->next_beat)
		s->next_beat = now + s->s.timer[TIMER_HEARTBEAT];
	if (s->next_beat && s->next_beat < at)
		at = s->next_beat;
	if (at == UINT64_MAX) {
		event_del(s->timer);   /* no timer, no wake-up */
		return;
	}
	at = at > now ? at - now : 0;
	tv = (struct timeval){ (time_t)(at / 1000), (suseconds_t)(at % 1000 * 1000) };
	event_add(s->timer, &tv);
}

static void free_grave(struct service *s)
{
	while (s->grave) {
		struct peer *p = s->grave;
		s->grave = p->next;
		peer_free(p);
	}
}

void service_settle(struct service *s)
{
	if (s->ended)
		return;
	free_grave(s);
	arm(s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;
	enum s_event e;

	(void)fd;
	(void)what;
	/* what lies in the sockets came before the timer, however late this process is */
	if (s->o)
		peer_read(s->o);
	if (s->n)
		peer_read(s->n);
	e = s_tick(&s->s, sys_now_ms());
	if (e != S_NOW)
		service_event(s, e, NULL);
	if (s->next_beat && sys_now_ms() >= s->next_beat) {
		beat(s);
		s->next_beat = 0;
	}
	service_settle(s);
}

/* --------------------------------------------------------------- signals --- */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct service *s = arg;

	(void)what;
	if (sig == SIGCHLD) {
		service_reap(s);
	} else if (sig == SIGHUP) {
		log_info("SIGHUP does nothing: the configuration is read at each upgrade");
	} else {
		log_info("signal %d: the service is being stopped", (int)sig);
		service_event(s, S_E_STOP, NULL);
	}
	service_settle(s);
}

static int watch_signals(struct service *s)
{
	sigset_t set;

	s->child = evsignal_new(s->base, SIGCHLD, on_signal, s);
	s->term = evsignal_new(s->base, SIGTERM, on_signal, s);
	s->interrupt = evsignal_new(s->base, SIGINT, on_signal, s);
	s->hangup = evsignal_new(s->base, SIGHUP, on_signal, s);
	s->timer = event_new(s->base, -1, 0, on_timer, s);
	if (!s->child || !s->term || !s->interrupt || !s->hangup || !s->timer ||
	    event_add(s->child, NULL) || event_add(s->term, NULL) || event_add(s->interrupt, NULL) ||
	    event_add(s->hangup, NULL))
		return -ENOMEM;
	/* main() blocked them: one that came before the handlers waits until here */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

/* --------------------------------------------------------------- upgrade --- */

const char *service_refuses(const struct service *s)
{
	if (s->s.stop)
		return "the supervisor is being stopped";
	if (s_in_handoff(&s->s))
		return "another handoff is under way";
	if (s->s.state == S_RESTARTING)
		return "the daemon is being restarted";
	if (s->s.state == S_R_IDLE)
		return "the supervisor was restarted and waits for the daemon to register";
	if (s->s.state != S_IDLE)
		return "the daemon is being started";
	if (s->o && s->o->registering)
		return "the daemon is registering";
	if (s->s.o_standby)
		return "the daemon stands by: it is told to serve again";
	if (!s->s.o_connected)
		return "the daemon serves, but is not registered with this supervisor; "
		       "if it does not register by itself, 'handoffctl restart' ends and starts it (clients notice)";
	return NULL;
}

static bool nobody_serves(const struct service *s)
{
	return s->s.state >= S_COLD && s->s.state <= S_COLD_TAKE;
}

/* The data directory must be the one that the incumbent has open. */
static int check_data_dir(struct service *s, const struct conf *c, char *err, size_t size)
{
	struct stat st;

	if (!c->data_dir || !s->o || !s->o->has_data)
		return 0;
	if (!sys_stat(c->data_dir, &st) && st.st_dev == s->o->dev && st.st_ino == s->o->ino)
		return 0;
	snprintf(err, size, "data-dir %s is not the directory that the running daemon has open; "
	         "an upgrade keeps the data where it is (use 'handoffctl restart' to move)", c->data_dir);
	return 2;
}

static int prepare_conf(struct service *s, const struct attempt *a, struct conf **ret_conf,
                        struct exe *ret_exe, char *err, size_t size)
{
	struct conf *c;

	if (conf_read(s->conf->file, &c, err, size))
		return 2;
	if (strcmp(c->name, s->conf->name))
		snprintf(err, size, "%s: the service is called %s there, this supervisor runs %s", c->file, c->name, s->conf->name);
	else if (!conf_check_machine(c, err, size) && !check_data_dir(s, c, err, size) &&
	         !exe_open(c, a->binary[0] ? a->binary : c->command[0], ret_exe, err, size)) {
		*ret_conf = c;
		return 0;
	}
	conf_free(c);
	return 2;
}

int service_upgrade(struct service *s, const struct attempt *a, char *err, size_t size)
{
	const char *no = service_refuses(s);
	struct conf *c;
	struct exe exe = { .fd = -1 };
	int code;

	if (no) {
		snprintf(err, size, "%s", no);
		return s_in_handoff(&s->s) ? 4 : nobody_serves(s) ? 5 : 1;
	}
	if ((code = prepare_conf(s, a, &c, &exe, err, size)))
		return code;
	if (!a->plan && listeners_open(&s->listeners, c, err, size)) {
		listeners_prune(&s->listeners, s->conf);
		exe_close(&exe);
		conf_free(c);
		return 2;
	}
	conf_free(s->new_conf);
	exe_close(&s->new_exe);
	s->new_conf = c;
	s->new_exe = exe;
	s->attempt = *a;
	memcpy(s->s.timer, c->timer, sizeof s->s.timer);
	if (a->deadline_ms)
		s->s.timer[TIMER_DEADLINE] = a->deadline_ms;
	if (a->drain_ms)
		s->s.timer[TIMER_DRAIN] = a->drain_ms;
	/* --deadline alone may undercut the configured drain-grace */
	if (s->s.timer[TIMER_DRAIN] > s->s.timer[TIMER_DEADLINE])
		s->s.timer[TIMER_DRAIN] = s->s.timer[TIMER_DEADLINE];
	s->s.id = a->id;
	s->cold_error[0] = '\0';
	service_event(s, S_E_START, NULL);
	return 0;
}

/* ------------------------------------------------------------------ boot --- */

/* The process that the journal names, if it still is that process. */
static struct peer *adopt(struct service *s, const struct process *p)
{
	struct peer *peer;
	int fd;

	if (!p->pid)
		return NULL;
	if ((fd = proc_open(p->pid, p->start)) < 0) {
		log_info("pid %d of the journal is gone", (int)p->pid);
		return NULL;
	}
	if (!(peer = peer_new(s, p->pid, p->start, fd)))
		sys_close(fd);
	return peer;
}

/* Without a journal the lock's record says who may still be serving. */
static void guess_incumbent(struct service *s)
{
	const char *dir = s->conf->data_dir ? s->conf->data_dir : s->lock_dir;
	struct lock_owner o;
	int fd = sys_open(dir, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return;
	if (!lockfile_read(fd, &o) && o.pid)
		s->journal.incumbent = (struct process){ (pid_t)o.pid, o.start };
	s->journal.served = true;
	sys_close(fd);
}

static void boot(struct service *s)
{
	struct s_out out;
	struct s_boot b = { .phase = s->journal.phase, .served = s->journal.served, .id = s->journal.id };

	s->o = adopt(s, &s->journal.incumbent);
	if (s->journal.phase != BOOT_IDLE)
		s->n = adopt(s, &s->journal.successor);
	if (s->o)
		exe_of_pid(s->o->pid, s->journal.binary[0] ? s->journal.binary : s->conf->command[0], &s->exe);
	if (s->n)
		exe_of_pid(s->n->pid, s->journal.new_binary[0] ? s->journal.new_binary : s->conf->command[0], &s->new_exe);
	b.has_incumbent = s->o != NULL;
	b.has_successor = s->n != NULL;
	s->attempt.id = s->journal.id;
	s->running = true;
	s_boot(&s->s, &b, sys_now_ms(), &out);
	s->shown = s->s.state;
	s->shown_at_us = sys_now_us();
	log_info("%s", s->o || s->n ? "adopting what runs" : "starting the daemon");
	for (unsigned i = 0; i < out.n; i++) {
		enum s_event e = service_act(s, out.action[i]);
		if (e != S_NOW)
			service_pend(s, e);
	}
	while (s->npending)
		step(s, next_pending(s), NULL);
	s->running = false;
}

static int make_dirs(struct service *s, char *err, size_t size)
{
	int e = dirs_runtime(s->conf->name, true, s->runtime_dir, sizeof s->runtime_dir, err, size);

	if (!e)
		e = dirs_state(s->conf->name, true, s->state_dir, sizeof s->state_dir, err, size);
	if (!e)
		e = dirs_make(s->runtime_dir, 0711, err, size);
	if (!e)
		e = dirs_make(s->state_dir, 0700, err, size);
	snprintf(s->lock_dir, sizeof s->lock_dir, "%s/lock", s->runtime_dir);
	/* a service without data-dir has its lock here, in a folder that the daemon's user owns */
	if (!e && !s->conf->data_dir)
		e = dirs_make_owned(s->lock_dir, 0700, s->conf->uid, s->conf->gid, err, size);
	return e;
}

int service_start(struct service *s, struct event_base *base, struct conf *conf, char *err, size_t size)
{
	int e;

	memset(s, 0, sizeof *s);
	s->base = base;
	s->conf = conf;
	s->exe.fd = s->new_exe.fd = -1;
	s_init(&s->s, s_table, conf->timer);
	if ((e = make_dirs(s, err, size)))
		return e;
	e = store_open(&s->store, s->runtime_dir, s->state_dir, &s->journal, err, size);
	if (e == -EBADMSG) {
		log_error("%s; the lock's record says who runs", err);
		guess_incumbent(s);
	} else if (e) {
		return e;
	}
	if (!s->journal.incumbent.pid)
		store_read_current(&s->store, s->journal.binary);
	if (watch_signals(s)) {
		snprintf(err, size, "no memory for the event loop");
		return -ENOMEM;
	}
	sys_prctl(PR_SET_CHILD_SUBREAPER, 1);
	if ((e = register_open(s, err, size)) || (e = ops_open(s, err, size)))
		return e;
	boot(s);
	service_settle(s);
	return 0;
}

static void drop_event(struct event **e)
{
	if (*e)
		event_free(*e);
	*e = NULL;
}

void service_end(struct service *s)
{
	ops_close(s);
	register_close(s);
	free_grave(s);
	peer_free(s->o);
	peer_free(s->n);
	drop_event(&s->timer);
	drop_event(&s->child);
	drop_event(&s->term);
	drop_event(&s->interrupt);
	drop_event(&s->hangup);
	exe_close(&s->exe);
	exe_close(&s->new_exe);
	listeners_close(&s->listeners, s->ended);
	store_close(&s->store);
	conf_free(s->conf);
	conf_free(s->new_conf);
}
