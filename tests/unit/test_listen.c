/* Listening sockets: what is bound, taken back, unlinked, and said when it fails. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/fdstore.h"
#include "handoffd/listen.h"
#include "leak.h"
#include "suite.h"

static char dir[64], path[96], err[1024];
static struct conf conf;
static struct conf_listen rows[40];
static struct listeners l;

static void setup(void)
{
	strcpy(dir, "/tmp/test_listen.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/s", dir);
	conf = (struct conf){ .listen = rows, .uid = -1, .gid = -1 };
	leak_setup();
}

static void teardown(void)
{
	for (unsigned i = 0; i < conf.nlisten; i++) {
		free(rows[i].name);
		free(rows[i].address);
	}
	leak_teardown();
	ck_assert_int_eq(rmdir(dir), 0);       /* no path is left */
}

static struct conf_listen *row(const char *name, const char *address)
{
	struct conf_listen *cl = &rows[conf.nlisten++];

	*cl = (struct conf_listen){ .name = strdup(name), .address = strdup(address), .backlog = 16,
				    .mode = 0660, .reuseaddr = true };
	ck_assert_msg(conf_address(address, &cl->sa, &cl->sa_len, err, sizeof err) == 0, "%s", err);
	return cl;
}

static struct conf_listen *unix_row(const char *name, const char *p)
{
	char address[160];

	snprintf(address, sizeof address, "unix:%s", p);
	return row(name, address);
}

/* One that the kernel chose, and that is free again. */
static unsigned free_port(int family)
{
	struct sockaddr_in6 sa = { .sin6_family = (sa_family_t)family };
	socklen_t n = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = sys_socket(family, SOCK_STREAM, 0);

	ck_assert_int_eq(sys_bind(fd, (struct sockaddr *)&sa, n), 0);
	ck_assert_int_eq(sys_getsockname(fd, (struct sockaddr *)&sa, &n), 0);
	sys_close(fd);
	return ntohs(sa.sin6_port);
}

/* A tcp row at a port that is free, and no other row's: the kernel may choose the same again. */
static struct conf_listen *tcp_row(const char *name, const char *host)
{
	static bool given[1 << 16];
	char address[64];
	unsigned port;

	do
		port = free_port(*host == '[' ? AF_INET6 : AF_INET);
	while (given[port]);
	given[port] = true;
	snprintf(address, sizeof address, "tcp:%s:%u", host, port);
	return row(name, address);
}

static void open_all(void)
{
	ck_assert_msg(listeners_open(&l, &conf, err, sizeof err) == 0, "%s", err);
	ck_assert(listeners_complete(&l, &conf));
}

/* 0: a client gets through. */
static int reach(const struct sockaddr *sa, socklen_t n)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	r = connect(fd, sa, n) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int reach_row(const struct conf_listen *cl)
{
	return reach((const struct sockaddr *)&cl->sa, cl->sa_len);
}

static void refused(int error, const char *said)
{
	ck_assert_int_eq(listeners_open(&l, &conf, err, sizeof err), error);
	ck_assert_str_eq(err, said);
	ck_assert(!listeners_complete(&l, &conf));
}

START_TEST(every_kind)
{
	char name[96];

	tcp_row("v4", "127.0.0.1");
	tcp_row("v6", "[::1]");
	unix_row("path", path);
	snprintf(name, sizeof name, "unix:@%s", dir);
	row("abstract", name);
	ck_assert(!listeners_complete(&l, &conf));
	open_all();
	ck_assert_uint_eq(l.n, 4);
	for (unsigned i = 0; i < l.n; i++) {
		const int flags = fcntl(l.v[i].fd, F_GETFL);

		ck_assert_str_eq(l.v[i].name, rows[i].name);
		ck_assert_int_eq(reach_row(&rows[i]), 0);
		ck_assert_int_eq(flags & O_NONBLOCK, O_NONBLOCK);
		ck_assert_int_eq(fcntl(l.v[i].fd, F_GETFD), FD_CLOEXEC);
		ck_assert_int_eq(l.v[i].path != NULL, i == 2);
	}
	open_all();                            /* a second time changes nothing */
	ck_assert_uint_eq(l.n, 4);
	listeners_close(&l, true);
	ck_assert_int_eq(reach_row(&rows[0]), -ECONNREFUSED);
}
END_TEST

