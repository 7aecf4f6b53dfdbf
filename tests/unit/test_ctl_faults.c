/*
 * Each command of handoffctl with each of its system calls failing in turn, and with all
 * transfers cut to a byte: it ends, with an exit code of the table, and leaves no descriptor.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/chan.h"
#include "base/sys.h"
#include "handoffctl/ctl.h"
#include "leak.h"
#include "suite.h"

static char dir[] = "/tmp/handoff-ctl-XXXXXX", socket_path[100];
static pid_t supervisor;

/* ---- a supervisor that says yes ---- */

static void serve(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	struct chan c;
	int r;
	struct msg m, event = { .type = MSG_op_event }, reply = { .type = MSG_op_result };

	chan_init(&c, fd);
	while ((r = chan_recv(&c, &m)) == 0)
		poll(&p, 1, -1);
	if (r < 0) {   /* only knocked, or left */
		chan_close(&c);
		return;
	}
	event.op_event.phase = SPAN("drain");
	reply.op_result.outcome = SPAN("committed");
	reply.op_result.message = SPAN("yes");
	if (m.type == MSG_op_status) {
		reply = (struct msg){ .type = MSG_op_state };
		reply.op_state.service = SPAN("kvd");
		reply.op_state.state = SPAN("idle");
		reply.op_state.supervisor_pid = 1;
	} else {
		chan_send(&c, &event, NULL, 0);
	}
	chan_send(&c, &reply, NULL, 0);
	chan_close(&c);
}

static void supervise(int listener)
{
	for (;;) {
		const int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			_exit(1);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		serve(fd);
	}
}

static void setup(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char sub[60];
	int fd;

	leak_before = leak_count();
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(sub, sizeof sub, "%s/kvd", dir);
	ck_assert_int_eq(mkdir(sub, 0755), 0);
	snprintf(socket_path, sizeof socket_path, "%s/control.sock", sub);
	strcpy(sa.sun_path, socket_path);
	setenv("HANDOFF_RUNTIME_DIR", dir, 1);
	unsetenv("MAINPID");
	signal(SIGPIPE, SIG_IGN);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	supervisor = fork();
	ck_assert_int_ge(supervisor, 0);
	if (!supervisor)
		supervise(fd);
	close(fd);
}

static void teardown(void)
{
	char sub[60];

	sys_fault = NULL;
	kill(supervisor, SIGKILL);
	waitpid(supervisor, NULL, 0);
	unlink(socket_path);
	snprintf(sub, sizeof sub, "%s/kvd", dir);
	rmdir(sub);
	ck_assert_int_eq(rmdir(dir), 0);
	leak_teardown();
}

/* ---- faults ---- */

static int calls, fail_at, failed;

static int fail_one(enum sys_call call)
{
	if (calls++ != fail_at)
		return 0;
	failed = call;
	return call == SYS_C_SOCKET || call == SYS_C_PIPE ? -EMFILE : -EIO;
}

static int cut_short(enum sys_call call)
{
	return call == SYS_C_SENDMSG || call == SYS_C_RECVMSG;
}

/* Output goes nowhere; what is said is tested elsewhere. */
static int run(const char *const *words)
{
	const int out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY);
	struct ctl c = { 0 };
	int argc = 0, code;

	fflush(NULL);
	dup2(null, 1);
	dup2(null, 2);
	while (words[argc])
		argc++;
	out_init(&c.out, true);
	code = ctl_parse(&c, argc, (char **)(uintptr_t)words);
	if (!code)
		code = c.command->run(&c);
	out_end(&c.out);
	free(c.binary_path);
	fflush(NULL);
	dup2(out, 1);
	dup2(err, 2);
	close(out);
	close(err);
	close(null);
	return code;
}

static bool known(int code)
{
	const struct ctl_exit_row *e = ctl_exits;

	while (e->what && e->code != code)
		e++;
	return e->what != NULL;
}

static const char *const commands[][6] = {
	{ "handoffctl", "upgrade", "kvd", "--binary", "/bin/sh" },
	{ "handoffctl", "upgrade" }, { "handoffctl", "plan", "kvd" },
	{ "handoffctl", "status", "kvd" },
	{ "handoffctl", "list" }, { "handoffctl", "abort" }, { "handoffctl", "stop", "kvd" },
};

START_TEST(each_call_fails)
{
	const int before = leak_count();

	for (fail_at = 0, failed = 0; failed >= 0; fail_at++) {
		calls = 0;
		failed = -1;
		sys_fault = fail_one;
		const int code = run(commands[_i]);
		sys_fault = NULL;

		const char *call = failed < 0 ? "none" : sys_call_name[failed];
		ck_assert_msg(known(code), "%s: exit code %d when call %d (%s) fails",
		              commands[_i][1], code, fail_at, call);
		ck_assert_msg(leak_count() == before, "%s: a descriptor is left when call %d "
		              "(%s) fails", commands[_i][1], fail_at, call);
		if (failed < 0)
			ck_assert_int_eq(code, 0);
	}
	ck_assert_int_gt(fail_at, 5);
}
END_TEST

START_TEST(a_byte_at_a_time)
{
	const int before = leak_count();

	sys_fault = cut_short;
	ck_assert_int_eq(run(commands[_i]), 0);
	ck_assert_int_eq(leak_count(), before);
}
END_TEST

int main(void)
{
	const int n = sizeof commands / sizeof *commands;
	Suite *s = suite_create("ctl_faults");
	TCase *t = tcase_create("faults");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, each_call_fails, 0, n);
	tcase_add_loop_test(t, a_byte_at_a_time, 0, n);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return suite_run(s);
}
