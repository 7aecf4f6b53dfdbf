/*
 * A job: a function that runs in a thread of its own while the loop goes on.
 * When it has ended, wake_fd (an eventfd in the loop) becomes readable.
 */
#ifndef KVD_JOB_H
#define KVD_JOB_H

#include <pthread.h>
#include <stdatomic.h>

struct job {
	pthread_t thread;
	int running;          /* belongs to the loop's thread */
	atomic_int ended;
	int wake_fd;
	void (*fn)(void *arg);
	void *arg;
};

int job_start(struct job *j, void (*fn)(void *arg), void *arg, int wake_fd); /* 0 or -errno */
/* 1 once for a job that has ended; with wait: waits for it. */
int job_reap(struct job *j, int wait);

#endif
