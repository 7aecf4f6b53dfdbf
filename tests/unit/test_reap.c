/* What a unit left behind, ended: with a systemctl of the test's own, below real cgroups where the
 * machine lets this process make some (tests/systemd/ has it with a real systemd). */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "fault.h"
#include "leak.h"

static const char *told;

/* In the child, in systemctl's place. */
static int systemctl(int at, const char *path, char *const argv[], char *const envp[], int flags)
{
	(void)at, (void)path, (void)envp, (void)flags;
	if (strcmp(argv[6], "handoff@kvd.service") || write(STDOUT_FILENO, told, strlen(told)) < 0)
		_exit(1);
	_exit(0);
}

#define sys_execveat systemctl
#include "handoffd/reap.c"
#undef sys_execveat

#define GONE "ControlGroup=\nActiveState=failed\n"

static char dir[64], run[96], outside[96];

static void make(const char *name, int (*how)(const char *path))
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", run, name);
	ck_assert_int_ge(how(path), 0);
}

static int folder(const char *path)
{
	return mkdir(path, 0700);
}

static int file(const char *path)
{
	return close(open(path, O_CREAT | O_WRONLY, 0600));
}

static int link_outside(const char *path)
{
	return symlink(outside, path);
}

static void leave_a_directory(void)
{
	ck_assert_int_eq(folder(run), 0);
	make("supervisor.lock", file);
	make("lock", folder);
	make("lock/a", folder);
	make("lock/a/.handoff.lock", file);
	make("lock/elsewhere", link_outside);
}

static void setup(void)
{
	leak_setup();
	strcpy(dir, "/tmp/test_reap.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(run, sizeof run, "%s/kvd", dir);
	snprintf(outside, sizeof outside, "%s/outside", dir);
	ck_assert_int_eq(folder(outside), 0);
	setenv("HANDOFF_RUNTIME_DIR", dir, 1);
	unsetenv("NOTIFY_SOCKET");
	leave_a_directory();
}

static void teardown(void)
{
	told = GONE;
	ck_assert_int_eq(reap("kvd", 1000), 0);
	ck_assert_int_eq(access(run, F_OK), -1);
	ck_assert_int_eq(rmdir(outside), 0);   /* no link was followed */
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

/* Nothing is ended on a guess. */
START_TEST(systemd_does_not_say_so)
{
	static const char *const says[] = {
		"", "ActiveState", "ControlGroup=\n", "XActiveState=failed\n", "ActiveState=active\nControlGroup=/\n",
		"ControlGroup=/\nActiveState=deactivating\n", "ActiveState=\n", "ActiveState=failedly\n",
	};

	told = says[_i];
	ck_assert_int_eq(reap("kvd", 1000), 1);
	ck_assert_int_eq(access(run, F_OK), 0);
	ck_assert_int_eq(reap("other", 1000), 1);   /* our systemctl ends with 1 */
}
END_TEST

START_TEST(a_directory_is_removed)
{
	told = _i ? "ActiveState=inactive\nControlGroup=/no/such/group\n" : GONE;
	ck_assert_int_eq(reap("kvd", 1000), 0);
	ck_assert_int_eq(access(run, F_OK), -1);
}
END_TEST

START_TEST(a_supervisor_runs_there)
{
	char path[200];
	int fd;

	snprintf(path, sizeof path, "%s/supervisor.lock", run);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	told = GONE;
	ck_assert_int_eq(reap("kvd", 1000), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
	close(fd);
}
END_TEST

/* Whatever fails: 0 only if nothing is left. */
START_TEST(each_call_fails)
{
	int n;

	told = GONE;
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(reap("kvd", 1000), 0);
	n = fault_off();
	ck_assert_int_gt(n, 20);
	for (int i = 0; i < n; i++) {
		if (access(run, F_OK))
			leave_a_directory();
		fault_set(SYS_C_COUNT, i, EIO);
		const int r = reap("kvd", 1000);
		fault_off();
		ck_assert_msg(r == 1 || access(run, F_OK), "call %d (%d)", i, fault_hit);
		if (r)
			ck_assert_int_eq(access(run, F_OK), 0);
		told = GONE;
		ck_assert_int_eq(reap("kvd", 1000), 0);   /* and the next one has nothing in its way */
	}
}
END_TEST

/* -------------------------------------------------------------- cgroups --- */

static char group_path[64];

/* A group below this machine's root of version 2; -errno: it is not to be had. */
static int make_group(int *root)
{
	snprintf(group_path, sizeof group_path, "/test_reap.%d", (int)getpid());
	*root = cgroup_find("/");
	return *root < 0 ? *root : cgroup_make(*root, group_path + 1);
}

/* A process in the group. Check's own handler of SIGTERM would end the test. */
static pid_t leave_a_process(int group, void (*at_term)(int))
{
	int ready[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	if ((pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGTERM, at_term);
		while (write(ready[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	ck_assert_int_eq(cgroup_enter(group, pid), 0);
	return pid;
}

static int ended_by(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int reap_group(uint32_t stop_ms)
{
	char says[200];

	snprintf(says, sizeof says, "ActiveState=failed\nControlGroup=%s\n", group_path);
	told = says;
	return reap("kvd", stop_ms);
}

START_TEST(processes_are_ended)
{
	int root, group = make_group(&root), below;
	pid_t one, stopped;

	if (group >= 0) {
		below = cgroup_make(group, "o");
		one = leave_a_process(group, SIG_DFL);
		stopped = leave_a_process(below, SIG_DFL);
		kill(stopped, SIGSTOP);
		ck_assert_int_eq(reap_group(60000), 0);
		ck_assert_int_eq(ended_by(one), SIGTERM);
		ck_assert_int_eq(ended_by(stopped), SIGTERM);
		ck_assert_int_lt(cgroup_open(group, "o"), 0);
		close(below);
		close(group);
		ck_assert_int_eq(cgroup_remove(root, group_path + 1), 0);   /* it was left to systemd */
	}
	sys_closep(&root);
}
END_TEST

START_TEST(the_deaf_are_killed)
{
	int root, group = make_group(&root);
	pid_t pid;

	if (group >= 0) {
		pid = leave_a_process(group, SIG_IGN);
		ck_assert_int_eq(reap_group(50), 0);
		ck_assert_int_eq(ended_by(pid), SIGKILL);
		close(group);
		ck_assert_int_eq(cgroup_remove(root, group_path + 1), 0);
	}
	sys_closep(&root);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("reap");
	TCase *t = tcase_create("reap");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, systemd_does_not_say_so, 0, 8);
	tcase_add_loop_test(t, a_directory_is_removed, 0, 2);
	tcase_add_test(t, a_supervisor_runs_there);
	tcase_add_test(t, each_call_fails);
	tcase_add_test(t, processes_are_ended);
	tcase_add_test(t, the_deaf_are_killed);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
