/* N and O: the table is sane, each rule by a short script, time. */
#include <stdarg.h>
#include <stdlib.h>

#include "proto/daemon.h"
#include "suite.h"

static struct d d;
static struct d_out out;
static uint64_t now;

enum { DEADLINE = 10000, COMMIT = 5000, BEAT = 1000, FENCE = 4000 };

/* -------------------------------------------------------------- fixtures --- */

static struct hid id_of(uint8_t n)
{
	struct hid id = { { n } };
	return id;
}

static void setup(void)
{
	d_init(&d, d_table);
	now = 1000;
}

static void step(enum d_event e)
{
	d_step(&d, e, ++now, &out);
}

static void expect_(int line, enum d_state state, ...)
{
	va_list ap;
	enum d_action a;
	unsigned i = 0;

	ck_assert_msg(d.state == state, "line %d: state %s, not %s", line, d_state_id[d.state],
	              d_state_id[state]);
	va_start(ap, state);
	while ((a = (enum d_action)va_arg(ap, int)) != D_A_NONE) {
		ck_assert_msg(i < out.n && out.action[i] == a, "line %d: action %u is %s, not %s", line, i,
		              i < out.n ? d_action_name[out.action[i]] : "none", d_action_name[a]);
		i++;
	}
	va_end(ap);
	ck_assert_msg(out.n == i, "line %d: %u actions, not %u", line, out.n, i);
}
#define EXPECT(st, ...) expect_(__LINE__, D_##st, ##__VA_ARGS__, D_A_NONE)

static enum d_event hear(struct msg m)
{
	return d_event_of(&d, &m, now);
}

static struct msg hello_ack(uint8_t id)
{
	struct msg m = { .type = MSG_hello_ack };

	if (id)
		MSG_SET(&m, hello_ack, id, id_of(id));
	m.hello_ack.deadline_ms = DEADLINE;
	m.hello_ack.commit_ms = COMMIT;
	m.hello_ack.heartbeat_ms = BEAT;
	m.hello_ack.fence_ms = FENCE;
	return m;
}

static struct msg commit(uint8_t id, bool final)
{
	struct msg m = { .type = MSG_commit };

	if (id)
		MSG_SET(&m, commit, id, id_of(id));
	m.commit.final = final;
	return m;
}

static struct msg begin(uint8_t id, bool sealed)
{
	struct msg m = { .type = MSG_begin };

	if (id)
		MSG_SET(&m, begin, id, id_of(id));
	m.begin.sealed = sealed;
	return m;
}

static struct msg prepare(uint8_t id)
{
	struct msg m = { .type = MSG_prepare };

	m.prepare.id = id_of(id);
	m.prepare.deadline_ms = DEADLINE;
	return m;
}

static struct msg seal_request(uint8_t id)
{
	struct msg m = { .type = MSG_seal_request };

	m.seal_request.id = id_of(id);
	return m;
}

static struct msg resume(uint8_t id)
{
	struct msg m = { .type = MSG_resume };

	m.resume.id = id_of(id);
	return m;
}

static void successor(uint8_t id)
{
	step(D_E_APP_BEGIN);
	ck_assert_int_eq(hear(hello_ack(id)), D_E_NONE);
}

/* The successor of attempt 1, in this state. */
static void n_until(enum d_state want)
{
	static const enum d_event way[] = { D_E_BEGIN_SEALED, D_E_LOCKED, D_E_APP_READY, D_E_COMMIT };

	successor(1);
	if (want == D_LOCK_DEAD) {
		step(D_E_BEGIN_NOTHING);
		return;
	}
	for (unsigned i = 0; d.state != want; i++) {
		ck_assert_uint_lt(i, 4);
		step(way[i]);
	}
}

/* The incumbent in attempt 2, in this state. */
static void o_until(enum d_state want)
{
	static const enum d_event way[] = { D_E_PREPARE, D_E_APP_DRAINED, D_E_SEAL_REQUEST,
		                                D_E_APP_SEALED };

	n_until(D_SERVE);
	if (want == D_SERVE)
		return;
	ck_assert_int_eq(hear(prepare(2)), D_E_PREPARE);
	for (unsigned i = 0; i < 4 && d.state != want; i++)
		step(way[i]);
	if (want == D_RELOCK || want == D_REOPEN)
		step(D_E_RESUME);
	if (want == D_REOPEN)
		step(D_E_LOCKED);
	ck_assert_int_eq(d.state, want);
}

