/* An upgrade or a plan: everything that can be refused before anything is begun. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/service.h"
#include "handoffd/transient.h"

const char *service_name(const struct service *s)
{
	const char *slash = strrchr(s->runtime_dir, '/');

	return slash ? slash + 1 : s->runtime_dir;
}

static const char *named(struct service *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *named(struct service *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->no, sizeof s->no, fmt, ap);
	va_end(ap);
	return s->no;
}

const char *service_refuses(struct service *s)
{
	const char *name = service_name(s);
	char stuck[300];

	if (s->s.stop)
		return "the supervisor is being stopped, and the service with it";
	if (service_stuck(s, stuck, sizeof stuck))
		return named(s, "another handoff is under way: %s", stuck);
	if (s_in_handoff(&s->s))
		return "another handoff is under way";
	if (s->candidate)
		return "another handoff is about to begin: its files are being looked at";
	if (s->s.state == S_RESTARTING)
		return "the daemon is being restarted; try again in a moment";
	if (s->s.state == S_R_IDLE && s->s.served)
		return "the daemon serves, and has not registered with this new supervisor yet; try again in a "
		       "second";
	if (s->s.state == S_R_IDLE)   /* neither a restart nor a rollback is taken here */
		return "the supervisor before this one died while it started the daemon, the service is NOT served "
		       "yet; that start goes on or is ended; try again in a few seconds";
	if (s->s.state != S_IDLE && !s->cold_error[0] && !s->lockwait.text[0])
		return "the daemon is being started, the service is NOT served yet; nothing is known to hinder it, "
		       "--wait waits for its end; a start may take as long as start-timeout";
	if (s->s.state != S_IDLE)
		return named(s, "the daemon is being started, the service is NOT served yet; the warning of 'handoffctl "
		             "status %.64s' and its log say what hinders it; 'handoffctl restart %.64s' reads the "
		             "configuration again and tries at once, 'handoffctl rollback %.64s' starts the previous "
		             "executable", name, name, name);
	if (s->s.o_standby)
		return "the daemon stands by: it is told to serve again";
	if (s->o && s->o->registering)
		return "the daemon serves, and is registering; try again in a second";
	if (!s->s.o_connected)
		return named(s, "the daemon serves, but is not registered with this supervisor; if it is stopped, "
		             "'kill -CONT' its pid ('handoffctl status %.64s' shows it); if it does not register by "
		             "itself, 'handoffctl restart %.64s' ends and starts it (clients notice)", name, name);
	return NULL;
}

/* The exit code of what service_refuses() says. In R_IDLE it may never have served: the supervisor
 * before died in a cold start. */
static int refusal(const struct service *s)
{
	if (s_in_handoff(&s->s) || s->candidate)
		return 4;
	return service_nobody_serves(s) || s->s.o_standby || (s->s.state == S_R_IDLE && !s->s.served) ? 5 : 1;
}

/* The exit code of what is wrong with the configuration or the executable, or could not be found out. */
static int code_of(int error)
{
	return !error ? 0 : transient(error) ? 1 : 2;
}

/* The data directory must be the one that the incumbent has open. */
static int check_data_dir(struct service *s, const struct conf *c, char *err, size_t size)
{
	struct stat st;
	int e;

	if (!c->data_dir || !s->o || !s->o->has_data)
		return 0;
	if ((e = sys_stat(c->data_dir, &st))) {
		snprintf(err, size, "data-dir %s: cannot be looked at: %s%s", c->data_dir, strerror(-e),
		         transient_hint(e));
		return code_of(e);
	}
	if (st.st_dev == s->o->dev && st.st_ino == s->o->ino)
		return 0;
	snprintf(err, size, "data-dir %s is not the directory that the running daemon has open; "
	         "an upgrade keeps the data where it is (use 'handoffctl restart %s' to move)", c->data_dir,
	         service_name(s));
	return 2;
}

