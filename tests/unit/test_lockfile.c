/* The lock of the data directory: one holder, an epoch that grows, a record for people. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lockfile.h"
#include "base/proc.h"
#include "base/slots.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

static char path[64];
static int dir;
static struct lockfile l;

static void setup(void)
{
	leak_setup();
	strcpy(path, "/tmp/test_lockfile.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dir, 0);
	lockfile_init(&l, dir);
}

static void teardown(void)
{
	sys_fault = NULL;
	sys_fs_type_override = 0;
	lockfile_close(&l);
	lockfile_close(&l);   /* safe if not held */
	if (unlinkat(dir, LOCKFILE_NAME, 0))
		unlinkat(dir, LOCKFILE_NAME, AT_REMOVEDIR);
	unlinkat(dir, "other", 0);
	close(dir);
	ck_assert_int_eq(rmdir(path), 0);
	leak_teardown();
}

static int take(void)
{
	const int e = lockfile_try(&l, "\x12\xab", 2);

	lockfile_sync(&l);
	return e;
}

static void expect_record(uint64_t epoch)
{
	struct lock_owner o;
	uint64_t start;

	ck_assert_int_eq(lockfile_read(dir, &o), 0);
	ck_assert_uint_eq(o.pid, getpid());
	ck_assert_uint_eq(o.epoch, epoch);
	ck_assert_str_eq(o.build, "12ab");
	ck_assert_int_eq(proc_start_time(getpid(), &start), 0);
	ck_assert_uint_eq(o.start, start);
}

/* Runs f in a child; its result is the child's exit status. */
static int in_child(int (*f)(void))
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(f());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int child_tries(void)
{
	struct lockfile mine;
	int d = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	lockfile_init(&mine, d);
	return -lockfile_try(&mine, "c", 1);
}

START_TEST(exclusive_and_epoch_grows)
{
	struct stat st;
	struct lock_owner o;

	ck_assert_int_eq(lockfile_read(dir, &o), -ENOENT);
	for (uint64_t i = 1; i < 12; i++) {
		ck_assert_int_eq(take(), 0);
		ck_assert_int_eq(take(), 0);   /* held already: nothing changes */
		ck_assert_int_eq(l.record_error, 0);
		ck_assert_uint_eq(l.epoch, i);
		ck_assert_int_eq(in_child(child_tries), EWOULDBLOCK);
		expect_record(i);   /* read without the lock, and unharmed by who tried */
		lockfile_release(&l);
		ck_assert(!l.held);
		ck_assert_uint_eq(l.epoch, i);
	}
	ck_assert_int_eq(in_child(child_tries), 0);
	ck_assert_int_eq(lockfile_read(dir, &o), 0);
	ck_assert_uint_eq(o.epoch, 12);
	ck_assert_uint_ne(o.pid, getpid());
	ck_assert_int_eq(fstatat(dir, LOCKFILE_NAME, &st, 0), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, 1024);
}
END_TEST

/* Who asks knows a better sentence: what the record says of the other. */
START_TEST(no_sentence_when_held)
{
	struct lockfile other;

	ck_assert_int_eq(take(), 0);
	lockfile_init(&other, dir);
	ck_assert_int_eq(lockfile_try(&other, "", 0), -EWOULDBLOCK);
	ck_assert_str_eq(other.error, "");
	lockfile_close(&other);
}
END_TEST

