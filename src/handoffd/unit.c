#include "handoffd/unit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/sdnotify.h"
#include "handoffd/service.h"

#define MORE_EVERY_MS 10000   /* below any sensible timeout of a unit */
#define MORE_TIMES    3       /* that interval: what systemd is asked for at each */
#define AGAIN_MS      100     /* systemd's queue was full: there is no event to wait for */

/* Somebody answers clients. A handoff begins only where somebody does. */
static bool serves(const struct service *s)
{
	return s->s.state == S_IDLE || (s->s.state >= S_PROBATION && s->s.state <= S_OEXIT);
}

/* A start, a reload or a stop may be waiting for what goes on here. */
static bool under_way(const struct service *s)
{
	return s->unit.phase == UNIT_STARTING || s->s.stop || s_in_handoff(&s->s);
}

/* The first start of a daemon has its own time limit; what follows a failure has systemd's. */
static bool needs_more(const struct service *s)
{
	return under_way(s) && !(service_nobody_serves(s) && s->s.cold_tries > 1);
}

static uint64_t interval_ms(const struct service *s)
{
	return s->unit.watchdog_ms ? s->unit.watchdog_ms : MORE_EVERY_MS;
}

static void arm(struct service *s, uint64_t ms)
{
	struct timeval tv = { (time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000) };

	event_add(s->unit.timer, &tv);
}

/* 1: told, or nobody to tell; 0: to be told again. */
static bool told(struct service *s, const char *state)
{
	const int e = sdnotify(state, NULL, 0);

	if (e == -EAGAIN) {
		arm(s, AGAIN_MS);
		return false;
	}
	if (e < 0 && !s->unit.complained)
		log_warning("systemd cannot be told: %s", strerror(-e));
	s->unit.complained = e < 0;
	return true;
}

/* What runs, and what the last handoff did. */
static void describe_idle(const struct service *s, char *out, size_t size)
{
	const struct journal *j = &s->journal;
	const bool committed = j->outcome == OUTCOME_COMMITTED;
	const char *version = s->o ? s->o->software : "";

	snprintf(out, size, "pid %d%s%s serves%s%s%s%.150s", s->o ? (int)s->o->pid : 0, version[0] ? ", version " : "",
	         version, j->outcome ? "; the last handoff was " : "", j->outcome ? outcome_name[j->outcome] : "",
	         j->outcome && !committed ? ": " : "", j->outcome && !committed ? j->message : "");
	utf8_mend(out);
}

/* No phases of a handoff: they lie in the pause, and are in the log. */
static void describe(const struct service *s, char *out, size_t size)
{
	const int pid = s->o ? (int)s->o->pid : 0;
	char id[37];

	hid_format(&s->s.id, id);
	if (s->s.stop)
		snprintf(out, size, "stopping");
	else if (s_in_handoff(&s->s))
		snprintf(out, size, "handoff %.8s is under way%s", id, service_serves(s) ? "" : ", NOT served");
	else if (s->s.o_standby)
		snprintf(out, size, "NOT served: pid %d was told to serve again", pid);
	else if (s->s.state == S_IDLE && !s->s.o_connected)
		snprintf(out, size, "pid %d serves, not registered", pid);
	else if (s->s.state == S_IDLE)
		describe_idle(s, out, size);
	else if (s->s.state == S_R_IDLE)
		snprintf(out, size, "waits for pid %d to register", pid);
	else if (s->lockwait.text[0])
		snprintf(out, size, "NOT served: %.200s", s->lockwait.text);
	else if (s->cold_error[0] && service_nobody_serves(s))
		snprintf(out, size, "NOT served, a start is tried again: %.200s", s->cold_error);
	else
		snprintf(out, size, "NOT served: the daemon is being started");
	for (char *p = out; *p; p++)
		if (*p == '\n')
			*p = ' ';
	utf8_mend(out);
}

/* A plan takes nothing over. What serves first is said first, also in the middle of a handoff. */
static enum unit_phase phase(const struct service *s)
{
	if (s->s.stop)
		return UNIT_STOPPING;
	if (s->unit.phase == UNIT_STARTING)
		return serves(s) ? UNIT_READY : UNIT_STARTING;
	return s_in_handoff(&s->s) && !s->attempt.plan ? UNIT_RELOADING : UNIT_READY;
}

/* RELOADING=1 is dated: systemd from 253 on must know a reload from the one before; 252 passes
 * over what it does not know. READY=1 ends it. */
static void announce(enum unit_phase p, char *out, size_t size)
{
	switch (p) {
	case UNIT_STARTING:
		out[0] = '\0';
		return;
	case UNIT_READY:
		snprintf(out, size, "READY=1\n");
		return;
	case UNIT_RELOADING:
		snprintf(out, size, "RELOADING=1\nMONOTONIC_USEC=%llu\n", (unsigned long long)sys_now_us());
		return;
	case UNIT_STOPPING:
		snprintf(out, size, "STOPPING=1\n");
		return;
	}
}

void unit_tell(struct service *s)
{
	struct unit *u = &s->unit;
	char status[sizeof u->status], news[64] = "", state[sizeof status + sizeof news + 8];
	const enum unit_phase p = phase(s);

	if (!u->on)
		return;
	describe(s, status, sizeof status);
	if (p != u->phase || strcmp(status, u->status)) {
		if (p != u->phase)
			announce(p, news, sizeof news);
		snprintf(state, sizeof state, "%sSTATUS=%s", news, status);
		if (!told(s, state))
			return;
		u->phase = p;
		memcpy(u->status, status, sizeof u->status);
	}
	if (!under_way(s) && !u->watchdog_ms)
		event_del(u->timer);   /* no timer, no wake-up */
	else if (!event_pending(u->timer, EV_TIMEOUT, NULL))
		arm(s, interval_ms(s));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;
	char more[64];

	(void)fd;
	(void)what;
	if (s->unit.watchdog_ms)
		told(s, "WATCHDOG=1");
	if (needs_more(s)) {
		snprintf(more, sizeof more, "EXTEND_TIMEOUT_USEC=%llu",
		         (unsigned long long)interval_ms(s) * MORE_TIMES * 1000);
		told(s, more);
	}
	unit_tell(s);
}

/* sd_watchdog_enabled(3): twice in each period, and only if it is meant for this process. */
static uint64_t watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

	if (!usec || (pid && atol(pid) != getpid()))
		return 0;
	const uint64_t ms = strtoull(usec, NULL, 10) / 2000;
	return ms ? ms : 1;
}

int unit_open(struct service *s)
{
	const int e = sdnotify_open();

	if (e < 0)
		log_warning("$NOTIFY_SOCKET cannot be used, systemd is told nothing: %s", strerror(-e));
	s->unit.on = e == 1;
	if (!s->unit.on)
		return 0;
	s->unit.watchdog_ms = watchdog_ms();
	s->unit.timer = event_new(s->base, -1, 0, on_timer, s);
	if (!s->unit.timer)
		return -ENOMEM;
	if (s->unit.watchdog_ms)   /* a life before this one may have let nearly half a period pass */
		told(s, "WATCHDOG=1");
	return 0;
}

void unit_close(struct service *s)
{
	if (s->unit.timer)
		event_free(s->unit.timer);
	s->unit.timer = NULL;
	sdnotify_close();
}
