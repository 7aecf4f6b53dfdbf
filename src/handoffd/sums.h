/*
 * sums: the SHA-256 of what a daemon is started with: its executable, the files among its
 * arguments (an argument that is a file's path, or has one behind its first '='), and the
 * configuration. Hashing is for a short-lived child (copier.h); the loop only looks which
 * files they are.
 */
#ifndef HANDOFF_SUMS_H
#define HANDOFF_SUMS_H

#include "handoffd/conf.h"
#include "proto/msg.h"

struct exe_id;

#define SUMS_FILE_MAX (UINT64_C(1) << 30)   /* bytes; a larger one is data, and not hashed */

struct sums {
	struct fprint exe;      /* of the executable's bytes: what sha256sum(1) says */
	struct fprint rest;     /* of the others' sums, and of the configuration */
	struct fprint with;     /* which files the rest was: as sums_look() */
};

/* All 0: not known. */
static inline bool sum_known(const struct fprint *f)
{
	static const struct fprint none;
	return memcmp(f, &none, sizeof none) != 0;
}

static inline bool sum_same(const struct fprint *a, const struct fprint *b)
{
	return sum_known(a) && !memcmp(a, b, sizeof *a);
}

/*
 * Which files stand among c's arguments now, as the daemon's user sees them: their inodes,
 * sizes and times. Who writes to one, or puts another in its place, changes that. All 0 if it
 * cannot be looked at.
 */
void sums_look(const struct conf *c, struct fprint *ret);

/* The child's part: hashes the executable, from its beginning. was: what it must still be, if not
 * NULL. 0, or -errno: -ESTALE: it is not, or somebody wrote to it meanwhile; -EFBIG: over
 * SUMS_FILE_MAX. */
int sums_exe(int exe, const struct exe_id *was, struct sums *ret);

/* And the others, as the daemon's user: a change of the user has undone PR_SET_PDEATHSIG by then,
 * prctl(2). What cannot be read, or is being written to, leaves both sums all 0: not known. */
void sums_rest(const struct conf *c, struct sums *ret);

#endif
