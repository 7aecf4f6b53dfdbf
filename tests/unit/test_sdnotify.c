/* sdnotify, fdstore: what a service manager would receive, at a path and at an abstract name, and what
 * comes back from it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fault.h"
#include "handoffd/fdstore.h"
#include "handoffd/sdnotify.h"
#include "leak.h"
#include "suite.h"

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

/* ---- its descriptor store ---- */

static void manage(void)
{
	listen_at("@handoff-test-store");
	ck_assert_int_eq(sdnotify_open(), 1);
}

START_TEST(stored_and_removed)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char stored[FDSTORE_NAME], text[FDSTORE_NAME + 40], listener[FDSTORE_NAME];
	struct stat st;
	unsigned n;
	int copy;

	fdstore_put("resp", fd);   /* there is no manager yet */
	fdstore_remove("resp", fd);
	manage();
	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(stored, sizeof stored, "resp.%ju", (uintmax_t)st.st_ino);
	fdstore_put("resp", fd);
	snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", stored);
	ck_assert_str_eq(heard(&copy, &n), text);
	ck_assert_uint_eq(n, 1);
	ck_assert(fdstore_used());
	ck_assert(fdstore_listener(stored, copy, listener));
	ck_assert_str_eq(listener, "resp");
	ck_assert(!fdstore_listener(stored, manager, listener));
	ck_assert(!fdstore_listener("resp", copy, listener));
	close(copy);
	fdstore_remove("resp", fd);
	snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", stored);
	says(text);
	/* what fails is in the log; the next one is tried */
	for (unsigned i = 0; i < 2; i++) {
		fault_set(i ? SYS_C_SENDMSG : SYS_C_FSTAT, 0, -ENOBUFS);
		fdstore_put("resp", fd);
		ck_assert_int_eq(fault_off(), 1);
		fault_set(i ? SYS_C_SENDMSG : SYS_C_FSTAT, 0, -ENOBUFS);
		fdstore_remove("resp", fd);
		ck_assert_int_eq(fault_off(), 1);
		says("nothing");
	}
	close(fd);
}
END_TEST

static unsigned waits;

/* A manager whose queue stays full; a wait is counted, and over. */
static int hangs(enum sys_call call)
{
	waits += call == SYS_C_POLL;
	return call == SYS_C_POLL ? -EINTR : call == SYS_C_SENDMSG ? -EAGAIN : 0;
}

START_TEST(a_manager_that_hangs)
{
	manage();
	sys_fault = hangs;
	waits = 0;
	fdstore_put("resp", manager);
	ck_assert_uint_ge(waits, 100);
	waits = 0;
	fdstore_put("http", manager);   /* not once more, for each listener; the log looks at stderr */
	ck_assert_uint_le(waits, 1);
	fault_off();
	says("nothing");
}
END_TEST

static unsigned came;

static bool take_none(void *arg, const char *name_, int fd)
{
	ck_assert_ptr_eq(arg, &came);
	ck_assert_int_eq(fd, 3 + (int)came);
	ck_assert_str_eq(name_, came == 0 ? "a" : came == 1 ? "b\nFDSTORE=1" : "");
	came++;
	return false;
}

/* The variables are somebody else's, or damaged: no descriptor of this process is taken for one. */
START_TEST(nothing_came)
{
	static const char *const count[] = { "", "x", "-1", "1x", "99999999999", "0" };
	char pid[20];

	snprintf(pid, sizeof pid, "%d", (int)getpid());
	for (unsigned i = 0; i <= sizeof count / sizeof *count; i++) {
		const bool others = i == sizeof count / sizeof *count;

		setenv("LISTEN_PID", others ? "1" : pid, 1);
		setenv("LISTEN_FDS", others ? "1" : count[i], 1);
		came = 0;
		fdstore_receive();
		fdstore_restore(take_none, &came);
		ck_assert_uint_eq(came, 0);
		ck_assert_ptr_null(getenv("LISTEN_FDS"));
	}
}
END_TEST

/* A count that is too large ends at the first one that is not open. What nobody takes is removed,
 * if it has a name that is one. */
START_TEST(nobody_takes_what_came)
{
	char pid[20];
	unsigned open_ = 0;
	int more[3];

	manage();
	for (unsigned i = 0; i < 3; i++)   /* then 3 to 5 are open, whatever they are */
		ck_assert_int_ge(more[i] = open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	while (fcntl(3 + (int)open_, F_GETFD) >= 0)
		open_++;
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "10000", 1);
	setenv("LISTEN_FDNAMES", "a:b\nFDSTORE=1", 1);
	came = 0;
	fdstore_receive();
	fdstore_restore(take_none, &came);
	ck_assert_uint_eq(came, open_);
	says("FDSTOREREMOVE=1\nFDNAME=a");
	says("nothing");
	for (unsigned i = 0; i < 3; i++)
		close(more[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sdnotify");
	TCase *t = tcase_create("sdnotify");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, path_and_abstract, 0, 2);
	tcase_add_test(t, descriptors);
	tcase_add_test(t, nobody);
	tcase_add_test(t, manager_gone);
	tcase_add_test(t, full_queue);
	tcase_add_test(t, each_call_fails);
	tcase_add_test(t, stored_and_removed);
	tcase_add_test(t, a_manager_that_hangs);
	tcase_add_test(t, nothing_came);
	tcase_add_test(t, nobody_takes_what_came);
	suite_add_tcase(s, t);
	return suite_run(s);
}
