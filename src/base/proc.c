#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = sys_open(path, O_RDONLY, 0);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = sys_read(fd, buf, size - 1);
	sys_close(fd);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

void proc_boot_id(char out[BOOT_ID_SIZE])
{
	char buf[64];

	out[0] = '\0';
	if (read_file("/proc/sys/kernel/random/boot_id", buf, sizeof buf) >= BOOT_ID_SIZE - 1) {
		memcpy(out, buf, BOOT_ID_SIZE - 1);
		out[BOOT_ID_SIZE - 1] = '\0';
	}
}

int proc_start_time(pid_t pid, uint64_t *ret)
{
	char path[40], buf[1024], *p;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	n = read_file(path, buf, sizeof buf);
	if (n == -ENOENT)
		return -ESRCH;
	if (n < 0)
		return (int)n;
	/* the name may hold blanks and parentheses: count from the last one */
	if (!(p = strrchr(buf, ')')))
		return -EIO;
	for (int field = 2; field < 22; field++)
		if (!(p = strchr(p + 1, ' ')))
			return -EIO;
	*ret = strtoull(p, NULL, 10);
	return 0;
}

static int ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return sys_poll(&p, 1, 0) > 0;
}

int proc_open(pid_t pid, uint64_t start)
{
	uint64_t now;
	int fd = sys_pidfd_open(pid), e;

	if (fd < 0)
		return fd;
	e = proc_start_time(pid, &now);
	if (!e && now != start)
		e = -ESRCH;
	else if (e == -ESRCH && !ended(fd))
		e = -EIO;   /* it lives, and /proc does not say so */
	if (e) {
		sys_close(fd);
		return e;
	}
	return fd;
}
