#include "base/lockfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/slots.h"
#include "base/sys.h"
#include "proto/slot.h"

#define SLOT_SIZE 512u

void lockfile_init(struct lockfile *l, int dir)
{
	memset(l, 0, sizeof *l);
	l->dir = dir;
	l->fd = -1;
}

int lockfile_check_fs(int dir)
{
	uint64_t magic = 0;
	int e = sys_fs_type(dir, &magic);

	return e ? e : magic == NFS_SUPER_MAGIC ? -EREMOTE : 0;
}

static int fail(struct lockfile *l, int e, const char *what)
{
	snprintf(l->error, sizeof l->error, "%s: %s", what, strerror(-e));
	return e;
}

static int load(int fd, struct slots *s, struct lock_owner *ret)
{
	uint8_t buf[SLOT_SIZE];
	char err[100];
	struct msg m;
	int e = slots_load(s, fd, SLOT_SIZE, buf, &m, err, sizeof err);

	memset(ret, 0, sizeof *ret);
	if (e)
		return e;
	/* an epoch that nothing could follow was never given */
	if (m.type != MSG_owner || m.owner.epoch == UINT64_MAX)
		return -EBADMSG;
	ret->pid = m.owner.pid;
	ret->start = m.owner.start;
	if (m.owner.boot.n < sizeof ret->boot)
		memcpy(ret->boot, m.owner.boot.p, m.owner.boot.n);
	ret->epoch = m.owner.epoch;
	hex_format(m.owner.build.p, m.owner.build.n, ret->build);
	return 0;
}

void lockfile_prepare(struct lockfile *l)
{
	l->pid = getpid();
	proc_boot_id(l->boot);
	if (proc_start_time(l->pid, &l->start))
		l->start = 0;   /* /proc is not there: a chroot */
}

/* The one thing that a successor writes before its Commit. */
static int write_record(struct lockfile *l, const void *build, size_t build_size)
{
	struct msg m = { .type = MSG_owner };
	struct lock_owner last;
	struct stat st;
	int e = load(l->fd, &l->slots, &last);

	/* a damaged record loses its epoch, never the lock */
	if (e && e != -ENODATA && e != -EBADMSG)
		return e;
	l->epoch = last.epoch + 1;
	if (l->pid != getpid())   /* not prepared, or by the parent of a fork */
		lockfile_prepare(l);
	m.owner.pid = (uint64_t)l->pid;
	m.owner.start = l->start;
	m.owner.boot = SPAN(l->boot);
	m.owner.build = (struct span){ build, build_size };
	m.owner.epoch = l->epoch;
	if (!(e = sys_fstat(l->fd, &st)) && st.st_size < (off_t)(2 * SLOT_SIZE))
		e = slots_reserve(l->fd, SLOT_SIZE);
	if (!e)
		e = slots_write(&l->slots, &m);
	l->unsynced = !e;
	return e;
}

