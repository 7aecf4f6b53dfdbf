/* The beginning and the end of a supervisor's life. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/lockfile.h"
#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/fdstore.h"
#include "handoffd/ids.h"
#include "handoffd/log.h"
#include "handoffd/callers.h"
#include "handoffd/room.h"
#include "handoffd/service.h"
#include "handoffd/transient.h"
#include "handoffd/version.h"

/* --------------------------------------------------------------- signals --- */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct service *s = arg;

	(void)what;
	if (sig == SIGCHLD) {
		service_reap(s);
	} else if (sig == SIGHUP) {
		log_info("SIGHUP does nothing: the configuration is read again at an upgrade and a restart");
	} else {
		log_info("signal %d: the service is being stopped", (int)sig);
		service_event(s, S_E_STOP, NULL);
	}
	service_settle(s);
}

void service_hold_signals(bool hold)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static int watch_signals(struct service *s)
{
	s->child = evsignal_new(s->base, SIGCHLD, on_signal, s);
	s->term = evsignal_new(s->base, SIGTERM, on_signal, s);
	s->interrupt = evsignal_new(s->base, SIGINT, on_signal, s);
	s->hangup = evsignal_new(s->base, SIGHUP, on_signal, s);
	s->timer = event_new(s->base, -1, 0, service_on_timer, s);
	if (!s->child || !s->term || !s->interrupt || !s->hangup || !s->timer || lockwait_open(s) ||
	    event_add(s->child, NULL) || event_add(s->term, NULL) || event_add(s->interrupt, NULL) ||
	    event_add(s->hangup, NULL) || room_for_timers(s->base, ROOM_TIMERS))
		return -ENOMEM;
	/* main() held them, or a life before: one that came before the handlers waits until here */
	service_hold_signals(false);
	return 0;
}

/* ------------------------------------------------------------------ boot --- */

/* The process that the journal names, if it still is that process. */
static int adopt(struct service *s, const struct process *p, struct peer **ret, char *err, size_t size)
{
	int fd;

	if (!p->pid)
		return 0;
	fd = proc_open(p->pid, p->start);
	if (fd == -ESRCH) {
		log_info("pid %d is gone", (int)p->pid);
		generation_past(s->generations, &(struct past){ p->pid, p->start, s->journal.at });
		return 0;
	}
	if (fd >= 0 && (*ret = peer_new(&s->owner, p->pid, p->start, fd))) {
		generation_adopt(s->generations, p->pid, p->start);
		return 0;
	}
	/* never taken for gone: it may be the one that serves */
	snprintf(err, size, "pid %d may be the daemon that serves, and cannot be looked at: %s", (int)p->pid,
	         strerror(fd < 0 ? -fd : ENOMEM));
	if (fd >= 0)
		sys_close(fd);
	return fd < 0 ? fd : -ENOMEM;
}

static int uid_of(pid_t pid, uid_t *ret)
{
	char path[32];
	struct stat st;
	int e;

	snprintf(path, sizeof path, "/proc/%d", (int)pid);
	e = sys_stat(path, &st);
	*ret = e ? (uid_t)-1 : st.st_uid;
	return e;
}

/* 1: started for this runtime directory, and so by a supervisor that this one follows; 0: not,
 * another one's daemon may have the same data open, or what only the kernel knows (it is not
 * dumpable): if it registers it is found; -errno. */
static int is_ours(const struct service *s, pid_t pid)
{
	char dir[sizeof s->runtime_dir];
	int e = ids_proc_env(pid, "HANDOFF_DIR", dir, sizeof dir);

	return e == -ENOENT || e == -ESRCH || e == -EACCES ? 0 : e ? e : !strcmp(dir, s->runtime_dir);
}

/* It says what is there: nothing, or what is neither a record of the lock's nor a process. Any other
 * error says nothing, however short it lasts: taken for an answer, it would make a stranger for ever
 * of the daemon that serves. */
