/*
 * timers: the one table of time limits. It feeds the configuration's parser
 * and its checks, `handoffd --check`, `handoffctl status` and the manual's
 * check. All values are milliseconds of CLOCK_MONOTONIC; this file knows no clock.
 */
#ifndef HANDOFF_PROTO_TIMERS_H
#define HANDOFF_PROTO_TIMERS_H

#include <stddef.h>
#include <stdint.h>

/* id, option name, default in ms, lowest in ms, what it is */
#define TIMERS(T) \
	T(START,    "start-timeout",   300000,  10, "a start, to the end of the warm-up; and to serve again after an abort") \
	T(DRAIN,    "drain-grace",       2000,   1, "for the incumbent to finish what is in flight") \
	T(DEADLINE, "deadline",         10000,  10, "the longest pause that you accept; beyond it: aborted") \
	T(COMMIT,   "commit-timeout",    5000,  10, "for the successor to say that it serves") \
	T(EXIT,     "exit-timeout",     10000,  10, "for the former incumbent to exit, then it is killed") \
	T(PROBATION,"probation",            0,   0, "the former incumbent stays, to take over if the successor dies") \
	T(HEARTBEAT,"heartbeat",         1000,   5, "how often both say that they are there, in a handoff") \
	T(FENCE,    "self-fence",        4000,  10, "silence of the supervisor after which a daemon acts on its own") \
	T(DEAD,     "presumed-dead",     5000,  10, "silence of a daemon after which the handoff is ended") \
	T(STOP,     "stop-timeout",     30000,  10, "from SIGTERM to SIGKILL, at stop and restart")

enum timer {
#define T(id, name, def, min, what) TIMER_##id,
	TIMERS(T)
#undef T
	TIMER_COUNT
};

#define TIMER_MAX_MS (24u * 3600 * 1000) /* a day: what is longer is a mistake */

struct timer_desc {
	const char *name, *what;
	uint32_t def, min;
};
extern const struct timer_desc timer_desc[TIMER_COUNT];

/* The defaults. */
void timers_default(uint32_t t[TIMER_COUNT]);

/*
 * Checks the order of the timers (drain-grace <= deadline; heartbeat x 2 <=
 * self-fence; self-fence < presumed-dead) and each one's bounds. Returns the
 * timer at fault and its sentence in why, or TIMER_COUNT if all is well.
 */
enum timer timers_check(const uint32_t t[TIMER_COUNT], char *why, size_t size);

/*
 * "500ms", "2s", "5min", "1h"; a bare "0". No fraction, no sign, no blank, at
 * most a day. Returns 0 and *ret_ms, or -EINVAL.
 */
int timers_parse(const char *text, uint32_t *ret_ms);

/* The shortest text that timers_parse reads as ms. */
const char *timers_format(uint32_t ms, char buf[16]);

#endif
