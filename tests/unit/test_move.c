/* The two ends of the transfer channel, message by message: what fits, and what breaks it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/move.h"
#include "suite.h"

/* A message as it would come: encoded and decoded, so that its arrays are readable. */
static struct msg *come(const struct msg *m)
{
	static uint8_t frame[FRAME_HEADER + 81920];
	static struct msg got;
	char err[200];
	int n = msg_encode(m, 1, frame, sizeof frame);

	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(msg_decode(frame + FRAME_HEADER, (size_t)n - FRAME_HEADER, &got, err, sizeof err), 0);
	return &got;
}

static struct msg *answer(uint32_t batch, uint64_t kept)
{
	struct msg m = { .type = MSG_answer };

	m.answer.batch = batch;
	m.answer.kept = kept;
	return come(&m);
}

static struct msg *batch(uint32_t number, unsigned n, const uint64_t *size, size_t inside)
{
	static char states[MOVE_INLINE], name[MOVE_NAME + 1];
	struct span names[MOVE_BATCH];
	struct msg m = { .type = MSG_batch };

	for (unsigned i = 0; i < n; i++)
		names[i] = (struct span){ name, 0 };
	m.batch.batch = number;
	m.batch.names = (struct texts){ .n = n, .v = names };
	m.batch.sizes = (struct uints){ .n = n, .v = size };
	m.batch.states = (struct span){ states, inside };
	return come(&m);
}

static struct msg *end(uint32_t number, uint32_t connections)
{
	struct msg m = { .type = MSG_end };

	m.end.batch = number;
	m.end.connections = connections;
	return come(&m);
}

static struct msg *taking(void)
{
	struct msg m = { .type = MSG_taking };
	return come(&m);
}

/* ---------------------------------------------------------------- O's end --- */

/* Sends batches of n[0], n[1], ... until 0. */
static struct give sent(const unsigned *n)
{
	struct give g;
	struct msg m;

	give_init(&g, 1000);
	for (unsigned i = 0; n[i]; i++) {
		ck_assert(give_may_send(&g));
		m.type = MSG_batch;
		give_batch(&g, n[i], &m);
		ck_assert_uint_eq(m.batch.batch, i + 1);
	}
	return g;
}

START_TEST(all_is_answered)
{
	struct give g = sent((unsigned[]){ 64, 2, 0 });
	struct give_answer a;
	struct msg m;

	ck_assert_int_eq(give_hear(&g, answer(1, UINT64_MAX), &a), 1);
	ck_assert(a.first == 0 && a.n == 64 && a.kept == UINT64_MAX);
	give_end(&g, &m);
	ck_assert(m.type == MSG_end && m.end.batch == 3 && m.end.connections == 66);
	ck_assert(!give_may_send(&g));
	ck_assert_int_eq(give_hear(&g, answer(2, 2), &a), 1);
	ck_assert(a.first == 64 && a.n == 2 && a.kept == 2);
	ck_assert_int_eq(g.state, GIVE_ENDED);
	ck_assert_int_eq(give_hear(&g, answer(3, 0), &a), 0);
	ck_assert_int_eq(g.state, GIVE_DONE);
	give_lost(&g, true, "its end");   /* N may die now: what was said counts */
	ck_assert_int_eq(g.state, GIVE_DONE);
	ck_assert(!g.taking);
	ck_assert_int_eq(give_hear(&g, taking(), &a), 0);
	ck_assert(g.taking);
	ck_assert_int_eq(give_hear(&g, taking(), &a), -1);   /* a second one is a lie, and the first stays */
	ck_assert(g.taking && g.state == GIVE_DONE);
	g.taking = false;
	ck_assert_int_eq(give_hear(&g, &(struct msg){ .type = MSG_end }, &a), -1);
	ck_assert(g.taking && g.state == GIVE_DONE);   /* who lies may touch them, too */
}
END_TEST

START_TEST(window)
{
	struct give g = sent((unsigned[]){ 1, 1, 1, 1, 1, 1, 1, 1, 0 });
	struct give_answer a;

	ck_assert(!give_may_send(&g));
	for (unsigned i = 1; i <= MOVE_WINDOW; i++) {
		ck_assert_int_eq(give_hear(&g, answer(i, i & 1), &a), 1);
		ck_assert(a.first == i - 1 && a.n == 1 && a.kept == (i & 1));
		ck_assert(give_may_send(&g));
	}
	ck_assert_uint_eq(g.kept, MOVE_WINDOW / 2);
}
END_TEST

START_TEST(state_in_all)
{
	struct give g;

	give_init(&g, 100);
	ck_assert(give_state(&g, 60));
	ck_assert(!give_state(&g, 41));   /* and costs nothing */
	ck_assert(give_state(&g, 40));
	ck_assert(!give_state(&g, 1) && give_state(&g, 0));
	ck_assert(!give_state(&g, UINT64_MAX));
}
END_TEST

