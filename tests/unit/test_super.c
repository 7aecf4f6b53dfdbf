/* S: the table is sane, each rule by a short script, time. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "proto/super.h"
#include "suite.h"

static struct s s;
static struct s_out out;
static uint64_t now;
static const uint64_t revs[2] = { 7, 9 };

/* -------------------------------------------------------------- fixtures --- */

static void setup(void)
{
	uint32_t t[TIMER_COUNT];

	timers_default(t);
	s_init(&s, s_table, t);
	s.id.b[0] = 1;
	now = 1000;
}

/* An incumbent serves. */
static void setup_idle(void)
{
	setup();
	s.o_present = s.o_connected = s.served = true;
}

/* A message as it comes from the wire: its arrays are the decoder's. */
static const struct msg *wire(struct msg *m)
{
	static uint8_t buf[1024];
	static struct msg in;
	char err[128];
	int n = msg_encode(m, 1, buf, sizeof buf);

	ck_assert_int_gt(n, 0);
	n = msg_decode(buf + FRAME_HEADER, (size_t)n - FRAME_HEADER, &in, err, sizeof err);
	ck_assert_msg(n == 0, "%s", err);
	return &in;
}

static const struct msg *seal_complete(void)
{
	struct msg m = { .type = MSG_seal_complete };

	m.seal_complete.id = s.id;
	m.seal_complete.revisions = (struct uints){ .n = 2, .v = revs };
	m.seal_complete.fingerprint.b[0] = 3;
	return wire(&m);
}

static const struct msg *ready(bool healthy, uint64_t second, uint8_t fingerprint)
{
	uint64_t v[2] = { 7, second };
	struct msg m = { .type = MSG_ready };

	MSG_SET(&m, ready, id, s.id);
	m.ready.healthy = healthy;
	m.ready.revisions = (struct uints){ .n = 2, .v = v };
	m.ready.fingerprint.b[0] = fingerprint;
	return wire(&m);
}

static void step(enum s_event e)
{
	const struct msg *m = NULL;

	if (e == S_E_O_SEALED)
		m = seal_complete();
	else if (e == S_E_N_READY)
		m = ready(true, 9, 3);
	s_step(&s, e, m, ++now, &out);
}

/* The actions, in their order, S_A_NONE at the end. */
static void expect_(int line, enum s_state state, ...)
{
	va_list ap;
	enum s_action a;
	unsigned i = 0;

	ck_assert_msg(s.state == state, "line %d: state %s, not %s", line, s_state_desc[s.state].id,
	              s_state_desc[state].id);
	va_start(ap, state);
	while ((a = (enum s_action)va_arg(ap, int)) != S_A_NONE) {
		ck_assert_msg(i < out.n && out.action[i] == a, "line %d: action %u is %s, not %s", line, i,
		              i < out.n ? s_action_name[out.action[i]] : "none", s_action_name[a]);
		i++;
	}
	va_end(ap);
	ck_assert_msg(out.n == i, "line %d: %u actions, not %u", line, out.n, i);
}
#define EXPECT(st, ...) expect_(__LINE__, S_##st, ##__VA_ARGS__, S_A_NONE)

static void until(enum s_state want)
{
	static const enum s_event way[] = {
		S_E_START,    S_E_SPAWNED, S_E_JOURNALED, S_E_N_HELLO,   S_E_O_DRAINED,
		S_E_O_SEALED, S_E_N_READY, S_E_O_READ,    S_E_JOURNALED, S_E_N_STATUS,
	};

	for (unsigned i = 0; s.state != want; i++) {
		ck_assert_uint_lt(i, sizeof way / sizeof *way);
		step(way[i]);
	}
}

/* ----------------------------------------------------------------- table --- */

START_TEST(table_reaches_every_state)
{
	bool seen[S_STATE_COUNT] = {
		[S_IDLE] = true, [S_R_IDLE] = true, [S_ABORT] = true, [S_R_COMMITTED] = true
	};

	for (bool more = true; more;) {
		more = false;
		for (const struct s_row *r = s_table; r->rule; r++)
			if (seen[r->state] && !seen[r->next])
				more = seen[r->next] = true;
	}
	for (unsigned i = 0; i < S_STATE_COUNT; i++)
		ck_assert_msg(seen[i], "%s is never reached", s_state_desc[i].id);
}
END_TEST

START_TEST(table_uses_every_event)
{
	for (unsigned e = 0; e < S_EVENT_COUNT; e++) {
		bool used = e == S_E_O_LOST || e == S_E_O_GONE;   /* facts: guards look at them */
		for (const struct s_row *r = s_table; r->rule; r++)
			used |= r->event == (enum s_event)e;
		ck_assert_msg(used, "%s stands in no row", s_event_name[e]);
	}
}
END_TEST

START_TEST(table_has_no_dead_row)
{
	for (const struct s_row *a = s_table; a->rule; a++)
		for (const struct s_row *b = a + 1; b->rule; b++)
			ck_assert_msg(a->state != b->state || a->event != b->event ||
			              (a->guard != b->guard && a->guard != S_G_ALWAYS),
			              "%s at %s: a second row that is never taken", s_state_desc[b->state].id,
			              s_event_name[b->event]);
}
END_TEST

static bool has_row(enum s_state st, enum s_event e)
{
	for (const struct s_row *r = s_table; r->rule; r++)
		if (r->state == st && r->event == e)
			return true;
	return false;
}