static int open_file(struct lockfile *l)
{
	struct stat st;
	int fd = sys_openat(l->dir, LOCKFILE_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600), e;

	if (fd < 0)
		return fail(l, fd, LOCKFILE_NAME ": cannot be opened");
	e = sys_fstat(fd, &st);
	if (e || !S_ISREG(st.st_mode)) {
		sys_close(fd);
		return e ? fail(l, e, LOCKFILE_NAME ": cannot be looked at")
		         : fail(l, -EINVAL, LOCKFILE_NAME ": is not a regular file");
	}
	l->fd = fd;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

int lockfile_open(struct lockfile *l)
{
	int e = lockfile_check_fs(l->dir);

	if (e)
		return fail(l, e, e == -EREMOTE ? LOCKFILE_NAME ": lies on NFS, whose flock is no guard"
		                                : LOCKFILE_NAME ": cannot be looked at");
	return l->fd >= 0 ? 0 : open_file(l);
}

/* 1: locked; 0: somebody has replaced the file since it was opened; -EWOULDBLOCK: it is another's;
 * -errno, with a sentence. */
static int lock(struct lockfile *l)
{
	struct stat path;
	int e;

	if ((e = sys_flock(l->fd, LOCK_EX | LOCK_NB)))
		return e == -EWOULDBLOCK ? e : fail(l, e, LOCKFILE_NAME ": cannot be locked");
	l->held = true;
	e = sys_fstatat(l->dir, LOCKFILE_NAME, &path, AT_SYMLINK_NOFOLLOW);
	return !e && path.st_dev == l->dev && path.st_ino == l->ino;
}

int lockfile_try(struct lockfile *l, const void *build, size_t build_size)
{
	int e;

	if (l->held)
		return 0;
	l->record_error = 0;
	for (int tries = 0; tries < 10; tries++) {
		if ((e = lockfile_open(l)))
			return e;
		e = lock(l);
		if (e == 1) {
			l->record_error = write_record(l, build, build_size);
			return 0;
		}
		if (e != -EWOULDBLOCK)   /* what lies at the path by then counts */
			lockfile_close(l);
		if (e)
			return e;
	}
	return -EWOULDBLOCK;   /* replaced all the time: somebody else is at work */
}

int lockfile_sync(struct lockfile *l)
{
	if (l->unsynced)
		l->record_error = slots_sync(&l->slots);
	l->unsynced = false;
	return l->record_error;
}

void lockfile_release(struct lockfile *l)
{
	if (l->held && sys_flock(l->fd, LOCK_UN))
		sys_closep(&l->fd);
	l->held = l->unsynced = false;
}

void lockfile_close(struct lockfile *l)
{
	lockfile_release(l);
	sys_closep(&l->fd);
}

/* A file as /proc/locks has it. */
struct place {
	int mount;
	unsigned major, minor;
	unsigned long long ino;
};

/* What of makes of the first line that says something to it; 0: none does; -errno: -E2BIG behind most
 * bytes (0: all are read). Of a very long line it gets the beginning. */
static int ask(const char *path, int (*of)(const char *line, struct place *p), struct place *p, size_t most)
{
	char buf[4096], line[256];
	size_t len = 0, got = 0;
	ssize_t n = 0;
	int ret = 0, fd = sys_open(path, O_RDONLY, 0);

	if (fd < 0)
		return fd;
	while (!ret && (n = sys_read(fd, buf, sizeof buf)) > 0) {
		for (ssize_t i = 0; !ret && i < n; i++) {
			if (buf[i] != '\n') {
				line[len] = buf[i];
				len += len < sizeof line - 1;
				continue;
			}
			line[len] = '\0';
			len = 0;
			ret = of(line, p);
		}
		got += (size_t)n;
		if (!ret && most && got >= most)
			ret = -E2BIG;
	}
	sys_close(fd);
	return n < 0 ? (int)n : ret;
}

/* A line of /proc/locks: "1: FLOCK  ADVISORY  WRITE 5629 fe:00:1234 0 EOF", device in hex. The pid
 * there, or 0: it is about another file. Who waits has "->" before FLOCK. */
static int holder_of(const char *line, struct place *p)
{
	unsigned major, minor;
	unsigned long long ino;
	int holder;

	if (sscanf(line, "%*s FLOCK ADVISORY WRITE %d %x:%x:%llu", &holder, &major, &minor, &ino) != 4 ||
	    ino != p->ino || major != p->major || minor != p->minor)
		return 0;
	return holder > 0 ? holder : 0;   /* not to be seen from this pid namespace: 0 or -1 */
}

static int mount_of(const char *line, struct place *p)
{
	return sscanf(line, "mnt_id: %d", &p->mount) == 1;
}

/* A line of /proc/self/mountinfo: "29 1 0:27 / / rw shared:1 - overlay ...", device in decimal. */
static int device_of(const char *line, struct place *p)
{
	unsigned major, minor;
	int mount;

	if (sscanf(line, "%d %*d %u:%u", &mount, &major, &minor) != 3 || mount != p->mount)
		return 0;
	p->major = major;
	p->minor = minor;
	return 1;
}

/* /proc/locks has the device of the file system; an inode may have another one (overlayfs, a
 * subvolume of btrfs). Where no mount is shown (a chroot) the inode's is all there is. */
static int find_place(int fd, const struct stat *st, struct place *p)
{
	char path[40];
	int e;

	*p = (struct place){ .mount = -1, .major = major(st->st_dev), .minor = minor(st->st_dev),
	                     .ino = st->st_ino };
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	e = ask(path, mount_of, p, 0);
	if (e > 0)
		e = ask("/proc/self/mountinfo", device_of, p, 0);
	return e < 0 && e != -ENOENT ? e : 0;
}

/* 1; 0: it is no file that could be locked; -errno. */
static int find_lock(int dir, struct place *p)
{
	struct stat st;
	int fd = sys_openat(dir, LOCKFILE_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0), e;

	if (fd < 0)
		return fd;
	e = sys_fstat(fd, &st);
	if (!e && S_ISREG(st.st_mode) && !(e = find_place(fd, &st, p)))
		e = 1;
	sys_close(fd);
	return e;
}

static pid_t holder(int dir, size_t most)
{
	struct place p;
	const int e = find_lock(dir, &p);

	return e > 0 ? ask("/proc/locks", holder_of, &p, most) : e;
}

pid_t lockfile_holder(int dir)
{
	return holder(dir, 0);
}

pid_t lockfile_glance(int dir)
{
	return holder(dir, LOCKFILE_GLANCE);
}

/* A line of /proc/PID/fdinfo/FD: "lock:", and then as above. */
static int lock_of(const char *line, struct place *p)
{
	return strncmp(line, "lock:", 5) ? 0 : holder_of(line + 5, p);
}

/* Who has it, if it is to be seen at a descriptor of pid: they are as many as that process has, whatever
 * other users do. */
static int ask_descriptors(pid_t pid, struct place *p)
{
	char path[300];
	struct dirent *e;
	int fd, found = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)pid);
	if ((fd = sys_open(path, O_RDONLY | O_DIRECTORY, 0)) < 0)
		return fd;
	if (!(d = fdopendir(fd))) {
		sys_close(fd);
		return -ENOMEM;
	}
	while (!found && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", (int)pid, e->d_name);
		found = ask(path, lock_of, p, 0);
		if (found == -ENOENT)   /* closed meanwhile */
			found = 0;
	}
	closedir(d);
	return found;
}

