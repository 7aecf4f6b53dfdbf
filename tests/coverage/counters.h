/*
 * Included into every file of a build with --enable-coverage. gcov's counters are written when a
 * process exits, and many here never do: they are killed, become another program, or leave by
 * _exit(2). So they are written before each wait, too, and what counts is only what was written.
 *
 * No header is needed for these four: the names of their declarations change as well.
 */
#ifndef TESTS_COVERAGE_COUNTERS_H
#define TESTS_COVERAGE_COUNTERS_H

struct event_base;
struct pollfd;

void __gcov_dump(void);
void __gcov_reset(void);
void counters_real_exit(int status) __asm__("_exit") __attribute__((noreturn));
int counters_real_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
	__asm__("execveat");
int counters_real_poll(struct pollfd *p, unsigned long n, int ms) __asm__("poll");
int counters_real_loop(struct event_base *base, int flags) __asm__("event_base_loop");

unsigned umask(unsigned mask);

/* Whoever comes first makes the file, and daemons of other users write it, too. */
static inline void counters_written(void)
{
	unsigned before = umask(0);

	__gcov_dump();
	__gcov_reset();
	umask(before);
}

/* Before gcov's own, which is the last one. */
__attribute__((destructor)) static void counters_at_exit(void)
{
	umask(0);
}

__attribute__((noreturn)) static inline void counters_exit(int status)
{
	counters_written();
	counters_real_exit(status);
}

static inline int counters_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	counters_written();
	return counters_real_execveat(dir, path, argv, envp, flags);
}

static inline int counters_poll(struct pollfd *p, unsigned long n, int ms)
{
	if (ms)
		counters_written();
	return counters_real_poll(p, n, ms);
}

static inline int counters_loop(struct event_base *base, int flags)
{
	counters_written();
	return counters_real_loop(base, flags);
}

#define _exit counters_exit
#define execveat counters_execveat
#define poll counters_poll
#define event_base_loop counters_loop

#endif
