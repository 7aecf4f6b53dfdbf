#include "handoffd/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/sys.h"
#include "handoffd/log.h"

/* identifier, unit (journald finds it by the cgroup), priority, whether "<3>" is understood,
 * and three times whether to forward: journald's own configuration decides that too */
static int write_header(int fd, const char *identifier)
{
	char text[300];
	const int length = (int)strcspn(identifier, "\n");
	struct iovec iov = { text, 0 };
	const struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	iov.iov_len = (size_t)snprintf(text, sizeof text, "%.*s\n\n6\n1\n0\n0\n0\n",
				       length < 255 ? length : 255, identifier);
	n = sys_sendmsg(fd, &m, 0);
	return n < 0 ? (int)n : n == (ssize_t)iov.iov_len ? 0 : -EIO;
}

int output_to_journal(const char *path, const char *identifier)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int r, fd;

	if (strlen(path) >= sizeof sa.sun_path)
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = sys_socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return fd;
	r = sys_connect(fd, (struct sockaddr *)&sa, sizeof sa);
	if (r >= 0)
		r = write_header(fd, identifier);
	if (r >= 0)
		r = sys_fcntl(fd, F_SETFL, 0);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	return fd;
}

int output_open(const struct conf *c, const char *exe_path, int *ret)
{
	const char *slash = strrchr(exe_path, '/');

	*ret = -1;
	if (c->output) {
		*ret = sys_open(c->output, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY, 0640);
		return *ret < 0 ? *ret : 0;
	}
	if (!log_to_journal())
		return 0;
	*ret = output_to_journal(OUTPUT_JOURNAL, slash ? slash + 1 : exe_path);
	/* handoffd's own stream outlives it, too: only the pid of its lines is not the daemon's */
	if (*ret < 0)
		*ret = -1;
	return 0;
}
