/*
 * keeper: whatever happens to a run (a failure, Ctrl-C, a crash), no process and no file of
 * it stays. The run is a child; its parent is the subreaper of all that the run starts.
 */
#ifndef BENCH_KEEPER_H
#define BENCH_KEEPER_H

struct places {
	char fast[64];   /* a directory on tmpfs, */
	char slow[64];   /* and one on disk; both are new and removed at the end */
};

/* Runs work in a child and returns its exit status, when all that it left is gone. */
int keep(int (*work)(const struct places *p, void *arg), void *arg);

/* The name of the file system that path lies on: "tmpfs", "ext4", else its number. */
const char *fs_name(const char *path);

/* A line to stderr, and the end of the run with status 1. */
void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...);

#endif
