#include "handoffd/sdnotify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/sys.h"

#define FDS_MAX 253   /* the kernel's SCM_MAX_FD */

static int fd = -1;
static struct sockaddr_un to;
static socklen_t to_len;

/* '@' stands for the NUL of an abstract name, which has no terminating one. */
static int set_address(const char *name)
{
	const size_t n = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || !name[1] || n >= sizeof to.sun_path)
		return -EAFNOSUPPORT;
	to = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(to.sun_path, name, n);
	if (name[0] == '@')
		to.sun_path[0] = '\0';
	to_len = offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/');
	return 0;
}

int sdnotify_open(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	int e;

	if (!name || !*name)
		return 0;
	if ((e = set_address(name)) || (e = sys_socket(AF_UNIX, SOCK_DGRAM, 0)) < 0)
		return e;
	fd = e;
	return 1;
}

void sdnotify_close(void)
{
	sys_closep(&fd);
}

bool sdnotify_on(void)
{
	return fd >= 0;
}

int sdnotify(const char *state, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = (char *)state, .iov_len = strlen(state) };
	struct msghdr m = { .msg_name = &to, .msg_namelen = to_len, .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r;

	if (fd < 0)
		return 0;
	if (nfds > FDS_MAX)
		return -EINVAL;
	if (nfds) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		memset(&control, 0, m.msg_controllen);
		control.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		                                  .cmsg_len = CMSG_LEN(nfds * sizeof(int)) };
		memcpy(CMSG_DATA(&control.align), fds, nfds * sizeof(int));
	}
	/* a datagram socket that does not block: whole, or -EAGAIN */
	r = sys_sendmsg(fd, &m, 0);
	return r < 0 ? (int)r : 1;
}
