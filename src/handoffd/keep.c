#include "handoffd/keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/transient.h"

#define NAME_SIZE 24   /* of a number in decimal */

static const char *number_name(uint64_t number, char out[NAME_SIZE])
{
	snprintf(out, NAME_SIZE, "%llu", (unsigned long long)number);
	return out;
}

/* ---- what is left over ---- */

/* The entries of dir, each handed to remove; dir itself stays open. */
static void for_each(int dir, void (*remove)(int dir, const char *name, const void *arg), const void *arg)
{
	const int fd = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		sys_close(fd);
	for (struct dirent *e; d && (e = readdir(d)); )
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			remove(dir, e->d_name, arg);
	if (d)
		closedir(d);
}

static void remove_file(int dir, const char *name, const void *arg)
{
	(void)arg;
	sys_unlinkat(dir, name, 0);
}

/* Numbers of copies. */
struct named { uint64_t number[3]; };

static void remove_unnamed(int dir, const char *name, const void *arg)
{
	const struct named *named = arg;
	char text[NAME_SIZE];
	int sub;

	for (unsigned i = 0; i < sizeof named->number / sizeof *named->number; i++)
		if (named->number[i] && !strcmp(name, number_name(named->number[i], text)))
			return;
	sub = sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (sub >= 0) {
		for_each(sub, remove_file, NULL);
		sys_close(sub);
	}
	sys_unlinkat(dir, name, sub >= 0 ? AT_REMOVEDIR : 0);
}

static void sweep(int dir, const struct current *c, uint64_t spare)
{
	const struct named named = { { c->now.copy, c->before.copy, spare } };

	for_each(dir, remove_unnamed, &named);
}

void keep_sweep(int dir, const struct current *c)
{
	sweep(dir, c, 0);
}

/* ---- the copies ---- */

