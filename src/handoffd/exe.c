#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/ids.h"
#include "handoffd/spawn.h"
#include "handoffd/transient.h"

/* One line about a path, and -errno. */
#define REFUSE(error, ...) (snprintf(err, err_size, __VA_ARGS__), (error))

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* PATH as the daemon will see it: the last one given wins, as in its environment. */
static const char *daemon_path(const struct conf *c)
{
	const char *path = c->clear_environment ? NULL : getenv("PATH");

	for (char **e = c->environment; e && *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			path = *e + 5;
	return path ? path : default_path;
}

/* A bare name through PATH. 0: *ret is a path whose file may be executed; -ENOENT, or the error of
 * a directory in which it may be. */
static int in_path(const char *list, const char *name, char ret[4096])
{
	int e = -ENOENT;

	for (size_t n; *list; list += n + (list[n] == ':')) {
		int r;

		n = strcspn(list, ":");
		if (snprintf(ret, 4096, "%.*s/%s", (int)n, list, name) >= 4096 || *list != '/')
			continue;
		if ((r = sys_faccessat(AT_FDCWD, ret, X_OK, AT_EACCESS)) == 0)
			return 0;
		if (transient(r))
			e = r;
	}
	return e;
}

/* ---- what the bytes are ---- */

struct head {
	union { unsigned char bytes[256]; Elf64_Ehdr elf; } u;
	ssize_t n;
};

static int read_head(const char *path, struct head *ret)
{
	ret->n = sys_read_file(path, O_NOCTTY | O_NONBLOCK, ret->u.bytes, sizeof ret->u.bytes - 1);
	if (ret->n < 0)
		return ret->n;
	ret->u.bytes[ret->n] = '\0';
	return 0;
}

static bool is_script(const struct head *h)
{
	return h->n >= 2 && h->u.bytes[0] == '#' && h->u.bytes[1] == '!';
}

static int check_script(struct head *h, const char *path, char *err, size_t err_size)
{
	char *interpreter = (char *)h->u.bytes + 2;
	int r;

	interpreter += strspn(interpreter, " \t");
	interpreter[strcspn(interpreter, " \t\r\n")] = '\0';
	r = *interpreter ? sys_faccessat(AT_FDCWD, interpreter, X_OK, AT_EACCESS) : -ENOEXEC;
	if (r < 0)
		return REFUSE(r,
			      "%s: its interpreter '%s' cannot be run: %s; correct its first line",
			      path, interpreter, strerror(-r));
	return 0;
}

/* handoffd's own, as it was loaded; the linker defines it. */
extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));

static int check_elf(const struct head *h, const char *path, char *err, size_t err_size)
{
	const unsigned theirs = h->u.elf.e_machine, ours = __ehdr_start.e_machine;

	if (h->n < (ssize_t)sizeof h->u.elf || memcmp(h->u.bytes, ELFMAG, SELFMAG))
		return REFUSE(-ENOEXEC, "%s: neither an ELF executable nor a script with #!; "
			      "was it copied completely?", path);
	if (h->u.elf.e_ident[EI_DATA] != __ehdr_start.e_ident[EI_DATA] ||
	    (theirs != ours && !(ours == EM_X86_64 && theirs == EM_386)))
		return REFUSE(
			-ENOEXEC,
			"%s: built for another architecture (ELF machine %u, this one is %u); "
			"install the build for this machine",
			path, theirs, ours);
	return 0;
}

static int check_bytes(struct exe *e, char *err, size_t err_size)
{
	struct head h;
	const int r = read_head(e->path, &h);

	/* what may be executed need not be readable, and who has a lease on it (fcntl(2), EAGAIN without
	 * waiting) gives that up: then exec will tell */
	if (r < 0)
		return transient(r) && r != -EAGAIN ? r : 0;
	e->script = is_script(&h);
	return e->script ? check_script(&h, e->path, err, err_size)
			 : check_elf(&h, e->path, err, err_size);
}

/* ---- which file it is ---- */

