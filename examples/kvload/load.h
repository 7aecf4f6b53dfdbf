/*
 * load: requests at a constant rate over connections that stay and over fresh
 * ones. Every request has a due time that depends on the rate alone, and its
 * latency counts from there: a server that stalls makes all the requests late
 * that became due meanwhile, not only the ones that were waiting.
 */
#ifndef KVLOAD_LOAD_H
#define KVLOAD_LOAD_H

#include "keys.h"
#include "stats.h"
#include "target.h"

struct load_options {
	struct target target;
	unsigned keepalive;      /* connections that stay */
	double keepalive_rate;   /* requests/s over all of them */
	double fresh_rate;       /* fresh connections/s */
	uint64_t duration_us;    /* 0: until a signal */
	uint64_t timeout_us;
	uint64_t report_us;      /* 0: no progress lines */
	uint64_t seed;
	bool json;
};

/*
 * Runs the load; blocks until duration_us is over or SIGINT or SIGTERM came,
 * and then until every request under way has ended (a second signal ends that,
 * too). SIGUSR1 prints a line of JSON. The counts go to s, what was
 * acknowledged to k. 0 or -errno.
 */
int load_run(const struct load_options *o, struct keys *k, struct stats *s);

#endif
