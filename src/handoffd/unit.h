/*
 * unit: the service as systemd sees it, sd_notify(3): ready, reloading, stopping, one line of
 * status, and more time where a start, a reload or a stop takes longer than its unit allows.
 *
 * READY=1 is said once, as soon as somebody serves: after a cold start, when a daemon that
 * runs was adopted, and also when one serves that does not register: a start job waits for
 * the service, not for its upgrades. While the first start of a daemon is under way systemd
 * is asked for more time; when that has failed no more, so the start job fails in the end.
 *
 * A handoff is the unit's reload, whoever has asked for it: a `systemctl reload` that comes
 * meanwhile waits for its end, and is not refused.
 */
#ifndef HANDOFF_UNIT_H
#define HANDOFF_UNIT_H

#include <stdbool.h>
#include <stdint.h>

struct event;
struct service;

enum unit_phase { UNIT_STARTING, UNIT_READY, UNIT_RELOADING, UNIT_STOPPING };

struct unit {
	bool on;                   /* there is a systemd */
	bool complained;
	enum unit_phase phase;     /* as it was told */
	struct event *timer;       /* armed only while something is under way, or by a watchdog */
	uint64_t watchdog_ms;      /* 0: the unit has none */
	char status[300];          /* as it was told */
};

/* Needs s->base. 0, or -ENOMEM; without systemd nothing is told and nothing is armed. */
int unit_open(struct service *s);
/* Tells what has changed since the last call. The end of a turn: nothing waits for it. */
void unit_tell(struct service *s);
void unit_close(struct service *s);

#endif