/* A timer, a death, or the answer to an action. */
START_TEST(table_leaves_nobody_waiting)
{
	for (unsigned i = 0; i < S_STATE_COUNT; i++) {
		bool timed = s_state_desc[i].timer != TIMER_COUNT || s_state_desc[i].since == SINCE_BACKOFF;
		if (i == S_IDLE || i == S_STOPPED)
			continue;
		if (timed) {
			ck_assert_msg(has_row(i, S_E_TIMEOUT) || i == S_CHECK,
			              "%s has a timer and no row for it", s_state_desc[i].id);
			continue;
		}
		ck_assert_msg(!has_row(i, S_E_TIMEOUT), "%s has a row for a timer and none",
		              s_state_desc[i].id);
		ck_assert_msg(has_row(i, S_NOW) || has_row(i, S_E_JOURNALED) || has_row(i, S_E_SPAWNED) ||
		              has_row(i, S_E_N_GONE) || has_row(i, S_E_O_READ),
		              "%s waits for ever", s_state_desc[i].id);
	}
}
END_TEST

START_TEST(table_answers_both_ways)
{
	for (unsigned i = 0; i < S_STATE_COUNT; i++) {
		ck_assert_int_eq(has_row(i, S_E_JOURNALED), has_row(i, S_E_JOURNAL_FAILED));
		ck_assert_int_eq(has_row(i, S_E_SPAWNED), has_row(i, S_E_SPAWN_FAILED));
		ck_assert_int_eq(has_row(i, S_E_LISTENING), has_row(i, S_E_NOT_LISTENING));
	}
}
END_TEST

/* ----------------------------------------------------------------- rules --- */

START_TEST(commits)
{
	step(S_E_START);
	EXPECT(SPAWNING, S_A_BEGIN_ATTEMPT, S_A_SPAWN);
	step(S_E_SPAWNED);
	EXPECT(NAMING, S_A_JOURNAL_STARTED);
	step(S_E_JOURNALED);
	EXPECT(WARM, S_A_RELEASE);
	step(S_E_N_HELLO);
	EXPECT(DRAIN, S_A_PREPARE);
	step(S_E_O_DRAINED);
	EXPECT(SEAL, S_A_SEAL_REQUEST);
	step(S_E_O_SEALED);
	EXPECT(READY, S_A_BEGIN_SEALED);
	step(S_E_N_READY);
	EXPECT(CHECK, S_A_READ_O);
	step(S_E_O_READ);
	EXPECT(DECIDING, S_A_JOURNAL_COMMITTED);
	step(S_E_JOURNALED);
	EXPECT(TAKE, S_A_COMMIT_N);
	step(S_E_N_STATUS);
	EXPECT(OEXIT, S_A_MAY, S_A_COMMIT_O);
	step(S_E_O_GONE);
	EXPECT(IDLE, S_A_PROMOTE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL);
	ck_assert_int_eq(s.outcome, OUTCOME_COMMITTED);
	ck_assert(s.o_present && s.o_connected && !s.o_gone && !s.n_present && s.served);
}
END_TEST

/* Ready is refused: another revision, another fingerprint, ill. */
START_TEST(ready_must_agree)
{
	static const struct { bool healthy; uint64_t rev; uint8_t print; bool good; } c[] = {
		{ true, 9, 3, true }, { true, 8, 3, false }, { true, 9, 4, false }, { false, 9, 3, false },
	};

	until(S_READY);
	s_step(&s, S_E_N_READY, ready(c[_i].healthy, c[_i].rev, c[_i].print), ++now, &out);
	if (c[_i].good)
		EXPECT(CHECK, S_A_READ_O);
	else
		EXPECT(ABORT, S_A_KILL_N);
}
END_TEST

START_TEST(ready_of_fewer_shards)
{
	struct msg m = { .type = MSG_ready };

	until(S_READY);
	MSG_SET(&m, ready, id, s.id);
	m.ready.healthy = true;
	m.ready.revisions = (struct uints){ .n = 1, .v = revs };
	m.ready.fingerprint.b[0] = 3;
	s_step(&s, S_E_N_READY, wire(&m), ++now, &out);
	EXPECT(ABORT, S_A_KILL_N);
}
END_TEST

START_TEST(ready_reads_o_first)
{
	until(S_CHECK);
	step(_i ? S_E_O_SERVING : S_E_O_STATUS);
	EXPECT(ABORT, S_A_KILL_N);
	step(S_E_O_READ);
	EXPECT(ABORT);
}
END_TEST

