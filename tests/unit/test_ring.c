/* A ring of record slots: what is torn, or fails, costs the record at hand and the oldest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ring.h"
#include "fault.h"
#include "leak.h"
#include "proto/slot.h"
#include "suite.h"

#define SLOT  512u
#define SLOTS 5u

static int fd;
static struct ring r;
static uint8_t buf[SLOT];

static void setup(void)
{
	leak_setup();
	fd = memfd_create("ring", MFD_CLOEXEC);
	ck_assert_int_eq(ring_open(&r, fd, SLOT, SLOTS), 0);
}

static void teardown(void)
{
	sys_fault = NULL;
	close(fd);
	leak_teardown();
}

static int add(uint64_t number, uint64_t pid)
{
	struct msg m = { .type = MSG_owner };
	uint8_t frame[SLOT];
	int n;

	m.owner.pid = pid;
	m.owner.boot = SPAN("a-boot");
	n = msg_encode(&m, 0, frame, sizeof frame);
	return ring_write(&r, number, frame + FRAME_HEADER, (size_t)n - FRAME_HEADER);
}

/* The pid that the record has, or -errno. */
static int64_t pid_of(uint64_t number)
{
	struct msg m;
	int e = ring_read(&r, number, buf, &m);

	return e ? e : (int64_t)m.owner.pid;
}

static void reopen(uint64_t newest)
{
	ck_assert_int_eq(ring_open(&r, fd, SLOT, SLOTS), 0);
	ck_assert_uint_eq(r.newest, newest);
}

START_TEST(the_last_ones_are_there)
{
	struct stat st;

	reopen(0);
	ck_assert_int_eq(pid_of(1), -ENODATA);
	for (uint64_t n = 1; n <= 3 * SLOTS + 2; n++) {
		ck_assert_int_eq(add(n, n + 100), 0);
		ck_assert_int_eq(ring_sync(&r), 0);
		reopen(n);
		for (uint64_t i = 1; i <= n; i++)
			ck_assert_int_eq(pid_of(i), i + SLOTS > n ? (int64_t)i + 100 : -ENODATA);
		ck_assert_int_eq(pid_of(n + 1), -ENODATA);
	}
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, SLOTS * SLOT);
}
END_TEST

START_TEST(the_newest_again)
{
	ck_assert_int_eq(add(1, 7), 0);
	ck_assert_int_eq(add(2, 8), 0);
	ck_assert_int_eq(add(2, 9), 0);
	reopen(2);
	ck_assert_int_eq(pid_of(1), 7);
	ck_assert_int_eq(pid_of(2), 9);
}
END_TEST

START_TEST(room_for_the_next_is_reserved)
{
	struct stat st;

	ck_assert_int_eq(add(1, 7), 0);
	ck_assert_int_eq(ring_sync(&r), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 3 * SLOT);   /* slot 0 is for number 5 */
	ck_assert_int_ge(st.st_blocks * 512, 3 * SLOT);
}
END_TEST

START_TEST(torn_at_any_byte)
{
	for (uint64_t n = 1; n <= SLOTS + 1; n++)
		ck_assert_int_eq(add(n, n), 0);
	for (size_t cut = 0; cut < SLOT_HEADER + 10; cut++) {
		/* number 7 is torn in place of number 2 */
		fault_set(SYS_C_PWRITE, 0, (int)cut ? (int)cut : -EIO);
		int e = add(SLOTS + 2, 77);
		fault_off();
		if (e) {
			ck_assert_int_eq(e, -EIO);
			reopen(SLOTS + 1);
		} else {   /* shortened, then gone on with */
			reopen(SLOTS + 2);
			ck_assert_int_eq(pid_of(SLOTS + 2), 77);
		}
		uint8_t torn[SLOT] = { 0 };
		ck_assert_int_eq(pread(fd, torn, SLOT, 2 * SLOT), SLOT);
		memset(torn + cut, 0xff, SLOT - cut);
		ck_assert_int_eq(pwrite(fd, torn, SLOT, 2 * SLOT), SLOT);
		reopen(SLOTS + 1);
		ck_assert_int_eq(pid_of(SLOTS + 1), SLOTS + 1);
		ck_assert_int_eq(pid_of(SLOTS + 2), -ENODATA);
		ck_assert_int_eq(pid_of(3), 3);
	}
}
END_TEST

START_TEST(calls_fail)
{
	ck_assert_int_eq(add(1, 1), 0);
	fault_set(SYS_C_PWRITE, 0, -ENOSPC);
	ck_assert_int_eq(add(2, 2), -ENOSPC);
	fault_set(SYS_C_FALLOCATE, 0, -ENOSPC);
	ck_assert_int_eq(add(2, 2), 0);   /* the next may find no room; this one has it */
	fault_set(SYS_C_FDATASYNC, 0, -EIO);
	ck_assert_int_eq(ring_sync(&r), -EIO);
	fault_set(SYS_C_PREAD, 0, -EIO);
	ck_assert_int_eq(pid_of(1), -EIO);
	fault_set(SYS_C_PREAD, 3, -EIO);
	ck_assert_int_eq(ring_open(&r, fd, SLOT, SLOTS), -EIO);
	fault_set(SYS_C_PREAD, 0, 100);   /* shortened */
	reopen(2);
	fault_off();
	static const uint8_t big[SLOT];
	ck_assert_int_eq(ring_write(&r, 3, big, SLOT - SLOT_HEADER + 1), -EMSGSIZE);
	ck_assert_int_eq(ring_write(&r, 3, big, SLOT - SLOT_HEADER), 0);
	ck_assert_int_eq(pid_of(3), -ENODATA);   /* whole, and no message */
}
END_TEST

START_TEST(garbage)
{
	uint8_t junk[SLOTS * SLOT];

	for (unsigned seed = 1; seed < 200; seed++) {
		srand(seed);
		for (size_t i = 0; i < sizeof junk; i++)
			junk[i] = (uint8_t)rand();
		ck_assert_int_eq(pwrite(fd, junk, sizeof junk, 0), sizeof junk);
		reopen(0);
	}
	/* a whole record whose number belongs to another place */
	uint8_t slot[SLOT];
	slot_encode(8, "x", 1, slot);
	ck_assert_int_eq(pwrite(fd, slot, SLOT, SLOT), SLOT);
	slot_encode(UINT64_MAX, "x", 1, slot);
	ck_assert_int_eq(pwrite(fd, slot, SLOT, 0), SLOT);
	reopen(0);
	ck_assert_int_eq(add(1, 5), 0);
	reopen(1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring");
	TCase *t = tcase_create("ring");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_last_ones_are_there);
	tcase_add_test(t, the_newest_again);
	tcase_add_test(t, room_for_the_next_is_reserved);
	tcase_add_test(t, torn_at_any_byte);
	tcase_add_test(t, calls_fail);
	tcase_add_test(t, garbage);
	suite_add_tcase(s, t);
	return suite_run(s);
}
