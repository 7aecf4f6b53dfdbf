/* cover: what the runs have seen. A reachable cell that stays empty is a failure. */
#include <stdio.h>

#include "sim.h"
#include "cover.def"

#define MAX_ROWS 200u

static uint64_t s_taken[MAX_ROWS], d_taken[MAX_ROWS];
static uint64_t cell[F_COUNT][PHASES][OUTCOME_COUNT], outcomes[OUTCOME_COUNT];

bool sim_trace;

static void print_actions(const char *const *name, const unsigned *a, unsigned n)
{
	const char *sep = "";

	for (unsigned i = 0; i < n; i++)
		if (a[i]) {
			printf("%s%s", sep, name[a[i]]);
			sep = ",";
		}
	if (!*sep)
		putchar('-');
}

void cover_print_s(const struct s_row *r)
{
	printf("%s %s %s %s ", s_state_desc[r->state].id, s_event_name[r->event],
	       s_guard_name[r->guard], s_state_desc[r->next].id);
	print_actions(s_action_name, r->action, sizeof r->action / sizeof *r->action);
}

void cover_print_d(const struct d_row *r)
{
	printf("%s %s ALWAYS %s ", d_state_id[r->state], d_event_name[r->event], d_state_id[r->next]);
	print_actions(d_action_name, r->action, sizeof r->action / sizeof *r->action);
}

void cover_life(char role, unsigned pid)
{
	if (sim_trace)
		printf("= %c%u\n", role, pid);
}

void cover_s_row(void *arg, const struct s_row *r)
{
	const struct world *w = arg;

	s_taken[r - sim_s_table]++;
	if (sim_trace) {
		printf("S0 ");
		cover_print_s(r);
		printf(" %u %s\n", facts_s(&w->sup.s), r->rule);
	}
	if (w->verbose)
		say(w, "S", "%s --%s--> %s  [%s]%s%s", s_state_desc[r->state].id, s_event_name[r->event],
		    s_state_desc[r->next].id, r->rule, r->why ? " " : "", r->why ? r->why : "");
}

void cover_d_row(void *arg, const struct d_row *r)
{
	const struct proc *p = arg;

	d_taken[r - sim_d_table]++;
	if (sim_trace) {
		printf("D%u ", p->pid);
		cover_print_d(r);
		printf(" 0 %s\n", r->rule);
	}
	if (p->world->verbose)
		say(p->world, pname(p->pid), "%s --%s--> %s  [%s]", d_state_id[r->state],
		    d_event_name[r->event], d_state_id[r->next], r->rule);
}

/* States with one name are one phase. */
static unsigned phase_of(unsigned state)
{
	for (unsigned i = 0; i < S_STATE_COUNT && state < S_STATE_COUNT; i++)
		if (!strcmp(s_state_desc[i].name, s_state_desc[state].name))
			return i;
	return state;
}

static const char *phase_name(unsigned phase)
{
	return phase == S_STATE_COUNT ? "down" : s_state_desc[phase].name;
}

void cover_cell(unsigned kind, unsigned phase, unsigned outcome)
{
	cell[kind][phase_of(phase)][outcome]++;
}

void cover_outcome(enum s_outcome o)
{
	outcomes[o]++;
}

uint64_t cover_handoffs(void)
{
	uint64_t n = 0;

	for (unsigned o = 0; o < OUTCOME_COUNT; o++)
		n += outcomes[o];
	return n;
}

/* ------------------------------------------------------------- histogram --- */

static const char letter[OUTCOME_COUNT] = { '-', 'C', 'A', 'R' };

static const char *human(uint64_t n, char out[8])
{
	if (!n)
		return ".";
	if (n < 10000)
		snprintf(out, 8, "%u", (unsigned)n);
	else
		snprintf(out, 8, "%uk", (unsigned)(n / 1000 % 1000000));
	return out;
}

static void print_table(unsigned o)
{
	char text[8];

	printf("\nfault x phase: %s\n%-20s", o ? outcome_name[o] : "no attempt under way", "");
	for (unsigned p = 0; p < PHASES; p++)
		if (phase_of(p) == p)
			printf(" %6.6s", phase_name(p));
	putchar('\n');
	for (unsigned k = 0; k < F_COUNT; k++) {
		printf("%-20s", fault_name[k]);
		for (unsigned p = 0; p < PHASES; p++)
			if (phase_of(p) == p)
				printf(" %6s", human(cell[k][p][o], text));
		putchar('\n');
	}
}

/* "idle:- warm:CA": the outcomes that a fault in this phase is known to lead to */
static bool reachable(const char *spec, unsigned phase, unsigned o)
{
	const char *name = phase_name(phase);
	size_t n = strlen(name);

	for (const char *p = spec; p && *p; p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL) {
		if (strncmp(p, name, n) || p[n] != ':')
			continue;
		for (const char *c = p + n + 1; *c && *c != ' '; c++)
			if (*c == letter[o])
				return true;
	}
	return false;
}

unsigned cover_histogram(bool print, bool require)
{
	unsigned empty = 0, cells = 0;

	for (unsigned o = 0; o < OUTCOME_COUNT && print; o++)
		print_table(o);
	for (unsigned k = 0; k < F_COUNT; k++)
		for (unsigned p = 0; p < PHASES; p++)
			for (unsigned o = 0; o < OUTCOME_COUNT; o++) {
				if (phase_of(p) != p || !reachable(cover_reachable[k], p, o))
					continue;
				cells++;
				if (cell[k][p][o] || !require)
					continue;
				empty++;
				printf("EMPTY: %s in %s, %s: declared reachable, never seen\n", fault_name[k],
				       phase_name(p), outcome_name[o]);
			}
	if (print)
		printf("\n%u cells are declared reachable, %u of them stayed empty\n", cells, empty);
	return empty;
}

/* The spec of cover.def as these runs would have it: cells seen at least min times. */
void cover_dump(uint64_t min)
{
	for (unsigned k = 0; k < F_COUNT; k++) {
		const char *sep = "";
		printf("\t/* %-20s */ \"", fault_name[k]);
		for (unsigned p = 0; p < PHASES; p++) {
			bool any = false;
			for (unsigned o = 0; o < OUTCOME_COUNT; o++) {
				if (cell[k][p][o] < min)
					continue;
				if (!any)
					printf("%s%s:", sep, phase_name(p));
				any = true;
				sep = " ";
				putchar(letter[o]);
			}
		}
		printf("\",\n");
	}
}

/* ------------------------------------------------------------------ rows --- */

static unsigned row(bool print, const char *table, const char *rule, const char *state,
                    const char *event, uint64_t n)
{
	if (print)
		printf("%s %-45s %-12s %-15s %10llu\n", table, rule, state, event, (unsigned long long)n);
	if (!n)
		printf("NEVER TAKEN: %s [%s] %s at %s\n", table, rule, state, event);
	return !n;
}

unsigned cover_rows(bool print, bool require)
{
	unsigned missing = 0;

	if (!require && !print)
		return 0;
	for (const struct s_row *r = s_table; r->rule; r++)
		missing += row(print, "S", r->rule, s_state_desc[r->state].id, s_event_name[r->event],
		               s_taken[r - s_table]);
	for (const struct d_row *r = d_table; r->rule; r++)
		missing += row(print, "D", r->rule, d_state_id[r->state], d_event_name[r->event],
		               d_taken[r - d_table]);
	return require ? missing : 0;
}
