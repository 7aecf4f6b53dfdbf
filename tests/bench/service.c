#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"

#define PATIENCE_MS 120000   /* generous: the machine is shared */

double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

void sleep_ms(unsigned ms)
{
	poll(NULL, 0, (int)ms);
}

/* -------------------------------------------------------------- programs --- */

static void find(char *out, size_t size, const char *top, const char *dir, const char *name)
{
	static const char *const places[] = { ".libs/", "" };

	for (int i = 0; i < 2; i++) {
		snprintf(out, size, "%s/%s%s%s", top, dir, places[i], name);
		if (!access(out, X_OK))
			return;
	}
	die("%s is not built in %s (make %s%s)", name, top, dir, name);
}

void programs_find(struct programs *p, const char *top)
{
	char libs[600];
	char *full = realpath(top, NULL);

	if (!full || strlen(full) > 400)
		die("%s: %s", top, full ? "too long a path" : strerror(errno));
	find(p->handoffd, sizeof p->handoffd, full, "", "handoffd");
	find(p->nothing, sizeof p->nothing, full, "tests/bench/", "nothing");
	find(p->kvd1, sizeof p->kvd1, full, "examples/kvd/", "kvd-v1");
	find(p->kvd2, sizeof p->kvd2, full, "examples/kvd/", "kvd-v2");
	find(p->kvload, sizeof p->kvload, full, "examples/kvload/", "kvload");
	/* what is not installed finds its library here */
	snprintf(libs, sizeof libs, "%s/.libs", full);
	setenv("LD_LIBRARY_PATH", libs, 1);
	snprintf(p->preload, sizeof p->preload, "LD_PRELOAD=%s/libhandoff.so.0", libs);
	if (access(p->preload + strlen("LD_PRELOAD="), R_OK))
		strcpy(p->preload, "LINKED=static");
	free(full);
}

