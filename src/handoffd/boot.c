/* The beginning and the end of a supervisor's life. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/lockfile.h"
#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

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
	s->timer = event_new(s->base, -1, 0, service_on_timer, s);
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
	if (!(peer = peer_new(&s->owner, p->pid, p->start, fd)))
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
	s_boot(&s->s, &b, sys_now_ms(), &out);
	s->shown = s->s.state;
	s->shown_at_us = sys_now_us();
	log_info("%s", s->o || s->n ? "adopting what runs" : "starting the daemon");
	service_run(s, &out);
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
	service_own(s, base);
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
	service_free_grave(s);
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
