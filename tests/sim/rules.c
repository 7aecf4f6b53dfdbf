/* rules: for each rule of the tables, that its loss is noticed. What removes no more than
 * the rows that bear its name must violate a guarantee, in a run whose seed is written down. */
#include <stdio.h>

#include "sim.h"

#define SEARCH 100000u      /* runs, where the seed that was written down does not do any more */

static const struct { const char *rule; uint64_t seed; } known[] = {
#include "rules.def"
	{ NULL, 0 }
};

static uint64_t known_seed(const char *rule)
{
	for (unsigned i = 0; known[i].rule; i++)
		if (!strcmp(known[i].rule, rule))
			return known[i].seed;
	return 0;
}

static bool catches(struct world *w, uint64_t seed)
{
	sim_run(w, seed, false);
	return w->failed;
}

static bool search(struct world *w, uint64_t runs)
{
	for (uint64_t seed = 1; seed <= runs; seed++)
		if (catches(w, seed))
			return true;
	return false;
}

/* Prints what rules.def has to say of it; true: caught. */
static bool check_rule(struct world *w, const char *rule, uint64_t runs)
{
	uint64_t seed = runs ? 0 : known_seed(rule);

	mutant_without(rule);
	if (!(seed && catches(w, seed)) && !search(w, runs ? runs : SEARCH)) {
		printf("NOT CAUGHT: [%s]\n", rule);
		return false;
	}
	printf("{ \"%s\", %llu },\n\t/* %s */\n", rule, (unsigned long long)w->seed, w->violation);
	if (seed && seed != w->seed)
		printf("\t/* seed %llu of rules.def does not do any more */\n", (unsigned long long)seed);
	return true;
}

/* ------------------------------------------------------------- single rows --- */

static const struct { const char *role, *state, *event, *guard, *why; } covered[] = {
#include "rows.def"
	{ NULL, NULL, NULL, NULL, NULL }
};

static const char *covered_by(const char *role, const char *state, const char *event,
                              const char *guard)
{
	for (unsigned i = 0; covered[i].role; i++)
		if (!strcmp(covered[i].role, role) && !strcmp(covered[i].state, state) &&
		    !strcmp(covered[i].event, event) && !strcmp(covered[i].guard, guard))
			return covered[i].why;
	return NULL;
}

/* The mutant without this row is in place. True: as it should be. */
static bool check_row(struct world *w, const char *role, const char *rule, const char *state,
                      const char *event, const char *guard, uint64_t runs)
{
	const char *why = covered_by(role, state, event, guard);
	const bool noticed = search(w, runs);

	if (noticed && why)
		printf("NOTICED: rows.def has %s %s %s %s, seed %llu: %s\n", role, state, event, guard,
		       (unsigned long long)w->seed, w->violation);
	else if (!noticed)
		printf("%s: %s [%s] %s %s %s%s%s\n", why ? "not noticed, as expected" : "NOT NOTICED", role,
		       rule, state, event, guard, why ? ": " : "", why ? why : "");
	return noticed == !why;
}

unsigned rows_check(struct world *w, uint64_t runs, const char *only)
{
	unsigned n = 0, wrong = 0;

	for (const struct s_row *r = s_table; r->rule; r++) {
		if (only && strcmp(r->rule, only))
			continue;
		n++;
		mutant_without_s_row((unsigned)(r - s_table));
		wrong += !check_row(w, "S", r->rule, s_state_desc[r->state].id, s_event_name[r->event],
		                    s_guard_name[r->guard], runs);
	}
	for (const struct d_row *r = d_table; r->rule; r++) {
		if (only && strcmp(r->rule, only))
			continue;
		n++;
		mutant_without_d_row((unsigned)(r - d_table));
		wrong += !check_row(w, "D", r->rule, d_state_id[r->state], d_event_name[r->event], "ALWAYS",
		                    runs);
	}
	printf("%u rows, each removed alone: %u are not as expected\n", n, wrong);
	return wrong;
}

/* ------------------------------------------------------------------- rules --- */

static bool d_rule(const char *rule, const struct d_row *end)
{
	for (const struct d_row *r = d_table; r->rule && r != end; r++)
		if (!strcmp(r->rule, rule))
			return true;
	return false;
}

static bool s_rule(const char *rule, const struct s_row *end)
{
	for (const struct s_row *r = s_table; r->rule && r != end; r++)
		if (!strcmp(r->rule, rule))
			return true;
	return false;
}

/* What rules.def has of rules that are gone. */
static unsigned strangers(void)
{
	unsigned n = 0;

	for (unsigned i = 0; known[i].rule; i++)
		if (!s_rule(known[i].rule, NULL) && !d_rule(known[i].rule, NULL)) {
			printf("NO SUCH RULE: rules.def has [%s]\n", known[i].rule);
			n++;
		}
	return n;
}

unsigned rules_check(struct world *w, uint64_t runs)
{
	unsigned n = 0, missed = 0, wrong = strangers();

	for (const struct s_row *r = s_table; r->rule; r++)
		if (!s_rule(r->rule, r)) {
			n++;
			missed += !check_rule(w, r->rule, runs);
		}
	for (const struct d_row *r = d_table; r->rule; r++)
		if (!d_rule(r->rule, r) && !s_rule(r->rule, NULL)) {
			n++;
			missed += !check_rule(w, r->rule, runs);
		}
	printf("%u rules, the loss of %u is noticed\n", n, n - missed);
	return missed + wrong;
}