/* Any of these, in any state before the decision, and O serves again. */
START_TEST(aborts)
{
	static const struct { enum s_state in; enum s_event at; } c[] = {
		{ S_WARM, S_E_TIMEOUT },    { S_WARM, S_E_ABORT },
		{ S_WARM, S_E_STOP },       { S_DRAIN, S_E_TIMEOUT },
		{ S_DRAIN, S_E_O_STATUS },  { S_DRAIN, S_E_O_SERVING },
		{ S_DRAIN, S_E_O_STANDBY }, { S_DRAIN, S_E_O_SILENT },
		{ S_DRAIN, S_E_N_SILENT },  { S_DRAIN, S_E_ABORT },
		{ S_DRAIN, S_E_STOP },      { S_SEAL, S_E_TIMEOUT },
		{ S_SEAL, S_E_O_STATUS },   { S_SEAL, S_E_O_SEAL_FAILED },
		{ S_SEAL, S_E_O_GIVE_FAILED }, { S_SEAL, S_E_O_SILENT },   { S_SEAL, S_E_N_SILENT },
		{ S_SEAL, S_E_ABORT },      { S_SEAL, S_E_STOP },
		{ S_READY, S_E_TIMEOUT },   { S_READY, S_E_O_STATUS },
		{ S_READY, S_E_N_SILENT },  { S_READY, S_E_ABORT },
		{ S_READY, S_E_STOP },      { S_DECIDING, S_E_JOURNAL_FAILED },
		{ S_TAKE, S_E_TIMEOUT },    { S_TAKE, S_E_N_SILENT },
	};
	bool touched = c[_i].in != S_WARM;

	until(c[_i].in);
	step(c[_i].at);
	EXPECT(ABORT, S_A_KILL_N);
	ck_assert_ptr_nonnull(s.why);
	step(S_E_N_GONE);
	if (touched) {
		EXPECT(RESUMING, S_A_RESUME_O);
		step(S_E_O_STATUS);
	}
	if (c[_i].at == S_E_STOP && touched)
		EXPECT(STOPPING, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL, S_A_TERM_O);
	else if (c[_i].at == S_E_STOP)
		EXPECT(STOPPING, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_TERM_O);
	else if (touched)
		EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL);
	else
		EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);
	ck_assert_int_eq(s.outcome, OUTCOME_ABORTED);
}
END_TEST

START_TEST(n_dies)
{
	static const enum s_state in[] = { S_WARM, S_DRAIN, S_SEAL, S_READY, S_TAKE };

	until(in[_i]);
	step(S_E_N_GONE);
	if (in[_i] == S_WARM)   /* O never knew */
		EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);
	else
		EXPECT(RESUMING, S_A_RESUME_O);
}
END_TEST

START_TEST(o_dies_and_n_goes_on)
{
	static const enum s_state in[] = { S_DRAIN, S_SEAL };

	until(in[_i]);
	step(S_E_O_GONE);
	EXPECT(READY, S_A_BEGIN_NOTHING);
	s_step(&s, S_E_N_READY, ready(true, 1234, 9), ++now, &out);   /* nothing to compare with */
	EXPECT(CHECK, S_A_READ_O);
}
END_TEST

START_TEST(o_dies_in_warm_up)
{
	until(S_WARM);
	step(S_E_O_GONE);
	EXPECT(WARM);
	step(S_E_N_HELLO);
	EXPECT(READY, S_A_BEGIN_NOTHING);
}
END_TEST

/* Its channel ends before its death is verified: wait for one or the other. */
START_TEST(o_is_away_when_n_is_warm)
{
	until(S_WARM);
	step(S_E_O_LOST);
	step(S_E_N_HELLO);
	EXPECT(AWAIT_O);
	step(_i == 0 ? S_E_O_GONE : _i == 1 ? S_E_O_SERVING : S_E_TIMEOUT);
	if (_i == 0)
		EXPECT(READY, S_A_BEGIN_NOTHING);
	else if (_i == 1)
		EXPECT(DRAIN, S_A_FINAL, S_A_PREPARE);
	else
		EXPECT(ABORT, S_A_KILL_N);
}
END_TEST

/* A Final that went into a lost channel comes again with each registration. */
START_TEST(who_registers_in_an_attempt_hears_final)
{
	until(S_WARM);
	step(S_E_O_LOST);
	step(S_E_O_SERVING);
	EXPECT(WARM, S_A_FINAL);
	step(S_E_ABORT);
	EXPECT(ABORT, S_A_KILL_N);
	step(S_E_O_SERVING);
	EXPECT(ABORT, S_A_FINAL);
	step(S_E_N_GONE);
	EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);   /* untouched, and it knows */
	until(S_DRAIN);
	step(S_E_O_SERVING);
	EXPECT(ABORT, S_A_KILL_N);
	step(S_E_O_SERVING);
	EXPECT(ABORT);                /* it is told to resume first */
	step(S_E_N_GONE);
	EXPECT(RESUMING, S_A_RESUME_O);
	step(_i ? S_E_O_SERVING : S_E_O_STATUS);
	EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL);
}
END_TEST

START_TEST(n_dies_in_probation)
{
	s.timer[TIMER_PROBATION] = 100;
	until(S_PROBATION);
	step(S_E_N_GONE);
	EXPECT(RESUMING, S_A_RESUME_O);
	step(S_E_O_STATUS);
	EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL);
	ck_assert_int_eq(s.outcome, OUTCOME_ROLLED_BACK);
}
END_TEST

START_TEST(status_of_a_dead_n_counts)
{
	until(S_TAKE);
	step(S_E_TIMEOUT);
	step(S_E_N_STATUS);
	EXPECT(ABORT, S_A_MAY);
	step(S_E_N_GONE);
	step(S_E_O_STATUS);
	ck_assert_int_eq(s.outcome, OUTCOME_ROLLED_BACK);
}
END_TEST

START_TEST(commit_refused_by_o)
{
	until(S_OEXIT);
	step(S_E_O_STATUS);
	EXPECT(ABORT, S_A_KILL_N);
	step(S_E_N_GONE);
	step(S_E_O_STATUS);
	ck_assert_int_eq(s.outcome, OUTCOME_ROLLED_BACK);
}
END_TEST

