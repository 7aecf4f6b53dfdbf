/* What a unit left behind, ended: with a systemctl of the test's own, below real cgroups where the
 * machine lets this process make some (tests/systemd/ has it with a real systemd). */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "fault.h"
#include "leak.h"

static const char *told;   /* NULL: it hangs */
static uint64_t clock_leap, clock_ms;

/* In the child, in systemctl's place. */
static int systemctl(int at, const char *path, char *const argv[], char *const envp[], int flags)
{
	(void)at, (void)path, (void)envp, (void)flags;
	while (!told)
		pause();
	if (strcmp(argv[6], "handoff@kvd.service") || write(STDOUT_FILENO, told, strlen(told)) < 0)
		_exit(1);
	_exit(0);
}

/* Each look at it is later by this. */
static uint64_t leaping_ms(void)
{
	return sys_now_ms() + (clock_ms += clock_leap);
}

#define sys_execveat systemctl
#define sys_now_ms leaping_ms
#include "handoffd/reap.c"
#include "suite.h"
#undef sys_execveat
#undef sys_now_ms

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

START_TEST(systemctl_hangs)
{
	told = NULL;
	clock_leap = ANSWER_MS + 1;
	ck_assert_int_eq(reap("kvd", 1000), 1);
	clock_leap = 0;
	ck_assert_int_eq(access(run, F_OK), 0);
}
END_TEST

/* The unit that ends what is left has a limit of its own: systemd is asked for as long as that may take. */
START_TEST(systemd_is_asked_for_time)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char text[100];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t n;

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/notify", dir);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	setenv("NOTIFY_SOCKET", sa.sun_path, 1);
	told = GONE;
	ck_assert_int_eq(reap("kvd", 1000), 0);
	n = recv(fd, text, sizeof text, MSG_DONTWAIT);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(strncmp(text, "EXTEND_TIMEOUT_USEC=21000000", (size_t)n), 0);
	unsetenv("NOTIFY_SOCKET");
	unlink(sa.sun_path);
	close(fd);
}
END_TEST

static int reap_failing(int i)
{
	int r;

	fault_set(SYS_C_COUNT, i, -EIO);
	r = reap("kvd", 50);
	fault_off();
	return r;
}

/* A systemctl that could not be waited for, too. */
static void wait_for_all(void)
{
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* Whatever fails: 0 only if nothing is left. */
START_TEST(each_call_fails)
{
	int n;

	told = GONE;
	ck_assert_int_eq(reap_failing(-1), 0);
	n = fault_seen;
	ck_assert_int_gt(n, 20);
	for (int i = 0; i < n; i++) {
		if (access(run, F_OK))
			leave_a_directory();
		const int r = reap_failing(i);
		ck_assert_msg(r == 1 || access(run, F_OK), "call %d (%d)", i, fault_hit);
		if (r)
			ck_assert_int_eq(access(run, F_OK), 0);
		wait_for_all();
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

/* Nobody who is left is taken for ended. */
START_TEST(each_call_at_a_group_fails)
{
	int root, group = make_group(&root), n = 1;
	char says[200];

	if (group >= 0) {
		snprintf(says, sizeof says, "ActiveState=failed\nControlGroup=%s\n", group_path);
		told = says;
		for (int i = -1; i < n; i++) {
			const pid_t pid = leave_a_process(group, SIG_DFL);
			const int r = reap_failing(i);

			n = i < 0 ? fault_seen : n;
			if (!r)
				ck_assert_msg(!cgroup_has(group, pid), "call %d (%s)", i, i < 0 ? "" : sys_call_name[fault_hit]);
			kill(pid, SIGKILL);
			wait_for_all();
		}
		ck_assert_int_gt(n, 20);
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

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, systemd_does_not_say_so, 0, 8);
	tcase_add_loop_test(t, a_directory_is_removed, 0, 2);
	tcase_add_test(t, a_supervisor_runs_there);
	tcase_add_test(t, systemctl_hangs);
	tcase_add_test(t, systemd_is_asked_for_time);
	tcase_add_test(t, each_call_fails);
	tcase_add_test(t, processes_are_ended);
	tcase_add_test(t, the_deaf_are_killed);
	tcase_add_test(t, each_call_at_a_group_fails);
	suite_add_tcase(s, t);
	return suite_run(s);
}