START_TEST(dual_stack_and_v6only)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct conf_listen *both = tcp_row("both", "[::]"), *six = tcp_row("six", "[::]");

	six->v6only = true;
	open_all();
	in.sin_port = ((struct sockaddr_in6 *)&both->sa)->sin6_port;
	ck_assert_int_eq(reach((struct sockaddr *)&in, sizeof in), 0);
	in.sin_port = ((struct sockaddr_in6 *)&six->sa)->sin6_port;
	ck_assert_int_eq(reach((struct sockaddr *)&in, sizeof in), -ECONNREFUSED);
	listeners_close(&l, true);
}
END_TEST

START_TEST(mode_whatever_the_umask)
{
	struct stat st;

	unix_row("path", path)->mode = 0626;
	umask(0777);
	open_all();
	ck_assert_uint_eq(umask(022), 0777);   /* it is as it was */
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0626);
	listeners_close(&l, true);
}
END_TEST

START_TEST(tcp_in_use)
{
	struct conf_listen *a = tcp_row("a", "127.0.0.1");
	char said[512];

	open_all();
	row("b", a->address);
	snprintf(said, sizeof said,
		 "listener b (%s): address in use: find its owner with: ss -tlnp sport = :%s",
		 a->address, strrchr(a->address, ':') + 1);
	refused(-EADDRINUSE, said);
	ck_assert_uint_eq(l.n, 1);             /* what was bound stays */
	ck_assert_int_eq(reach_row(a), 0);
	listeners_close(&l, true);
}
END_TEST

START_TEST(unix_in_use)
{
	struct listeners other = { 0 };
	char said[512];

	unix_row("a", path);
	open_all();
	other = l;
	l = (struct listeners){ 0 };
	snprintf(
		said, sizeof said,
		"listener a (unix:%s): another process listens there; find it with: ss -xlp src %s",
		path, path);
	refused(-EADDRINUSE, said);
	ck_assert_int_eq(reach_row(&rows[0]), 0);
	listeners_close(&other, true);
}
END_TEST

START_TEST(stale_path_is_taken_over)
{
	unix_row("a", path);
	open_all();
	listeners_close(&l, false);            /* as after kill -9 */
	ck_assert_int_eq(access(path, F_OK), 0);
	open_all();
	ck_assert_int_eq(reach_row(&rows[0]), 0);
	listeners_close(&l, true);
}
END_TEST

