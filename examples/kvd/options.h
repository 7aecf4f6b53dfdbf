/* options: the command line, one table for the parser and --help. */
#ifndef KVD_OPTIONS_H
#define KVD_OPTIONS_H

#include "fault.h"

#include <stdint.h>

extern const char kvd_version[]; /* version.c */

#define MAX_LISTEN 16

struct options {
	const char *data_dir;
	const char *listen[MAX_LISTEN];
	unsigned listens;
	unsigned shards;
	int fsync_always;
	unsigned max_clients;
	uint64_t segment_size;
	uint64_t compact_min;
	int verify, debug;
	struct faults faults;
};

/* Says what is wrong in one line and exits 2; --help and --version exit 0. */
void options_parse(struct options *o, int argc, char **argv);

#endif
