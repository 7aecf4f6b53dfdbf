/* Room for timers: with it none fails for want of memory, and without it one does. */
#include <stdbool.h>
#include <stdlib.h>

#include "handoffd/room.h"
#include "suite.h"

static bool starved;

static void *allocate(size_t n)
{
	return starved ? NULL : malloc(n);
}

static void *reallocate(void *p, size_t n)
{
	return starved ? NULL : realloc(p, n);
}

static void on_nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

/* How many of so many timers can be added without any memory; pending ones can be set anew. */
static unsigned added(struct event_base *base, unsigned n)
{
	const struct timeval later = { 60, 0 };
	struct event *v[ROOM_TIMERS];
	unsigned ok = 0;

	for (unsigned i = 0; i < n; i++)
		ck_assert_ptr_nonnull(v[i] = event_new(base, -1, 0, on_nothing, NULL));
	starved = true;
	for (unsigned i = 0; i < n; i++)
		ok += !event_add(v[i], &later);
	starved = false;
	for (unsigned i = 0; i < n; i++)
		event_free(v[i]);
	return ok;
}

START_TEST(test_room)
{
	struct event_base *base;

	event_set_mem_functions(allocate, reallocate, free);
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	ck_assert_uint_lt(added(base, ROOM_TIMERS), ROOM_TIMERS);
	starved = true;
	ck_assert_int_lt(room_for_timers(base, ROOM_TIMERS), 0);
	starved = false;
	ck_assert_int_eq(room_for_timers(base, ROOM_TIMERS), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(added(base, ROOM_TIMERS), ROOM_TIMERS);
	event_base_free(base);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("room");
	TCase *t = tcase_create("all");

	tcase_add_test(t, test_room);
	suite_add_tcase(s, t);
	return suite_run(s);
}
