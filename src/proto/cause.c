#include "proto/cause.h"

#include <stddef.h>

static bool waits_for_o(enum s_state state)
{
	return state == S_AWAIT_O || state == S_DRAIN || state == S_SEAL;
}

static const char *role_of(const struct s_row *row)
{
	switch (row->event) {
	case S_E_N_HELLO:
	case S_E_N_READY:
	case S_E_N_STATUS:
	case S_E_N_SERVING:
	case S_E_N_GONE:
	case S_E_N_LOST:
	case S_E_N_SILENT:
	case S_E_O_GIVE_FAILED:
		return "successor";
	case S_E_O_DRAINED:
	case S_E_O_SEALED:
	case S_E_O_SEAL_FAILED:
	case S_E_O_STATUS:
	case S_E_O_SERVING:
	case S_E_O_STANDBY:
	case S_E_O_LOST:
	case S_E_O_BROKEN:
	case S_E_O_GONE:
	case S_E_O_SILENT:
		/* it is told to exit and serves again: the successor has died */
		return row->state == S_OEXIT ? "successor" : "incumbent";
	case S_E_TIMEOUT:
		return waits_for_o(row->state) ? "incumbent" : "successor";
	case S_E_NOW:
		return row->guard == S_G_N_GONE ? "successor" : "supervisor";
	case S_E_ABORT:
	case S_E_STOP:
		return "operator";
	default:
		return "supervisor";
	}
}

static const char *timer_of(const struct s_row *row)
{
	const enum timer t = s_state_desc[row->state].timer;

	if (row->event == S_E_N_SILENT || row->event == S_E_O_SILENT)
		return timer_desc[TIMER_DEAD].name;
	return row->event == S_E_TIMEOUT && t != TIMER_COUNT ? timer_desc[t].name : NULL;
}

struct s_cause s_cause_of(const struct s_row *row)
{
	if (!row)
		return (struct s_cause){ "supervisor", "adopt", NULL };
	return (struct s_cause){ role_of(row), s_state_desc[row->state].name, timer_of(row) };
}