/* ----------------------------------------------------------------- table --- */

START_TEST(table_reaches_every_state)
{
	bool seen[D_STATE_COUNT] = { [D_START] = true };

	for (bool more = true; more;) {
		more = false;
		for (const struct d_row *r = d_table; r->rule; r++)
			if (seen[r->state] && !seen[r->next])
				more = seen[r->next] = true;
	}
	for (unsigned i = 0; i < D_STATE_COUNT; i++)
		ck_assert_msg(seen[i], "%s is never reached", d_state_id[i]);
}
END_TEST

START_TEST(table_uses_every_event)
{
	for (unsigned e = D_E_NONE + 1; e < D_EVENT_COUNT; e++) {
		bool used = false;
		for (const struct d_row *r = d_table; r->rule; r++)
			used |= r->event == (enum d_event)e;
		ck_assert_msg(used, "%s stands in no row", d_event_name[e]);
	}
}
END_TEST

START_TEST(table_has_no_dead_row)
{
	for (const struct d_row *a = d_table; a->rule; a++)
		for (const struct d_row *b = a + 1; b->rule; b++)
			ck_assert_msg(a->state != b->state || a->event != b->event,
			              "%s at %s: a second row that is never taken", d_state_id[b->state],
			              d_event_name[b->event]);
}
END_TEST

static const struct d_row *row(enum d_state st, enum d_event e)
{
	for (const struct d_row *r = d_table; r->rule; r++)
		if (r->state == st && r->event == e)
			return r;
	return NULL;
}

/* Who waits for S looks at its end; who has been the incumbent finds it again. LOCK waits
 * for nobody: the answer of flock comes before all else. */
START_TEST(table_leaves_nobody_waiting)
{
	for (unsigned i = 0; i < D_EXIT; i++) {
		const struct d_row *r = row(i, D_E_EOF);
		if (i == D_LOCK)
			continue;
		ck_assert_msg(r, "%s does not see the end of S", d_state_id[i]);
		if (i <= D_READY) {
			ck_assert_int_eq(r->next, D_EXIT);
			continue;
		}
		ck_assert_int_ne(r->next, D_EXIT);
		ck_assert_msg(row(r->next, D_E_CONNECTED), "%s does not find S again", d_state_id[i]);
	}
}
END_TEST

/* Only these leave, and nobody who has the flock and serves. */
START_TEST(table_exits_on_no_guess)
{
	for (const struct d_row *r = d_table; r->rule; r++)
		if (r->next == D_EXIT && r->state > D_READY)
			ck_assert_msg(r->state == D_SEALED && r->event == D_E_COMMIT, "%s exits at %s",
			              d_state_id[r->state], d_event_name[r->event]);
}
END_TEST

/* ----------------------------------------------------------------- rules --- */

START_TEST(takes_over)
{
	step(D_E_APP_BEGIN);
	EXPECT(WBEGIN, D_A_SEND_HELLO);
	hear(hello_ack(1));
	ck_assert_int_eq(hear(begin(1, true)), D_E_BEGIN_SEALED);
	step(D_E_BEGIN_SEALED);
	EXPECT(LOCK, D_A_TRY_LOCK);
	step(D_E_LOCKED);
	EXPECT(OPEN, D_A_TELL_BEGIN);
	step(D_E_APP_READY);
	EXPECT(READY, D_A_SEND_READY);
	ck_assert_int_eq(hear(commit(1, false)), D_E_COMMIT);
	step(D_E_COMMIT);   /* says it before its first client */
	EXPECT(SERVE, D_A_UNTIE, D_A_SEND_STATUS, D_A_TELL_DECIDED);
	ck_assert(!d_is_successor(&d));
}
END_TEST

START_TEST(lock_is_tried_once_after_a_seal)
{
	n_until(D_LOCK);
	step(_i ? D_E_LOCK_HELD : D_E_LOCK_FAILED);
	EXPECT(EXIT, D_A_DROP);
}
END_TEST