static bool is_answer(int e)
{
	return e == -ENOENT || e == -ESRCH || e == -ENODATA || e == -EBADMSG || e == -EINVAL ||
	       e == -ENOTDIR || e == -EISDIR || e == -ELOOP || e == -ENXIO || e == -ESPIPE;
}

/* The pidfd comes first: while that process lives the number is nobody else's. 1: the kernel says
 * that it has the lock, and it is of the daemon's user; 0: not; -errno: nobody can say. */
static int owns_lock(const struct service *s, int dir, pid_t pid, uint64_t *ret_start)
{
	const uid_t uid = s->conf->uid == (uid_t)-1 ? geteuid() : s->conf->uid;
	const int pidfd = sys_pidfd_open(pid);
	uid_t its;
	int e = pidfd < 0 ? pidfd : proc_start_time(pid, ret_start);

	if (!e)
		e = lockfile_held_by(dir, pid);
	if (e > 0 && (e = uid_of(pid, &its)) == 0)
		e = its == uid;
	if (e > 0 && proc_ended(pidfd))
		e = 0;
	if (pidfd >= 0)
		sys_close(pidfd);
	return is_answer(e) ? 0 : e;
}

/* The same of whoever has it, if that is a daemon of this service. */
static int owner_of_lock(const struct service *s, int dir, struct process *ret)
{
	int e = ret->pid = lockfile_holder(dir);

	if (e > 0 && (e = owns_lock(s, dir, ret->pid, &ret->start)) > 0) {
		/* it may be, and register, although it cannot be told: its group is no leftover */
		generation_adopt(s->generations, ret->pid, ret->start);
		e = is_ours(s, ret->pid);
	}
	return is_answer(e) ? 0 : e;
}

const char *service_lock_dir(const struct service *s)
{
	return s->conf->data_dir ? s->conf->data_dir : s->lock_dir;
}

/*
 * Without a journal the lock says who may still be serving: the kernel knows who has it. The lock's
 * record does not count: it belongs to the daemon's user, who could name anybody. What cannot be
 * asked is not taken for nobody's.
 */
static int guess_incumbent(struct service *s, char *err, size_t size)
{
	struct process o = { 0, 0 };
	int fd = sys_open(service_lock_dir(s), O_RDONLY | O_DIRECTORY, 0), e;

	if (is_answer(fd))
		return 0;
	e = fd < 0 ? fd : owner_of_lock(s, fd, &o);
	sys_closep(&fd);
	if (e < 0) {
		snprintf(err, size, "%s/" LOCKFILE_NAME " cannot be asked who may be serving: %s",
		         service_lock_dir(s), strerror(-e));
		return e;
	}
	if (e) {
		log_info("the journal names nobody, and pid %d has the lock", (int)o.pid);
		s->journal.incumbent = o;
		s->journal.served = true;
	}
	return 0;
}

/* Its executable, if it runs what is configured and not what a launcher made of it. */
static void adopt_exe(struct service *s, const struct peer *p, const char *binary, struct exe *ret)
{
	const char *path = binary[0] ? binary : s->conf->command[0];
	char err[600];
	struct exe now = { .fd = -1 };

	if (p && !keep_of_pid(&s->keep, p->pid, ret))
		return;
	if (p && !exe_open(s->conf, path, &now, err, sizeof err))
		path = now.path;   /* a bare name was looked for in PATH */
	if (p)
		exe_of_pid(p->pid, path, ret);
	exe_close(&now);
}

/* What the attempt under way runs, or ran if it has died, is a copy: a kept one, or a pinned one
 * that is not on record yet. */
static void adopt_copy(struct service *s)
{
	const uint64_t copy = s->journal.new_copy;
	const char *path = s->journal.new_binary[0] ? s->journal.new_binary : s->conf->command[0];
	struct exe now = { .fd = -1 };
	char err[600];

	if (s->journal.phase == BOOT_IDLE)
		return;
	if (copy && s->new_exe.fd < 0 && copy != s->keep.c.now.copy && copy != s->keep.c.before.copy) {
		if (!strchr(path, '/') && !exe_open(s->conf, path, &now, err, sizeof err))
			path = now.path;   /* a bare name was looked for in PATH */
		keep_pinned(&s->keep, path, copy, &s->new_exe);
		exe_close(&now);
	}
	s->new_exe.copy = copy;
}

