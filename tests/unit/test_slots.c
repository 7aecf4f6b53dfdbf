/* Two record slots: whatever a crash or a failing call leaves, the last whole record counts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/slots.h"
#include "fault.h"
#include "leak.h"
#include "proto/slot.h"
#include "suite.h"

#define SLOT 512u

static int fd;
static struct slots s;
static uint8_t buf[SLOTS_PAYLOAD_MAX + SLOT_HEADER];
static char err[100];

static void setup(void)
{
	leak_setup();
	fd = memfd_create("slots", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}

static void teardown(void)
{
	sys_fault = NULL;
	close(fd);
	leak_teardown();
}

static struct msg owner(uint64_t epoch)
{
	struct msg m = { .type = MSG_owner };

	m.owner.pid = 1;
	m.owner.boot = SPAN("a-boot");
	m.owner.epoch = epoch;
	return m;
}

static int load(uint64_t *ret_epoch)
{
	struct msg m;
	int e = slots_load(&s, fd, SLOT, buf, &m, err, sizeof err);

	if (!e)
		*ret_epoch = m.owner.epoch;
	return e;
}

static void expect(uint64_t epoch)
{
	uint64_t got = 0;

	ck_assert_int_eq(load(&got), 0);
	ck_assert_uint_eq(got, epoch);
}

static void store(uint64_t epoch)
{
	struct msg m = owner(epoch);

	ck_assert_int_eq(slots_store(&s, &m), 0);
}

START_TEST(empty)
{
	uint64_t e;

	ck_assert_int_eq(load(&e), -ENODATA);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	ck_assert_int_eq(load(&e), -ENODATA);
	ck_assert_int_eq(s.place, -1);
}
END_TEST

START_TEST(alternately)
{
	uint64_t e;
	struct stat st;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	for (uint64_t i = 1; i < 10; i++) {
		store(i);
		ck_assert_int_eq(s.place, i % 2 ? 0 : 1);
		ck_assert_uint_eq(s.sequence, i);
		expect(i);
		ck_assert_uint_eq(s.sequence, i);
		ck_assert_int_eq(s.place, i % 2 ? 0 : 1);
	}
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 2 * SLOT);   /* it never grows */
}
END_TEST

/* A write that stops after i bytes, whatever lay there before: the older record counts, and
 * the next store goes over the torn one. */
START_TEST(torn_at_each_byte)
{
	uint8_t older[2 * SLOT], newer[2 * SLOT], torn[2 * SLOT];
	uint64_t e;
	size_t end = 2 * SLOT;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	for (uint64_t i = 7; i < 7 + (uint64_t)_i; i++)
		store(i);
	store(20);
	ck_assert_int_eq(pread(fd, older, sizeof older, 0), sizeof older);
	store(21);
	ck_assert_int_eq(pread(fd, newer, sizeof newer, 0), sizeof newer);
	while (newer[end - 1] == older[end - 1])
		end--;
	size_t at = (size_t)s.place * SLOT;
	for (size_t i = 0; at + i < end; i++) {
		memcpy(torn, older, sizeof torn);
		memcpy(torn + at, newer + at, i);
		ck_assert_int_eq(pwrite(fd, torn, sizeof torn, 0), sizeof torn);
		expect(20);
		store(30);
		expect(30);
	}
	memcpy(torn, older, sizeof torn);
	memcpy(torn + at, newer + at, end - at);
	ck_assert_int_eq(pwrite(fd, torn, sizeof torn, 0), sizeof torn);
	expect(21);
}
END_TEST

/* The disk may keep any set of the sectors of a record that was not yet synced: 64 byte
 * pieces in every order stand for them. */
START_TEST(power_loss)
{
	uint8_t older[2 * SLOT], newer[2 * SLOT], mix[2 * SLOT];
	uint64_t e, got;
	const unsigned pieces = 5;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	store(1), store(2), store(3);
	ck_assert_int_eq(pread(fd, older, sizeof older, 0), sizeof older);
	store(1ull << 60);
	ck_assert_int_eq(pread(fd, newer, sizeof newer, 0), sizeof newer);
	for (unsigned set = 0; set < 1u << pieces; set++) {
		memcpy(mix, older, sizeof mix);
		for (unsigned i = 0; i < pieces; i++)
			if (set >> i & 1)
				memcpy(mix + SLOT + 16 * i, newer + SLOT + 16 * i, 16);
		ck_assert_int_eq(pwrite(fd, mix, sizeof mix, 0), sizeof mix);
		bool whole = !memcmp(mix, newer, sizeof mix);
		ck_assert_int_eq(load(&got), 0);
		ck_assert_uint_eq(got, whole ? 1ull << 60 : 3);
	}
}
END_TEST