START_TEST(lock_of_the_dead_is_waited_for)
{
	n_until(D_LOCK_DEAD);
	step(D_E_LOCK_HELD);
	EXPECT(LOCK_DEAD);
	ck_assert(d_wants_lock(&d));
	step(_i == 0 ? D_E_LOCKED : _i == 1 ? D_E_TIMEOUT : D_E_LOCK_FAILED);
	if (_i == 0)
		EXPECT(OPEN, D_A_TELL_BEGIN);
	else
		EXPECT(EXIT, D_A_DROP);
}
END_TEST

START_TEST(n_ends_with_s)
{
	static const enum d_state in[] = { D_WBEGIN, D_LOCK_DEAD, D_OPEN, D_READY };

	if (_i == 8)
		ck_assert_int_eq(d.state, D_START);
	else
		n_until(in[_i / 2]);
	ck_assert(d_is_successor(&d));
	step(_i % 2 ? D_E_EOF : D_E_ABORT);
	EXPECT(EXIT, D_A_DROP);
}
END_TEST

START_TEST(seals_and_exits)
{
	n_until(D_SERVE);
	ck_assert_int_eq(hear(prepare(2)), D_E_PREPARE);
	step(D_E_PREPARE);
	EXPECT(DRAINING, D_A_TELL_DRAIN);
	step(D_E_APP_DRAINED);
	EXPECT(DRAINED, D_A_SEND_DRAINED);
	step(D_E_SEAL_REQUEST);
	EXPECT(SEALING, D_A_TELL_SEAL);
	step(D_E_APP_SEALED);   /* the flock goes before it is said */
	EXPECT(SEALED, D_A_UNLOCK, D_A_SEND_SEALED);
	ck_assert(!d_wants_lock(&d));
	step(D_E_COMMIT);
	EXPECT(EXIT, D_A_TELL_COMMIT);
}
END_TEST

START_TEST(serving_refuses)
{
	n_until(D_SERVE);
	step(D_E_SEAL_REQUEST);
	EXPECT(SERVE, D_A_SEND_REFUSED);
	step(D_E_RESUME);
	EXPECT(SERVE, D_A_SEND_STATUS);
	step(D_E_COMMIT);
	EXPECT(SERVE, D_A_SEND_STATUS);
	step(D_E_FINAL);
	EXPECT(SERVE, D_A_TELL_FINAL);
}
END_TEST

START_TEST(serving_outlives_s)
{
	n_until(D_SERVE);
	step(D_E_EOF);
	EXPECT(SERVE, D_A_TELL_LOST, D_A_RECONNECT);
	step(D_E_CONNECTED);
	EXPECT(SERVE, D_A_SEND_HELLO);
}
END_TEST

START_TEST(drain_is_given_up)
{
	static const enum d_event at[] = { D_E_RESUME, D_E_TIMEOUT, D_E_EOF };

	o_until(_i < 3 ? D_DRAINING : D_DRAINED);
	step(at[_i % 3]);
	if (at[_i % 3] == D_E_EOF)
		EXPECT(UNDRAIN, D_A_TELL_RESUME, D_A_RECONNECT);
	else
		EXPECT(UNDRAIN, D_A_TELL_RESUME);
	step(D_E_SEAL_REQUEST);
	EXPECT(UNDRAIN, D_A_SEND_REFUSED);
	step(D_E_APP_RESUMED);
	EXPECT(SERVE, D_A_SEND_STATUS);
}
END_TEST

START_TEST(seal_fails)
{
	o_until(D_SEALING);
	step(D_E_APP_SEAL_FAILED);
	EXPECT(SERVE, D_A_SEND_SEAL_FAILED);
}
END_TEST

/* The hook is at work when the seal is no longer wanted: the flock is kept. */
START_TEST(seal_is_given_up)
{
	static const enum d_event at[] = { D_E_RESUME, D_E_TIMEOUT, D_E_EOF };

	o_until(D_SEALING);
	step(at[_i % 3]);
	if (at[_i % 3] == D_E_EOF)
		EXPECT(UNSEAL, D_A_RECONNECT);
	else
		EXPECT(UNSEAL);
	if (_i < 3) {
		step(D_E_APP_SEALED);
		EXPECT(REOPEN, D_A_TELL_REOPEN);
		step(D_E_APP_RESUMED);
	} else {
		step(D_E_APP_SEAL_FAILED);
	}
	EXPECT(SERVE, D_A_SEND_STATUS);
}
END_TEST