int lockfile_held_by(int dir, pid_t pid)
{
	struct place p;
	int e = find_lock(dir, &p);

	if (e <= 0)
		return e;
	e = ask("/proc/locks", holder_of, &p, LOCKFILE_GLANCE);
	/* not to be met there is no answer, either: a read gives a page (seq_file), and who lets go of a lock
	 * between two of them moves those behind it up, past their reader */
	if (e == 0 || e == -E2BIG)
		e = ask_descriptors(pid, &p);
	if (e == -EACCES || e == -EPERM)   /* not root, and it is not dumpable: there is no shorter way */
		e = ask("/proc/locks", holder_of, &p, 0);
	return e < 0 ? e : e == pid;
}

int lockfile_read(int dir, struct lock_owner *ret)
{
	char boot[BOOT_ID_SIZE];
	struct lock_owner o;
	struct slots s;
	int fd = sys_openat(dir, LOCKFILE_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0), e;

	if (fd < 0)
		return fd;
	e = load(fd, &s, &o);
	sys_close(fd);
	proc_boot_id(boot);
	if (!e && !boot[0])
		e = -EIO;
	if (e)
		return e;
	if (strcmp(o.boot, boot))   /* the pid may be anybody's by now */
		o.pid = o.start = 0;
	*ret = o;
	return 0;
}
