#include "lib/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/sys.h"

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

void h_log(handoff *h, int level, const char *fmt, ...)
{
	char line[300];
	va_list ap;

	if (!h->log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	h->log(h->log_arg, level, line);
}

int h_fail(handoff *h, int e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(h->error, sizeof h->error, fmt, ap);
	va_end(ap);
	return e;
}

void h_end(handoff *h, const char *fmt, ...)
{
	va_list ap;

	if (h->end[0])
		return;
	va_start(ap, fmt);
	vsnprintf(h->end, sizeof h->end, fmt, ap);
	va_end(ap);
}

void h_give_up(handoff *h, int e, const char *fmt, ...)
{
	char why[sizeof h->end];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	h_log(h, HANDOFF_LOG_ERROR, "%s", why);
	h_end(h, "%s", why);
	h->end_code = e;
}

/* The main program is the first that dl_iterate_phdr(3) names. */
static int find_note(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct span *out = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type != PT_NOTE)
			continue;
		const char *p = (const char *)info->dlpi_addr + ph->p_vaddr, *end = p + ph->p_memsz;
		while (p + sizeof(ElfW(Nhdr)) <= end) {
			const ElfW(Nhdr) *n = (const void *)p;
			const char *name = p + sizeof *n, *desc = name + ((n->n_namesz + 3u) & ~3u);
			if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
				*out = (struct span){ desc, n->n_descsz };
				return 1;
			}
			p = desc + ((n->n_descsz + 3u) & ~3u);
		}
	}
	return 1;
}

size_t build_id_of_program(unsigned char out[64])
{
	struct span id = { NULL, 0 };

	dl_iterate_phdr(find_note, &id);
	if (id.n > 64)
		id.n = 64;
	if (id.n)
		memcpy(out, id.p, id.n);
	return id.n;
}

/* ------------------------------------------------------------------ open --- */

static int check_options(handoff *h, const struct handoff_options *o)
{
	if (!o || o->size < offsetof(struct handoff_options, reserved))
		return -EINVAL;   /* whom to tell is not known either */
	h->log = o->log;
	h->log_arg = o->log_arg;
	if (o->flags & ~(HANDOFF_NONBLOCK | HANDOFF_CONNECTIONS) || (o->size >= sizeof *o && o->reserved))
		return h_fail(h, -EINVAL, "handoff_open: an unknown flag, or reserved is not 0");
	if ((o->build_id && strlen(o->build_id) > 64) || (o->version && strlen(o->version) > 64))
		return h_fail(h, -EINVAL, "handoff_open: build_id and version have 64 bytes at most");
	h->flags = o->flags;
	if (o->version)
		strcpy(h->software, o->version);
	if (o->build_id)
		memcpy(h->build, o->build_id, h->build_size = strlen(o->build_id));
	else
		h->build_size = build_id_of_program(h->build);
	return 0;
}

static int open_dir(handoff *h, const char *path, bool is_data)
{
	int e;

	h->data_dir = sys_open(path, O_RDONLY | O_DIRECTORY, 0);
	if (h->data_dir < 0) {
		e = h->data_dir;
		h->data_dir = -1;
		return h_fail(h, e, is_data ? "data directory %s: %s" : "lock directory %s: %s", path, strerror(-e));
	}
	e = lockfile_check_fs(h->data_dir);
	if (e == -EREMOTE)
		return h_fail(h, e, "%s lies on NFS, where flock is no guard: use a local file system", path);
	h->has_data_dir = is_data;
	lockfile_init(&h->lock, h->data_dir);
	return 0;
}

static int open_channel(handoff *h, const char *fd_text)
{
	char *end;
	long fd = strtol(fd_text, &end, 10);
	int type = 0;
	socklen_t n = sizeof type;
	const char *dir = getenv("HANDOFF_DIR"), *role = getenv("HANDOFF_ROLE");

	if (*end || fd < 0 || fd > 0x7fffffff || sys_getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &n) ||
	    type != SOCK_STREAM)
		return h_fail(h, -EBADF, "HANDOFF_FD=%s is not the supervisor's channel (unset it to run alone)", fd_text);
	sys_fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	sys_nonblock((int)fd);
	chan_init(&h->chan, (int)fd);
	h->role = role && !strcmp(role, "successor") ? HANDOFF_SUCCESSOR : HANDOFF_FIRST;
	h->d.connected = true;
	if (dir)
		h->run_dir = sys_open(dir, O_PATH | O_DIRECTORY, 0);
	if (h->run_dir < 0)
		h->run_dir = -1;
	return 0;
}