START_TEST(sealed_comes_back)
{
	o_until(D_SEALED);
	step(D_E_RESUME);
	EXPECT(RELOCK, D_A_TRY_LOCK);
	step(D_E_LOCK_HELD);
	EXPECT(RELOCK);
	ck_assert(d_wants_lock(&d));
	step(D_E_EOF);
	EXPECT(RELOCK, D_A_RECONNECT);
	step(D_E_CONNECTED);
	EXPECT(RELOCK, D_A_SEND_HELLO);
	step(D_E_LOCKED);
	EXPECT(REOPEN, D_A_TELL_REOPEN);
	step(D_E_APP_RESUMED);
	EXPECT(SERVE, D_A_SEND_STATUS);
}
END_TEST

/* Alone, or S silent: polls, for as long as it takes, and never exits on a guess. */
START_TEST(sealed_polls)
{
	o_until(D_SEALED);
	step(_i ? D_E_EOF : D_E_TIMEOUT);
	if (_i)
		EXPECT(SEALED, D_A_POLL, D_A_RECONNECT);
	else
		EXPECT(SEALED, D_A_POLL);
	for (int i = 0; i < 1000; i++) {
		ck_assert(d_wants_lock(&d));
		step(D_E_LOCK_HELD);
		EXPECT(SEALED);
	}
	step(D_E_LOCKED);
	EXPECT(REOPEN, D_A_TELL_REOPEN);
}
END_TEST

/* S went away while the seal's hook was at work: nobody is there to hear of it. */
START_TEST(polls_when_it_seals_alone)
{
	o_until(D_SEALED);
	step(D_E_EOF);
	step(D_E_CONNECTED);
	EXPECT(SEALED, D_A_SEND_HELLO);
	step(D_E_COMMIT);   /* the restarted S has found the commit */
	EXPECT(EXIT, D_A_TELL_COMMIT);
}
END_TEST

/* -------------------------------------------------------- messages, time --- */

START_TEST(stale_ids_are_dropped)
{
	o_until(D_DRAINED);
	ck_assert_int_eq(hear(seal_request(1)), D_E_NONE);
	ck_assert_int_eq(hear(resume(1)), D_E_NONE);
	ck_assert_int_eq(hear(commit(1, false)), D_E_NONE);
	ck_assert_int_eq(hear(begin(1, true)), D_E_NONE);
	ck_assert_int_eq(hear(prepare(3)), D_E_NONE);   /* takes part in another */
	ck_assert_int_eq(hear(seal_request(2)), D_E_SEAL_REQUEST);
	ck_assert_int_eq(hear(resume(2)), D_E_RESUME);
}
END_TEST

START_TEST(who_serves_answers_under_the_id_it_is_asked_with)
{
	struct hid id = id_of(9);

	n_until(D_SERVE);
	ck_assert_int_eq(hear(resume(9)), D_E_RESUME);
	ck_assert(hid_equal(&d.id, &id));
	ck_assert_int_eq(hear(commit(7, true)), D_E_FINAL);
}
END_TEST

/* What only a daemon says, or what is no event: S is heard, and nothing follows. */
START_TEST(words_that_mean_nothing)
{
	static const enum msg_type types[] = { MSG_status, MSG_ready, MSG_hello, MSG_drained, MSG_heartbeat,
	                                       MSG_sockets, MSG_op_status };

	for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
		now++;
		ck_assert_int_eq(hear((struct msg){ .type = types[i] }), D_E_NONE);
		ck_assert_uint_eq(d.heard, now);
	}
	step(D_E_NONE);
	EXPECT(START);
}
END_TEST

START_TEST(abort_is_for_successors)
{
	struct msg m = { .type = MSG_abort };

	successor(1);
	ck_assert_int_eq(hear(m), D_E_ABORT);
	setup();
	n_until(D_SERVE);
	ck_assert_int_eq(hear(m), D_E_NONE);
}
END_TEST

