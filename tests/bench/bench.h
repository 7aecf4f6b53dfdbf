/* bench: what its parts share. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "keeper.h"
#include "service.h"
#include "table.h"

struct bench {
	int quick;
	unsigned upgrades;            /* of the do-nothing daemon */
	struct programs bin;
	const struct places *places;
	int missed;                   /* aims */
};

void bench_row(struct bench *b, struct row r);

/* A subdirectory of parent, made; its path in out. */
void bench_dir(char out[128], const char *parent, const char *name);

void bench_nothing(struct bench *b);   /* handoffs of a daemon that does nothing; idle */
void bench_keys(struct bench *b);      /* kvd with few and many keys */
void bench_load(struct bench *b);      /* latencies beside a run without upgrade */
void bench_moves(struct bench *b);     /* live connections */
void bench_trace(struct bench *b);     /* no row: where the time of one upgrade goes */

/* A configuration with one listener main at root/main.sock, and more besides. */
void nothing_conf(char *out, size_t size, const struct bench *b, const char *root,
                  unsigned listeners);

#endif