START_TEST(o_does_not_exit)
{
	until(S_OEXIT);
	step(S_E_TIMEOUT);
	EXPECT(OEXIT, S_A_KILL_O);
	step(S_E_O_STANDBY);
	EXPECT(OEXIT, S_A_COMMIT_O);
}
END_TEST

/* Both dead: N's binary starts only if it may have served. */
START_TEST(both_die)
{
	until(_i ? S_OEXIT : S_READY);
	if (_i) {
		step(S_E_O_STATUS);
		step(S_E_N_GONE);
	} else {
		step(S_E_N_GONE);
	}
	EXPECT(RESUMING, S_A_RESUME_O);
	step(S_E_O_GONE);
	EXPECT(COLD, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);
	ck_assert_int_eq(s.outcome, _i ? OUTCOME_COMMITTED : OUTCOME_ABORTED);
}
END_TEST

START_TEST(starts_that_fail)
{
	static const enum s_event fail[] = { S_E_SPAWN_FAILED, S_E_JOURNAL_FAILED };
	static const enum s_state in[] = { S_SPAWNING, S_NAMING };

	until(in[_i]);
	step(fail[_i]);
	if (_i == 1) {
		EXPECT(ABORT, S_A_KILL_N);
		step(S_E_N_GONE);
	}
	EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);
	ck_assert_int_eq(s.outcome, OUTCOME_ABORTED);
}
END_TEST

START_TEST(starts_cold)
{
	step(S_E_O_GONE);
	EXPECT(COLD);
	ck_assert_int_eq(s_tick(&s, now), S_E_TIMEOUT);   /* the first time at once */
	step(S_E_TIMEOUT);
	EXPECT(COLD, S_A_LISTEN);
	step(S_E_LISTENING);
	EXPECT(COLD_SPAWN, S_A_SPAWN_COLD);
	step(S_E_SPAWNED);
	EXPECT(COLD_NAME, S_A_JOURNAL_COLD);
	step(S_E_JOURNALED);
	EXPECT(COLD_WARM, S_A_RELEASE);
	step(S_E_N_HELLO);
	EXPECT(COLD_READY, S_A_BEGIN_NOTHING);
	step(S_E_N_READY);
	EXPECT(COLD_TAKE, S_A_COMMIT_N);
	step(S_E_N_STATUS);
	EXPECT(IDLE, S_A_PROMOTE, S_A_JOURNAL_SERVES, S_A_FINAL);
}
END_TEST

START_TEST(cold_start_backs_off)
{
	uint64_t gap, last = 0;

	step(S_E_O_GONE);
	for (int i = 0; i < 12; i++) {
		gap = s_next(&s) - now;
		ck_assert_uint_ge(gap, last);
		ck_assert_uint_le(gap, COLD_MAX_MS);
		last = gap;
		now = s_next(&s);
		step(S_E_TIMEOUT);
		step(i % 2 ? S_E_NOT_LISTENING : S_E_LISTENING);
		if (s.state == S_COLD_SPAWN)
			step(S_E_SPAWN_FAILED);
		EXPECT(COLD, S_A_COLD_FAILED);
	}
	ck_assert_uint_eq(last, COLD_MAX_MS);
}
END_TEST

/* A daemon that served for long dies, and its binary does not start any more: only the
 * first attempt comes at once. */
START_TEST(cold_start_backs_off_after_a_long_life)
{
	s.served_since = now;
	now += 10 * COLD_STABLE_MS;
	step(S_E_O_GONE);
	ck_assert_uint_eq(s_next(&s), now);
	for (int i = 0; i < 5; i++) {
		now = s_next(&s);
		step(S_E_TIMEOUT);
		step(S_E_LISTENING);
		step(S_E_SPAWNED);
		step(S_E_JOURNALED);
		step(S_E_N_GONE);
		EXPECT(COLD, S_A_COLD_FAILED);
		ck_assert_uint_ge(s_next(&s), now + 100);
	}
}
END_TEST

static void boot(int phase, bool o, bool n, bool served)
{
	struct s_boot b = {
		.phase = phase, .has_incumbent = o, .has_successor = n, .served = served, .id = s.id
	};

	setup();
	s_boot(&s, &b, now, &out);
}

START_TEST(restarted_idle)
{
	boot(BOOT_IDLE, true, false, true);
	EXPECT(R_IDLE);
	step(S_E_O_SERVING);
	EXPECT(IDLE, S_A_JOURNAL_SERVES, S_A_FINAL);
	boot(BOOT_IDLE, true, false, true);
	step(S_E_O_GONE);
	EXPECT(COLD);
	boot(BOOT_IDLE, true, false, true);
	step(S_E_TIMEOUT);     /* silent, has served: it is left alone, and nothing can be started */
	EXPECT(IDLE);
	step(S_E_START);
	EXPECT(IDLE);
	boot(BOOT_IDLE, true, false, false);
	step(S_E_TIMEOUT);
	EXPECT(R_IDLE, S_A_KILL_O);
	boot(BOOT_IDLE, false, false, false);
	EXPECT(COLD);
}
END_TEST