pid_t run(char *const argv[], const char *out)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid)
		return pid;
	if (out) {
		int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0600);
		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
			_exit(126);
		close(fd);
	}
	signal(SIGINT, SIG_DFL);
	execvp(argv[0], argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int finish(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid %d: %s", (int)pid, strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* --------------------------------------------------------------- control --- */

static void __attribute__((noreturn)) fail(struct service *s, const char *what)
{
	char line[1024];
	long end = 0;
	FILE *f = fopen(s->log, "r");

	if (f && !fseek(f, 0, SEEK_END) && (end = ftell(f)) > 3000)
		fseek(f, -3000, SEEK_END);
	else if (f)
		rewind(f);
	fflush(stdout);
	while (f && fgets(line, sizeof line, f))
		fprintf(stderr, "  | %s", line);
	if (f)
		fclose(f);
	die("%s: %s (above: the end of its log)", s->name, what);
}

/* The next message; a message borrows from the channel until then. */
static void receive(struct service *s, struct msg *m)
{
	struct pollfd p = { .fd = s->ops.fd, .events = POLLIN };
	int e;

	while (!(e = chan_recv(&s->ops, m)))
		if (poll(&p, 1, PATIENCE_MS) == 0)
			fail(s, "no answer from handoffd");
	if (e < 0)
		fail(s, e == -EBADMSG ? s->ops.error : "handoffd closed the control socket");
}

static void ask(struct service *s, const struct msg *m)
{
	int e = chan_send(&s->ops, m, NULL, 0);

	if (e)
		fail(s, strerror(-e));
}

static int try_connect(struct service *s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(sa.sun_path, sizeof sa.sun_path, "%s/run/%s/control.sock", s->root,
			 s->name);

	if (fd < 0 || n >= (int)sizeof sa.sun_path)
		die("%s: %s", s->root, fd < 0 ? strerror(errno) : "too long a path");
	if (!connect(fd, (struct sockaddr *)&sa, sizeof sa))
		return fd;
	close(fd);
	return -1;
}

/* One connection for each request: handoffd closes those that ask for nothing. */
static void connect_again(struct service *s)
{
	int fd = try_connect(s);

	if (fd < 0)
		fail(s, "handoffd does not listen any more");
	chan_close(&s->ops);
	chan_init(&s->ops, fd);
}

pid_t service_ask(struct service *s, char state[64])
{
	struct msg m = { .type = MSG_op_status };
	pid_t pid;

	connect_again(s);
	ask(s, &m);
	receive(s, &m);
	if (m.type != MSG_op_state)
		fail(s, "no State in answer to a StatusRequest");
	snprintf(state, 64, "%.*s", (int)m.op_state.state.n, m.op_state.state.p);
	pid = MSG_HAS(&m, op_state, pid) ? (pid_t)m.op_state.pid : 0;
	if (s->tracer)   /* strace's child */
		s->handoffd = (pid_t)m.op_state.supervisor_pid;
	chan_close(&s->ops);
	return pid;
}

static void await_serving(struct service *s)
{
	char state[64] = "";
	double until = now_us() + PATIENCE_MS * 1e3;
	int fd, status;

	while ((fd = try_connect(s)) < 0) {
		if (waitpid(s->tracer ? s->tracer : s->handoffd, &status, WNOHANG) > 0)
			fail(s, "handoffd ended at its start");
		if (now_us() > until)
			fail(s, "handoffd does not listen");
		sleep_ms(1);
	}
	close(fd);
	while (!(s->daemon = service_ask(s, state)) || strcmp(state, "idle")) {
		if (now_us() > until)
			fail(s, "the daemon does not serve");
		sleep_ms(1);
	}
}

void service_start(struct service *s, const char *handoffd, const char *root, const char *name,
                   const char *body, char *const trace[])
{
	char conf[192], run_dir[160], state_dir[160], *argv[32];
	int n = 0;
	FILE *f;

	*s = (struct service){ .ops.fd = -1 };
	snprintf(s->name, sizeof s->name, "%s", name);
	snprintf(s->root, sizeof s->root, "%s", root);
	snprintf(s->log, sizeof s->log, "%s/%s.log", root, name);
	snprintf(conf, sizeof conf, "%s/%s.conf", root, name);
	snprintf(run_dir, sizeof run_dir, "%s/run", root);
	snprintf(state_dir, sizeof state_dir, "%s/state", root);
	f = fopen(conf, "w");
	if (!f || fprintf(f, "service %s {\n%s}\n", name, body) < 0 || fclose(f))
		die("%s: %s", conf, strerror(errno));
	setenv("HANDOFF_RUNTIME_DIR", run_dir, 1);
	setenv("HANDOFF_STATE_DIR", state_dir, 1);
	while (trace && *trace && n < 28)
		argv[n++] = *trace++;
	argv[n++] = (char *)(uintptr_t)handoffd;
	argv[n++] = (char *)"-c";
	argv[n++] = conf;
	argv[n] = NULL;
	s->handoffd = run(argv, s->log);
	s->tracer = n > 3 ? s->handoffd : 0;
	await_serving(s);
}

static void note_phase(struct took *t, const struct msg *m)
{
	struct phase *p = &t->phase[t->nphases];

	if (t->nphases == sizeof t->phase / sizeof *t->phase)
		return;
	snprintf(p->name, sizeof p->name, "%.*s", (int)m->op_event.phase.n, m->op_event.phase.p);
	p->at = (double)m->op_event.us;
	t->nphases++;
}

void service_upgrade(struct service *s, const char *binary, struct took *ret)
{
	struct msg m = { .type = MSG_op_upgrade };
	double start;
	char text[400];

	if (getrandom(m.op_upgrade.id.b, sizeof m.op_upgrade.id.b, 0) < 0)
		die("getrandom: %s", strerror(errno));
	if (binary)
		MSG_SET(&m, op_upgrade, binary, SPAN(binary));
	connect_again(s);
	start = now_us();
	ask(s, &m);
	*ret = (struct took){ 0 };
	for (receive(s, &m); m.type == MSG_op_event; receive(s, &m))
		note_phase(ret, &m);
	ret->reported = now_us() - start;
	if (m.type != MSG_op_result)
		fail(s, "no Result in answer to an Upgrade");
	if (m.op_result.code || m.op_result.outcome.n != 9 ||
	    memcmp(m.op_result.outcome.p, "committed", 9)) {
		snprintf(text, sizeof text, "an upgrade did not commit: %.*s: %.300s",
		         (int)m.op_result.outcome.n, m.op_result.outcome.p,
		         m.op_result.message.n ? m.op_result.message.p : "");
		fail(s, text);
	}
	ret->pause = (double)m.op_result.pause_us;
	ret->serving = (double)m.op_result.serving_us;
	ret->total = (double)m.op_result.total_us;
	s->daemon = (pid_t)m.op_result.pid;
	chan_close(&s->ops);
}

void service_stop(struct service *s)
{
	int status;

	chan_close(&s->ops);
	kill(s->handoffd, SIGTERM);
	if ((status = finish(s->tracer ? s->tracer : s->handoffd)))
		die("%s: handoffd ended with status %d", s->name, status);
}