static int check_user(struct service *s, const struct conf *c, char *err, size_t size)
{
	if (c->uid == s->conf->uid)
		return 0;
	snprintf(err, size, "%s: user is another than the running daemon's, whose files and lock the successor "
	         "could not open; use 'handoffctl restart %s' (clients notice)", c->file, service_name(s));
	return 2;
}

/* e, if it is open and w. 0 or -errno. */
static int same_exe(const struct exe *e, const struct kept *w, struct exe *ret)
{
	const int fd = exe_is(e, w->path, &w->id) ? sys_dup(e->fd, 0) : -ENOENT;

	if (fd < 0)
		return fd;
	*ret = *e;
	ret->fd = fd;
	return 0;
}

/* Its file is still open here while there is no copy of it yet. */
static int previous_exe(struct service *s, const struct conf *c, struct exe *ret, char *err, size_t size)
{
	const int r = keep_before(&s->keep, c, ret, err, size);

	return r && same_exe(&s->old_exe, &s->keep.c.before, ret) ? r : 0;
}

/* 0 or the exit code of a refusal. */
static int choose_exe(struct service *s, const struct attempt *a, const struct conf *c, bool restart,
                      struct exe *ret, char *err, size_t size)
{
	if (a->back)
		return previous_exe(s, c, ret, err, size) ? 1 : 0;
	if (restart && s->keep.c.now.held && !same_exe(&s->exe, &s->keep.c.now, ret))
		return 0;
	if (restart && s->keep.c.now.held)
		return code_of(keep_cold(&s->keep, c, a->binary, true, ret, err, size));
	if (a->binary[0])
		return code_of(exe_open(c, a->binary, ret, err, size));
	return code_of(conf_open_command(c, ret, err, size));   /* it says where it is written */
}

/* Without a restart the daemon goes on with the directory that it has open. */
static int prepare_conf(struct service *s, const struct attempt *a, bool restart, struct conf **ret_conf,
                        struct exe *ret_exe, char *err, size_t size)
{
	struct conf *c;
	int code = 2, e = conf_read(s->conf->file, &c, err, size);

	if (e)
		return code_of(e);
	if (strcmp(c->name, s->conf->name))
		snprintf(err, size, "%s: the service is called %s there, this supervisor runs %s", c->file, c->name, s->conf->name);
	else if (!(code = code_of(conf_check_machine(c, err, size))) &&
	         (restart || !((code = check_data_dir(s, c, err, size)) || (code = check_user(s, c, err, size)))) &&
	         !(code = choose_exe(s, a, c, restart, ret_exe, err, size))) {
		*ret_conf = c;
		return 0;
	}
	conf_free(c);
	return code;
}

void service_binary_back(const struct service *s, const struct conf *c, const struct exe *e, char *ret,
                         size_t size)
{
	const char *command = c->command[0], *path = strchr(command, '/') ? e->path : exe_name(e->path);
	const bool configured = !s->keep.c.before.named && !strcmp(path, command);

	snprintf(ret, size, "%s", configured ? "" : e->path);
}

int service_check_stall(struct service *s, const struct attempt *a, char *err, size_t size)
{
	const uint64_t least = a->max_stall_ms ? history_least_stall(s) : 0;

	if (least <= (uint64_t)a->max_stall_ms * 1000)
		return 0;
	snprintf(err, size, "--max-stall %u ms cannot be met: of the last handoffs of this build the shortest had a "
	         "stall of %.1f ms ('handoffctl history %s' shows them); an upgrade without --max-stall measures it anew",
	         a->max_stall_ms, (double)least / 1000, service_name(s));
	return 1;
}

static void set_timers(struct service *s, const struct attempt *a, const struct conf *c)
{
	uint32_t *timer = s->s.timer;

	memcpy(timer, c->timer, sizeof s->s.timer);
	if (a->deadline_ms)
		timer[TIMER_DEADLINE] = a->deadline_ms;
	if (a->drain_ms)
		timer[TIMER_DRAIN] = a->drain_ms;
	/* --deadline alone may undercut the configured drain-grace */
	if (timer[TIMER_DRAIN] > timer[TIMER_DEADLINE])
		timer[TIMER_DRAIN] = timer[TIMER_DEADLINE];
}

