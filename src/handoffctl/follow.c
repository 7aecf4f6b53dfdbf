#include "handoffctl/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffctl/ask.h"
#include "handoffctl/place.h"
#include "handoffctl/plan.h"

#define SILENCE_MS  10000   /* then it is asked whether it is there at all */
#define ALIVE_MS    10000   /* in which it must answer that */
#define AGAIN_MS    15000   /* for a lost supervisor to come back */
#define TICK_MS     100

enum { GO_ON = -1, ANEW = -2 };   /* beside the exit codes */

struct follow {
	struct ctl *c;
	const struct follow_how *how;
	char *socket, *name;
	uint64_t wait_until;       /* --wait */
	struct chan chan;
	uint64_t heard_ms;         /* the last sign of life */
	int wake;                  /* readable after a signal */
	unsigned signals;
	unsigned deserted;         /* silences in a row in which nobody was found at the socket */
	bool starts;               /* a plan's successor did */
	bool aborting;
	struct ask abort;          /* on a connection of its own */
};

/* As ExecReload: what waits for this process is systemd. */
static bool is_reload(void)
{
	return getenv("MAINPID") != NULL;
}

/* ---- signals: a byte in a pipe, so that poll sees those that came before it, too ---- */

static int signal_pipe[2] = { -1, -1 };

static void on_signal(int sig)
{
	const int saved = errno;

	(void)sig;
	(void)!sys_write(signal_pipe[1], "", 1);
	errno = saved;
}

static int catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int r = sys_pipe(signal_pipe);

	for (int i = 0; r >= 0 && i < 2; i++)
		r = sys_fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK);
	if (r < 0)
		return r;
	sigaction(SIGINT, &sa, NULL);
	/* the unit is being stopped: handoffd is told so, too, and settles the handoff. An exit with
	 * an error would make the unit that is stopped a failed one; a death by SIGTERM does not */
	if (!is_reload())
		sigaction(SIGTERM, &sa, NULL);
	return 0;
}

static void release_signals(void)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	sys_closep(&signal_pipe[0]);
	sys_closep(&signal_pipe[1]);
}

/* ---- an end without a result ---- */

