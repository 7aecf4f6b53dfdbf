/* Is the service served? As far as a supervisor knows: a daemon says so once, and in a handoff that it is there. */
#include <stdio.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

bool service_nobody_serves(const struct service *s)
{
	return s->s.state >= S_COLD && s->s.state <= S_COLD_TAKE;
}

/* The incumbent has said nothing since then, and for so long that it counts as dead. */
static bool silent_since(const struct service *s, uint64_t since)
{
	return sys_now_ms() - (s->s.heard_o > since ? s->s.heard_o : since) >= s->s.timer[TIMER_DEAD];
}

/* Nobody accepts, for longer than a pause may last; or who is to serve again is silent. */
static bool pause_is_over(const struct service *s)
{
	const uint64_t since = s->disruption.from_us / 1000;
	const bool back = s->s.state >= S_ABORT && s->s.state <= S_RESUMING;

	return since && (sys_now_ms() - since >= s->s.timer[TIMER_DEADLINE] || (back && silent_since(s, since)));
}

bool service_serves(const struct service *s)
{
	const enum s_state at = s->s.state;
	const bool o = s->o && !peer_dead(s->o), n = s->n && !peer_dead(s->n);

	if (service_nobody_serves(s) || at == S_STOPPED)
		return false;
	if (at >= S_PROBATION && at <= S_OEXIT)
		return n;
	if (at >= S_DRAIN && s_in_handoff(&s->s))
		return (o || n) && !pause_is_over(s);
	return o && !s->s.o_standby && (s->s.served || s_in_handoff(&s->s));
}

bool service_stuck(const struct service *s, char *out, size_t size)
{
	const int pid = s->o ? (int)s->o->pid : 0;

	/* who waits for somebody else's lock is no better off when it is killed: lockwait.c tells of that */
	if (s->s.state != S_RESUMING || !pid || peer_dead(s->o) || s->lockwait.text[0] ||
	    !silent_since(s, s->s.entered) || service_serves(s))
		return false;
	snprintf(out, size, "the incumbent (pid %d) was told to serve again and does not say that it does, the service is "
	         "NOT served; if it is stopped, 'kill -CONT %d'; if it hangs, 'kill -9 %d', and the old binary is started "
	         "again at once", pid, pid, pid);
	return true;
}

void service_look_stuck(struct service *s)
{
	const bool before = s->stuck;
	char text[300];

	s->stuck = service_stuck(s, text, sizeof text);
	if (!s->stuck || before)
		return;
	log_event(LOG_E_NOT_SERVED, LOG_L_ERROR, "%s", text);
	ops_phase(s, ops_state_name(s), text);
}