static uint64_t ns(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct exe_id exe_id(const struct stat *st)
{
	return (struct exe_id){ .ino = st->st_ino, .size = (uint64_t)st->st_size,
		.mtime = ns(st->st_mtim), .ctime = ns(st->st_ctim) };
}

bool exe_id_alike(const struct exe_id *a, const struct exe_id *b)
{
	return a->ino && a->ino == b->ino && a->size == b->size && a->mtime == b->mtime;
}

bool exe_id_same(const struct exe_id *a, const struct exe_id *b)
{
	return exe_id_alike(a, b) && a->ctime == b->ctime;
}

bool exe_is(const struct exe *e, const char *path, const struct exe_id *id)
{
	return e->fd >= 0 && exe_id_alike(&e->id, id) && !strcmp(e->path, path);
}

static void keep_id(struct exe *e, const struct stat *st)
{
	e->dev = st->st_dev;
	e->ino = st->st_ino;
	e->id = exe_id(st);
}

/* ---- resolving ---- */

static int check_file(struct exe *e, char *err, size_t err_size)
{
	struct stat st;
	int r;

	e->fd = sys_open(e->path, O_PATH, 0);
	if (e->fd < 0 && (e->fd == -ENOENT || e->fd == -ENOTDIR))
		return REFUSE(e->fd, "%s: no such file; install it, or correct command", e->path);
	if (e->fd < 0)
		return REFUSE(
			e->fd,
			"%s: cannot be opened: %s; let the daemon's user search its directories",
			e->path, strerror(-e->fd));
	r = sys_fstat(e->fd, &st);
	if (r < 0)
		return REFUSE(r, "%s: %s", e->path, strerror(-r));
	if (!S_ISREG(st.st_mode))
		return REFUSE(-EACCES, "%s: %s, not a file; name the executable itself", e->path,
			      S_ISDIR(st.st_mode) ? "a directory" : "a special file");
	r = sys_faccessat(AT_FDCWD, e->path, X_OK, AT_EACCESS);
	if (r < 0)
		return REFUSE(r,
			      "%s: not executable by the daemon's user: %s; chmod +x it, and look "
			      "for noexec "
			      "mounts",
			      e->path, strerror(-r));
	keep_id(e, &st);
	return check_bytes(e, err, err_size);
}

static int resolve(const struct conf *c, const char *path, struct exe *e, char *err,
		   size_t err_size)
{
	int r;

	if (strchr(path, '/')) {
		if (snprintf(e->path, sizeof e->path, "%s", path) >= (int)sizeof e->path)
			return REFUSE(-ENAMETOOLONG,
				      "%.64s...: the path is too long; use a shorter one", path);
	} else if ((r = in_path(daemon_path(c), path, e->path))) {
		return REFUSE(
			r,
			"%s: not found in the daemon's PATH (%s); install it, or write its path",
			path, daemon_path(c));
	}
	return check_file(e, err, err_size);
}

int exe_open(const struct conf *c, const char *path, struct exe *ret, char *err, size_t err_size)
{
	struct exe e = { .fd = -1 };
	struct ids_saved saved;
	int r = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved);

	if (r < 0)
		return REFUSE(r, "%s: cannot look at it as the daemon's user: %s%s", path,
			      strerror(-r), transient_hint(r));
	r = resolve(c, path, &e, err, err_size);
	ids_leave(&saved);
	if (transient(r))   /* then nothing is known of the file that could be mended */
		r = REFUSE(r, "%s: cannot be looked at: %s%s", path, strerror(-r), transient_hint(r));
	if (r < 0)
		exe_close(&e);
	else
		*ret = e;
	return r;
}

int exe_read(const struct conf *c, const struct exe *e)
{
	struct ids_saved saved;
	char path[40];
	int fd, r = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved);

	if (r < 0)
		return r;
	snprintf(path, sizeof path, "/proc/self/fd/%d", e->fd);   /* it was opened with O_PATH */
	fd = sys_open(path, O_RDONLY, 0);
	ids_leave(&saved);
	return fd;
}

int exe_fd_of_pid(pid_t pid)
{
	struct ids_saved saved;
	char proc[32];
	int fd, r = ids_enter_pid(pid, &saved);

	if (r)
		return r;
	snprintf(proc, sizeof proc, "/proc/%d/exe", (int)pid);
	fd = sys_open(proc, O_PATH, 0);
	ids_leave(&saved);
	return fd;
}

/* Is path what /proc/PID/exe names? It may have been replaced or removed since. */
static bool runs(const char *proc, const char *path)
{
	static const char gone[] = " (deleted)";
	char link[4200], real[PATH_MAX], dir[4096];
	const char *base = strrchr(path, '/');
	ssize_t n = readlink(proc, link, sizeof link - 1);

	if (n < 0 || !base)
		return false;
	link[n] = '\0';
	if ((size_t)n > sizeof gone && !strcmp(link + n - (sizeof gone - 1), gone))
		link[n - (ssize_t)(sizeof gone - 1)] = '\0';
	if (realpath(path, real) && !strcmp(real, link))
		return true;
	/* the file is gone: its directory may be reached by another path, too */
	snprintf(dir, sizeof dir, "%.*s/", (int)(base - path), path);
	if (!realpath(dir, real))
		return false;
	n = (ssize_t)strlen(real);
	return !strncmp(real, link, (size_t)n) && !strcmp(link + n, base);
}

/*
 * A script's process is its interpreter: then the script itself is taken, by its
 * path, since nothing in /proc leads from the process to the inode of the script.
 */
static int open_of_pid(pid_t pid, struct exe *e)
{
	struct stat st;
	struct head h;
	char proc[32];
	int r;

	snprintf(proc, sizeof proc, "/proc/%d/exe", (int)pid);
	e->script = read_head(e->path, &h) == 0 && is_script(&h);
	if (!e->script && !runs(proc, e->path))
		return -ENOENT;
	e->fd = sys_open(e->script ? e->path : proc, O_PATH, 0);
	if (e->fd < 0)
		return e->fd;
	r = sys_fstat(e->fd, &st);
	if (!r)
		keep_id(e, &st);
	return r;
}

int exe_of_pid(pid_t pid, const char *path, struct exe *ret)
{
	struct exe e = { .fd = -1 };
	struct ids_saved saved;
	int r;

	if (snprintf(e.path, sizeof e.path, "%s", path) >= (int)sizeof e.path)
		return -ENAMETOOLONG;
	if ((r = ids_enter_pid(pid, &saved)))
		return r;
	r = open_of_pid(pid, &e);
	ids_leave(&saved);
	if (r < 0)
		exe_close(&e);
	else
		*ret = e;
	return r;
}

void exe_close(struct exe *e)
{
	sys_closep(&e->fd);
}