static int unknown(struct follow *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int unknown(struct follow *f, const char *fmt, ...)
{
	struct msg m = { .type = MSG_op_result };
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	m.op_result.code = CTL_UNKNOWN;
	m.op_result.outcome = SPAN("unknown");
	m.op_result.message = SPAN(text);
	if (f->how->id)
		MSG_SET(&m, op_result, id, *f->how->id);
	out_result(&f->c->out, &m);
	return CTL_UNKNOWN;
}

/* ---- Ctrl-C ---- */

static void start_abort(struct follow *f)
{
	ask_end(&f->abort);
	f->abort = ASK_INIT(f->socket);
	f->aborting = true;
}

static void step_abort(struct follow *f)
{
	struct msg m = { .type = MSG_op_abort };

	if (!f->aborting || f->abort.result != -EAGAIN)
		return;
	MSG_SET(&m, op_abort, id, *f->how->id);
	MSG_SET(&m, op_abort, reason, SPAN("interrupted by its operator"));
	ask_step(&f->abort, &m);
	if (f->abort.result == -EAGAIN)
		return;
	f->heard_ms = sys_now_ms();
	if (f->abort.result < 0)
		out_note(&f->c->out, "the abort could not be asked for: %s",
		         strerror(-f->abort.result));
	else if (f->abort.msg.type == MSG_op_result && f->abort.msg.op_result.code)
		out_note(&f->c->out, "no abort: %.*s", (int)f->abort.msg.op_result.message.n,
		         f->abort.msg.op_result.message.p);
	ask_end(&f->abort);
}

static int take_signals(struct follow *f)
{
	char buf[16];
	ssize_t n;

	while ((n = sys_read(f->wake, buf, sizeof buf)) > 0)
		f->signals += (unsigned)n;
	if (!f->signals || (f->signals == 1 && f->aborting))
		return GO_ON;
	if (f->signals > 1 || !f->how->abort)
		return unknown(f, "left; the %s goes on; see handoffctl status", f->how->what);
	out_note(&f->c->out, "asking for the abort, waiting for the outcome; once more Ctrl-C: "
	         "leave at once, the %s goes on", f->how->what);
	start_abort(f);
	return GO_ON;
}

/* ---- the supervisor is gone, or silent ---- */

static int send_request(struct follow *f, int fd, const struct msg *request)
{
	chan_init(&f->chan, fd);
	f->heard_ms = sys_now_ms();
	return chan_send(&f->chan, request, NULL, 0);
}

/* One attempt to come back. */
static bool reconnect(struct follow *f)
{
	struct msg m = { .type = MSG_op_outcome };
	const int fd = ask_connect(f->socket);

	if (fd < 0)
		return false;
	m.op_outcome.id = *f->how->id;
	if (send_request(f, fd, &m) < 0) {
		chan_close(&f->chan);
		return false;
	}
	/* the one that was asked for the abort may be gone, too */
	if (f->aborting && f->abort.result != 0)
		start_abort(f);
	return true;
}

static int lost(struct follow *f, int e)
{
	uint64_t end;
	int pause_ms = 10, r;

	if (e == -EBADMSG)
		return unknown(f, "what answers at %s does not speak this protocol: %s; see its "
		               "log, and handoffctl status", f->socket, f->chan.error);
	chan_close(&f->chan);
	if (!f->how->again)
		return unknown(f, "the supervisor closed the connection before the result of the "
		               "%s; see its log, and handoffctl status", f->how->what);
	/* systemd starts a dead supervisor again only when its ExecReload process has ended */
	if (is_reload())
		return unknown(f, "the supervisor went away; it finishes the handoff, or takes it "
		               "back, when systemd has started it again; see handoffctl status");
	out_note(&f->c->out, "the connection to the supervisor was lost; waiting for it, to ask "
	         "for the outcome");
	for (end = sys_now_ms() + AGAIN_MS; sys_now_ms() < end; pause_ms *= 1 + (pause_ms < 320)) {
		struct pollfd p = { f->wake, POLLIN, 0 };

		sys_poll(&p, 1, pause_ms);
		if ((r = take_signals(f)) != GO_ON)
			return r;
		if (reconnect(f))
			return GO_ON;
	}
	return unknown(f, "the supervisor went away and did not come back within %d s; start it "
	               "again: it finishes the handoff, or takes it back, and handoffctl status "
	               "says which", AGAIN_MS / 1000);
}

/* Long phases are silent, and so is a supervisor that hangs: a question tells them apart. */
static int check_alive(struct follow *f)
{
	const struct msg m = { .type = MSG_op_status };
	struct ask a = ASK_INIT(f->socket);
	struct pollfd p = { f->chan.fd, POLLIN, 0 };
	int r;

	ask_all(&a, 1, &m, ALIVE_MS, f->wake);
	r = a.result;
	ask_end(&a);
	f->heard_ms = sys_now_ms();
	f->deserted = r < 0 ? f->deserted + 1 : 0;
	if (sys_poll(&p, 1, 0) > 0)
		return GO_ON;
	/* the end of our connection should say so by the next time; it does not while another
	 * process holds a copy of it, or for a supervisor whose directory was removed */
	if (r < 0 && r != -ETIMEDOUT && r != -EINTR && f->deserted > 1)
		return unknown(f, "nobody is at %s any more (%s), and the connection to the supervisor "
		               "is silent; start it again: it finishes the %s, or takes it back",
		               f->socket, strerror(-r), f->how->what);
	if (r != -ETIMEDOUT)
		return GO_ON;
	return unknown(f, "the supervisor has not answered for %d s; it may be stopped or hang; "
	               "the %s goes on when it does", (SILENCE_MS + ALIVE_MS) / 1000, f->how->what);
}

/* ---- the loop ---- */

static bool is_outcome(const struct msg *m, const char *outcome)
{
	const struct span *o = &m->op_result.outcome;

	return o->n == strlen(outcome) && !memcmp(o->p, outcome, o->n);
}

/* Why it came to nothing is known, but not here. */
static void say_where(const struct follow *f, const struct msg *m)
{
	const char *flag = f->c->socket ? "-S " : "";
	char id[37];

	if (f->c->json || !m->op_result.code || !MSG_HAS(m, op_result, id))
		return;
	hid_format(&m->op_result.id, id);
	if (f->how->again && (is_outcome(m, "aborted") || is_outcome(m, "rolled back")))
		fprintf(stderr, "  why, and what to do: handoffctl explain %s%s %.8s\n", flag, f->name, id);
	else if (is_outcome(m, "plan") && !f->starts)
		fprintf(stderr, "  what it wrote: journalctl -u handoff@%s, or the file that `output` names\n",
		        f->c->socket ? "NAME" : f->name);
}

/* Somebody else may have waited for the same handoff's end, and been quicker. */
static bool waits_anew(const struct follow *f, const struct msg *m)
{
	struct pollfd p = { f->wake, POLLIN, 0 };

	return m->op_result.code == CTL_BUSY && is_outcome(m, "refused") && sys_now_ms() < f->wait_until &&
	       !f->signals && sys_poll(&p, 1, 0) == 0;
}

/* GO_ON when there is no more for now; -errno comes back in *ret_error. */
static int take_messages(struct follow *f, int *ret_error)
{
	struct msg m;
	int r;

	chan_flush(&f->chan);   /* -EPIPE: what it has sent can still be read */
	while ((r = chan_recv(&f->chan, &m)) == 1) {
		f->heard_ms = sys_now_ms();
		if (m.type == MSG_op_event) {
			out_event(&f->c->out, &m);
		} else if (m.type == MSG_op_planned) {
			f->starts = MSG_HAS(&m, op_planned, start_us);
			plan_show(f->c, f->socket, &m);
		} else if (m.type == MSG_op_result && waits_anew(f, &m)) {
			return ANEW;
		} else if (m.type == MSG_op_result) {
			out_result(&f->c->out, &m);
			say_where(f, &m);
			/* it is not in the journal; other codes say that nobody accepted for long, or no commit */
			if (m.op_result.code == CTL_OK && is_outcome(&m, "committed") && f->c->max_stall.given && !MSG_HAS(&m, op_result, stall_us))
				out_note(&f->c->out, "whether --max-stall was met is not known: the supervisor "
				         "was started again in the middle");
			return (int)m.op_result.code;
		} else {
			snprintf(f->chan.error, sizeof f->chan.error, "%s in place of a result",
			         msg_name(m.type));
			r = -EBADMSG;
			break;
		}
	}
	*ret_error = r;
	return GO_ON;
}

static void wait_some(struct follow *f)
{
	const uint64_t now = sys_now_ms(), due = f->heard_ms + SILENCE_MS;
	const bool asking = f->aborting && f->abort.result == -EAGAIN;
	uint64_t left = due > now ? due - now : 0;
	struct pollfd p[3] = {
		{ f->chan.fd, POLLIN, 0 }, { f->wake, POLLIN, 0 },
		{ asking ? f->abort.chan.fd : -1, POLLIN, 0 },
	};

	if (chan_pending(&f->chan))
		p[0].events |= POLLOUT;
	if (asking && chan_pending(&f->abort.chan))
		p[2].events |= POLLOUT;
	if (*f->c->out.phase && left > TICK_MS)
		left = TICK_MS;
	if (asking && f->abort.chan.fd < 0 && left > ASK_RETRY_MS)
		left = ASK_RETRY_MS;
	sys_poll(p, 3, (int)left);
}

static int loop(struct follow *f)
{
	int r, e;

	for (;;) {
		e = 0;
		if ((r = take_messages(f, &e)) != GO_ON)
			return r;
		if (e < 0 && (r = lost(f, e)) != GO_ON)
			return r;
		if ((r = take_signals(f)) != GO_ON)
			return r;
		step_abort(f);
		if (sys_now_ms() >= f->heard_ms + SILENCE_MS && (r = check_alive(f)) != GO_ON)
			return r;
		wait_some(f);
		out_tick(&f->c->out);
	}
}

static int follow_once(struct ctl *c, const struct msg *request, const struct follow_how *how,
                       uint64_t wait_until)
{
	struct follow f = { .c = c, .how = how, .wait_until = wait_until, .chan = { .fd = -1 } };
	int fd, r = place_find(c, &f.socket, &f.name);

	if (r)
		return r;
	f.abort = ASK_INIT(f.socket);
	fd = ask_connect_within(f.socket, ASK_CONNECT_MS);
	r = fd < 0 ? fd : catch_signals();
	if (r < 0 && fd >= 0)
		sys_close(fd);
	f.wake = signal_pipe[0];
	if (r >= 0)
		r = send_request(&f, fd, request);
	r = r < 0 ? place_error(c, f.name, f.socket, r, "") : loop(&f);
	chan_close(&f.chan);
	ask_end(&f.abort);
	release_signals();
	free(f.socket);
	free(f.name);
	return r;
}

int follow(struct ctl *c, const struct msg *request, const struct follow_how *how)
{
	const uint64_t end = sys_now_ms() + c->wait.ms;
	uint64_t now;
	int r;

	while ((r = follow_once(c, request, how, end)) == ANEW) {
		now = sys_now_ms();
		c->wait.ms = end > now ? end - now : 0;
	}
	return r;
}