static bool restore(void *arg, const char *name, int fd)
{
	struct service *s = arg;
	char err[600];
	const int e = listeners_restore(&s->listeners, s->conf, name, fd, err, sizeof err);

	if (e)
		log_warning("%s came back from the service manager: %s", name, err);
	return !e;
}

/* Without them, clients would be refused from the end of this supervisor's predecessor on, if
 * the daemon has died with it. */
static void restore_listeners(struct service *s)
{
	fdstore_restore(restore, s);
	if (s->listeners.n)
		log_info("%u of %u listeners came back from the service manager", s->listeners.n,
		         s->conf->nlisten);
}

/* What the one that lives is, and may. */
static void know_incumbent(struct service *s)
{
	uid_t uid;

	adopt_exe(s, s->o, s->journal.binary, &s->exe);
	if (s->o && s->journal.served)
		keep_recall(&s->keep, &s->exe);
	/* the configuration may name another user by now: the door is for the one that lives */
	if (s->o && !uid_of(s->o->pid, &uid))
		register_owner(s, uid);
}

bool service_owns_lock(const struct service *s, pid_t pid, uint64_t *ret_start)
{
	int dir = sys_open(service_lock_dir(s), O_RDONLY | O_DIRECTORY, 0);
	const bool owns = dir >= 0 && owns_lock(s, dir, pid, ret_start) > 0;

	sys_closep(&dir);
	return owns;
}

pid_t service_lock_holder(const struct service *s)
{
	const pid_t pid = lockwait_holder(s);
	uint64_t start;

	return pid > 0 && service_owns_lock(s, pid, &start) ? pid : 0;
}

bool service_find(struct service *s, pid_t pid)
{
	struct process p = { .pid = pid };
	struct peer *o = NULL;
	char err[300];

	if (!service_owns_lock(s, pid, &p.start))
		return false;
	if (adopt(s, &p, &o, err, sizeof err))
		log_error("%s", err);
	if (!o)
		return false;
	log_warning("pid %d has the lock on the data, and no journal named it: it is adopted", (int)pid);
	service_bury(s, &s->o);
	s->o = o;
	s->journal.served = true;
	exe_close(&s->exe);
	know_incumbent(s);
	s->exe_served = s->exe.fd >= 0;
	service_event(s, S_E_O_FOUND, NULL);
	return true;
}

static int boot(struct service *s, char *err, size_t size)
{
	struct s_out out;
	struct s_boot b = { .phase = s->journal.phase, .served = s->journal.served, .id = s->journal.id };
	int e;

	for (unsigned i = 0; i < s->journal.npast; i++)
		generation_past(s->generations, &s->journal.past[i]);
	e = adopt(s, &s->journal.incumbent, &s->o, err, size);
	if (!e && s->journal.phase != BOOT_IDLE)
		e = adopt(s, &s->journal.successor, &s->n, err, size);
	if (e)
		return e;
	know_incumbent(s);
	adopt_exe(s, s->n, s->journal.new_binary, &s->new_exe);
	adopt_copy(s);
	/* after a stop in this boot; neither a crash nor a reboot has been asked for */
	s->asked = !s->journal.incumbent.pid && !strcmp(s->keep.c.boot, s->store.boot);
	if (!s->o && !s->n && (e = keep_cold(&s->keep, s->conf, s->journal.binary, s->asked, &s->exe, err, size))) {
		if (!s->journal.binary[0])
			conf_check_command(s->conf, err, size);   /* says where it is written */
		if (!s->journal.incumbent.pid)
			return transient(e) ? e : s->store.unread ? s->store.unread : -ENOEXEC;
		/* a service that was served until it crashed is not given up */
		log_error("%s", err);
	}
	s->exe_served = s->o && s->exe.fd >= 0 && s->journal.served;
	b.has_incumbent = s->o != NULL;
	b.has_successor = s->n != NULL;
	s->attempt.id = s->journal.id;
	s->attempt.plan = s->journal.plan && s->journal.phase != BOOT_IDLE;
	s->attempt.told = s->journal.phase == BOOT_IDLE;
	s->attempt.back = s->journal.back && s->journal.phase != BOOT_IDLE;
	if (b.phase != BOOT_IDLE && !s->attempt.plan)   /* for all that this life knows */
		disruption_stall(&s->disruption);
	s_boot(&s->s, &b, sys_now_ms(), &out);
	s->shown = s->s.state;
	s->shown_at_us = sys_now_us();
	log_info("%s", s->o || s->n ? "adopting what runs" : "starting the daemon");
	service_run(s, &out);
	return 0;
}

