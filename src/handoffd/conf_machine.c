/* What of a configuration can only be checked against the machine. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/conf.h"
#include "handoffd/ids.h"
#include "handoffd/spawn.h"
#include "handoffd/transient.h"

struct check {
	const struct conf *c;
	char *err;
	size_t err_size;
};

static int __attribute__((format(printf, 4, 5)))
fail(struct check *k, int line, int error, const char *fmt, ...)
{
	const int n = snprintf(k->err, k->err_size, "%s:%d: ", k->c->file, line);
	va_list ap;

	va_start(ap, fmt);
	if ((size_t)n < k->err_size)
		vsnprintf(k->err + n, k->err_size - n, fmt, ap);
	va_end(ap);
	return error;
}

static const char *who(const struct check *k)
{
	return k->c->user ? k->c->user : "handoffd's user";
}

static int check_ids(struct check *k)
{
	const struct conf *c = k->c;

	if (geteuid() == 0)
		return 0;
	if (c->uid != (uid_t)-1 && c->uid != geteuid())
		return fail(k, conf_line(c, "user"), -EPERM,
			    "user = %s: only root may start daemons as somebody "
			    "else; run handoffd as root, or leave user out",
			    c->user);
	if (c->gid != (gid_t)-1 && c->group && c->gid != getegid())
		return fail(k, conf_line(c, "group"), -EPERM,
			    "group = %s: only root may start daemons with another "
			    "group; run handoffd as root, or leave group out",
			    c->group);
	if (c->groups)
		return fail(k, conf_line(c, "groups"), -EPERM,
			    "groups: only root may set them; run handoffd as "
			    "root, or leave groups out");
	return 0;
}

int conf_open_command(const struct conf *c, struct exe *ret, char *err, size_t err_size)
{
	struct check k = { .c = c, .err = err, .err_size = err_size };
	char why[4600];
	const int r = exe_open(c, c->command[0], ret, why, sizeof why);

	return r < 0 ? fail(&k, conf_line(c, "command"), r, "command: %s", why) : 0;
}

int conf_check_command(const struct conf *c, char *err, size_t err_size)
{
	struct exe e;
	const int r = conf_open_command(c, &e, err, err_size);

	if (!r)
		exe_close(&e);
	return r;
}

/* As the daemon's user. */
static int look_at_data_dir(struct check *k, const char *dir, int line)
{
	struct stat st;
	uint64_t magic = 0;
	int fd, r = sys_lstat(dir, &st);

	if (r == -ENOENT)
		return fail(k, line, r,
			    "data-dir %s does not exist; create it: install -d -m 0700 -o %s %s",
			    dir, k->c->user ? k->c->user : "USER", dir);
	if (r < 0)
		return fail(k, line, r, "data-dir %s: %s; let %s reach it", dir, strerror(-r),
			    who(k));
	if (S_ISLNK(st.st_mode))
		return fail(k, line, -ELOOP,
			    "data-dir %s is a symbolic link; write the directory that it leads to, "
			    "so that it cannot change under a lock",
			    dir);
	if (!S_ISDIR(st.st_mode))
		return fail(k, line, -ENOTDIR, "data-dir %s is not a directory; name one", dir);
	r = sys_faccessat(AT_FDCWD, dir, R_OK | W_OK | X_OK, AT_EACCESS);
	if (r < 0)
		return fail(k, line, r, "data-dir %s: %s may not write it (%s); chown or chmod it",
			    dir, who(k), strerror(-r));
	fd = sys_open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	r = fd < 0 ? fd : sys_fs_type(fd, &magic);
	sys_closep(&fd);
	if (r < 0)
		return fail(k, line, r, "data-dir %s: %s", dir, strerror(-r));
	if (magic == NFS_SUPER_MAGIC)
		return fail(k, line, -EOPNOTSUPP,
			    "data-dir %s lies on NFS, where a lock does not keep two writers "
			    "apart; use a local file system",
			    dir);
	return 0;
}

/* 0: a directory that may be entered. */
static int look_at_dir(const char *dir)
{
	struct stat st;
	const int r = sys_stat(dir, &st);

	if (r >= 0 && !S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return r < 0 ? r : sys_faccessat(AT_FDCWD, dir, X_OK, AT_EACCESS);
}

static int check_working_dir(struct check *k, const char *dir)
{
	const int r = look_at_dir(dir);

	if (r < 0)
		return fail(k, conf_line(k->c, "working-dir"), r,
			    "working-dir %s: %s; create it, and let %s enter it", dir, strerror(-r),
			    who(k));
	return 0;
}

static int check_listener(struct check *k, const struct conf_listen *l)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&l->sa;
	char dir[sizeof un->sun_path + 1], *slash;
	int r;

	if (un->sun_family != AF_UNIX || !un->sun_path[0])
		return 0;
	snprintf(dir, sizeof dir, "%s", un->sun_path);
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	r = look_at_dir(dir);
	if (r < 0)
		return fail(k, l->line, r,
			    "listen %s: directory %s: %s; create it, and let %s enter it", l->name,
			    dir, strerror(-r), who(k));
	r = sys_faccessat(AT_FDCWD, dir, W_OK, AT_EACCESS);
	if (r < 0)
		return fail(k, l->line, r, "listen %s: directory %s: %s may not make a socket in "
			    "it (%s); chown or chmod it", l->name, dir, who(k), strerror(-r));
	return 0;
}

/* r; of a path of which nothing is known, or only that its disk is read-only, says that. */
static int looked_at(struct check *k, int line, const char *what, const char *path, int r)
{
	return transient(r) ? fail(k, line, r, "%s %s: cannot be %s: %s%s", what, path,
				   r == -EROFS ? "written" : "looked at", strerror(-r),
				   transient_hint(r)) : r;
}

static int check_places(struct check *k)
{
	const struct conf *c = k->c;
	int r = 0;

	if (c->data_dir)
		r = looked_at(k, conf_line(c, "data-dir"), "data-dir", c->data_dir,
			      look_at_data_dir(k, c->data_dir, conf_line(c, "data-dir")));
	if (!r && c->working_dir)
		r = looked_at(k, conf_line(c, "working-dir"), "working-dir", c->working_dir,
			      check_working_dir(k, c->working_dir));
	for (unsigned i = 0; !r && i < c->nlisten; i++)
		r = looked_at(k, c->listen[i].line, "listen", c->listen[i].name,
			      check_listener(k, &c->listen[i]));
	return r;
}

int conf_check_machine(const struct conf *c, char *err, size_t err_size)
{
	struct check k = { .c = c, .err = err, .err_size = err_size };
	struct ids_saved saved;
	int r = check_ids(&k);

	if (r)
		return r;
	r = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved);
	if (r < 0)
		return fail(&k, conf_line(c, "user"), r, "cannot look at the machine as %s: %s%s",
			    who(&k), strerror(-r), transient_hint(r));
	r = check_places(&k);
	ids_leave(&saved);
	return r;
}
