#include "handoffctl/ask.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/sys.h"

int ask_connect(const char *socket)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(socket) >= sizeof sa.sun_path)
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, socket, strlen(socket) + 1);
	fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return fd;
	r = sys_connect(fd, (struct sockaddr *)&sa, sizeof sa);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	return fd;
}

int ask_connect_within(const char *socket, uint64_t limit_ms)
{
	const uint64_t end = sys_now_ms() + limit_ms;
	int fd;

	while ((fd = ask_connect(socket)) == -EAGAIN && sys_now_ms() < end)
		sys_poll(NULL, 0, ASK_RETRY_MS);
	return fd == -EAGAIN ? -ETIMEDOUT : fd;
}

int ask_knock(const char *socket)
{
	const int fd = ask_connect(socket);

	if (fd >= 0)
		sys_close(fd);
	return fd >= 0 || fd == -EAGAIN ? 0 : fd;
}

static bool pending(const struct ask *a)
{
	return a->result == -EAGAIN;
}

/* As far as it goes without waiting. */
static int step(struct ask *a, const struct msg *question)
{
	int r;

	if (a->chan.fd < 0) {
		const int fd = ask_connect(a->socket);

		if (fd < 0)
			return fd;
		chan_init(&a->chan, fd);
	}
	if (!a->sent) {
		r = chan_send(&a->chan, question, NULL, 0);
		if (r < 0)
			return r;
		a->sent = true;
	}
	r = chan_flush(&a->chan);
	if (r < 0 && r != -EPIPE)
		return r;
	/* events that came before it are not the answer */
	while ((r = chan_recv(&a->chan, &a->msg)) == 1)
		if (a->msg.type == MSG_op_result || a->msg.type == MSG_op_state)
			return 0;
	return r == 0 ? -EAGAIN : r;
}

void ask_step(struct ask *a, const struct msg *question)
{
	if (pending(a))
		a->result = step(a, question);
}

static void wait_some(struct ask *v, unsigned n, struct pollfd *p, uint64_t left_ms, int wake,
                      bool *ret_wake)
{
	bool retry = false;

	for (unsigned i = 0; i < n; i++) {
		const bool open = pending(&v[i]) && v[i].chan.fd >= 0;

		retry |= pending(&v[i]) && !open;
		p[i] = (struct pollfd){ open ? v[i].chan.fd : -1, POLLIN, 0 };
		if (open && chan_pending(&v[i].chan))
			p[i].events |= POLLOUT;
	}
	p[n] = (struct pollfd){ wake, POLLIN, 0 };
	if (retry && left_ms > ASK_RETRY_MS)
		left_ms = ASK_RETRY_MS;
	sys_poll(p, n + 1, (int)left_ms);
	*ret_wake = p[n].revents != 0;
}

void ask_all(struct ask *v, unsigned n, const struct msg *question, uint64_t limit_ms, int wake)
{
	const uint64_t end = sys_now_ms() + limit_ms;
	struct pollfd *p = calloc(n + 1, sizeof *p);
	bool woken = false;

	for (;;) {
		const uint64_t now = sys_now_ms();
		unsigned waiting = 0;

		for (unsigned i = 0; i < n; i++)
			if (pending(&v[i])) {
				if (p)
					ask_step(&v[i], question);
				else
					v[i].result = -ENOMEM;
				waiting += pending(&v[i]);
			}
		if (!waiting)
			break;
		if (now >= end || woken) {
			for (unsigned i = 0; i < n; i++)
				if (pending(&v[i]))
					v[i].result = woken ? -EINTR : -ETIMEDOUT;
			break;
		}
		wait_some(v, n, p, end - now, wake, &woken);
	}
	free(p);
}

void ask_end(struct ask *a)
{
	chan_close(&a->chan);
}
