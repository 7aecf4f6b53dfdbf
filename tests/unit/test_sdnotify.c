/* sdnotify: what a service manager would receive, at a path and at an abstract name. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fault.h"
#include "handoffd/sdnotify.h"
#include "leak.h"

static char name[64];
static int manager;

/* A manager's socket; '@' for an abstract name. */
static void listen_at(const char *at)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t n = sizeof sa.sun_family + strlen(at) + (*at == '/');

	snprintf(name, sizeof name, "%s", at);
	strcpy(sa.sun_path, at);
	if (*at == '@')
		sa.sun_path[0] = '\0';
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(manager, (struct sockaddr *)&sa, n), 0);
	setenv("NOTIFY_SOCKET", at, 1);
}

static void setup(void)
{
	leak_setup();
	manager = -1;
	*name = '\0';
	unsetenv("NOTIFY_SOCKET");
}

static void teardown(void)
{
	sdnotify_close();
	if (manager >= 0)
		close(manager);
	if (*name == '/')
		unlink(name);
	leak_teardown();
}

/* The next datagram; its descriptors in fds, their number in *n. */
static const char *heard(int *fds, unsigned *n)
{
	static char text[256];
	union { struct cmsghdr h; char space[CMSG_SPACE(253 * sizeof(int))]; } c;
	struct iovec iov = { text, sizeof text - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
	ssize_t r = recvmsg(manager, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = r < 0 ? NULL : CMSG_FIRSTHDR(&m);

	*n = h ? (h->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (h)
		memcpy(fds, CMSG_DATA(h), *n * sizeof(int));
	if (r < 0)
		return "nothing";
	text[r] = '\0';
	return text;
}

static void says(const char *text)
{
	unsigned n;

	ck_assert_str_eq(heard(NULL, &n), text);
}

START_TEST(path_and_abstract)
{
	char at[64];

	snprintf(at, sizeof at, _i ? "@handoff-test-%d" : "/tmp/handoff-test-%d", (int)getpid());
	listen_at(at);
	ck_assert_int_eq(sdnotify_open(), 1);
	ck_assert_int_eq(sdnotify("READY=1\nSTATUS=it serves", NULL, 0), 1);
	says("READY=1\nSTATUS=it serves");
	/* read once: what the variable says later is not heard */
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(sdnotify("STOPPING=1", NULL, 0), 1);
	says("STOPPING=1");
	says("nothing");
}
END_TEST

START_TEST(descriptors)
{
	int out[253], in[253];
	unsigned n;
	struct stat a, b;

	listen_at("@handoff-test-fds");
	ck_assert_int_eq(sdnotify_open(), 1);
	for (int i = 0; i < 253; i++)
		ck_assert_int_ge(out[i] = open(i % 2 ? "/dev/null" : "/dev/zero", O_RDONLY | O_CLOEXEC), 0);
	ck_assert_int_eq(sdnotify("FDSTORE=1", out, 254), -EINVAL);
	for (unsigned count = 1; count <= 253; count += 252) {
		ck_assert_int_eq(sdnotify("FDSTORE=1\nFDNAME=x", out, count), 1);
		ck_assert_str_eq(heard(in, &n), "FDSTORE=1\nFDNAME=x");
		ck_assert_uint_eq(n, count);
		for (unsigned i = 0; i < n; i++) {
			fstat(out[i], &a);
			fstat(in[i], &b);
			ck_assert_uint_eq(a.st_rdev, b.st_rdev);
			close(in[i]);
		}
	}
	for (int i = 0; i < 253; i++)
		close(out[i]);
}
END_TEST

START_TEST(nobody)
{
	char longest[200];

	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), 0);
	ck_assert_int_eq(sdnotify_open(), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	ck_assert_int_eq(sdnotify_open(), 0);
	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), 0);
	/* what is no address tells nobody, and does not hinder */
	memset(longest, 'x', sizeof longest - 1);
	longest[0] = '/';
	longest[sizeof longest - 1] = '\0';
	const char *const bad[] = { "relative/path", "@", "/", "vsock:2:1234", longest };
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		setenv("NOTIFY_SOCKET", bad[i], 1);
		ck_assert_int_eq(sdnotify_open(), -EAFNOSUPPORT);
		ck_assert_int_eq(sdnotify("READY=1", NULL, 0), 0);
	}
}
END_TEST

START_TEST(manager_gone)
{
	listen_at("@handoff-test-gone");
	ck_assert_int_eq(sdnotify_open(), 1);
	close(manager);
	manager = -1;
	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), -ECONNREFUSED);
}
END_TEST

START_TEST(full_queue)
{
	int sent = 0, r;

	listen_at("@handoff-test-full");
	ck_assert_int_eq(sdnotify_open(), 1);
	while ((r = sdnotify("STATUS=again", NULL, 0)) == 1)
		ck_assert_int_lt(sent++, 100000);
	ck_assert_int_eq(r, -EAGAIN);
	says("STATUS=again");
	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), 1);
}
END_TEST

START_TEST(each_call_fails)
{
	listen_at("@handoff-test-fault");
	fault_set(SYS_C_SOCKET, 0, -EMFILE);
	ck_assert_int_eq(sdnotify_open(), -EMFILE);
	ck_assert_int_eq(fault_off(), 1);
	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), 0);
	ck_assert_int_eq(sdnotify_open(), 1);
	fault_set(SYS_C_SENDMSG, 0, -ENOBUFS);
	ck_assert_int_eq(sdnotify("READY=1", NULL, 0), -ENOBUFS);
	ck_assert_int_eq(fault_off(), 1);
	says("nothing");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sdnotify");
	TCase *t = tcase_create("sdnotify");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, path_and_abstract, 0, 2);
	tcase_add_test(t, descriptors);
	tcase_add_test(t, nobody);
	tcase_add_test(t, manager_gone);
	tcase_add_test(t, full_queue);
	tcase_add_test(t, each_call_fails);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
