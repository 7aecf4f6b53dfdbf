/* kvd: the store below a handoffd, and load on it. What does not work ends the run. */
#ifndef BENCH_KVD_H
#define BENCH_KVD_H

#include "service.h"

struct kvd {
	struct service service;
	const struct programs *bin;
	char root[128], data[128];
	char address[32];            /* 127.0.0.1:PORT */
	int fd;                      /* a connection for commands; -1: none yet */
	unsigned upgrades;
};

/* Runtime and state directory in a new directory of place, the data in one of data_place. */
void kvd_start(struct kvd *k, const struct programs *bin, const char *place, const char *data_place,
               const char *name);
/* The other version, by turns. */
void kvd_upgrade(struct kvd *k, struct took *ret);
void kvd_stop(struct kvd *k);

/* Writes so many keys, of 64 bytes each, pipelined. */
void kvd_fill(struct kvd *k, unsigned keys);
/* A field of INFO. */
double kvd_info(struct kvd *k, const char *field);
/* Starts a compaction of all shards; returns when one is running. */
void kvd_compact(struct kvd *k);
/* Waits until none is running and none is to come. */
void kvd_settle(struct kvd *k);

struct load {
	pid_t pid;
	char out[160];
};

/* kvload with these options, up to a NULL; its result, as JSON, comes to a file. */
void load_start(struct load *l, struct kvd *k, const char *name, const char *const *options);
/* Waits for its end (after a SIGTERM, if stop). Its exit status; the result in json. */
int load_end(struct load *l, int stop, char *json, size_t size);
/* The number at "key" behind "section" (NULL: the first of that name); dies without one. */
double json_number(const char *json, const char *section, const char *key);

#endif