/* Opens a whole copy: its directory, and *ret_fd the file (O_PATH), if asked for. */
static int open_copy(const struct keep *k, const char *path, uint64_t number, uint64_t size, int *ret_fd)
{
	char name[NAME_SIZE];
	struct stat st;
	int e, fd, dir;

	if (!number)
		return -ENOENT;
	dir = sys_openat(k->dir, number_name(number, name), O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	if (dir < 0)
		return dir;
	e = fd = sys_openat(dir, exe_name(path), O_PATH | O_NOFOLLOW, 0);
	if (fd >= 0)
		e = sys_fstat(fd, &st);
	if (!e && (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size))
		e = -EIO;
	if (!e && ret_fd)
		*ret_fd = fd;
	else
		sys_closep(&fd);
	if (e < 0)
		sys_closep(&dir);
	return e < 0 ? e : dir;
}

int keep_copy_dir(const struct keep *k, const struct exe *e)
{
	return open_copy(k, e->path, e->copy, e->id.size, NULL);
}

/* The copy of w as an executable. */
static int exe_of_copy(const struct keep *k, const struct kept *w, struct exe *ret)
{
	struct exe e = { .fd = -1, .id = w->id, .copy = w->copy };
	struct stat st;
	int dir = open_copy(k, w->path, w->copy, w->id.size, &e.fd), r;

	if (dir < 0)
		return dir;
	sys_close(dir);
	if ((r = sys_fstat(e.fd, &st))) {
		exe_close(&e);
		return r;
	}
	e.dev = st.st_dev;
	e.ino = st.st_ino;
	snprintf(e.path, sizeof e.path, "%s", w->path);
	*ret = e;
	return 0;
}

uint64_t keep_number(const struct keep *k)
{
	return (k->c.now.copy > k->c.before.copy ? k->c.now.copy : k->c.before.copy) + 1;
}

/* ---- the directory ---- */

static int open_dir(const char *state_dir)
{
	char path[4200];
	int e;

	snprintf(path, sizeof path, "%s/exe", state_dir);
	e = sys_mkdir(path, 0700);
	return e && e != -EEXIST ? e : sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* One that is gone, or torn, is made again while its executable serves. */
static void check_copy(const struct keep *k, struct kept *w)
{
	int dir = w->copy ? open_copy(k, w->path, w->copy, w->id.size, NULL) : -1;

	if (dir >= 0) {
		sys_close(dir);
	} else if (w->copy && (dir == -ENOENT || dir == -EIO)) {
		log_error("the kept copy of %s is lost: %s", w->path, strerror(-dir));
		w->copy = 0;
	}
}

void keep_open(struct keep *k, const char *state_dir, uint64_t spare)
{
	k->dir = -1;
	if (keep_reopen(k, state_dir, k->why, sizeof k->why))
		return;
	check_copy(k, &k->c.now);
	check_copy(k, &k->c.before);
	k->litter = k->dirty;
	if (!k->dirty)
		sweep(k->dir, &k->c, spare);
}

int keep_set_aside(const char *state_dir)
{
	char from[4200], to[4200];
	int e;

	snprintf(from, sizeof from, "%s/exe", state_dir);
	snprintf(to, sizeof to, "%s/exe.damaged", state_dir);
	e = sys_rename(from, to);
	return e == -ENOENT ? 0 : e;
}

int keep_reopen(struct keep *k, const char *state_dir, char *why, size_t size)
{
	int fd, e;

	if (k->dir >= 0)
		return 0;
	if (k->stray && (e = keep_set_aside(state_dir))) {
		snprintf(why, size, "%.200s/exe.damaged: %s", state_dir, strerror(-e));
		return e;
	}
	k->stray = false;
	if ((fd = open_dir(state_dir)) < 0) {
		snprintf(why, size, "%.200s/exe: %s", state_dir, strerror(-fd));
		return fd;
	}
	k->dir = fd;
	k->why[0] = '\0';
	return 0;
}

void keep_close(struct keep *k)
{
	sys_closep(&k->dir);
}

/* ---- which bytes ---- */

/* Is w what this path means? A bare name is looked for in PATH, where it may lie no more. */
static bool is_of(const struct kept *w, const char *path)
{
	return !strcmp(strchr(path, '/') ? w->path : exe_name(w->path), path);
}

int keep_cold(const struct keep *k, const struct conf *c, const char *binary, bool asked,
              struct exe *ret, char *err, size_t err_size)
{
	const char *path = binary[0] ? binary : c->command[0];
	const struct kept *w = &k->c.now;
	struct exe kept, there = { .fd = -1 };
	int r = exe_open(c, path, &there, err, err_size), e;

	if (!r && is_of(w, path) && exe_id_same(&there.id, &w->id))
		there.copy = w->copy;
	if (!w->copy || !is_of(w, path) || (!r && (there.copy || (asked && !w->held)))) {
		if (!r)
			*ret = there;
		return r;
	}
	if ((e = exe_of_copy(k, w, &kept))) {
		log_error("the kept copy of %s cannot be opened: %s; what lies at the path is started", w->path,
		          strerror(-e));
		if (!r)
			*ret = there;
		return r && transient(e) ? e : r;
	}
	log_warning("%s%s: the kept copy of the one that has served is started; 'handoffctl upgrade' takes what "
	            "lies at the path", r ? err : w->path, r ? "" : " is another file by now");
	exe_close(&there);
	*ret = kept;
	return 0;
}

int keep_before(const struct keep *k, const struct conf *c, struct exe *ret, char *err, size_t err_size)
{
	const struct kept *w = &k->c.before;
	struct exe e;

	if (!w->path[0]) {
		snprintf(err, err_size, "there is no previous executable: none but the current one has served here");
		return -ENOENT;
	}
	if (!exe_open(c, w->path, &e, err, err_size)) {
		if (exe_id_same(&e.id, &w->id)) {
			e.copy = w->copy;
			*ret = e;
			return 0;
		}
		exe_close(&e);
	}
	if (!exe_of_copy(k, w, ret))
		return 0;
	snprintf(err, err_size, "the previous executable, %s, has been replaced or removed, and there is no copy of it; "
	         "'handoffctl upgrade --binary' takes one from elsewhere", w->path);
	return -ENOENT;
}

/* Is that file w's, or the copy of it? */
static bool is_kept(const struct keep *k, const struct kept *w, const struct stat *st)
{
	const struct exe_id id = exe_id(st);
	struct exe e;
	bool is;

	if (exe_id_alike(&id, &w->id))
		return true;
	if (exe_of_copy(k, w, &e))
		return false;
	is = e.dev == st->st_dev && e.ino == st->st_ino;
	exe_close(&e);
	return is;
}

int keep_of_pid(const struct keep *k, pid_t pid, struct exe *ret)
{
	const struct kept *const kept[] = { &k->c.now, &k->c.before };
	struct exe e = { .fd = exe_fd_of_pid(pid) };
	struct stat st;
	int r;

	if (e.fd < 0)
		return e.fd;
	r = sys_fstat(e.fd, &st);
	for (int i = 0; !r && i < 2; i++)
		if (is_kept(k, kept[i], &st)) {
			e.dev = st.st_dev;
			e.ino = st.st_ino;
			e.id = kept[i]->id;
			e.copy = kept[i]->copy;
			snprintf(e.path, sizeof e.path, "%s", kept[i]->path);
			*ret = e;
			return 0;
		}
	exe_close(&e);
	return r ? r : -ENOENT;
}

int keep_pinned(const struct keep *k, const char *path, uint64_t number, struct exe *ret)
{
	struct exe e = { .fd = -1, .copy = number, .pinned = true };
	struct stat st;
	int r;

	snprintf(e.path, sizeof e.path, "%s", path);
	if ((r = keep_read(k->dir, &e, number)) < 0)
		return r;
	e.fd = r;
	if ((r = sys_fstat(e.fd, &st))) {
		exe_close(&e);
		return r;
	}
	e.dev = st.st_dev;
	e.ino = st.st_ino;
	e.id.size = (uint64_t)st.st_size;   /* of what lay at the path nothing else is known */
	*ret = e;
	return 0;
}

/* ---- who serves ---- */

static bool is_now(const struct current *c, const struct exe *e, const char *path)
{
	if (e->copy && e->copy == c->now.copy)
		return true;
	/* pinned: a new copy, maybe of the same file */
	return (!e->copy || e->pinned) && !strcmp(c->now.path, path) && exe_id_alike(&c->now.id, &e->id);
}

/* Both are copies of the same file: the one that runs is kept. True: it is another. */
static bool take_pinned(struct keep *k, const struct exe *e)
{
	if (!e->pinned || !e->copy || e->copy == k->c.now.copy)
		return false;
	k->c.now.copy = e->copy;
	k->litter = true;
	return true;
}

void keep_recall(const struct keep *k, struct exe *e)
{
	if (is_now(&k->c, e, e->path))
		e->with = k->c.now.with;
}

bool keep_sums(struct keep *k, const struct exe *e, const struct sums *sums)
{
	struct kept *w = &k->c.now;

	if (!is_now(&k->c, e, e->path) || !sum_same(&w->with, &sums->with))
		return false;
	w->sum = sums->exe;
	w->rest = sums->rest;
	return true;
}

/* The sums are those of what it was started with. True: it was something else. */
static bool started_with(struct kept *w, const struct exe *e)
{
	if (!memcmp(&w->with, &e->with, sizeof w->with))
		return false;
	w->with = e->with;
	w->sum = w->rest = (struct fprint){ { 0 } };
	return true;
}

bool keep_serves(struct keep *k, struct exe *e, const char *binary, const char *command,
                 enum keep_how how)
{
	struct current *c = &k->c;
	const char *path = e->fd >= 0 ? e->path : binary[0] ? binary : command;
	const bool named = binary[0];
	struct kept former = c->now;

	if (is_now(c, e, path)) {
		const bool held = how == KEEP_STARTED ? c->now.held : how == KEEP_ROLLED_BACK;
		const bool same = c->now.named == named && c->now.held == held && !take_pinned(k, e);

		e->copy = c->now.copy;
		c->now.named = named;
		c->now.held = held;
		return started_with(&c->now, e) || !same;
	}
	if (e->copy && e->copy == c->before.copy) {
		c->now = c->before;
	} else {
		c->now = (struct kept){ .id = e->id, .copy = e->pinned ? e->copy : 0 };
		snprintf(c->now.path, sizeof c->now.path, "%s", path);
	}
	c->now.named = named;
	c->now.held = how == KEEP_ROLLED_BACK;
	started_with(&c->now, e);
	if (former.path[0])
		c->before = former;
	c->before.held = false;
	k->why[0] = '\0';
	return true;
}

/* ---- the child's part ---- */

static int check_source(int from, const struct exe *e)
{
	struct stat st = { 0 };
	int r = sys_fstat(from, &st);
	const struct exe_id id = exe_id(&st);

	return r ? r : exe_id_alike(&id, &e->id) ? 0 : -ESTALE;
}

static int copy_bytes(int from, int to, uint64_t bytes)
{
	static char buf[1 << 16];
	ssize_t n, w;
	int e;

	if (sys_ficlone(to, from) == 0)
		return 0;
	/* a full disk shows before anything is written; not all file systems can do it */
	e = sys_fallocate(to, (off_t)bytes);
	if (e && e != -EOPNOTSUPP)
		return e;
	while ((n = sys_read(from, buf, sizeof buf)) > 0)
		for (char *p = buf; n > 0; n -= w, p += w)
			if ((w = sys_write(to, p, (size_t)n)) <= 0)
				return w < 0 ? (int)w : -EIO;
	return (int)n;
}

/* Into dir, by its own name, and down to the disk. */
static int write_file(int dir, int from, const struct exe *e)
{
	const char *name = exe_name(e->path);
	/* executable for all from the start: who cannot enter the state directory cannot reach it,
	 * and the mode comes to the disk with the inode */
	int to = sys_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0555);
	struct stat st;
	int r = to < 0 ? to : copy_bytes(from, to, e->id.size);

	if (!r)
		r = sys_fdatasync(to);
	if (!r)
		r = sys_fstat(to, &st);
	if (!r && (uint64_t)st.st_size != e->id.size)
		r = -ESTALE;
	sys_closep(&to);
	if (!r)
		r = check_source(from, e);
	if (!r)
		r = sys_faccessat(dir, name, X_OK, 0);   /* noexec shows here */
	return r ? r : sys_fdatasync(dir);
}

static int write_copy(int dir, int from, const struct exe *e, uint64_t number)
{
	char name[NAME_SIZE];
	int sub, r = sys_mkdirat(dir, number_name(number, name), 0711);

	if (r)
		return r;
	if ((sub = sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)) < 0)
		return sub;
	r = write_file(sub, from, e);
	sys_close(sub);
	return r ? r : sys_fdatasync(dir);
}

int keep_write(int dir, const struct current *c, const struct exe *e, int from, uint64_t number)
{
	const mode_t mask = umask(0);
	int r;

	keep_sweep(dir, c);
	r = check_source(from, e);
	if (!r)
		r = write_copy(dir, from, e, number);
	if (r)
		keep_sweep(dir, c);
	umask(mask);
	return r;
}

int keep_read(int dir, const struct exe *e, uint64_t number)
{
	char name[NAME_SIZE];
	int sub = sys_openat(dir, number_name(number, name), O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), fd;

	if (sub < 0)
		return sub;
	fd = sys_openat(sub, exe_name(e->path), O_RDONLY | O_NOFOLLOW, 0);
	sys_close(sub);
	return fd;
}
