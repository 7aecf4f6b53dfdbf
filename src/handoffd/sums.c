#include "handoffd/sums.h"

#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/ids.h"
#include "handoffd/spawn.h"

/* ---- the files among the arguments ---- */

static bool is_file(const struct conf *c, const char *name, char path[4096], struct stat *st)
{
	const char *dir = c->working_dir ? c->working_dir : "/";
	const int n = *name == '/' ? snprintf(path, 4096, "%s", name) : snprintf(path, 4096, "%s/%s", dir, name);

	return *name && n < 4096 && !sys_stat(path, st) && S_ISREG(st->st_mode);
}

/* "/etc/kvd.conf", "--config=/etc/kvd.conf" */
static bool find_file(const struct conf *c, const char *argument, char path[4096], struct stat *st)
{
	const char *value = strchr(argument, '=');

	return is_file(c, argument, path, st) || (value && is_file(c, value + 1, path, st));
}

/* ---- one file ---- */

static int hash_bytes(int fd, struct fprint *ret)
{
	static uint8_t buf[1 << 16];
	SHA2_CTX sha;
	off_t at = 0;
	ssize_t n;

	SHA256Init(&sha);
	for (; (n = sys_pread(fd, buf, sizeof buf, at)) > 0; at += n)
		SHA256Update(&sha, buf, (size_t)n);
	SHA256Final(ret->b, &sha);
	return (int)n;
}

/* What is hashed is one state of the file, and *ret_id says which. */
static int hash_file(int fd, struct exe_id *ret_id, struct fprint *ret)
{
	struct stat st;
	struct exe_id after;
	int e = sys_fstat(fd, &st);

	if (e)
		return e;
	if (!S_ISREG(st.st_mode))   /* it was, a moment ago */
		return -ESTALE;
	if ((uint64_t)st.st_size > SUMS_FILE_MAX)
		return -EFBIG;
	*ret_id = exe_id(&st);
	if ((e = hash_bytes(fd, ret)) || (e = sys_fstat(fd, &st)))
		return e;
	after = exe_id(&st);
	return exe_id_same(&after, ret_id) ? 0 : -ESTALE;
}

/* It was a file a moment ago; a FIFO that has come since must not hold the child up. */
static int hash_path(const char *path, struct exe_id *ret_id, struct fprint *ret)
{
	const int fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	int e;

	if (fd < 0)
		return fd;
	e = hash_file(fd, ret_id, ret);
	sys_close(fd);
	return e;
}

/* ---- all of them ---- */

static void add_id(SHA2_CTX *sha, unsigned place, const struct exe_id *id)
{
	const uint64_t v[] = { place, id->ino, id->size, id->mtime, id->ctime };

	SHA256Update(sha, (const uint8_t *)v, sizeof v);
}

/* ret_rest NULL: they are only looked at. */
static int walk(const struct conf *c, struct fprint *ret_with, struct fprint *ret_rest)
{
	SHA2_CTX with, rest;
	char path[4096];
	struct stat st;
	int e = 0;

	SHA256Init(&with);
	SHA256Update(&with, (const uint8_t *)&c->sum, sizeof c->sum);
	rest = with;
	for (unsigned i = 1; !e && c->command[0] && c->command[i]; i++) {
		struct exe_id id;
		struct fprint sum;

		if (!find_file(c, c->command[i], path, &st))
			continue;
		id = exe_id(&st);
		if (ret_rest && (e = hash_path(path, &id, &sum)))
			break;
		add_id(&with, i, &id);
		if (ret_rest) {
			SHA256Update(&rest, (const uint8_t *)&i, sizeof i);
			SHA256Update(&rest, sum.b, sizeof sum.b);
		}
	}
	SHA256Final(ret_with->b, &with);
	if (ret_rest)
		SHA256Final(ret_rest->b, &rest);
	return e;
}

void sums_look(const struct conf *c, struct fprint *ret)
{
	struct ids_saved saved;

	memset(ret, 0, sizeof *ret);
	if (ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved))
		return;
	walk(c, ret, NULL);
	ids_leave(&saved);
}

int sums_exe(int exe, const struct exe_id *was, struct sums *ret)
{
	struct exe_id id;
	const int e = hash_file(exe, &id, &ret->exe);

	return e ? e : was && !exe_id_same(&id, was) ? -ESTALE : 0;
}

void sums_rest(const struct conf *c, struct sums *ret)
{
	struct ids_saved saved;
	int e = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved);

	if (!e) {
		e = walk(c, &ret->with, &ret->rest);
		ids_leave(&saved);
	}
	if (e)
		ret->with = ret->rest = (struct fprint){ { 0 } };
}
