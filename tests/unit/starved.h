/*
 * starved: libevent without memory, its own or the kernel's. starved_setup() before the first
 * event base; then memory_left and epoll_failing say when there is a lack of it.
 */
#ifndef TESTS_UNIT_STARVED_H
#define TESTS_UNIT_STARVED_H

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned epoll_failing, epoll_failed;   /* so many additions to an epoll fail; so many have */
static int memory_left = -1;       /* allocations of libevent that succeed; -1: all */

/* In place of the C library's, for libevent. */
__attribute__((visibility("default"))) int epoll_ctl(int epfd, int op, int fd, struct epoll_event *e)
{
	if (op == EPOLL_CTL_ADD && epoll_failing) {
		epoll_failing--;
		epoll_failed++;
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, e);
}

static inline bool starved(void)
{
	return memory_left >= 0 && memory_left-- <= 0;
}

static void *starved_allocate(size_t n)
{
	return starved() ? NULL : malloc(n);
}

static void *starved_reallocate(void *p, size_t n)
{
	return starved() ? NULL : realloc(p, n);
}

static inline void starved_setup(void)
{
	event_set_mem_functions(starved_allocate, starved_reallocate, free);
	epoll_failing = epoll_failed = 0;
	memory_left = -1;
}

#endif