/* In place of boot(): an earlier life of this process was idle, and this one is. */
static int go_on(struct service *s, const struct carried *c, char *err, size_t size)
{
	const struct msg_carry *h = &c->head.carry;
	char text[200];
	int e;

	for (unsigned i = 0; i < s->journal.npast; i++)
		generation_past(s->generations, &s->journal.past[i]);
	if (!(s->o = reexec_peer(s, c))) {
		snprintf(err, size, "no memory");
		return -ENOMEM;
	}
	generation_goes_on(s->generations, s->o->pid, s->o->start, s->o->child, h->strangers);
	if ((e = reexec_take(s, c, err, size)))
		return e;
	s->exe_served = s->exe.fd >= 0;
	s->attempt.id = s->journal.id;
	s->attempt.told = true;
	s_go_on(&s->s, h->served_since, (unsigned)h->cold_tries);
	s->shown_at_us = sys_now_us();
	snprintf(text, sizeof text, "handoffd %.*s goes on as handoffd %s (pid %d)", (int)h->software.n,
	         h->software.p, handoffd_version, (int)getpid());
	log_info("%s", text);
	ops_reexeced(s, 0, text);
	callers_now(ops_callers(s));
	service_reap(s);   /* whose SIGCHLD met nobody */
	return 0;
}

static int make_dirs(struct service *s, char *err, size_t size)
{
	const char *name;
	int e = dirs_runtime(s->conf->name, true, s->runtime_dir, sizeof s->runtime_dir, err, size);

	if (!e)
		e = dirs_state(s->conf->name, true, s->state_dir, sizeof s->state_dir, err, size);
	if (!e)
		e = dirs_make(s->runtime_dir, 0711, err, size);
	if (!e)
		e = dirs_make(s->state_dir, 0700, err, size);
	name = strrchr(s->runtime_dir, '/');
	if (!e && name && strcmp(name + 1, s->conf->name))
		log_warning("the service is called %s, and its runtime directory %s: handoffctl finds it by the name "
		            "of the directory; below systemd call the service as the instance of its unit",
		            s->conf->name, s->runtime_dir);
	if (!e && asprintf(&s->lock_dir, "%s/lock", s->runtime_dir) < 0) {
		s->lock_dir = NULL;
		snprintf(err, size, "no memory");
		return -ENOMEM;
	}
	/* a service without data-dir has its lock here, in a folder that the daemon's user owns */
	if (!e && !s->conf->data_dir)
		e = dirs_make_owned(s->lock_dir, 0700, s->conf->uid, s->conf->gid, err, size);
	return e;
}

