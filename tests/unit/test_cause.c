/* Every row that ends an attempt has somebody to name. */
#include <string.h>

#include "proto/cause.h"
#include "suite.h"

static const struct s_row *row(enum s_state state, enum s_event event)
{
	const struct s_row *r = s_table;

	while (r->rule && (r->state != state || r->event != event || !r->why))
		r++;
	ck_assert_ptr_nonnull(r->rule);
	return r;
}

static void is(const struct s_row *r, const char *role, const char *phase, const char *timer)
{
	const struct s_cause c = s_cause_of(r);

	ck_assert_str_eq(c.role, role);
	ck_assert_str_eq(c.phase, phase);
	ck_assert_pstr_eq(c.timer, timer);
}

START_TEST(the_known)
{
	is(row(S_WARM, S_E_N_GONE), "successor", "warm", NULL);
	is(row(S_WARM, S_E_TIMEOUT), "successor", "warm", "start-timeout");
	is(row(S_AWAIT_O, S_E_TIMEOUT), "incumbent", "warm", "presumed-dead");
	is(row(S_DRAIN, S_E_TIMEOUT), "incumbent", "drain", "drain-grace");
	is(row(S_SEAL, S_E_TIMEOUT), "incumbent", "seal", "deadline");
	is(row(S_SEAL, S_E_O_SILENT), "incumbent", "seal", "presumed-dead");
	is(row(S_SEAL, S_E_O_SEAL_FAILED), "incumbent", "seal", NULL);
	is(row(S_SEAL, S_E_O_GIVE_FAILED), "successor", "seal", NULL);
	is(row(S_SEAL, S_E_N_SILENT), "successor", "seal", "presumed-dead");
	is(row(S_READY, S_E_TIMEOUT), "successor", "ready", "deadline");
	is(row(S_READY, S_E_N_READY), "successor", "ready", NULL);
	is(row(S_TAKE, S_E_TIMEOUT), "successor", "take", "commit-timeout");
	is(row(S_DRAIN, S_E_ABORT), "operator", "drain", NULL);
	is(row(S_SEAL, S_E_STOP), "operator", "seal", NULL);
	is(row(S_SPAWNING, S_E_SPAWN_FAILED), "supervisor", "starting", NULL);
	is(row(S_NAMING, S_E_JOURNAL_FAILED), "supervisor", "starting", NULL);
	is(row(S_TELL_O, S_E_NOW), "successor", "exit", NULL);
	is(row(S_OEXIT, S_E_O_STATUS), "successor", "exit", NULL);
	is(NULL, "supervisor", "adopt", NULL);
}
END_TEST

/* Whom the row's own words begin with, it is; the operator and the supervisor are the rest. */
START_TEST(each_row)
{
	unsigned n = 0;

	for (const struct s_row *r = s_table; r->rule; r++) {
		if (!r->why || r->next != S_ABORT)
			continue;
		const struct s_cause c = s_cause_of(r);
		const bool at_exit = r->state == S_OEXIT;   /* both are in its words */
		n++;
		if (!strncmp(r->why, "the successor", 13) && r->event != S_E_SPAWN_FAILED)
			ck_assert_msg(!strcmp(c.role, "successor"), "%s: %s", r->why, c.role);
		else if (!strncmp(r->why, "the incumbent", 13) && !at_exit)
			ck_assert_msg(!strcmp(c.role, "incumbent"), "%s: %s", r->why, c.role);
		else
			ck_assert_msg(!strcmp(c.role, "operator") || !strcmp(c.role, "supervisor"), "%s: %s",
			              r->why, c.role);
		ck_assert_msg((strstr(r->why, "within") || strstr(r->why, "silent")) == !!c.timer ||
		              r->event == S_E_TIMEOUT, "%s: %s", r->why, c.timer);
		if (c.timer && r->state != S_AWAIT_O)
			ck_assert_msg(strstr(r->why, c.timer) != NULL, "%s: %s", r->why, c.timer);
	}
	ck_assert_uint_ge(n, 40);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cause");
	TCase *t = tcase_create("cause");

	tcase_add_test(t, the_known);
	tcase_add_test(t, each_row);
	suite_add_tcase(s, t);
	return suite_run(s);
}
