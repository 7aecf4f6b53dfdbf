#include "handoffd/listen_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "base/sys.h"
#include "handoffd/ids.h"

static const char *path_of(const struct conf_listen *cl)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&cl->sa;

	return un->sun_family == AF_UNIX && un->sun_path[0] ? un->sun_path : NULL;
}

/* 0: nobody listens there, the path is a leftover; else -errno and why. */
static int check_stale(const struct conf_listen *cl, const char *path, char *why, size_t why_size)
{
	struct stat st;
	int fd, r = sys_lstat(path, &st);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, why_size,
			 "%s exists and is no socket; remove it, or choose another path", path);
		return -EADDRINUSE;
	}
	fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return fd;
	r = sys_connect(fd, (const struct sockaddr *)&cl->sa, cl->sa_len);
	sys_close(fd);
	if (r == -ECONNREFUSED)
		return 0;
	snprintf(why, why_size, "another process listens there; find it with: ss -xlp src %s",
		 path);
	return -EADDRINUSE;
}

/* The path gets the mode of the socket's own inode, less the umask. */
static int bind_without_umask(int fd, const struct conf_listen *cl)
{
	const mode_t old = umask(0);
	const int r = sys_bind(fd, (const struct sockaddr *)&cl->sa, cl->sa_len);

	umask(old);
	return r;
}

static int bind_path(int fd, const struct conf_listen *cl, bool trial, struct listener *l,
		     const char *path, char *why, size_t why_size)
{
	struct stat st;
	int r = bind_without_umask(fd, cl);

	if (r == -EADDRINUSE) {
		r = check_stale(cl, path, why, why_size);
		if (r >= 0 && trial)
			return 1;
		if (r >= 0)
			r = sys_unlink(path);
		if (r >= 0 || r == -ENOENT)
			r = bind_without_umask(fd, cl);
	}
	if (r >= 0)
		r = sys_lstat(path, &st);
	if (r < 0)
		return r;
	l->path = strdup(path);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return l->path ? 0 : -ENOMEM;
}

int listen_unix_bind(int fd, const struct conf *c, const struct conf_listen *cl, bool trial,
		     struct listener *l, char *why, size_t why_size)
{
	const char *path = path_of(cl);
	struct ids_saved saved;
	int r;

	if (!path)
		return sys_bind(fd, (const struct sockaddr *)&cl->sa, cl->sa_len);
	l->uid = c->uid;
	l->gid = c->gid;
	/* the socket's inode is handoffd's: its mode is set before anybody else is met */
	r = sys_fchmod(fd, cl->mode);
	if (r >= 0)
		r = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved);
	if (r < 0)
		return r;
	r = bind_path(fd, cl, trial, l, path, why, why_size);
	ids_leave(&saved);
	return r;
}

/* ---- whose inode is it? ---- */

struct diag_request {
	struct nlmsghdr h;
	struct unix_diag_req r;
};

/* Finds the UNIX_DIAG_VFS of an answer. */
static int vfs_of(const char *buf, size_t n, struct unix_diag_vfs *ret)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	const struct nlattr *a;
	size_t at = NLMSG_LENGTH(sizeof(struct unix_diag_msg));

	if (!NLMSG_OK(h, n) || h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -ENOENT;
	for (; at + sizeof *a <= h->nlmsg_len; at += NLA_ALIGN(a->nla_len)) {
		a = (const struct nlattr *)(buf + at);
		if (a->nla_len < sizeof *a)
			break;
		if (a->nla_type == UNIX_DIAG_VFS && a->nla_len >= sizeof *a + sizeof *ret) {
			memcpy(ret, a + 1, sizeof *ret);
			return 0;
		}
	}
	return -ENOENT;
}

/* The inode that fd is bound to: fstat knows only the socket's own. */
static int bound_inode(int fd, struct unix_diag_vfs *ret)
{
	struct diag_request q = {
		.h = { .nlmsg_len = sizeof q,
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST },
		.r = { .sdiag_family = AF_UNIX,
		       .udiag_states = -1,
		       .udiag_show = UDIAG_SHOW_VFS,
		       .udiag_cookie = { -1, -1 } },
	};
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct stat st;
	ssize_t r = sys_fstat(fd, &st);
	int nl;

	if (r < 0)
		return r;
	q.r.udiag_ino = st.st_ino;
	nl = sys_socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	if (nl < 0)
		return nl;
	/* the kernel answers within the write */
	r = sys_write(nl, &q, sizeof q);
	if (r >= 0)
		r = sys_read(nl, buf, sizeof buf);
	sys_close(nl);
	return r < 0 ? (int)r : vfs_of(buf, r, ret);
}

void listen_unix_own(const struct conf *c, const struct conf_listen *cl, struct listener *l)
{
	const char *path = path_of(cl);
	struct unix_diag_vfs vfs;
	struct stat st;

	/* the kernel's dev_t has 20 bits of minor */
	if (!path || bound_inode(l->fd, &vfs) < 0 || sys_lstat(path, &st) < 0 ||
	    (__u32)st.st_ino != vfs.udiag_vfs_ino || major(st.st_dev) != vfs.udiag_vfs_dev >> 20 ||
	    minor(st.st_dev) != (vfs.udiag_vfs_dev & 0xfffff))
		return;
	l->path = strdup(path);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->uid = c->uid;
	l->gid = c->gid;
}

bool listen_unix_gone(const struct conf_listen *cl)
{
	const char *path = path_of(cl);
	struct stat st;
	int r;

	if (!path)
		return false;
	r = sys_lstat(path, &st);
	return r < 0 ? r == -ENOENT || r == -ENOTDIR : !S_ISSOCK(st.st_mode);
}

void listen_unix_remove(const struct listener *l)
{
	struct ids_saved saved;
	struct stat st;

	if (!l->path || ids_enter(l->uid, l->gid, NULL, 0, &saved) < 0)
		return;
	if (sys_lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		sys_unlink(l->path);
	ids_leave(&saved);
}