/* Nobody was known, and who has the flock registers: between two cold starts, and in one. */
START_TEST(found_in_cold)
{
	boot(BOOT_IDLE, false, false, false);
	step(S_E_TIMEOUT);
	step(S_E_NOT_LISTENING);
	EXPECT(COLD, S_A_COLD_FAILED);
	step(S_E_O_FOUND);
	EXPECT(R_IDLE, S_A_JOURNAL_FOUND);
	step(S_E_TIMEOUT);     /* it has served: it is left alone */
	EXPECT(IDLE);
	step(S_E_O_SERVING);
	EXPECT(IDLE, S_A_FINAL);
	step(S_E_O_GONE);
	EXPECT(COLD);
	ck_assert_int_eq(s_tick(&s, now), S_E_TIMEOUT);   /* what had failed before counts no more */
	step(S_E_TIMEOUT);
	step(S_E_LISTENING);
	step(S_E_SPAWNED);
	step(S_E_JOURNALED);
	step(S_E_O_FOUND);
	EXPECT(COLD_ENDING, S_A_KILL_N);
	step(S_E_N_HELLO);     /* it is not heard any more */
	EXPECT(COLD_ENDING);
	step(S_E_N_GONE);
	EXPECT(COLD, S_A_COLD_FAILED);
	step(S_E_O_FOUND);
	EXPECT(R_IDLE, S_A_JOURNAL_FOUND);
	step(S_E_O_SERVING);
	EXPECT(IDLE, S_A_JOURNAL_SERVES, S_A_FINAL);
	step(S_E_O_FOUND);     /* nobody else is looked for */
	EXPECT(IDLE);
}
END_TEST

/* A cold start, up to a state of it. */
static void cold_until(enum s_state want)
{
	static const enum s_event way[] = {
		S_E_TIMEOUT, S_E_LISTENING, S_E_SPAWNED, S_E_JOURNALED, S_E_N_HELLO, S_E_N_READY,
	};

	boot(BOOT_IDLE, false, false, false);
	for (unsigned i = 0; s.state != want; i++) {
		ck_assert_uint_lt(i, sizeof way / sizeof *way);
		step(way[i]);
	}
}

/* What is being started is ended for it; the flock's owner that comes to register is no stranger. */
START_TEST(stopped_in_cold)
{
	static const enum s_state starting[] = { S_COLD_WARM, S_COLD_READY };

	for (unsigned i = 0; i < 2; i++) {
		cold_until(starting[i]);
		step(S_E_STOP);
		EXPECT(COLD_ENDING, S_A_KILL_N);
		step(S_E_N_READY);
		EXPECT(COLD_ENDING);
		step(S_E_N_GONE);
		EXPECT(COLD_STOP, S_A_COLD_FAILED, S_A_READ_O);
	}
	step(S_E_O_READ);
	EXPECT(STOPPED, S_A_END);
	cold_until(S_COLD);
	step(S_E_STOP);
	EXPECT(COLD_STOP, S_A_READ_O);
	step(S_E_O_FOUND);
	EXPECT(STOPPING, S_A_JOURNAL_FOUND, S_A_TERM_O);
	step(S_E_O_READ);      /* behind it */
	EXPECT(STOPPING);
	step(S_E_O_GONE);
	EXPECT(STOPPED, S_A_END);
}
END_TEST

/* It was told to serve: nobody waits for its word, and what it says then is not taken for the next one's. */
START_TEST(ended_when_it_may_serve)
{
	cold_until(S_COLD_TAKE);
	step(S_E_STOP);
	EXPECT(STOPPING, S_A_PROMOTE, S_A_TERM_O);
	step(S_E_O_STATUS);
	EXPECT(STOPPING);
	step(S_E_O_GONE);
	EXPECT(STOPPED, S_A_END);
	cold_until(S_COLD_TAKE);
	step(S_E_RESTART);
	EXPECT(RESTARTING, S_A_PROMOTE, S_A_TERM_O);
	step(S_E_O_STATUS);
	EXPECT(RESTARTING);
	step(S_E_TIMEOUT);
	EXPECT(RESTARTING, S_A_KILL_O);
	step(S_E_O_GONE);
	EXPECT(COLD);
	cold_until(S_COLD_READY);
	step(S_E_RESTART);
	EXPECT(COLD_ENDING, S_A_KILL_N);
	step(S_E_N_READY);
	step(S_E_N_STATUS);
	EXPECT(COLD_ENDING);
	step(S_E_N_GONE);
	EXPECT(COLD, S_A_COLD_FAILED);
}
END_TEST

/* The journal has lost the attempt in which O stands by: before and after S gives up waiting. */
START_TEST(restarted_and_o_stands_by)
{
	boot(BOOT_IDLE, true, false, true);
	step(S_E_O_STANDBY);
	EXPECT(R_IDLE, S_A_RESUME_O);
	step(S_E_O_STATUS);
	EXPECT(IDLE, S_A_JOURNAL_SERVES, S_A_FINAL);
	boot(BOOT_IDLE, true, false, true);
	step(S_E_TIMEOUT);
	EXPECT(IDLE);
	step(S_E_O_STANDBY);
	EXPECT(IDLE, S_A_RESUME_O);
	step(S_E_START);
	EXPECT(IDLE);
	step(S_E_O_STATUS);
	EXPECT(IDLE, S_A_FINAL);
	step(S_E_O_STATUS);
	EXPECT(IDLE);
	step(S_E_START);
	EXPECT(SPAWNING, S_A_BEGIN_ATTEMPT, S_A_SPAWN);
}
END_TEST

