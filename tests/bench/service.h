/*
 * service: a handoffd of the bench's own, and requests to its control socket. Everything
 * that does not work ends the run (die), with the end of handoffd's log.
 */
#ifndef BENCH_SERVICE_H
#define BENCH_SERVICE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/chan.h"

struct programs {
	char handoffd[512], nothing[512], kvd1[512], kvd2[512], kvload[512];
	/* "LD_PRELOAD=...": an installed library is found by the linker's cache, this one only by
	 * a search through some forty directories, which would be measured, too */
	char preload[640];
};

/* Finds them in the build directory top; libtool's scripts are not taken for programs. */
void programs_find(struct programs *p, const char *top);

struct service {
	char name[32], root[128], log[160];
	pid_t handoffd, tracer;   /* tracer: strace, when it runs below one; else 0 */
	pid_t daemon;
	struct chan ops;
};

/* What one upgrade took, in microseconds. */
struct took {
	double pause;     /* Prepare sent to N's Status, handoffd's clock */
	double serving;   /* request received to N's Status, handoffd's clock */
	double total;     /* request received to the outcome, handoffd's clock */
	double reported;  /* request sent to the outcome received, the operator's clock */
	unsigned nphases;
	struct phase { char name[16]; double at; } phase[16];   /* begun, after the request */
};

/*
 * Writes root/NAME.conf with body between "service NAME {" and "}", starts handoffd (below
 * trace, an argument vector, if it is not NULL) and waits until its daemon serves. Runtime
 * and state directory lie in root, which must exist.
 */
void service_start(struct service *s, const char *handoffd, const char *root, const char *name,
                   const char *body, char *const trace[]);

/* An upgrade, to binary or (NULL) to the configured one; it must commit. */
void service_upgrade(struct service *s, const char *binary, struct took *ret);

/* The state's name and the daemon's pid (0: none), asked of handoffd. */
pid_t service_ask(struct service *s, char state[64]);

/* SIGTERM; waits for the end, which must be an orderly one. */
void service_stop(struct service *s);

/* Starts argv, with its output to the file out (NULL: the bench's own). */
pid_t run(char *const argv[], const char *out);
/* Waits for it; returns its exit status, 128 + n for signal n. */
int finish(pid_t pid);

double now_us(void);
void sleep_ms(unsigned ms);

#endif