/* The thread as soon as can be: another processor needs a moment to wake up, and Hello waits for
 * the tie to S, which is the thread's. */
static int open_supervisor(handoff *h, const char *fd_text)
{
	int e = open_channel(h, fd_text);

	if (e)
		return e;
	if ((e = helper_start(h)))
		return h_fail(h, e, "the library's thread could not be started: %s", strerror(-e));
	helper_tie(h);
	return 0;
}

static int open_loop(handoff *h)
{
	int e;

	if ((h->ep = sys_epoll_create()) < 0 || (h->timer = sys_timerfd()) < 0 || (h->wake = sys_eventfd()) < 0)
		return h_fail(h, h->ep < 0 ? h->ep : h->timer < 0 ? h->timer : h->wake, "no descriptors for the library");
	if ((e = sys_epoll_ctl(h->ep, EPOLL_CTL_ADD, h->timer, EPOLLIN)) ||
	    (e = sys_epoll_ctl(h->ep, EPOLL_CTL_ADD, h->wake, EPOLLIN)) ||
	    (h->chan.fd >= 0 && (e = sys_epoll_ctl(h->ep, EPOLL_CTL_ADD, h->chan.fd, EPOLLIN))))
		return h_fail(h, e, "the library's descriptors cannot be watched: %s", strerror(-e));
	return 0;
}

static int open_all(handoff *h, const struct handoff_options *o)
{
	const char *fd_text = getenv("HANDOFF_FD"), *lock_dir = getenv("HANDOFF_LOCK_DIR");
	int e = check_options(h, o);

	/* before the channel is ours: who has to make the directory first may open again */
	if (!e && o->data_dir)
		e = open_dir(h, o->data_dir, true);
	else if (!e && fd_text && lock_dir)
		e = open_dir(h, lock_dir, false);
	if (!e && fd_text)
		e = open_supervisor(h, fd_text);
	return e ? e : open_loop(h);
}

EXPORT int handoff_open(const struct handoff_options *options, handoff **ret)
{
	handoff *h = calloc(1, sizeof *h);
	int e;

	if (!h)
		return -ENOMEM;
	d_init(&h->d, d_table);
	h_trace(h);
	h->role = HANDOFF_STANDALONE;
	h->ep = h->timer = h->wake = h->data_dir = h->run_dir = -1;
	h->helper.connected = h->helper.wake = h->helper.beat = -1;
	h->armed = UINT64_MAX;
	h->end_code = -ECANCELED;
	lockfile_init(&h->lock, -1);
	chan_init(&h->chan, -1);
	e = open_all(h, options);
	if (e) {
		h_log(h, HANDOFF_LOG_ERROR, "%s", h->error);
		handoff_close(h);
		return e;
	}
	*ret = h;
	return 0;
}

EXPORT int handoff_role(const handoff *h)
{
	return h->role;
}

EXPORT uint64_t handoff_epoch(const handoff *h)
{
	return h->lock.epoch;
}

EXPORT const char *handoff_error(const handoff *h)
{
	return h->error;
}

EXPORT void handoff_after_fork(handoff *h)
{
	int fds[] = { h->ep, h->timer, h->wake, h->data_dir, h->run_dir, h->lock.fd,
	              h->helper.wake, h->helper.beat, h->helper.connected };

	chan_abandon(&h->chan);
	give_abandon(h);
	take_abandon(h);
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (fds[i] >= 0)
			sys_close(fds[i]);   /* no LOCK_UN: the lock is the parent's */
	for (unsigned i = 0; i < h->nlisten; i++) {
		if (h->listen[i].fd >= 0)
			sys_close(h->listen[i].fd);
		if (h->listen[i].out >= 0)
			sys_close(h->listen[i].out);
	}
}

EXPORT handoff *handoff_close(handoff *h)
{
	if (!h)
		return NULL;
	helper_stop(h);
	chan_close(&h->chan);
	give_free(h);
	take_free(h);
	lockfile_close(&h->lock);
	for (unsigned i = 0; i < h->nlisten; i++) {
		free(h->listen[i].name);
		sys_closep(&h->listen[i].fd);
		sys_closep(&h->listen[i].out);
	}
	free(h->listen);
	free(h->revisions);
	free(h->resume_reason);
	context_clear(&h->context);
	sys_closep(&h->ep);
	sys_closep(&h->timer);
	sys_closep(&h->wake);
	sys_closep(&h->data_dir);
	sys_closep(&h->run_dir);
	free(h);
	return NULL;
}