START_TEST(restarted_started)
{
	boot(BOOT_STARTED, true, true, true);
	EXPECT(ABORT, S_A_KILL_N);
	step(S_E_N_GONE);
	EXPECT(BACK);
	step(S_E_O_STANDBY);
	EXPECT(RESUMING, S_A_RESUME_O);
	step(S_E_O_STATUS);
	EXPECT(IDLE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL);
	ck_assert_int_eq(s.outcome, OUTCOME_ABORTED);
	boot(BOOT_STARTED, true, false, true);
	EXPECT(BACK);
	step(S_E_TIMEOUT);
	EXPECT(BACK, S_A_KILL_O);
}
END_TEST

/* A first start that was interrupted: nobody is there, and nothing had been promised. */
START_TEST(restarted_started_with_nobody)
{
	struct s_boot b = { .phase = BOOT_STARTED, .id = s.id };

	setup();
	s_boot(&s, &b, now, &out);
	EXPECT(COLD, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT);
	ck_assert_int_eq(s.outcome, OUTCOME_ABORTED);
	ck_assert(!s_beats_o(&s));
}
END_TEST

START_TEST(restarted_committed)
{
	boot(BOOT_COMMITTED, true, true, true);
	EXPECT(R_COMMITTED);
	step(S_E_N_SERVING);
	EXPECT(TELL_O);
	step(S_E_O_STANDBY);
	EXPECT(OEXIT, S_A_COMMIT_O);
	boot(BOOT_COMMITTED, true, true, true);
	step(S_E_N_SERVING);
	step(S_E_TIMEOUT);
	EXPECT(TELL_O, S_A_KILL_O);
	boot(BOOT_COMMITTED, true, true, true);
	step(S_E_O_STANDBY);
	step(S_E_N_GONE);
	EXPECT(RESUMING, S_A_RESUME_O);
	step(S_E_O_STATUS);
	ck_assert_int_eq(s.outcome, OUTCOME_ROLLED_BACK);
	boot(BOOT_COMMITTED, true, true, true);
	step(S_E_TIMEOUT);
	EXPECT(ABORT, S_A_KILL_N);
}
END_TEST

START_TEST(stops)
{
	step(S_E_STOP);
	EXPECT(STOPPING, S_A_TERM_O);
	step(S_E_TIMEOUT);
	EXPECT(STOPPING, S_A_KILL_O);
	step(S_E_O_GONE);
	EXPECT(STOPPED, S_A_END);
}
END_TEST

START_TEST(stop_waits_for_an_owner)
{
	until(S_TAKE);
	step(S_E_STOP);
	EXPECT(TAKE);
	step(S_E_N_STATUS);
	step(S_E_O_GONE);
	EXPECT(STOPPING, S_A_PROMOTE, S_A_OUTCOME, S_A_JOURNAL_OUTCOME, S_A_REPORT, S_A_FINAL,
	       S_A_TERM_O);
}
END_TEST

START_TEST(restarts_the_daemon)
{
	step(S_E_RESTART);
	EXPECT(RESTARTING, S_A_TERM_O);
	step(S_E_O_GONE);
	EXPECT(COLD);
}
END_TEST

/* Only where nothing is under way; what another binary does not carry over is as after a boot. */
START_TEST(goes_on_as_another_binary)
{
	step(S_E_REEXEC);
	EXPECT(IDLE, S_A_REEXEC);
	setup();
	s_go_on(&s, now, 1);
	until(S_TAKE);
	step(S_E_REEXEC);
	EXPECT(TAKE);
}
END_TEST

START_TEST(no_other_binary_while_the_incumbent_is_away)
{
	step(S_E_O_LOST);
	step(S_E_REEXEC);
	EXPECT(IDLE);
}
END_TEST

START_TEST(broken_channel_in_take)
{
	until(S_TAKE);
	step(S_E_N_LOST);
	EXPECT(TAKE, S_A_MAY);
	if (_i) {
		step(S_E_N_SERVING);
		EXPECT(OEXIT, S_A_MAY, S_A_COMMIT_O);
		return;
	}
	step(S_E_N_GONE);
	step(S_E_O_STATUS);
	ck_assert_int_eq(s.outcome, OUTCOME_ROLLED_BACK);
}
END_TEST

/* -------------------------------------------------------- messages, time --- */

START_TEST(stale_ids_are_dropped)
{
	struct msg m = { .type = MSG_status };

	until(S_SEAL);
	m.status.serving = true;
	MSG_SET(&m, status, id, s.id);
	ck_assert_int_eq(s_event_of(&s, false, &m, now), S_E_O_STATUS);
	ck_assert_int_eq(s_event_of(&s, true, &m, now), S_E_N_STATUS);
	m.status.serving = false;
	ck_assert_int_eq(s_event_of(&s, false, &m, now), S_NOW);
	m.status.serving = true;
	m.status.id.b[0] ^= 1;
	ck_assert_int_eq(s_event_of(&s, false, &m, now), S_NOW);
	ck_assert_int_eq(s_event_of(&s, false, seal_complete(), now), S_E_O_SEALED);
	ck_assert_int_eq(s_event_of(&s, true, seal_complete(), now), S_NOW);   /* not N's to say */
	ck_assert_int_eq(s_event_of(&s, false, ready(true, 9, 3), now), S_NOW);
}
END_TEST