/* A forked helper has the descriptor, so closing alone would not free the lock. */
START_TEST(release_frees_for_helpers_too)
{
	int p[2], status;
	pid_t pid;

	ck_assert_int_eq(take(), 0);
	ck_assert_int_eq(pipe2(p, O_CLOEXEC), 0);
	if ((pid = fork()) == 0) {
		close(p[1]);
		_exit(read(p[0], &(char){ 0 }, 1) != 0);   /* keeps it until the parent says so */
	}
	lockfile_release(&l);
	ck_assert_int_eq(in_child(child_tries), 0);
	close(p[1]);
	close(p[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(death_frees)
{
	ck_assert_int_eq(in_child(child_tries), 0);
	ck_assert_int_eq(take(), 0);
	ck_assert_uint_eq(l.epoch, 2);
}
END_TEST

static int replace_left;

/* Before the flock: another file takes the place of the one that was opened. */
static int replace_hook(enum sys_call call)
{
	if (call == SYS_C_FLOCK && replace_left) {
		replace_left--;
		int fd = openat(dir, "other", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		close(fd);
		renameat(dir, "other", dir, LOCKFILE_NAME);
	}
	return 0;
}

static int unlink_hook(enum sys_call call)
{
	if (call == SYS_C_FLOCK && replace_left) {
		replace_left--;
		unlinkat(dir, LOCKFILE_NAME, 0);
	}
	return 0;
}

START_TEST(replaced_between_open_and_lock)
{
	struct stat mine, there;

	replace_left = 3;
	sys_fault = _i ? unlink_hook : replace_hook;
	ck_assert_int_eq(take(), 0);
	sys_fault = NULL;
	ck_assert_int_eq(replace_left, 0);
	ck_assert_int_eq(fstat(l.fd, &mine), 0);
	ck_assert_int_eq(fstatat(dir, LOCKFILE_NAME, &there, 0), 0);
	ck_assert_uint_eq(mine.st_ino, there.st_ino);
	ck_assert_int_eq(in_child(child_tries), EWOULDBLOCK);
}
END_TEST

START_TEST(replaced_for_ever)
{
	replace_left = 1000;
	sys_fault = replace_hook;
	ck_assert_int_eq(take(), -EWOULDBLOCK);
	sys_fault = NULL;
	ck_assert_int_ge(replace_left, 900);
	ck_assert_int_eq(take(), 0);
}
END_TEST

START_TEST(symlink_in_its_place)
{
	struct lock_owner o;

	ck_assert_int_eq(symlinkat("other", dir, LOCKFILE_NAME), 0);
	ck_assert_int_eq(take(), -ELOOP);
	ck_assert_str_eq(l.error,
	                 ".handoff.lock: cannot be opened: Too many levels of symbolic links");
	ck_assert_int_eq(lockfile_read(dir, &o), -ELOOP);
	ck_assert_int_eq(faccessat(dir, "other", F_OK, 0), -1);
}
END_TEST

START_TEST(directory_in_its_place)
{
	ck_assert_int_eq(mkdirat(dir, LOCKFILE_NAME, 0700), 0);
	ck_assert_int_eq(take(), -EISDIR);
	ck_assert_str_eq(l.error, ".handoff.lock: cannot be opened: Is a directory");
}
END_TEST

/* Opening a FIFO must not wait for its other end. */
START_TEST(fifo_in_its_place)
{
	struct lock_owner o;

	ck_assert_int_eq(mkfifoat(dir, LOCKFILE_NAME, 0600), 0);
	ck_assert_int_eq(take(), -EINVAL);
	ck_assert_str_eq(l.error, ".handoff.lock: is not a regular file: Invalid argument");
	ck_assert_int_lt(lockfile_read(dir, &o), 0);
}
END_TEST

START_TEST(nfs)
{
	sys_fs_type_override = NFS_SUPER_MAGIC;
	ck_assert_int_eq(lockfile_check_fs(dir), -EREMOTE);
	ck_assert_int_eq(take(), -EREMOTE);
	ck_assert_str_eq(l.error,
	                 ".handoff.lock: lies on NFS, whose flock is no guard: Object is remote");
	ck_assert_int_eq(faccessat(dir, LOCKFILE_NAME, F_OK, 0), -1);
	sys_fs_type_override = 0;
	ck_assert_int_eq(lockfile_check_fs(dir), 0);
	fault_set(SYS_C_FSTATFS, 0, -EIO);
	ck_assert_int_eq(lockfile_check_fs(dir), -EIO);
}
END_TEST

static int child_in_read_only(void)
{
	struct lockfile mine;
	int e;

	if (geteuid() == 0 && setresuid(65534, 65534, 65534))
		return 99;
	lockfile_init(&mine, dir);
	e = lockfile_try(&mine, "", 0);
	return strcmp(mine.error, ".handoff.lock: cannot be opened: Permission denied") ? 98 : -e;
}

START_TEST(read_only_directory)
{
	ck_assert_int_eq(fchmod(dir, 0555), 0);
	ck_assert_int_eq(in_child(child_in_read_only), EACCES);
	ck_assert_int_eq(fchmod(dir, 0700), 0);
}
END_TEST

START_TEST(damaged_record)
{
	static const char junk[1024] = "junk";

	ck_assert_int_eq(take(), 0);
	lockfile_release(&l);
	int fd = openat(dir, LOCKFILE_NAME, O_WRONLY | O_CLOEXEC);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pwrite(fd, junk, 512, i * 512), 512);
	close(fd);
	struct lock_owner o;
	ck_assert_int_eq(lockfile_read(dir, &o), -EBADMSG);
	ck_assert_int_eq(take(), 0);   /* loses its epoch, never the lock */
	ck_assert_int_eq(l.record_error, 0);
	expect_record(1);
}
END_TEST

/* The record belongs to the daemon's user: an epoch that cannot grow is no epoch. */
START_TEST(highest_epoch)
{
	struct slots s = { .slot_size = 512, .place = -1 };
	struct msg m = { .type = MSG_owner };
	struct lock_owner o;

	ck_assert_int_eq(take(), 0);
	lockfile_release(&l);
	m.owner.boot = SPAN("a-boot");
	m.owner.epoch = UINT64_MAX;
	s.fd = openat(dir, LOCKFILE_NAME, O_RDWR | O_CLOEXEC);
	s.sequence = 1;
	ck_assert_int_eq(slots_store(&s, &m), 0);
	close(s.fd);
	ck_assert_int_eq(lockfile_read(dir, &o), -EBADMSG);
	ck_assert_int_eq(take(), 0);
	expect_record(1);
}
END_TEST

/* A full disk: the flock is held all the same. */
START_TEST(record_cannot_be_written)
{
	static const int errors[] = { -ENOSPC, -EIO, -EROFS };
	static const enum sys_call calls[] = { SYS_C_FALLOCATE, SYS_C_PWRITE, SYS_C_FDATASYNC };

	for (unsigned c = 0; c < 3; c++)
		for (unsigned i = 0; i < 3; i++) {
			unlinkat(dir, LOCKFILE_NAME, 0);
			fault_set(calls[c], 0, errors[i]);
			ck_assert_int_eq(take(), 0);
			fault_off();
			ck_assert_int_eq(l.record_error, errors[i]);
			ck_assert_int_eq(in_child(child_tries), EWOULDBLOCK);
			lockfile_release(&l);
			ck_assert_int_eq(take(), 0);
			ck_assert_int_eq(l.record_error, 0);
			lockfile_release(&l);
		}
}
END_TEST

/* A file system without fallocate(2) is no reason to give up. */
START_TEST(no_fallocate)
{
	fault_set(SYS_C_FALLOCATE, 0, -EOPNOTSUPP);
	ck_assert_int_eq(take(), 0);
	fault_off();
	ck_assert_int_eq(l.record_error, 0);
	expect_record(1);
}
END_TEST

/* Who has opened it ahead, or has held it, needs no descriptor to lock it. */
START_TEST(locked_without_a_descriptor)
{
	fault_set(SYS_C_OPEN, 0, -EMFILE);
	ck_assert_int_eq(lockfile_open(&l), -EMFILE);
	ck_assert_str_ne(l.error, "");
	fault_off();
	ck_assert_int_eq(lockfile_open(&l), 0);
	ck_assert_int_eq(in_child(child_tries), 0);   /* open is not locked */
	for (int i = 0; i < 2; i++) {
		fault_set(SYS_C_OPEN, 0, -EMFILE);
		ck_assert_int_eq(take(), 0);
		ck_assert_int_eq(l.record_error, 0);
		lockfile_release(&l);
		ck_assert_int_eq(fault_off(), i ? 0 : 2);   /* /proc was read ahead, too */
	}
	/* another file has its name by now: that one is opened, and locked */
	ck_assert_int_eq(unlinkat(dir, LOCKFILE_NAME, 0), 0);
	ck_assert_int_eq(take(), 0);
	ck_assert_int_eq(in_child(child_tries), EWOULDBLOCK);
}
END_TEST

/* It is free all the same. */
START_TEST(unlock_fails)
{
	ck_assert_int_eq(take(), 0);
	fault_set(SYS_C_FLOCK, 0, -EINTR);
	lockfile_release(&l);
	fault_off();
	ck_assert_int_eq(in_child(child_tries), 0);
	ck_assert_int_eq(take(), 0);
}
END_TEST

/* Each call in turn: either the lock is held and the record's fate is known, or nothing is
 * left open and there is a sentence; and the next attempt is well. */
START_TEST(every_call_fails)
{
	static const int errors[] = { -EIO, -ENOSPC, -ENOMEM, -EMFILE, -EACCES };

	ck_assert_int_eq(take(), 0);
	lockfile_release(&l);
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(take(), 0);
	int calls = fault_off();
	ck_assert_int_ge(calls, 8);
	lockfile_close(&l);
	for (int at = 0; at < calls; at++)
		for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
			int before = leak_count();
			l.error[0] = '\0';
			fault_set(SYS_C_COUNT, at, errors[i]);
			int e = take();
			fault_off();
			ck_assert_msg(e <= 0, "%d", e);
			if (e) {
				ck_assert(!l.held);
				ck_assert_int_ne(l.error[0], '\0');
			}
			lockfile_close(&l);
			ck_assert_int_eq(leak_count(), before);
			ck_assert_int_eq(take(), 0);
			ck_assert_int_eq(l.record_error, 0);
			lockfile_close(&l);
		}
	struct lock_owner o;
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(lockfile_read(dir, &o), 0);
	calls = fault_off();
	for (int at = 0; at < calls; at++) {
		fault_set(SYS_C_COUNT, at, -EIO);
		int e = lockfile_read(dir, &o);
		fault_off();
		/* without the boot's id nobody can say whose pid it is */
		ck_assert(e == -EIO || (e == 0 && o.pid == 0));
	}
}
END_TEST

/* This process, and nobody else: a child has the descriptor, and has not taken the lock. */
static void who_has_it(void)
{
	const pid_t child = fork();
	int calls;

	if (!child)
		for (;;)
			pause();
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(lockfile_held_by(dir, getpid()), 1);
	calls = fault_off();
	for (int at = 0; at < calls; at++) {   /* never that it has not */
		fault_set(SYS_C_COUNT, at, -EIO);
		ck_assert_int_ne(lockfile_held_by(dir, getpid()), 0);
		fault_off();
	}
	ck_assert_int_eq(lockfile_held_by(dir, child), 0);
	ck_assert_int_eq(lockfile_held_by(dir, getppid()), 0);
	ck_assert(!kill(child, SIGKILL));
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_le(lockfile_held_by(dir, child), 0);
}

/* Those who take a lock later stand before it in /proc/locks. */
static void take_it_first(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);   /* each processor has a list of its own */
	ck_assert(!sched_setaffinity(0, sizeof one, &one));
	ck_assert_int_eq(take(), 0);
}

static int many_locks(const char *name, int n)
{
	const int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	for (int at = 0; at < n; at++) {
		const struct flock one = { .l_type = F_WRLCK, .l_start = 2 * at, .l_len = 1 };
		ck_assert(!fcntl(fd, F_SETLK, &one));
	}
	return fd;
}

static int many, reads_left;

static int let_go(enum sys_call call)
{
	const struct flock all = { .l_type = F_UNLCK };

	if (call == SYS_C_READ && !--reads_left)
		ck_assert(!fcntl(many, F_SETLK, &all));
	return 0;
}

/* Others let theirs go while the list is read, a page at a time: what is left moves up, past its reader. */
START_TEST(a_list_that_shrinks)
{
	take_it_first();
	many = many_locks("many", 500);
	fault_set(SYS_C_READ, -1, 0);
	ck_assert_int_eq(lockfile_glance(dir), getpid());
	reads_left = fault_off();
	sys_fault = let_go;
	ck_assert_int_eq(lockfile_held_by(dir, getpid()), 1);
	sys_fault = NULL;
	close(many);
	unlinkat(dir, "many", 0);
	lockfile_close(&l);
}
END_TEST

/* Many locks of others. */
START_TEST(a_glance_is_short)
{
	enum { FILES = 8, EACH = 1000 };
	int fd[FILES];

	take_it_first();
	ck_assert_int_eq(lockfile_glance(dir), getpid());
	who_has_it();
	for (int i = 0; i < FILES; i++) {
		char name[] = "many.0";
		name[5] += (char)i;
		fd[i] = many_locks(name, EACH);
	}
	ck_assert_int_eq(lockfile_glance(dir), -E2BIG);
	ck_assert_int_eq(lockfile_holder(dir), getpid());
	who_has_it();
	for (int i = 0; i < FILES; i++) {
		char name[] = "many.0";
		name[5] += (char)i;
		close(fd[i]);
		unlinkat(dir, name, 0);
	}
	lockfile_close(&l);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_glance_is_short, a_list_that_shrinks,
		exclusive_and_epoch_grows, no_sentence_when_held, release_frees_for_helpers_too,
		death_frees, replaced_for_ever, symlink_in_its_place, directory_in_its_place,
		fifo_in_its_place, nfs, read_only_directory, damaged_record, highest_epoch,
		record_cannot_be_written, no_fallocate, every_call_fails,
		locked_without_a_descriptor, unlock_fails,
	};
	Suite *suite = suite_create("lockfile");
	TCase *t = tcase_create("lockfile");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
		tcase_add_test(t, tests[i]);
	tcase_add_loop_test(t, replaced_between_open_and_lock, 0, 2);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