static const struct { const char *what; int type; uint32_t batch; uint64_t kept; bool ended; } bad_answers[] = {
	{ "an answer to nothing", MSG_answer, 3, 0, false },
	{ "answered twice, or out of order", MSG_answer, 2, 0, false },
	{ "number 0", MSG_answer, 0, 0, false },
	{ "what was not sent", MSG_answer, 1, 4, false },
	{ "a bit far beyond", MSG_answer, 1, UINT64_C(1) << 63, false },
	{ "Taking while batches are sent", MSG_taking, 0, 0, false },
	{ "Taking before all is answered", MSG_taking, 0, 0, true },
	{ "Batch from N", MSG_batch, 1, 0, false },
	{ "End from N", MSG_end, 3, 0, true },
	{ "another message", MSG_heartbeat, 0, 0, false },
};

START_TEST(answers_that_break)
{
	struct give g = sent((unsigned[]){ 2, 2, 0 });
	struct give_answer a;
	struct msg e, m = { .type = bad_answers[_i].type };
	uint64_t size = 0;

	if (bad_answers[_i].ended)
		give_end(&g, &e);
	const struct msg *in = m.type == MSG_answer ? answer(bad_answers[_i].batch, bad_answers[_i].kept)
	                       : m.type == MSG_batch ? batch(1, 1, &size, 0)
	                       : m.type == MSG_end ? end(3, 4) : come(&m);
	ck_assert_int_eq(give_hear(&g, in, &a), -1);
	ck_assert_int_eq(g.state, GIVE_BROKEN);
	ck_assert_ptr_nonnull(g.why);
	ck_assert(!g.taking && !give_may_send(&g));
	ck_assert_int_eq(give_hear(&g, answer(1, 0), &a), -1);   /* and stays so */
}
END_TEST

START_TEST(more_answers_than_batches)
{
	struct give g = sent((unsigned[]){ 0 });
	struct give_answer a;

	ck_assert_int_eq(give_hear(&g, answer(1, 0), &a), -1);
	g = sent((unsigned[]){ 1, 0 });
	ck_assert_int_eq(give_hear(&g, answer(1, 1), &a), 1);
	ck_assert_int_eq(give_hear(&g, answer(2, 0), &a), -1);
}
END_TEST

START_TEST(nothing_was_given)
{
	struct give g;
	struct give_answer a;
	struct msg m;

	give_init(&g, 0);
	give_end(&g, &m);
	ck_assert(m.end.batch == 1 && m.end.connections == 0);
	ck_assert_int_eq(give_hear(&g, answer(1, 0), &a), 0);
	ck_assert_int_eq(g.state, GIVE_DONE);
}
END_TEST

/* ---------------------------------------------------------------- N's end --- */

START_TEST(batches_and_end)
{
	struct take t;
	struct take_batch b;
	struct msg m;

	take_init(&t, 1u << 20);
	ck_assert(take_complete(&t));
	ck_assert_int_eq(take_hear(&t, batch(1, 3, (uint64_t[]){ 5, 70000, 7 }, 12), &b), 1);
	ck_assert(b.n == 3 && b.at[0] == 0 && b.at[2] == 5 && b.size[1] == 70000 && !b.over);
	take_answer(&t, 5, &m);
	ck_assert(m.type == MSG_answer && m.answer.batch == 1 && m.answer.kept == 5);
	ck_assert(!take_complete(&t));
	ck_assert_int_eq(take_hear(&t, end(2, 3), &b), 0);
	take_answer(&t, 0, &m);
	ck_assert(m.answer.batch == 2 && m.answer.kept == 0);
	ck_assert(take_complete(&t));
}
END_TEST

START_TEST(fullest)
{
	struct take t;
	struct take_batch b;
	uint64_t size[MOVE_BATCH];

	for (unsigned i = 0; i < MOVE_BATCH; i++)
		size[i] = MOVE_INLINE / MOVE_BATCH;
	take_init(&t, UINT64_MAX);
	ck_assert_int_eq(take_hear(&t, batch(1, MOVE_BATCH, size, MOVE_INLINE), &b), 1);
	ck_assert_uint_eq(b.n, MOVE_BATCH);
	size[0] = MOVE_INLINE;
	ck_assert_int_eq(take_hear(&t, batch(2, 1, size, MOVE_INLINE), &b), 1);
	ck_assert_uint_eq(move_fds(batch(3, 1, size, MOVE_INLINE)), 1);
	size[0] = MOVE_INLINE + 1;
	ck_assert_uint_eq(move_fds(batch(3, 1, size, 0)), 2);
}
END_TEST