START_TEST(every_bit_counts)
{
	uint64_t e;
	uint8_t b;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	store(1), store(2);
	off_t at = (off_t)(s.place * (int)SLOT);
	ck_assert_int_eq(pread(fd, &b, 1, at + 16), 1);
	for (int bit = 0; bit < 8 * (int)(SLOT_HEADER + b); bit++) {
		uint8_t c;
		ck_assert_int_eq(pread(fd, &b, 1, at + bit / 8), 1);
		c = b ^ (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(pwrite(fd, &c, 1, at + bit / 8), 1);
		expect(1);
		ck_assert_int_eq(pwrite(fd, &b, 1, at + bit / 8), 1);
	}
	expect(2);
}
END_TEST

START_TEST(both_damaged)
{
	uint64_t e;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	store(1), store(2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pwrite(fd, "x", 1, (off_t)(i * SLOT + 5)), 1);
	ck_assert_int_eq(load(&e), -EBADMSG);
	ck_assert_str_eq(err, "both records are damaged");
	store(9);   /* and it can be begun anew */
	expect(9);
}
END_TEST

/* A file may say any number; what is written over it is the newest all the same. */
START_TEST(highest_sequence)
{
	uint64_t e;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	s.sequence = UINT64_MAX - 2;
	for (uint64_t i = 1; i < 6; i++) {
		store(i);
		expect(i);
	}
	ck_assert_uint_eq(s.sequence, 2);
}
END_TEST

START_TEST(cut_file)
{
	uint64_t e;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	store(1), store(2);
	ck_assert_int_eq(ftruncate(fd, SLOT + 10), 0);
	expect(1);
	ck_assert_int_eq(ftruncate(fd, 10), 0);
	ck_assert_int_eq(load(&e), -EBADMSG);
}
END_TEST

START_TEST(too_large)
{
	struct msg m = owner(1);
	uint64_t e;

	load(&e);
	s.slot_size = 30;
	ck_assert_int_eq(slots_store(&s, &m), -EMSGSIZE);
	m.owner.boot = (struct span){ (const char *)buf, 65 };
	ck_assert_int_eq(slots_store(&s, &m), -EMSGSIZE);
}
END_TEST

/* Each call of store fails with each error, or is short: the last good record counts, and
 * the next store works. */
START_TEST(store_fails)
{
	static const int with[] = { -ENOSPC, -EIO, -EDQUOT, 1, 7 };
	uint64_t e;
	struct msg m = owner(1);

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(slots_store(&s, &m), 0);
	int calls = fault_off();
	ck_assert_int_eq(calls, 2);   /* one write, one fdatasync */
	for (int round = 0; round < 4; round++)
		for (int at = 0; at < calls; at++)
			for (unsigned i = 0; i < sizeof with / sizeof *with; i++) {
				uint64_t last = s.sequence;
				bool is_short = with[i] > 0;
				m.owner.epoch = last + 1;
				if (is_short && at > 0)
					continue;   /* only transfers can be short */
				fault_set(SYS_C_COUNT, at, with[i]);
				ck_assert_int_eq(slots_store(&s, &m), is_short ? 0 : with[i]);
				fault_off();
				ck_assert_uint_eq(s.sequence, is_short ? last + 1 : last);
				/* what was not synced may be there or not: never less */
				uint64_t got = 0;
				struct slots keep = s;
				ck_assert_int_eq(load(&got), 0);
				ck_assert_uint_ge(got, last);
				s = keep;
				store(s.sequence + 1);
				expect(s.sequence);
			}
}
END_TEST

/* A write that fails after some bytes tears its slot and no other. */
static int half_hook(enum sys_call call)
{
	static int n;

	return call != SYS_C_PWRITE ? 0 : n++ % 2 ? -ENOSPC : 30;
}

START_TEST(store_fails_halfway)
{
	struct msg m = owner(99);
	uint64_t e;

	load(&e);
	store(1), store(2);
	for (int i = 0; i < 3; i++) {
		sys_fault = half_hook;
		ck_assert_int_eq(slots_store(&s, &m), -ENOSPC);
		sys_fault = NULL;
		expect(2);
	}
	store(3);
	expect(3);
}
END_TEST

START_TEST(load_fails)
{
	uint64_t e;

	load(&e);
	ck_assert_int_eq(slots_reserve(fd, SLOT), 0);
	store(1), store(2);
	fault_set(SYS_C_COUNT, -1, 0);
	expect(2);
	int calls = fault_off();
	ck_assert_int_ge(calls, 3);
	for (int at = 0; at < calls; at++) {
		fault_set(SYS_C_COUNT, at, -EIO);
		ck_assert_int_eq(load(&e), -EIO);
		fault_set(SYS_C_COUNT, at, 3);
		expect(2);
		fault_off();
	}
	fault_set(SYS_C_FALLOCATE, 0, -ENOSPC);
	ck_assert_int_eq(slots_reserve(fd, SLOT), -ENOSPC);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		empty, alternately, power_loss, every_bit_counts, both_damaged, highest_sequence, cut_file, too_large,
		store_fails, store_fails_halfway, load_fails,
	};
	Suite *suite = suite_create("slots");
	TCase *t = tcase_create("slots");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	tcase_add_loop_test(t, torn_at_each_byte, 0, 4);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