int service_start(struct service *s, struct event_base *base, struct conf *conf, const struct carried *carried,
                  char *err, size_t size)
{
	const struct msg_carry *h = carried ? &carried->head.carry : NULL;
	int e;

	service_own(s, base);
	s->conf = conf;
	s->totals.since_ms = sys_wall_ms();
	s->exe.fd = s->new_exe.fd = s->old_exe.fd = s->keep.dir = s->transfer = -1;
	s->store = (struct store){ .lock = -1, .journal_fd = -1, .current_fd = -1 };
	s->history.fd = s->disruption.diag = -1;
	s_init(&s->s, s_table, conf->timer);
	s->s.trace = service_on_row;
	s->s.trace_arg = s;
	if ((e = make_dirs(s, err, size)))
		return e;
	e = store_open(&s->store, s->runtime_dir, s->state_dir, h ? (int)h->lock : -1, &s->journal, &s->keep.c, err,
	               size);
	if (e == -EBADMSG && !h) {
		log_error("%s; the lock says who runs", err);
		e = 0;
		s->store.fresh = true;
	}
	if (e)
		return e;
	if (s->store.unread) {
		s->keep.dirty = true;
		snprintf(s->keep.why, sizeof s->keep.why, "%.200s/current: %s", s->state_dir, strerror(-s->store.unread));
	}
	s->keep.stray = s->store.stray;
	keep_open(&s->keep, s->state_dir, s->journal.phase != BOOT_IDLE ? s->journal.new_copy : 0);
	if ((s->store.fresh || !s->journal.incumbent.pid) && s->keep.c.now.named)
		memcpy(s->journal.binary, s->keep.c.now.path, sizeof s->journal.binary);
	history_open(s);
	s->generations = generations_new(base, conf->name, service_generations, s);
	if (!s->generations || watch_signals(s)) {
		snprintf(err, size, "no memory for the event loop");
		return -ENOMEM;
	}
	if (s->store.fresh && !h && (e = guess_incumbent(s, err, size)))
		return e;
	sys_prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (unit_open(s)) {
		snprintf(err, size, "no memory for the event loop");
		return -ENOMEM;
	}
	if ((e = register_open(s, h ? (int)h->daemon : -1, err, size)) ||
	    (e = ops_open(s, h ? (int)h->control : -1, err, size)))
		return e;
	restore_listeners(s);
	if ((e = carried ? go_on(s, carried, err, size) : boot(s, err, size)))
		return e;
	service_keep_conf(s, s->conf);
	service_settle(s);
	malloc_trim(0);   /* of free pages the journal, the history and the configuration have left some 60 kB */
	return 0;
}

void service_keep_conf(struct service *s, struct conf *c)
{
	const int e = conf_keep(c, s->runtime_dir, &s->conf_sum);

	if (e)
		log_error("the configuration could not be kept in %s: %s; a supervisor that is started again needs "
		          "the file to be in order", s->runtime_dir, strerror(-e));
}

static void drop_event(struct event **e)
{
	if (*e)
		event_free(*e);
	*e = NULL;
}

void service_end(struct service *s)
{
	service_hold_signals(true);   /* without a handler one would be the exit status */
	unit_close(s);
	reexec_close(s);
	ops_close(s);
	register_close(s);
	service_free_grave(s);
	peer_free(s->o);
	peer_free(s->n);
	generations_free(s->generations);
	drop_event(&s->timer);
	lockwait_close(s);
	drop_event(&s->child);
	drop_event(&s->term);
	drop_event(&s->interrupt);
	drop_event(&s->hangup);
	exe_close(&s->exe);
	exe_close(&s->new_exe);
	exe_close(&s->old_exe);
	copier_close(s);
	candidate_drop(s, "the supervisor was stopped");
	planned_end(s);
	keep_close(&s->keep);
	sys_closep(&s->transfer);
	/* what the service manager holds goes on listening: a restart of the service refuses nobody */
	listeners_close(&s->listeners, s->ended && !fdstore_used());
	history_close(s);
	sys_closep(&s->disruption.diag);
	if (s->ended)
		conf_keep_nothing(s->runtime_dir);
	store_close(&s->store);
	conf_free(s->conf);
	conf_free(s->new_conf);
	free(s->lock_dir);
}
