#include "job.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static void *run(void *arg)
{
	const uint64_t one = 1;
	struct job *j = arg;

	j->fn(j->arg);
	atomic_store(&j->ended, 1);
	if (write(j->wake_fd, &one, sizeof(one)) < 0)
		return NULL; /* an eventfd is never full at these counts */
	return NULL;
}

int job_start(struct job *j, void (*fn)(void *arg), void *arg, int wake_fd)
{
	sigset_t all, old;
	int r;

	j->fn = fn;
	j->arg = arg;
	j->wake_fd = wake_fd;
	atomic_store(&j->ended, 0);
	/* signals are the loop's: the new thread inherits a full mask */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&j->thread, NULL, run, j);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	j->running = !r;
	return r;
}

int job_reap(struct job *j, int wait)
{
	if (!j->running || (!wait && !atomic_load(&j->ended)))
		return 0;
	pthread_join(j->thread, NULL);
	j->running = 0;
	return 1;
}
