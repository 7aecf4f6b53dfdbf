#include "handoffd/door.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"

#define BACKLOG  64
#define RETRY_MS 100

/* Who opens it again is there before it is shut: nothing else would. */
static void pause_for(struct door *d, unsigned ms)
{
	const struct timeval tv = { ms / 1000, ms % 1000 * 1000 };

	if (!event_add(d->pause, &tv))
		event_del(d->accept);
}

/* epoll_ctl(2) that adds needs the kernel's memory. */
static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct door *d = arg;

	(void)fd;
	(void)what;
	if (event_add(d->accept, NULL))
		pause_for(d, RETRY_MS);
}

/* Lets one in; false: nobody waits, or nobody can be let in now. */
static bool let_in(struct door *d)
{
	struct ucred who;
	socklen_t n = sizeof who;
	int fd = sys_accept(d->fd);

	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
		log_warning("no descriptors for visitors of %s: they wait a second", d->path);
		pause_for(d, 1000);
	}
	if (fd < 0)
		return fd == -ECONNABORTED;
	if (sys_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n))
		sys_close(fd);
	else if (!d->visitor(d->arg, fd, &who) && ++d->strangers == DOOR_AT_ONCE) {
		d->strangers = 0;
		pause_for(d, d->pause_ms);
	}
	return true;
}

static void on_visitor(evutil_socket_t listening, short what, void *arg)
{
	(void)listening;
	(void)what;
	let_in(arg);
}

void door_drain(struct door *d)
{
	d->draining = true;
	for (int i = 0; i <= BACKLOG && let_in(d); i++)
		;
	d->draining = false;
}

static int bind_path(struct door *d, mode_t mode, uid_t owner)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int e;

	memcpy(sa.sun_path, d->path, sizeof sa.sun_path);
	if ((d->fd = sys_socket(AF_UNIX, SOCK_STREAM, 0)) < 0)
		return d->fd;
	e = sys_unlink(d->path);
	if (e && e != -ENOENT)
		return e;
	/* the mode of a socket before bind(2) is that of its inode: no moment with another */
	if ((e = sys_fchmod(d->fd, mode)) || (e = sys_bind(d->fd, (struct sockaddr *)&sa, sizeof sa)))
		return e;
	if ((e = sys_chmod(d->path, mode)))   /* the umask took its part */
		return e;
	if (owner != (uid_t)-1 && owner != geteuid() && (e = sys_lchown(d->path, owner, (gid_t)-1)))
		return e;
	return sys_listen(d->fd, BACKLOG);
}

static int set_path(struct door *d, const char *dir, const char *name, char *err, size_t err_size)
{
	const int n = snprintf(d->path, sizeof d->path, "%s/%s", dir, name);

	if (n >= 0 && (size_t)n < sizeof d->path)
		return 0;
	d->path[0] = '\0';
	snprintf(err, err_size, "%s/%s is longer than a socket's path may be (107 bytes): use a shorter "
	         "runtime directory", dir, name);
	return -ENAMETOOLONG;
}

static int watch(struct door *d, struct event_base *base, char *err, size_t err_size)
{
	d->accept = event_new(base, d->fd, EV_READ | EV_PERSIST, on_visitor, d);
	d->pause = event_new(base, -1, 0, on_resume, d);
	if (d->accept && d->pause && !event_add(d->accept, NULL))
		return 0;
	snprintf(err, err_size, "no memory");
	return -ENOMEM;
}

int door_open(struct door *d, struct event_base *base, const char *dir, const char *name, mode_t mode,
              uid_t owner, char *err, size_t err_size)
{
	int e;

	d->fd = -1;
	if ((e = set_path(d, dir, name, err, err_size)))
		return e;
	if ((e = bind_path(d, mode, owner))) {
		snprintf(err, err_size, "%s: %s", d->path, strerror(-e));
		return e;
	}
	return watch(d, base, err, err_size);
}

int door_reopen(struct door *d, struct event_base *base, const char *dir, const char *name, int fd,
                char *err, size_t err_size)
{
	const int e = set_path(d, dir, name, err, err_size);

	d->fd = fd;
	return e ? e : watch(d, base, err, err_size);
}

void door_close(struct door *d)
{
	if (d->accept)
		event_free(d->accept);
	if (d->pause)
		event_free(d->pause);
	if (d->fd >= 0) {
		sys_unlink(d->path);
		sys_close(d->fd);
	}
	*d = (struct door){ .fd = -1 };
}