/* What comes from the wrong side, or says nothing, is no event. */
START_TEST(words_of_the_wrong_side)
{
	static const struct { enum msg_type type; enum s_event of_n, of_o; } v[] = {
		{ MSG_ready, S_E_N_READY, S_NOW },         { MSG_drained, S_NOW, S_E_O_DRAINED },
		{ MSG_seal_complete, S_NOW, S_E_O_SEALED }, { MSG_seal_failed, S_NOW, S_E_O_SEAL_FAILED },
		{ MSG_status, S_NOW, S_NOW },              { MSG_heartbeat, S_NOW, S_NOW },
		{ MSG_seal_progress, S_NOW, S_NOW },
	};

	for (unsigned i = 0; i < sizeof v / sizeof *v; i++) {
		struct msg m = { .type = v[i].type };

		/* each has its id where msg_id() finds it: first, and all of these but two must have one */
		if (m.type != MSG_heartbeat)
			memcpy((char *)&m + msg_desc(m.type)->fields[0].offset, &s.id, sizeof s.id);
		m.has = 1;
		ck_assert_int_eq(s_event_of(&s, true, &m, ++now), v[i].of_n);
		ck_assert_uint_eq(s.heard_n, now);
		ck_assert_int_eq(s_event_of(&s, false, &m, ++now), v[i].of_o);
		ck_assert_uint_eq(s.heard_o, now);
	}
}
END_TEST

/* Who says that it cannot seal says whose fault it is. */
START_TEST(seal_failed_by)
{
	struct msg m = { .type = MSG_seal_failed, .seal_failed.id = s.id };

	MSG_SET(&m, seal_failed, by_successor, false);
	ck_assert_int_eq(s_event_of(&s, false, &m, ++now), S_E_O_SEAL_FAILED);
	MSG_SET(&m, seal_failed, by_successor, true);
	ck_assert_int_eq(s_event_of(&s, false, &m, ++now), S_E_O_GIVE_FAILED);
	ck_assert_int_eq(s_event_of(&s, true, &m, ++now), S_NOW);
	m = (struct msg){ .type = MSG_status, .status.serving = true };
	MSG_SET(&m, status, id, s.id);
	MSG_SET(&m, status, by_successor, true);
	until(S_DRAIN);
	ck_assert_int_eq(s_event_of(&s, false, &m, ++now), S_E_O_STATUS);
	until(S_SEAL);
	ck_assert_int_eq(s_event_of(&s, false, &m, ++now), S_E_O_GIVE_FAILED);
	ck_assert_int_eq(s_event_of(&s, true, &m, ++now), S_E_N_STATUS);
	MSG_SET(&m, status, by_successor, false);
	ck_assert_int_eq(s_event_of(&s, false, &m, ++now), S_E_O_STATUS);
}
END_TEST

START_TEST(words_that_are_not_asked_for)
{
	step(S_E_O_SEALED);                               /* nobody asked for it */
	EXPECT(IDLE);
	ck_assert(!s.sealed);
	s_step(&s, S_NOW, NULL, ++now, &out);
	EXPECT(IDLE);
	until(S_READY);
	s_step(&s, S_E_N_READY, NULL, ++now, &out);       /* a Ready that says nothing */
	EXPECT(ABORT, S_A_KILL_N);
}
END_TEST

/* An attempt that the journal does not know is ended under its own id, and no other. */
START_TEST(hello_of_an_unknown_attempt)
{
	const struct hid mine = s.id, other = { { 9 } };
	struct msg m = { .type = MSG_hello };

	ck_assert_int_eq(s_event_of_hello(&s, false, &m, false, now), S_E_O_STANDBY);
	ck_assert(hid_equal(&s.id, &mine));
	MSG_SET(&m, hello, id, other);
	ck_assert_int_eq(s_event_of_hello(&s, false, &m, true, now), S_E_O_SERVING);
	ck_assert_int_eq(s_event_of_hello(&s, true, &m, false, now), S_NOW);
	ck_assert_int_eq(s_event_of_hello(&s, true, &m, true, now), S_E_N_SERVING);
	ck_assert(hid_equal(&s.id, &mine));
	until(S_DRAIN);
	ck_assert_int_eq(s_event_of_hello(&s, false, &m, false, now), S_E_O_STANDBY);
	ck_assert(hid_equal(&s.id, &mine));
	s.state = S_R_IDLE;
	ck_assert_int_eq(s_event_of_hello(&s, false, &m, false, now), S_E_O_STANDBY);
	ck_assert(hid_equal(&s.id, &other));
	s.state = S_IDLE;
	m.hello.id = mine;
	ck_assert_int_eq(s_event_of_hello(&s, false, &m, false, now), S_E_O_STANDBY);
	ck_assert(hid_equal(&s.id, &mine));
}
END_TEST

