#include "handoffd/answerer.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"

void answerer_tie(pid_t parent)
{
	sys_prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(ECANCELED);
}

pid_t answerer_fork(answerer_child *child, void *arg, int *ret_out)
{
	const pid_t parent = getpid();
	sigset_t all, before;
	int out[2], e = sys_pipe(out);
	pid_t pid;

	if (e)
		return e;
	/* no handler of handoffd's may run in the child: they share its signal sockets */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = sys_fork();
	if (pid == 0) {
		answerer_tie(parent);
		child(arg, parent, out[1]);
		_exit(0);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	sys_close(out[1]);
	if (pid > 0)
		*ret_out = out[0];
	else
		sys_close(out[0]);
	return pid;
}

struct timeval answerer_ms(uint32_t ms)
{
	return (struct timeval){ ms / 1000, (suseconds_t)(ms % 1000 * 1000) };
}

static int watch(struct answerer *a, struct event_base *base, uint32_t ms, event_callback_fn on_end, void *arg)
{
	const struct timeval limit = answerer_ms(ms);

	if ((a->pidfd = sys_pidfd_open(a->pid)) < 0)
		return a->pidfd;
	a->end = event_new(base, a->pidfd, EV_READ, on_end, arg);
	if (a->end && !event_add(a->end, &limit))
		return 0;
	if (a->end)
		event_free(a->end);
	a->end = NULL;
	sys_closep(&a->pidfd);
	return -ENOMEM;
}

int answerer_start(struct answerer *a, struct event_base *base, answerer_child *child, void *arg,
                   uint32_t ms, event_callback_fn on_end, void *on_end_arg)
{
	int e;

	*a = (struct answerer){ .status = -1 };
	if ((a->pid = answerer_fork(child, arg, &a->out)) < 0)
		return a->pid;
	sys_nonblock(a->out);   /* what it has started may keep the other end */
	if ((e = watch(a, base, ms, on_end, on_end_arg))) {
		kill(a->pid, SIGKILL);   /* not reaped yet: it is that child */
		sys_waitpid(a->pid, NULL, 0);
		sys_closep(&a->out);
	}
	return e;
}

bool answerer_reaped(struct answerer *a, pid_t pid, int status)
{
	if (!a->end || a->pid != pid)
		return false;
	a->status = status;
	return true;
}

void answerer_kill(const struct answerer *a)
{
	sys_pidfd_signal(a->pidfd, SIGKILL);
}

void answerer_forget(struct answerer *a)
{
	event_free(a->end);
	a->end = NULL;
	sys_closep(&a->pidfd);
	sys_closep(&a->out);
}
