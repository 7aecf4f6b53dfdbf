#include "stage.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"

char stage_dir[64];
struct stage_timers stage_timers;
static const struct stage_timers calm = { 60000, 60000, 30000, 60000, 60000 };

void stage_setup(void)
{
	stage_timers = calm;
	signal(SIGPIPE, SIG_IGN);
	strcpy(stage_dir, "/tmp/test_lib.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(stage_dir));
}

void stage_teardown(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	unlink(path);
	snprintf(path, sizeof path, "%s/daemon.sock", stage_dir);
	unlink(path);
	ck_assert_int_eq(rmdir(stage_dir), 0);
}

int stage_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

int stage_hold_lock(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

bool stage_lock_is_free(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/.handoff.lock", stage_dir);
	int fd = open(path, O_RDWR | O_CLOEXEC), e = flock(fd, LOCK_EX | LOCK_NB);
	close(fd);
	return e == 0;
}

/* ---------------------------------------------------------------- puppet --- */

static void exec_puppet(const char *role, int fd, const char *launcher)
{
	const char *program = getenv("PUPPET");
	char text[16];

	if (!program)
		program = "tests/lib/puppet";
	unsetenv("HANDOFF_FD");
	if (role) {
		/* number 3 is what stands in HANDOFF_FD; it survives the exec */
		if (dup2(fd, 3) < 0 || fcntl(3, F_SETFD, 0))
			_exit(126);
		snprintf(text, sizeof text, "%d", 3);
		setenv("HANDOFF_FD", text, 1);
		setenv("HANDOFF_ROLE", role, 1);
		setenv("HANDOFF_DIR", stage_dir, 1);
	}
	/* the second command keeps the shell from putting the puppet in its own place */
	if (launcher)
		execlp("sh", "sh", "-c", "\"$0\"; exit $?", program, NULL);
	execl(program, program, NULL);
	_exit(127);
}

void puppet_start_with(struct puppet *p, const char *role, int fd)
{
	int in[2], out[2];

	ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	p->pid = fork();
	ck_assert_int_ge(p->pid, 0);
	if (p->pid == 0) {
		int keep = fcntl(fd, F_DUPFD_CLOEXEC, 10);   /* out of the way of 0 to 3 */
		dup2(in[0], 0);
		dup2(in[0], 0);
		dup2(out[1], 1);
		exec_puppet(role, keep, p->launcher);
	}
	close(in[0]);
	close(out[1]);
	p->to = in[1];
	p->from = out[0];
}

void puppet_start(struct puppet *p, const char *role)
{
	int sv[2] = { -1, -1 };

	chan_init(&p->c, -1);
	if (role)
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	puppet_start_with(p, role, sv[1]);
	if (role) {
		close(sv[1]);
		chan_init(&p->c, sv[0]);
	}
}

static void say(struct puppet *p, const char *line)
{
	size_t n = strlen(line);

	ck_assert_int_eq(write(p->to, line, n), n);
	ck_assert_int_eq(write(p->to, "\n", 1), 1);
}

void puppet_say(struct puppet *p, const char *fmt, ...)
{
	char line[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	say(p, line);
}

const char *puppet_heard(struct puppet *p)
{
	size_t n = 0;
	struct pollfd f = { .fd = p->from, .events = POLLIN };

	for (;; n++) {
		if (poll(&f, 1, LIMIT_MS) != 1)
			ck_abort_msg("the puppet does not answer");
		if (n + 1 == sizeof p->line || read(p->from, p->line + n, 1) != 1)
			ck_abort_msg("the puppet is gone");
		if (p->line[n] == '\n')
			break;
	}
	p->line[n] = '\0';
	return p->line;
}

const char *puppet_ask(struct puppet *p, const char *fmt, ...)
{
	char line[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	say(p, line);
	return puppet_heard(p);
}

void puppet_must(struct puppet *p, const char *file, int line, const char *question,
                 const char *answer)
{
	size_t n = strlen(answer);
	bool same;

	say(p, question);
	puppet_heard(p);
	same = n && answer[n - 1] == '*' ? !strncmp(p->line, answer, n - 1)
	                                 : !strcmp(p->line, answer);
	if (!same)
		ck_abort_msg("%s:%d: %s: said \"%s\", not \"%s\"", file, line, question, p->line,
		             answer);
}

static int reap(struct puppet *p)
{
	int status;

	close(p->to);
	p->to = -1;
	/* its output ends with it: nobody else has it */
	struct pollfd f = { .fd = p->from, .events = 0 };
	if (poll(&f, 1, LIMIT_MS) != 1)
		ck_abort_msg("the puppet does not end");
	ck_assert_int_eq(waitpid(p->pid, &status, 0), p->pid);
	close(p->from);
	chan_close(&p->c);
	return status;
}

void puppet_end(struct puppet *p)
{
	int status = reap(p);

	ck_assert_msg(status == 0, "the puppet ended with status %#x", (unsigned)status);
}

void puppet_kill(struct puppet *p)
{
	kill(p->pid, SIGKILL);
	reap(p);
}

int puppet_died(struct puppet *p, int ms)
{
	struct pollfd f = { .fd = p->from, .events = 0 };
	int status;

	if (poll(&f, 1, ms) != 1)
		return -1;
	status = reap(p);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* -------------------------------------------------------------- messages --- */

bool stage_any(struct puppet *p, int ms)
{
	struct pollfd f = { .fd = p->c.fd, .events = POLLIN };
	uint64_t until = sys_now_ms() + (uint64_t)ms;

	for (;;) {
		int e = chan_recv(&p->c, &p->m);
		if (e == 1)
			return true;
		if (e < 0)
			ck_abort_msg("the puppet's channel: %s %s", strerror(-e), p->c.error);
		uint64_t now = sys_now_ms();
		if (now >= until)
			return false;
		poll(&f, 1, (int)(until - now));
	}
}

struct msg *stage_get(struct puppet *p, enum msg_type type)
{
	do {
		if (!stage_any(p, LIMIT_MS))
			ck_abort_msg("%s did not come", msg_name(type));
	} while (p->m.type == MSG_heartbeat && type != MSG_heartbeat);
	ck_assert_msg(p->m.type == type, "%s came, not %s", msg_name(p->m.type), msg_name(type));
	return &p->m;
}

void stage_eof(struct puppet *p)
{
	struct pollfd f = { .fd = p->c.fd, .events = POLLIN };
	int e;

	for (;;) {
		e = chan_recv(&p->c, &p->m);
		if (e < 0)
			break;
		if (e == 1 && p->m.type != MSG_heartbeat)
			ck_abort_msg("%s came, not the end", msg_name(p->m.type));
		if (e == 0 && poll(&f, 1, LIMIT_MS) != 1)
			ck_abort_msg("the puppet does not close its channel");
	}
	ck_assert_msg(e == -ENODATA || e == -ECONNRESET, "%s", strerror(-e));
}

void stage_put_fds(struct puppet *p, const struct msg *m, const int *fds, unsigned n)
{
	ck_assert_int_eq(chan_send(&p->c, m, fds, n), 0);
	ck_assert_int_eq(chan_flush(&p->c), 0);
}

void stage_put(struct puppet *p, const struct msg *m)
{
	stage_put_fds(p, m, NULL, 0);
}

int stage_listen(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/daemon.sock", stage_dir);
	unlink(sa.sun_path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	ck_assert_int_eq(chmod(sa.sun_path, 0666), 0);
	ck_assert_int_eq(chmod(stage_dir, 0711), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

void stage_accept(struct puppet *p, int listener)
{
	struct pollfd f = { .fd = listener, .events = POLLIN };

	chan_close(&p->c);
	if (poll(&f, 1, LIMIT_MS) != 1)
		ck_abort_msg("the puppet does not connect");
	chan_init(&p->c, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	ck_assert_int_ge(p->c.fd, 0);
}

struct hid stage_id(int n)
{
	struct hid id = { { 0 } };

	id.b[15] = (uint8_t)n;
	return id;
}

static void put_end(struct puppet *p, const struct msg *m, int fd)
{
	stage_put_fds(p, m, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
}

void stage_ack(struct puppet *p, int id)
{
	stage_ack_with(p, id, -1, 0);
}

void stage_ack_with(struct puppet *p, int id, int fd, uint64_t limit)
{
	struct msg m = { .type = MSG_hello_ack };

	if (id)
		MSG_SET(&m, hello_ack, id, stage_id(id));
	m.hello_ack.version = 1;
	m.hello_ack.deadline_ms = stage_timers.deadline;
	m.hello_ack.commit_ms = stage_timers.commit;
	m.hello_ack.heartbeat_ms = stage_timers.heartbeat;
	m.hello_ack.fence_ms = stage_timers.fence;
	if (fd >= 0)
		MSG_SET(&m, hello_ack, transfer, limit);
	if (id) {
		MSG_SET(&m, hello_ack, reason, SPAN("why"));
		MSG_SET(&m, hello_ack, trace_parent, SPAN("tp"));
		MSG_SET(&m, hello_ack, tenant, SPAN("te"));
	}
	put_end(p, &m, fd);
}

void stage_prepare(struct puppet *p, int id)
{
	stage_prepare_with(p, id, -1, 0);
}

void stage_prepare_with(struct puppet *p, int id, int fd, uint64_t limit)
{
	struct msg m = { .type = MSG_prepare };

	m.prepare.id = stage_id(id);
	m.prepare.successor_pid = 1;
	m.prepare.deadline_ms = stage_timers.deadline;
	m.prepare.drain_ms = stage_timers.drain;
	MSG_SET(&m, prepare, reason, SPAN("why"));
	MSG_SET(&m, prepare, trace_parent, SPAN("tp"));
	MSG_SET(&m, prepare, correlation_id, SPAN("ci"));
	MSG_SET(&m, prepare, tenant, SPAN("te"));
	if (fd >= 0)
		MSG_SET(&m, prepare, transfer, limit);
	put_end(p, &m, fd);
}

void stage_begin(struct puppet *p, int id, int rev)
{
	struct msg m = { .type = MSG_begin };
	uint64_t revs[3] = { (uint64_t)rev, 2, 3 };

	if (id)
		MSG_SET(&m, begin, id, stage_id(id));
	m.begin.sealed = rev >= 0;
	if (rev >= 0) {
		struct fprint f = { { 0xcd } };
		MSG_SET(&m, begin, revisions, ((struct uints){ .n = 3, .v = revs }));
		MSG_SET(&m, begin, fingerprint, f);
	}
	stage_put(p, &m);
}

void stage_simple(struct puppet *p, enum msg_type type, int id)
{
	struct msg m = { .type = type };

	switch (type) {
	case MSG_seal_request:
		m.seal_request.id = stage_id(id);
		break;
	case MSG_commit:
		if (id)
			MSG_SET(&m, commit, id, stage_id(id));
		break;
	case MSG_resume:
		m.resume.id = stage_id(id);
		m.resume.why = SPAN("it-ended");
		break;
	case MSG_abort:
		m.abort.why = SPAN("no longer wanted");
		break;
	case MSG_heartbeat:
		break;
	default:
		ck_abort();
	}
	stage_put(p, &m);
}

void stage_final(struct puppet *p)
{
	struct msg m = { .type = MSG_commit };

	m.commit.final = true;
	stage_put(p, &m);
}

/* ---------------------------------------------------------------- scenes --- */

void scene_serve(struct puppet *p, const char *options)
{
	puppet_start(p, "first");
	ck_assert_str_eq(puppet_ask(p, "open data=%s %s", stage_dir, options), "0");
	puppet_say(p, "begin");
	stage_get(p, MSG_hello);
	stage_ack(p, 0);
	stage_begin(p, 0, -1);
	if (!strcmp(puppet_heard(p), "-11")) {
		ASK(p, "loop 30000", "1 begin*");
		puppet_ask(p, "begin");
	}
	ck_assert_msg(!strncmp(p->line, "0 sealed=0 shards=0 ", 20), "%s", p->line);
	puppet_say(p, "ready");
	stage_get(p, MSG_ready);
	stage_simple(p, MSG_commit, 0);
	if (!strcmp(puppet_heard(p), "-11")) {
		ASK(p, "loop 30000", "1 decided*");
		puppet_ask(p, "ready null");
	}
	ck_assert_str_eq(p->line, "0");
	stage_get(p, MSG_status);
}

void scene_drained(struct puppet *p, int id)
{
	stage_prepare(p, id);
	ASK(p, "loop 30000", "1 drain*");
	ASK(p, "drained open=3", "0");
	ck_assert_uint_eq(stage_get(p, MSG_drained)->drained.connections, 3);
	ck_assert(p->m.drained.accept_closed);
}

void scene_sealed(struct puppet *p, int id)
{
	scene_drained(p, id);
	stage_simple(p, MSG_seal_request, id);
	ASK(p, "loop 30000", "1 seal*");
	ASK(p, "sealed rev=7", "0");
	ck_assert_uint_eq(stage_get(p, MSG_seal_complete)->seal_complete.revisions.n, 1);
	ck_assert_uint_eq(p->m.seal_complete.fingerprint.b[0], 0xab);
}

void scene_successor(struct puppet *p, int id)
{
	puppet_start(p, "successor");
	ck_assert_str_eq(puppet_ask(p, "open data=%s", stage_dir), "0");
	puppet_say(p, "begin");
	stage_get(p, MSG_hello);
	stage_ack(p, id);
	stage_begin(p, id, 41);
	puppet_heard(p);
	ck_assert_msg(!strncmp(p->line, "0 sealed=1 shards=3 first=41 print=cd ", 38), "%s",
	              p->line);
}