START_TEST(silence_of_s)
{
	static const enum d_state in[] = { D_WBEGIN, D_LOCK_DEAD, D_READY };

	n_until(in[_i]);
	hear((struct msg){ .type = MSG_heartbeat });
	ck_assert_uint_eq(d_next(&d), now + FENCE);
	ck_assert_int_eq(d_tick(&d, now + FENCE - 1), D_E_NONE);
	ck_assert_int_eq(d_tick(&d, now + FENCE), D_E_TIMEOUT);
	step(D_E_TIMEOUT);
	EXPECT(EXIT, D_A_DROP);
	ck_assert_uint_eq(d_next(&d), UINT64_MAX);
}
END_TEST

/* N gives up later than S does, O earlier. */
START_TEST(own_deadlines)
{
	n_until(D_READY);
	d.heard = now + 100000;
	ck_assert_uint_eq(d_next(&d), now + DEADLINE + COMMIT + FENCE);
	setup();
	o_until(D_DRAINED);
	d.heard = now + 100000;
	ck_assert_uint_le(d_next(&d), now + DEADLINE);
	ck_assert_uint_gt(d_next(&d), now + DEADLINE - 100);
}
END_TEST

START_TEST(cold_start_has_no_deadline)
{
	successor(0);
	ck_assert_int_eq(hear(begin(0, false)), D_E_BEGIN_NOTHING);
	step(D_E_BEGIN_NOTHING);
	ck_assert_uint_eq(d_next(&d), UINT64_MAX);   /* nobody else can serve */
	ck_assert_int_eq(d_tick(&d, now + 1000000), D_E_NONE);
}
END_TEST

START_TEST(idle_has_no_timer)
{
	n_until(D_SERVE);
	ck_assert_uint_eq(d_next(&d), UINT64_MAX);
	ck_assert(!d_beats(&d) && !d_wants_lock(&d));
	setup();
	o_until(D_SEALED);
	ck_assert(d_beats(&d));
	step(D_E_TIMEOUT);
	ck_assert_uint_eq(d_next(&d), UINT64_MAX);   /* polls, once is enough */
	step(D_E_EOF);
	ck_assert(!d_beats(&d));
}
END_TEST

START_TEST(phases)
{
	for (unsigned i = 0; i < D_STATE_COUNT; i++)
		ck_assert_int_eq(d_phase_serves(i), i == D_SERVE);
	ck_assert(!d_phase_serves(D_STATE_COUNT) && !d_phase_serves(UINT64_MAX));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("daemon");
	TCase *t = tcase_create("table"), *r = tcase_create("rules"), *x = tcase_create("time");

	tcase_add_test(t, table_reaches_every_state);
	tcase_add_test(t, table_uses_every_event);
	tcase_add_test(t, table_has_no_dead_row);
	tcase_add_test(t, table_leaves_nobody_waiting);
	tcase_add_test(t, table_exits_on_no_guess);
	tcase_add_checked_fixture(r, setup, NULL);
	tcase_add_test(r, takes_over);
	tcase_add_loop_test(r, lock_is_tried_once_after_a_seal, 0, 2);
	tcase_add_loop_test(r, lock_of_the_dead_is_waited_for, 0, 3);
	tcase_add_loop_test(r, n_ends_with_s, 0, 9);
	tcase_add_test(r, seals_and_exits);
	tcase_add_test(r, serving_refuses);
	tcase_add_test(r, serving_outlives_s);
	tcase_add_loop_test(r, drain_is_given_up, 0, 6);
	tcase_add_test(r, seal_fails);
	tcase_add_loop_test(r, seal_is_given_up, 0, 6);
	tcase_add_test(r, sealed_comes_back);
	tcase_add_loop_test(r, sealed_polls, 0, 2);
	tcase_add_test(r, polls_when_it_seals_alone);
	tcase_add_checked_fixture(x, setup, NULL);
	tcase_add_test(x, stale_ids_are_dropped);
	tcase_add_test(x, who_serves_answers_under_the_id_it_is_asked_with);
	tcase_add_test(x, words_that_mean_nothing);
	tcase_add_test(x, abort_is_for_successors);
	tcase_add_loop_test(x, silence_of_s, 0, 3);
	tcase_add_test(x, own_deadlines);
	tcase_add_test(x, cold_start_has_no_deadline);
	tcase_add_test(x, idle_has_no_timer);
	tcase_add_test(x, phases);
	suite_add_tcase(suite, t);
	suite_add_tcase(suite, r);
	suite_add_tcase(suite, x);
	return suite_run(suite);
}
