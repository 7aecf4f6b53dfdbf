#include "handoffd/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"

#define DEPTH_MAX 8   /* of groups that a daemon has made below its own */

static int open_dir(int dir, const char *path)
{
	return sys_openat(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

static int write_file(int group, const char *file, const char *text)
{
	int fd = sys_openat(group, file, O_WRONLY, 0), e;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = sys_write(fd, text, strlen(text));
	e = n < 0 ? (int)n : 0;
	sys_close(fd);
	return e;
}

/* "0::/system.slice/handoff@kvd.service", without the slash: 0 and its path. */
static int own_path(char *ret, size_t size)
{
	char buf[4096 + 512], *line = buf;
	const ssize_t n = sys_read_file("/proc/self/cgroup", 0, buf, sizeof buf - 1);

	if (n < 0)
		return (int)n;
	buf[n] = '\0';
	while (strncmp(line, "0::/", 4)) {
		if (!(line = strchr(line, '\n')))
			return -ENOENT;
		line++;
	}
	line += 4;
	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "..", 2))   /* outside of this namespace's part of the tree */
		return -EPERM;
	snprintf(ret, size, "%s", *line ? line : ".");
	return 0;
}

/* Where systemd mounts it: alone, or beside version 1. -ENOENT: it is in neither place; who cannot
 * look there does not know that. */
static int open_mount(void)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	int e = -ENOENT;

	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int fd = sys_open(places[i], O_RDONLY | O_DIRECTORY, 0);
		uint64_t magic;
		const int r = fd < 0 ? fd : sys_fs_type(fd, &magic);

		if (!r && magic == CGROUP2_SUPER_MAGIC)
			return fd;
		if (r && r != -ENOENT)
			e = r;
		sys_closep(&fd);
	}
	return e;
}

/* Who may not see trusted attributes sees the other one (systemd sets both). */
static bool delegated(int group)
{
	static const char *const names[] = { "user.delegate", "trusted.delegate" };
	char v[4];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (sys_fgetxattr(group, names[i], v, sizeof v) == 1 && v[0] == '1')
			return true;
	return false;
}

int cgroup_own(void)
{
	char path[4096];
	int e = own_path(path, sizeof path), fd = e ? e : cgroup_find(path);

	if (fd < 0)
		return fd;
	/* the mount may show another part of the tree than /proc names */
	if (!cgroup_has(fd, getpid()))
		e = -ENOENT;
	else if (!delegated(fd))
		e = -EPERM;
	else
		e = sys_faccessat(fd, ".", W_OK, AT_EACCESS);
	if (!e)
		return fd;
	sys_close(fd);
	return e;
}

int cgroup_find(const char *path)
{
	int mount = open_mount(), fd;

	if (mount < 0)
		return mount;
	path += strspn(path, "/");
	fd = sys_openat(mount, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
	sys_close(mount);
	return fd;
}

int cgroup_open(int dir, const char *name)
{
	return open_dir(dir, name);
}

int cgroup_make(int dir, const char *name)
{
	int e = sys_mkdirat(dir, name, 0755), fd;

	if (e)
		return e;
	if ((fd = open_dir(dir, name)) < 0)
		sys_unlinkat(dir, name, AT_REMOVEDIR);
	return fd;
}

int cgroup_enter(int group, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof text, "%d", (int)pid);
	return write_file(group, "cgroup.procs", text);
}

int cgroup_each(int group, void (*fn)(void *arg, pid_t pid), void *arg)
{
	int fd = sys_openat(group, "cgroup.procs", O_RDONLY, 0);
	char buf[4096];
	pid_t pid = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	while ((n = sys_read(fd, buf, sizeof buf)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] != '\n') {
				pid = pid * 10 + (buf[i] - '0');
				continue;
			}
			if (pid)   /* 0: of another pid namespace */
				fn(arg, pid);
			pid = 0;
		}
	sys_close(fd);
	return (int)n;
}

struct search { pid_t pid; bool found; };

static void compare(void *arg, pid_t pid)
{
	struct search *s = arg;

	s->found |= pid == s->pid;
}

bool cgroup_has(int group, pid_t pid)
{
	struct search s = { .pid = pid };

	return !cgroup_each(group, compare, &s) && s.found;
}

int cgroup_kill(int group)
{
	return write_file(group, "cgroup.kill", "1");
}

void cgroup_list(int dir, void (*fn)(void *arg, const char *name), void *arg)
{
	int fd = open_dir(dir, ".");
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		sys_closep(&fd);
		return;
	}
	while ((e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.')
			fn(arg, e->d_name);
	closedir(d);
}

struct below { int dir; unsigned depth; };

static void remove_below(void *arg, const char *name)
{
	const struct below *b = arg;
	struct below next = { .dir = open_dir(b->dir, name), .depth = b->depth + 1 };

	if (next.dir >= 0 && next.depth < DEPTH_MAX)
		cgroup_list(next.dir, remove_below, &next);
	sys_closep(&next.dir);
	sys_unlinkat(b->dir, name, AT_REMOVEDIR);
}

int cgroup_remove(int dir, const char *name)
{
	int e = sys_unlinkat(dir, name, AT_REMOVEDIR);

	if (e == -EBUSY) {   /* by a process, or by a group below */
		remove_below(&(struct below){ .dir = dir }, name);
		e = sys_unlinkat(dir, name, AT_REMOVEDIR);
	}
	return e == -ENOENT ? 0 : e;
}