START_TEST(deadlines)
{
	uint64_t prepared;

	ck_assert_uint_eq(s_next(&s), UINT64_MAX);
	until(S_WARM);
	ck_assert_uint_eq(s_next(&s), now + s.timer[TIMER_START]);
	ck_assert_int_eq(s_tick(&s, s_next(&s) - 1), S_NOW);
	ck_assert_int_eq(s_tick(&s, s_next(&s)), S_E_TIMEOUT);
	until(S_DRAIN);
	prepared = now;
	ck_assert_uint_eq(s_next(&s), prepared + s.timer[TIMER_DRAIN] + S_SLACK_MS);
	step(S_E_O_DRAINED);   /* seal and ready are bounded since Prepare; silence comes first */
	ck_assert_uint_eq(s_next(&s), prepared + s.timer[TIMER_DEAD]);
	s.heard_n = s.heard_o = prepared + s.timer[TIMER_DEADLINE];
	ck_assert_uint_eq(s_next(&s), prepared + s.timer[TIMER_DEADLINE] + S_SLACK_MS);
	step(S_E_O_SEALED);
	ck_assert_uint_eq(s_next(&s), prepared + s.timer[TIMER_DEADLINE] + S_SLACK_MS);
}
END_TEST

START_TEST(silence)
{
	uint64_t dead;

	until(S_SEAL);
	dead = s.timer[TIMER_DEAD];
	s.heard_n = now + 10;
	s.heard_o = now;
	ck_assert_int_eq(s_tick(&s, now + dead - 1), S_NOW);
	ck_assert_int_eq(s_tick(&s, now + dead), S_E_O_SILENT);
	s.heard_o = now + 20;
	ck_assert_int_eq(s_tick(&s, now + dead), S_NOW);
	ck_assert_int_eq(s_tick(&s, now + 10 + dead), S_E_N_SILENT);
}
END_TEST

START_TEST(heartbeats_only_in_a_handoff)
{
	ck_assert(!s_in_handoff(&s) && !s_beats_o(&s) && !s_beats_n(&s));
	until(S_WARM);
	ck_assert(s_in_handoff(&s) && !s_beats_o(&s) && s_beats_n(&s));
	until(S_DRAIN);
	ck_assert(s_beats_o(&s) && s_beats_n(&s));
	until(S_OEXIT);
	ck_assert(s_beats_o(&s) && !s_beats_n(&s));
	step(S_E_O_GONE);
	ck_assert(!s_in_handoff(&s) && !s_beats_o(&s) && !s_beats_n(&s));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("super");
	TCase *t = tcase_create("table"), *r = tcase_create("rules"), *x = tcase_create("time");

	tcase_add_test(t, table_reaches_every_state);
	tcase_add_test(t, table_uses_every_event);
	tcase_add_test(t, table_has_no_dead_row);
	tcase_add_test(t, table_leaves_nobody_waiting);
	tcase_add_test(t, table_answers_both_ways);
	tcase_add_checked_fixture(r, setup_idle, NULL);
	tcase_add_test(r, commits);
	tcase_add_loop_test(r, ready_must_agree, 0, 4);
	tcase_add_test(r, ready_of_fewer_shards);
	tcase_add_loop_test(r, ready_reads_o_first, 0, 2);
	tcase_add_loop_test(r, aborts, 0, 27);
	tcase_add_loop_test(r, n_dies, 0, 5);
	tcase_add_loop_test(r, o_dies_and_n_goes_on, 0, 2);
	tcase_add_test(r, o_dies_in_warm_up);
	tcase_add_loop_test(r, o_is_away_when_n_is_warm, 0, 3);
	tcase_add_loop_test(r, who_registers_in_an_attempt_hears_final, 0, 2);
	tcase_add_test(r, n_dies_in_probation);
	tcase_add_test(r, status_of_a_dead_n_counts);
	tcase_add_test(r, commit_refused_by_o);
	tcase_add_test(r, o_does_not_exit);
	tcase_add_loop_test(r, both_die, 0, 2);
	tcase_add_loop_test(r, starts_that_fail, 0, 2);
	tcase_add_test(r, starts_cold);
	tcase_add_test(r, cold_start_backs_off);
	tcase_add_test(r, cold_start_backs_off_after_a_long_life);
	tcase_add_test(r, restarted_idle);
	tcase_add_test(r, found_in_cold);
	tcase_add_test(r, stopped_in_cold);
	tcase_add_test(r, ended_when_it_may_serve);
	tcase_add_test(r, restarted_and_o_stands_by);
	tcase_add_test(r, restarted_started);
	tcase_add_test(r, restarted_started_with_nobody);
	tcase_add_test(r, restarted_committed);
	tcase_add_test(r, stops);
	tcase_add_test(r, stop_waits_for_an_owner);
	tcase_add_test(r, restarts_the_daemon);
	tcase_add_test(r, goes_on_as_another_binary);
	tcase_add_test(r, no_other_binary_while_the_incumbent_is_away);
	tcase_add_loop_test(r, broken_channel_in_take, 0, 2);
	tcase_add_checked_fixture(x, setup_idle, NULL);
	tcase_add_test(x, stale_ids_are_dropped);
	tcase_add_test(x, words_of_the_wrong_side);
	tcase_add_test(x, seal_failed_by);
	tcase_add_test(x, words_that_are_not_asked_for);
	tcase_add_test(x, hello_of_an_unknown_attempt);
	tcase_add_test(x, deadlines);
	tcase_add_test(x, silence);
	tcase_add_test(x, heartbeats_only_in_a_handoff);
	suite_add_tcase(suite, t);
	suite_add_tcase(suite, r);
	suite_add_tcase(suite, x);
	return suite_run(suite);
}
