#include "proto/timers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct timer_desc timer_desc[TIMER_COUNT] = {
#define T(id, name, def, min, what) [TIMER_##id] = { name, what, def, min },
	TIMERS(T)
#undef T
};

void timers_default(uint32_t t[TIMER_COUNT])
{
	for (int i = 0; i < TIMER_COUNT; i++)
		t[i] = timer_desc[i].def;
}

enum timer timers_check(const uint32_t t[TIMER_COUNT], char *why, size_t size)
{
	char a[16], b[16];

	for (int i = 0; i < TIMER_COUNT; i++)
		if (t[i] < timer_desc[i].min || t[i] > TIMER_MAX_MS) {
			snprintf(why, size, "%s must be at least %s and at most %s", timer_desc[i].name,
			         timers_format(timer_desc[i].min, a), timers_format(TIMER_MAX_MS, b));
			return i;
		}
	if (t[TIMER_DRAIN] > t[TIMER_DEADLINE]) {
		snprintf(why, size, "drain-grace (%s) must not exceed deadline (%s)",
		         timers_format(t[TIMER_DRAIN], a), timers_format(t[TIMER_DEADLINE], b));
		return TIMER_DRAIN;
	}
	if ((uint64_t)t[TIMER_HEARTBEAT] * 2 > t[TIMER_FENCE]) {
		snprintf(why, size, "self-fence (%s) must be at least twice heartbeat (%s)",
		         timers_format(t[TIMER_FENCE], a), timers_format(t[TIMER_HEARTBEAT], b));
		return TIMER_FENCE;
	}
	if (t[TIMER_FENCE] >= t[TIMER_DEAD]) {
		snprintf(why, size, "presumed-dead (%s) must be longer than self-fence (%s)",
		         timers_format(t[TIMER_DEAD], a), timers_format(t[TIMER_FENCE], b));
		return TIMER_DEAD;
	}
	return TIMER_COUNT;
}

static const struct { const char *name; uint32_t ms; } units[] = {
	{ "h", 3600000 }, { "min", 60000 }, { "s", 1000 }, { "ms", 1 },
};

int timers_parse(const char *text, uint32_t *ret_ms)
{
	uint64_t n = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		n = n * 10 + (uint64_t)(*p - '0');
		if (n > TIMER_MAX_MS)
			return -EINVAL;
	}
	if (p == text)
		return -EINVAL;
	if (!*p && n == 0) {
		*ret_ms = 0;
		return 0;
	}
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (!strcmp(p, units[i].name)) {
			if (n * units[i].ms > TIMER_MAX_MS)
				return -EINVAL;
			*ret_ms = (uint32_t)(n * units[i].ms);
			return 0;
		}
	return -EINVAL;
}

const char *timers_format(uint32_t ms, char buf[16])
{
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (ms && ms % units[i].ms == 0) {
			snprintf(buf, 16, "%u%s", (unsigned)(ms / units[i].ms), units[i].name);
			return buf;
		}
	return strcpy(buf, "0");
}