/* 0 or the exit code of a refusal. What was compared first and is unchanged needs none of it; a plan
 * leaves the listeners as they are, and says at its end what the stall would be refused for. */
static int admit(struct service *s, const struct attempt *a, const struct conf *c, char *err, size_t size)
{
	int code;

	if (a->plan)
		return code_of(listeners_try(&s->listeners, c, err, size));
	if ((code = service_check_stall(s, a, err, size)))
		return code;
	if ((code = code_of(listeners_open(&s->listeners, c, err, size))))
		listeners_prune(&s->listeners, s->conf);
	return code;
}

int service_begin(struct service *s, const struct attempt *a, struct conf *c, struct exe *exe,
                  char *err, size_t size)
{
	const int code = admit(s, a, c, err, size);

	if (code) {
		exe_close(exe);
		conf_free(c);
		return code;
	}
	conf_free(s->new_conf);
	exe_close(&s->new_exe);
	s->new_conf = c;
	s->new_exe = *exe;
	ops_tell(s);   /* events of the attempt before, while its context is there */
	s->attempt = *a;
	if (a->back)
		service_binary_back(s, c, exe, s->attempt.binary, sizeof s->attempt.binary);
	set_timers(s, a, c);
	s->s.id = a->id;
	if (a->plan)
		planned_begin(s);
	s->cold_error[0] = '\0';
	service_event(s, S_E_START, NULL);
	return 0;
}

int service_upgrade(struct service *s, const struct attempt *a, char *err, size_t size)
{
	const char *no = service_refuses(s);
	struct conf *c;
	struct exe exe = { .fd = -1 };
	int code;

	if (no) {
		snprintf(err, size, "%s", no);
		return refusal(s);
	}
	if ((code = prepare_conf(s, a, false, &c, &exe, err, size)))
		return code;
	return a->pinned || a->if_changed || a->plan ? candidate_look(s, a, c, &exe, err, size)
	                                  : service_begin(s, a, c, &exe, err, size);
}

int service_restart(struct service *s, bool back, char *err, size_t size)
{
	bool nobody = service_nobody_serves(s);
	struct conf *c;
	struct exe exe = { .fd = -1 };
	struct attempt same = { .back = back };
	int code;

	snprintf(same.binary, sizeof same.binary, "%s", s->journal.binary);
	if (s->s.stop || (s->s.state != S_IDLE && !nobody)) {
		snprintf(err, size, "%s", service_refuses(s));
		return refusal(s);
	}
	if ((code = prepare_conf(s, &same, true, &c, &exe, err, size)))
		return nobody ? 5 : code;
	if ((code = code_of(listeners_open(&s->listeners, c, err, size)))) {
		listeners_prune(&s->listeners, s->conf);
		exe_close(&exe);
		conf_free(c);
		return nobody ? 5 : code;
	}
	conf_free(s->conf);
	if (s->exe_served && !exe_is(&exe, s->exe.path, &s->exe.id)) {
		exe_close(&s->old_exe);
		s->old_exe = s->exe;
	} else {   /* it never served, or does again: the previous one is the same as before */
		exe_close(&s->exe);
	}
	s->conf = c;
	s->conf_error[0] = '\0';
	service_keep_conf(s, c);
	s->exe = exe;
	s->exe_served = false;
	s->asked = !back;   /* should it fail, the kept copy of the current one is tried */
	s->back = back;
	memcpy(s->s.timer, c->timer, sizeof s->s.timer);
	listeners_prune(&s->listeners, c);
	s_hurry(&s->s, sys_now_ms());
	/* a start that is under way was begun with what was mended since */
	s->superseded = s->n && s->s.state != S_COLD_TAKE;
	service_event(s, S_E_RESTART, NULL);
	return 0;
}
