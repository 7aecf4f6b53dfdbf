#include "handoffd/conf_kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/transient.h"

/* The file's path from / on, a NUL, the text. */
static const char *absolute(const char *path, char out[PATH_MAX])
{
	char cwd[PATH_MAX];

	if (*path == '/' || !getcwd(cwd, sizeof cwd) || snprintf(out, PATH_MAX, "%s/%s", cwd, path) >= PATH_MAX)
		return path;
	return out;
}

static int write_file(const struct conf *c, const char *path)
{
	char full[PATH_MAX];
	const char *from = absolute(c->file, full);
	int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600), e;

	if (fd < 0)
		return fd;
	e = sys_write_all(fd, from, strlen(from) + 1);
	if (!e)
		e = sys_write_all(fd, c->text, strlen(c->text));
	sys_close(fd);
	return e;
}

static int replace(const struct conf *c, const char *dir)
{
	char path[4200], temporary[4200];
	int e;

	snprintf(path, sizeof path, "%s/config", dir);
	snprintf(temporary, sizeof temporary, "%s/config.new", dir);
	e = write_file(c, temporary);
	if (!e)
		e = sys_rename(temporary, path);
	if (e)
		sys_unlink(temporary);
	return e;
}

void conf_keep_nothing(const char *dir)
{
	char path[4200];

	snprintf(path, sizeof path, "%s/config", dir);
	sys_unlink(path);
}

int conf_keep(struct conf *c, const char *dir, uint32_t *last)
{
	int e = 0;

	if (!c->text)
		return 0;
	if (c->sum != *last)
		e = replace(c, dir);
	if (e)   /* what is there is another's by now */
		conf_keep_nothing(dir);
	*last = e ? 0 : c->sum;
	free(c->text);
	c->text = NULL;
	return e;
}

/* What is read says what runs, and as whom: nobody else may have had a hand in it. */
static bool is_own(int fd, mode_t type)
{
	struct stat st;

	return !sys_fstat(fd, &st) && (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int open_own(int dir)
{
	int fd = is_own(dir, S_IFDIR) ? sys_openat(dir, "config", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0) : -ENOENT;

	if (fd < 0 || is_own(fd, S_IFREG))
		return fd;
	sys_close(fd);
	return -ENOENT;
}

/* The text that is kept in dir, if it is that file's: the caller's. 0 or -errno. */
static int find_in(int dir, const char *path, char **ret)
{
	const int fd = open_own(dir);
	const size_t size = PATH_MAX + CONF_FILE_MAX + 1;
	char *all = fd < 0 ? NULL : malloc(size);
	size_t got = 0, n;
	ssize_t r = fd < 0 ? fd : -ENOMEM;

	while (all && got < size - 1 && (r = sys_read(fd, all + got, size - 1 - got)) > 0)
		got += (size_t)r;
	if (all && r >= 0) {
		all[got] = '\0';
		n = strlen(all);
		r = r > 0 || n == got || strcmp(all, path) ? -ENOENT : (*ret = strdup(all + n + 1)) ? 0 : -ENOMEM;
	}
	free(all);
	if (fd >= 0)
		sys_close(fd);
	return (int)r;
}

/* NULL: that was the last, or *ret_error is why the next cannot be read. */
static struct dirent *next_entry(DIR *d, int *ret_error)
{
	struct dirent *entry;

	errno = 0;   /* it tells the one from the other, readdir(3) */
	if (!(entry = readdir(d)) && errno)
		*ret_error = -errno;
	return entry;
}

/* -ENOENT only if each could be looked at. */
static int find_below(int dir, const char *path, char **ret)
{
	const int fd = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	int e = fd < 0 ? fd : d ? -ENOENT : -ENOMEM, r = e;

	if (!d && fd >= 0)
		sys_close(fd);
	for (struct dirent *entry; d && r && (entry = next_entry(d, &e)); ) {
		const int sub = conf_name_ok(entry->d_name) ? sys_openat(dir, entry->d_name,
		                O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0) : -ENOENT;

		r = sub < 0 ? sub : find_in(sub, path, ret);
		if (transient(r))
			e = r;
		if (sub >= 0)
			sys_close(sub);
	}
	if (d)
		closedir(d);
	return r ? e : 0;
}

/* systemd names one service's directory: what lies below that is not all the supervisor's. */
int conf_read_kept(const char *path, struct conf **ret, char *err, size_t err_size)
{
	char dir[PATH_MAX], all[PATH_MAX], full[PATH_MAX], *text;
	int fd, e = dirs_runtime(".", true, dir, sizeof dir, err, err_size);

	if (e)
		return -ENOENT;
	if ((fd = sys_open(dir, O_RDONLY | O_DIRECTORY, 0)) >= 0) {
		e = dirs_runtime(".", false, all, sizeof all, err, err_size);
		e = e || strcmp(dir, all) ? find_in(fd, absolute(path, full), &text)
		                          : find_below(fd, absolute(path, full), &text);
		sys_close(fd);
	} else {
		e = fd;
	}
	if (transient(e))   /* there may be one, and a daemon */
		snprintf(err, err_size, "what is kept in %.1000s cannot be read: %s%s", dir, strerror(-e),
		         transient_hint(e));
	return !e ? conf_parse(path, text, ret, err, err_size) : transient(e) ? e : -ENOENT;
}
