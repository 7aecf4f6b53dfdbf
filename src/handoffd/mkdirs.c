#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/conf.h"

static int fail(char *err, size_t size, int e, const char *path, const char *what)
{
	snprintf(err, size, "%s: %s", path, what ? what : strerror(-e));
	return e;
}

/* The directories above path; those that are there already are left alone. */
static int make_parents(const char *path, char *err, size_t size)
{
	char part[4096];

	if (strlen(path) >= sizeof part)
		return fail(err, size, -ENAMETOOLONG, path, NULL);
	strcpy(part, path);
	for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		int e = sys_mkdir(part, 0755);
		if (e && e != -EEXIST && e != -EROFS && e != -EACCES)
			return fail(err, size, e, part, NULL);
		*p = '/';
	}
	return 0;
}

static int check(const char *path, uid_t owner, char *err, size_t size)
{
	struct stat st;
	int e = sys_lstat(path, &st);

	if (e)
		return fail(err, size, e, path, NULL);
	if (!S_ISDIR(st.st_mode))
		return fail(err, size, -ENOTDIR, path, "is not a directory (a symlink is not followed)");
	if (st.st_uid != owner)
		return fail(err, size, -EPERM, path, "belongs to another user: remove it, or name another directory "
		            "with HANDOFF_RUNTIME_DIR or HANDOFF_STATE_DIR");
	return 0;
}

int dirs_make(const char *path, mode_t mode, char *err, size_t size)
{
	int e = make_parents(path, err, size);

	if (e)
		return e;
	e = sys_mkdir(path, mode);
	if (e && e != -EEXIST)
		return fail(err, size, e, path, NULL);
	if ((e = check(path, geteuid(), err, size)))
		return e;
	e = sys_chmod(path, mode);   /* the umask took its part */
	return e ? fail(err, size, e, path, NULL) : 0;
}

int dirs_make_owned(const char *path, mode_t mode, uid_t uid, gid_t gid, char *err, size_t size)
{
	int e = sys_mkdir(path, mode);

	if (uid == (uid_t)-1 || geteuid() != 0)
		uid = geteuid();
	if (e && e != -EEXIST)
		return fail(err, size, e, path, NULL);
	/* by path: nobody else can change what lies in the supervisor's own directory */
	if (!e && uid != geteuid() && (e = sys_lchown(path, uid, gid)))
		return fail(err, size, e, path, NULL);
	return check(path, uid, err, size);
}