START_TEST(path_that_is_no_socket)
{
	char said[512];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	close(fd);
	unix_row("a", path);
	snprintf(said, sizeof said,
		 "listener a (unix:%s): %s exists and is no socket; remove it, or choose another "
		 "path",
		 path, path);
	refused(-EADDRINUSE, said);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(no_directory)
{
	unix_row("a", "/nonexistent/s");
	refused(-ENOENT, "listener a (unix:/nonexistent/s): its directory does not exist; create "
			 "it for handoffd's user");
}
END_TEST

START_TEST(no_such_interface)
{
	row("a", "tcp:192.0.2.1:6380");
	refused(-EADDRNOTAVAIL,
		"listener a (tcp:192.0.2.1:6380): no interface of this machine has the address; "
		"correct it, or set it up first");
}
END_TEST

START_TEST(somebody_elses_path_stays)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd;

	unix_row("a", path);
	open_all();
	/* a second one binds the same name anew: not ours to unlink */
	ck_assert_int_eq(unlink(path), 0);
	strcpy(un.sun_path, path);
	fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(sys_bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	listeners_close(&l, true);
	ck_assert_int_eq(access(path, F_OK), 0);
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(path_belongs_to_the_user)
{
	char said[512];
	struct stat st;

	if (geteuid() != 0)
		return;
	conf.uid = conf.gid = 65534;
	conf.user = (char *)"nobody";
	unix_row("a", path);
	snprintf(said, sizeof said,
		 "listener a (unix:%s): not permitted: let nobody write its directory", path);
	refused(-EACCES, said);
	ck_assert_int_eq(chown(dir, 65534, 65534), 0);
	open_all();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_uid, 65534);
	ck_assert_uint_eq(st.st_gid, 65534);
	ck_assert_int_eq(access("/root", W_OK), 0);   /* root again */
	listeners_close(&l, true);
}
END_TEST

START_TEST(adopted)
{
	struct listeners back = { 0 };
	char abstract[96];

	tcp_row("v4", "127.0.0.1");
	tcp_row("v6", "[::1]");
	unix_row("path", path);
	snprintf(abstract, sizeof abstract, "unix:@%s", dir);
	row("abstract", abstract);
	open_all();
	for (unsigned i = 0; i < l.n; i++) {
		ck_assert_int_eq(
			listeners_adopt(&back, &conf, l.v[i].name, dup(l.v[i].fd), err, sizeof err),
			0);
		ck_assert_int_eq(
			listeners_adopt(&back, &conf, l.v[i].name, dup(l.v[i].fd), err, sizeof err),
			-EEXIST);
		ck_assert_int_eq(fcntl(back.v[i].fd, F_GETFD), FD_CLOEXEC);
	}
	ck_assert(listeners_complete(&back, &conf));
	ck_assert_str_eq(back.v[2].path, path);
	ck_assert_uint_eq(back.v[2].ino, l.v[2].ino);
	listeners_close(&l, false);
	ck_assert_msg(listeners_open(&back, &conf, err, sizeof err) == 0, "%s", err);
	for (unsigned i = 0; i < conf.nlisten; i++)
		ck_assert_int_eq(reach_row(&rows[i]), 0);
	listeners_close(&back, true);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(adopted_but_its_path_is_anothers)
{
	struct listeners back = { 0 };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd;

	unix_row("a", path);
	open_all();
	ck_assert_int_eq(unlink(path), 0);
	strcpy(un.sun_path, path);
	fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(sys_bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	ck_assert_int_eq(listeners_adopt(&back, &conf, "a", dup(l.v[0].fd), err, sizeof err), 0);
	ck_assert_ptr_null(back.v[0].path);
	listeners_close(&back, true);
	ck_assert_int_eq(access(path, F_OK), 0);
	listeners_close(&l, true);
	close(fd);
	unlink(path);
}
END_TEST

static void not_adopted(const char *name, int fd, int error, const char *said)
{
	ck_assert_int_eq(listeners_adopt(&l, &conf, name, fd, err, sizeof err), error);
	ck_assert_str_eq(err, said);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);      /* it is closed in every case */
	ck_assert_uint_eq(l.n, 0);
}

START_TEST(not_what_was_announced)
{
	struct conf_listen *a = tcp_row("a", "127.0.0.1");
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char said[512];
	int fd;

	not_adopted("b", open("/dev/null", O_RDONLY | O_CLOEXEC), -ENOENT,
		    "listener b: not configured; it is closed");
	snprintf(said, sizeof said, "listener a: what came is not a socket (%s); it is closed",
		 a->address);
	not_adopted("a", open("/dev/null", O_RDONLY | O_CLOEXEC), -ENOTSOCK, said);
	snprintf(said, sizeof said,
		 "listener a: what came is not a listening stream socket (%s); it is closed",
		 a->address);
	not_adopted("a", sys_socket(AF_INET, SOCK_STREAM, 0), -EINVAL, said);
	not_adopted("a", sys_socket(AF_INET, SOCK_DGRAM, 0), -EINVAL, said);
	snprintf(said, sizeof said,
		 "listener a: what came is of another address than configured (%s); it is closed",
		 a->address);
	fd = sys_socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(sys_bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	ck_assert_int_eq(sys_listen(fd, 1), 0);
	not_adopted("a", fd, -EINVAL, said);
	fd = sys_socket(AF_INET6, SOCK_STREAM, 0);
	ck_assert_int_eq(sys_listen(fd, 1), 0);
	not_adopted("a", fd, -EINVAL, said);
}
END_TEST

START_TEST(changed_address_waits_for_the_decision)
{
	char other[96];
	struct conf_listen now[2];
	struct conf next = { .listen = now, .nlisten = 1, .uid = -1, .gid = -1 };

	snprintf(other, sizeof other, "%s/t", dir);
	unix_row("a", path);
	open_all();
	unix_row("a", other); /* the second row is the new configuration's only one */
	now[0] = rows[1];
	ck_assert_int_eq(listeners_open(&l, &next, err, sizeof err), 0);
	ck_assert_uint_eq(l.n, 2);
	ck_assert_int_eq(reach_row(&rows[0]), 0);
	ck_assert_int_eq(reach_row(&rows[1]), 0);
	conf.nlisten = 1;
	listeners_prune(&l, &conf);            /* aborted */
	ck_assert_int_eq(reach_row(&rows[0]), 0);
	ck_assert_int_eq(access(other, F_OK), -1);
	ck_assert_int_eq(listeners_open(&l, &next, err, sizeof err), 0);
	listeners_prune(&l, &next);            /* committed */
	ck_assert_int_eq(reach_row(&rows[1]), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_ptr_nonnull(listeners_find(&l, &now[0]));
	ck_assert_ptr_null(listeners_find(&l, &rows[0]));
	conf.nlisten = 2;
	listeners_close(&l, true);
}
END_TEST

/* "a" is "b" now, at the same address, of each kind: the socket stays, whoever serves at last. */
START_TEST(another_name)
{
	struct conf_listen now[2];
	struct conf next = { .listen = now, .nlisten = 2, .uid = -1, .gid = -1 };
	struct listeners back = { 0 };
	static char names[2][8] = { "b-tcp", "b-unix" };

	tcp_row("a-tcp", "127.0.0.1");
	unix_row("a-unix", path);
	open_all();
	for (unsigned i = 0; i < 2; i++) {
		now[i] = rows[i];
		now[i].name = names[i];
	}
	for (unsigned committed = 0; committed < 2; committed++) {
		ck_assert_msg(!listeners_open(&l, &next, err, sizeof err), "%s", err);
		ck_assert(listeners_complete(&l, &next));
		ck_assert_uint_eq(l.n, 4);
		listeners_prune(&l, committed ? &next : &conf);
		ck_assert_uint_eq(l.n, 2);
		ck_assert(listeners_complete(&l, committed ? &next : &conf));
		for (unsigned i = 0; i < 2; i++)
			ck_assert_int_eq(reach_row(&rows[i]), 0);
	}
	/* a daemon that is adopted calls them as they were */
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(listeners_adopt(&back, &conf, l.v[i].name, dup(l.v[i].fd), err, sizeof err), 0);
	ck_assert(listeners_complete(&back, &conf));
	ck_assert_int_eq(listeners_adopt(&back, &conf, "b-tcp", dup(l.v[0].fd), err, sizeof err), -EEXIST);
	listeners_close(&l, false);
	listeners_close(&back, true);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* They come back by the names that they had, once and again, and one has been lost before. */
START_TEST(names_change_places)
{
	struct listeners back = { 0 };
	char *name;

	tcp_row("a", "127.0.0.1");
	tcp_row("b", "127.0.0.1");
	open_all();
	name = rows[0].name;
	rows[0].name = rows[1].name;
	rows[1].name = name;
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(listeners_adopt(&back, &conf, l.v[i % 2].name, dup(l.v[i % 2].fd), err, sizeof err),
				 i < 2 ? 0 : -EEXIST);
	ck_assert(listeners_complete(&back, &conf));
	listeners_close(&back, true);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(listeners_adopt(&back, &conf, "a", dup(l.v[0].fd), err, sizeof err),
				 i ? -EEXIST : 0);
	ck_assert_uint_eq(back.n, 1);
	ck_assert_str_eq(back.v[0].address, rows[0].address);
	listeners_close(&back, true);
	listeners_close(&l, true);
}
END_TEST

static int restore(struct listeners *back, const char *name, int fd)
{
	char stored[FDSTORE_NAME];
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(stored, sizeof stored, "%s.%ju", name, (uintmax_t)st.st_ino);
	return listeners_restore(back, &conf, stored, dup(fd), err, sizeof err);
}

/* By its name, by another one, and by one that is another listener's now. */
START_TEST(stored_but_its_path_is_gone)
{
	static const char *const names[] = { "a", "b", "c" };
	struct listeners back = { 0 };
	char said[512];

	unix_row("a", path);
	tcp_row("c", "127.0.0.1");
	open_all();
	for (unsigned i = 0; i < 3; i++)
		ck_assert_msg(restore(&back, names[i], l.v[0].fd) == (i ? -EEXIST : 0), "%s", err);
	listeners_close(&back, false);
	ck_assert_int_eq(unlink(path), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(restore(&back, names[i], l.v[0].fd), -ENOENT);
		snprintf(said, sizeof said, "listener %s: nobody reaches it, its path is gone (unix:%s); it is "
			 "closed", names[i], path);
		ck_assert_str_eq(err, said);
	}
	ck_assert_uint_eq(back.n, 0);
	listeners_close(&back, true);
	listeners_close(&l, true);
}
END_TEST

START_TEST(backlog_is_applied)
{
	tcp_row("a", "127.0.0.1");
	open_all();
	rows[0].backlog = 7;
	open_all();
	ck_assert_int_eq(l.v[0].backlog, 7);
	rows[0].backlog = 1 << 30;
	ck_assert_int_gt(listeners_capped(&conf, 0), 0);
	rows[0].backlog = 1;
	ck_assert_int_eq(listeners_capped(&conf, 0), 0);
	listeners_close(&l, true);
}
END_TEST

/* As the kernel says it. */
static unsigned backlog_of(int fd)
{
	struct tcp_info info;
	socklen_t n = sizeof info;

	ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
	return info.tcpi_sacked;
}

/* Set at once; and who serves by the former name gets its own again with the next opening. */
START_TEST(another_name_and_backlog)
{
	struct conf_listen now;
	struct conf next = { .listen = &now, .nlisten = 1, .uid = -1, .gid = -1 };
	static char name[] = "b";

	tcp_row("a", "127.0.0.1");
	open_all();
	now = rows[0];
	now.name = name;
	now.backlog = 7;
	ck_assert_int_eq(listeners_open(&l, &next, err, sizeof err), 0);
	ck_assert_uint_eq(backlog_of(l.v[0].fd), 7);
	listeners_prune(&l, &conf);
	open_all();
	ck_assert_uint_eq(backlog_of(l.v[0].fd), 16);
	listeners_close(&l, true);
}
END_TEST

/* Count the calls of one opening, then fail each in turn: nothing is left, all is said. */
static unsigned calls, fail_at;
static int nth(enum sys_call call)
{
	return ++calls == fail_at && call != SYS_C_CLOSE ? -ENOBUFS : 0;
}

START_TEST(each_call_fails)
{
	unsigned total, failures = 0;

	tcp_row("v4", "127.0.0.1");
	tcp_row("v6", "[::1]");
	unix_row("path", path);
	sys_fault = nth;
	open_all();
	total = calls;
	listeners_close(&l, true);
	ck_assert_uint_ge(total, 13);
	for (fail_at = 1; fail_at <= total; fail_at++) {
		calls = 0;
		if (listeners_open(&l, &conf, err, sizeof err) < 0) {
			ck_assert_ptr_nonnull(strstr(err, ": No buffer space available"));
			failures++;
		}
		sys_fault = NULL;
		/* an lstat that fails after bind leaves a path that nobody knows: stale */
		listeners_close(&l, true);
		unlink(path);
		sys_fault = nth;
	}
	sys_fault = NULL;
	ck_assert_uint_eq(failures, total);
}
END_TEST

/* The rows from this one on, as the next configuration. */
static struct conf rows_from(unsigned first)
{
	return (struct conf){ .listen = rows + first, .nlisten = conf.nlisten - first, .uid = -1, .gid = -1 };
}

/* What a trial binds is gone behind it, and nothing else is touched. */
START_TEST(trial)
{
	char at[2][96];
	struct listeners killed = { 0 };
	struct conf next;

	snprintf(at[0], sizeof at[0], "unix:@%s", dir);
	snprintf(at[1], sizeof at[1], "%s/left", dir);
	tcp_row("a", "127.0.0.1");
	open_all();
	unix_row("left", at[1]);
	next = rows_from(1);
	ck_assert_int_eq(listeners_open(&killed, &next, err, sizeof err), 0);
	listeners_close(&killed, false);
	unix_row("path", path);
	row("abstract", at[0]);
	tcp_row("v4", "127.0.0.1");
	row("b", rows[0].address);             /* which takes a's place, once a is left out */
	rows[0].backlog = 7;
	for (unsigned left_out = 0; left_out < 2; left_out++) {
		next = rows_from(left_out);
		next.nlisten -= !left_out;
		ck_assert_msg(!listeners_try(&l, &next, err, sizeof err), "%s", err);
		ck_assert_uint_eq(l.n, 1);
		ck_assert_uint_eq(backlog_of(l.v[0].fd), 16);
		ck_assert_int_eq(reach_row(&rows[0]), 0);
		for (unsigned i = 1; i < 4; i++)
			ck_assert_int_lt(reach_row(&rows[i]), 0);
		ck_assert_int_eq(access(path, F_OK), -1);
		ck_assert_int_eq(access(at[1], F_OK), 0);
	}
	ck_assert_int_eq(unlink(at[1]), 0);
	listeners_close(&l, true);
}
END_TEST

/* It is refused in the words of an opening; of what it has bound before nothing is left. */
START_TEST(trial_of_what_is_in_use)
{
	struct listeners other;
	char said[1024], all[64];
	struct conf_listen *cl;

	cl = tcp_row("a", "127.0.0.1");
	open_all();
	other = l;
	l = (struct listeners){ 0 };
	unix_row("path", path);
	row("taken", cl->address);
	for (unsigned first = 0; first < 2; first++) {   /* one that is first, and one that is last */
		const struct conf next = rows_from(first);

		ck_assert_int_eq(listeners_try(&l, &next, said, sizeof said), -EADDRINUSE);
		ck_assert_int_eq(access(path, F_OK), -1);
		ck_assert_int_eq(listeners_open(&l, &next, err, sizeof err), -EADDRINUSE);
		ck_assert_str_eq(said, err);
		listeners_close(&l, true);
	}
	listeners_close(&other, true);
	/* in each other's way */
	snprintf(all, sizeof all, "tcp:0.0.0.0:%u", ntohs(((struct sockaddr_in *)&cl->sa)->sin_port));
	conf.nlisten--;
	free(rows[2].name);
	free(rows[2].address);
	row("all", all);
	ck_assert_int_eq(listeners_try(&l, &conf, err, sizeof err), -EADDRINUSE);
}
END_TEST

START_TEST(each_call_of_a_trial_fails)
{
	unsigned total = 0, failures = 0;

	tcp_row("v4", "127.0.0.1");
	unix_row("path", path);
	for (fail_at = 0; fail_at <= total; fail_at++) {   /* the first: none does */
		calls = 0;
		sys_fault = nth;
		failures += listeners_try(&l, &conf, err, sizeof err) < 0;
		sys_fault = NULL;
		total = fail_at ? total : calls;
		unlink(path);   /* where an lstat or the unlink failed */
		ck_assert_uint_eq(l.n, 0);
	}
	ck_assert_uint_ge(failures, 8);
}
END_TEST

/* A path that somebody has left: whatever fails there is told, and the next try takes it. */
START_TEST(each_call_at_a_stale_path_fails)
{
	unsigned total = 0, failures = 0;

	unix_row("path", path);
	for (fail_at = 0; fail_at <= total; fail_at++) {   /* the first: none does */
		open_all();
		listeners_close(&l, false);
		calls = 0;
		sys_fault = nth;
		if (listeners_open(&l, &conf, err, sizeof err) < 0) {
			ck_assert_ptr_nonnull(strstr(err, path));
			failures++;
		}
		sys_fault = NULL;
		total = fail_at ? total : calls;
		listeners_close(&l, true);
		unlink(path);
	}
	ck_assert_uint_ge(total, 9);
	ck_assert_uint_eq(failures, total - 1);   /* a close(2) cannot */
}
END_TEST

/* What could not be looked at is not taken for another thing than was announced. */
START_TEST(each_call_of_an_adoption_fails)
{
	struct listeners back = { 0 };
	unsigned total;

	tcp_row("a", "127.0.0.1");
	open_all();
	sys_fault = nth;
	calls = fail_at = 0;
	ck_assert_int_eq(listeners_adopt(&back, &conf, "a", dup(l.v[0].fd), err, sizeof err), 0);
	total = calls;
	ck_assert_uint_ge(total, 6);
	for (fail_at = 1; fail_at <= total; fail_at++) {
		sys_fault = NULL;
		listeners_close(&back, true);
		sys_fault = nth;
		calls = 0;
		ck_assert_int_eq(listeners_adopt(&back, &conf, "a", dup(l.v[0].fd), err, sizeof err),
				 -ENOBUFS);
		ck_assert_str_eq(err, "listener a: No buffer space available");
		ck_assert_uint_eq(back.n, 0);
	}
	sys_fault = NULL;
	listeners_close(&l, true);
}
END_TEST

/* Whose path that is could not be learned, or not be looked at again: then it stays, and who connects
 * there gets through. */
START_TEST(each_call_at_an_adopted_path_fails)
{
	struct listeners back = { 0 };
	unsigned total = 0, unknown = 0;

	unix_row("a", path);
	open_all();
	for (fail_at = 0; fail_at <= total; fail_at++) {   /* the first: none does */
		const int fd = dup(l.v[0].fd);
		int r;
		bool known;

		calls = 0;
		sys_fault = nth;
		r = listeners_adopt(&back, &conf, "a", fd, err, sizeof err);
		sys_fault = NULL;
		total = fail_at ? total : calls;
		known = !r && back.v[0].path;
		ck_assert(known || fail_at);
		unknown += !r && !known;
		listeners_close(&back, !known);
		ck_assert_int_eq(reach_row(&rows[0]), 0);
	}
	ck_assert_uint_eq(unknown, 5);
	calls = 0;
	fail_at = 1;
	sys_fault = nth;
	listeners_close(&l, true);
	sys_fault = NULL;
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

START_TEST(many)
{
	char name[16], at[128];

	for (int i = 0; i < 33; i++) {
		snprintf(name, sizeof name, "n%d", i);
		snprintf(at, sizeof at, "unix:@%s-%d", dir, i);
		row(name, at);
	}
	open_all();
	conf.nlisten = 20;
	listeners_prune(&l, &conf);
	ck_assert_uint_eq(l.n, 20);
	conf.nlisten = 33;
	open_all();
	ck_assert_uint_eq(l.n, 33);
	for (int i = 0; i < 33; i++)
		ck_assert_int_eq(reach_row(&rows[i]), 0);
	listeners_close(&l, true);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("listen");
	TCase *t = tcase_create("listen");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, every_kind);
	tcase_add_test(t, dual_stack_and_v6only);
	tcase_add_test(t, mode_whatever_the_umask);
	tcase_add_test(t, tcp_in_use);
	tcase_add_test(t, unix_in_use);
	tcase_add_test(t, stale_path_is_taken_over);
	tcase_add_test(t, path_that_is_no_socket);
	tcase_add_test(t, no_directory);
	tcase_add_test(t, no_such_interface);
	tcase_add_test(t, somebody_elses_path_stays);
	tcase_add_test(t, path_belongs_to_the_user);
	tcase_add_test(t, adopted);
	tcase_add_test(t, adopted_but_its_path_is_anothers);
	tcase_add_test(t, not_what_was_announced);
	tcase_add_test(t, changed_address_waits_for_the_decision);
	tcase_add_test(t, another_name);
	tcase_add_test(t, names_change_places);
	tcase_add_test(t, stored_but_its_path_is_gone);
	tcase_add_test(t, backlog_is_applied);
	tcase_add_test(t, another_name_and_backlog);
	tcase_add_test(t, each_call_fails);
	tcase_add_test(t, each_call_at_a_stale_path_fails);
	tcase_add_test(t, each_call_of_an_adoption_fails);
	tcase_add_test(t, each_call_at_an_adopted_path_fails);
	tcase_add_test(t, trial);
	tcase_add_test(t, trial_of_what_is_in_use);
	tcase_add_test(t, each_call_of_a_trial_fails);
	tcase_add_test(t, many);
	suite_add_tcase(s, t);
	return suite_run(s);
}