START_TEST(too_much_state_is_not_kept)
{
	struct take t;
	struct take_batch b;

	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, batch(1, 3, (uint64_t[]){ 6, 5, 4 }, 15), &b), 1);
	ck_assert_uint_eq(b.over, 2);   /* the others fit */
	ck_assert_int_eq(take_hear(&t, batch(2, 2, (uint64_t[]){ 1, UINT64_MAX }, 1), &b), 1);
	ck_assert_uint_eq(b.over, 3);
}
END_TEST

static const struct { const char *what; uint32_t number; unsigned n; size_t inside; uint64_t size[2]; } bad_batches[] = {
	{ "a batch is missing", 3, 1, 0, { 0 } },
	{ "it came twice", 1, 1, 0, { 0 } },
	{ "number 0", 0, 1, 0, { 0 } },
	{ "empty", 2, 0, 0, { 0 } },
	{ "fewer bytes than it says", 2, 2, 5, { 3, 3 } },
	{ "more bytes than it says", 2, 2, 7, { 3, 3 } },
	{ "bytes of one that lies beside", 2, 1, MOVE_INLINE, { MOVE_INLINE + 1 } },
	{ "more inside than a batch may have", 2, 2, 4, { 65536, 4 } },
};

START_TEST(batches_that_break)
{
	struct take t;
	struct take_batch b;

	take_init(&t, 1u << 30);
	ck_assert_int_eq(take_hear(&t, batch(1, 1, (uint64_t[]){ 1 }, 1), &b), 1);
	ck_assert_int_eq(take_hear(&t, batch(bad_batches[_i].number, bad_batches[_i].n, bad_batches[_i].size,
	                                     bad_batches[_i].inside), &b), -1);
	ck_assert_ptr_nonnull(t.why);
	ck_assert_int_eq(take_hear(&t, end(2, 1), &b), -1);   /* and stays so */
}
END_TEST

START_TEST(other_counts)
{
	uint64_t size[2] = { 0, 0 };
	char name[MOVE_NAME + 1];
	struct span names[2] = { { name, 1 }, { name, sizeof name } };
	struct take t;
	struct take_batch b;
	struct msg m = { .type = MSG_batch };

	memset(name, 'n', sizeof name);
	m.batch.batch = 1;
	m.batch.sizes = (struct uints){ .n = 2, .v = size };
	m.batch.names = (struct texts){ .n = 1, .v = names };
	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, come(&m), &b), -1);
	m.batch.names.n = 2;
	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, come(&m), &b), -1);   /* a name of 65 bytes */
	names[1].n--;
	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, come(&m), &b), 1);
}
END_TEST

START_TEST(ends_that_break)
{
	struct take t;
	struct take_batch b;

	for (int i = 0; i < 4; i++) {
		take_init(&t, 10);
		ck_assert_int_eq(take_hear(&t, batch(1, 1, (uint64_t[]){ 1 }, 1), &b), 1);
		if (i < 2)   /* a wrong number, a wrong count */
			ck_assert_int_eq(take_hear(&t, i ? end(2, 2) : end(1, 1), &b), -1);
		else
			ck_assert_int_eq(take_hear(&t, end(2, 1), &b), 0);
		if (i == 2)
			ck_assert_int_eq(take_hear(&t, end(3, 1), &b), -1);   /* a second End */
		if (i == 3)
			ck_assert_int_eq(take_hear(&t, batch(3, 1, (uint64_t[]){ 1 }, 1), &b), -1);
	}
}
END_TEST

START_TEST(from_the_wrong_side)
{
	struct take t;
	struct take_batch b;
	struct msg beat = { .type = MSG_heartbeat };

	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, taking(), &b), -1);
	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, answer(1, 0), &b), -1);
	take_init(&t, 10);
	ck_assert_int_eq(take_hear(&t, come(&beat), &b), -1);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

int main(void)
{
	Suite *s = suite_create("move");
	TCase *o = tcase_create("give"), *n = tcase_create("take");

	suite_add_tcase(s, o);
	tcase_add_test(o, all_is_answered);
	tcase_add_test(o, window);
	tcase_add_test(o, state_in_all);
	tcase_add_loop_test(o, answers_that_break, 0, COUNT(bad_answers));
	tcase_add_test(o, more_answers_than_batches);
	tcase_add_test(o, nothing_was_given);
	suite_add_tcase(s, n);
	tcase_add_test(n, batches_and_end);
	tcase_add_test(n, fullest);
	tcase_add_test(n, too_much_state_is_not_kept);
	tcase_add_loop_test(n, batches_that_break, 0, COUNT(bad_batches));
	tcase_add_test(n, other_counts);
	tcase_add_test(n, ends_that_break);
	tcase_add_test(n, from_the_wrong_side);
	return suite_run(s);
}
