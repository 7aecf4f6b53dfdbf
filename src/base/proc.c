#include "base/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	const ssize_t n = sys_read_file(path, 0, buf, size - 1);

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

static int parse_stat(const char *line, struct proc_stat *ret)
{
	/* the name may hold blanks and parentheses: count from the last one */
	const char *name = strchr(line, '('), *p = strrchr(line, ')');
	long long value[20];   /* from the parent, field 4, on */
	unsigned n = 0;

	if (!name || !p || p[1] != ' ' || !p[2])
		return -EIO;
	snprintf(ret->name, sizeof ret->name, "%.*s", (int)(p - name - 1), name + 1);
	ret->state = p[2];
	for (p = strchr(p + 2, ' '); p && n < 19; p = strchr(p + 1, ' '))
		value[n++] = strtoll(p, NULL, 10);
	if (n < 19)
		return -EIO;
	ret->parent = (pid_t)value[0];
	ret->session = (pid_t)value[2];
	ret->start = (uint64_t)value[18];
	return 0;
}

int proc_stat(pid_t pid, struct proc_stat *ret)
{
	char path[40], buf[1024];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	n = read_file(path, buf, sizeof buf);
	if (n == -ENOENT)
		return -ESRCH;
	return n < 0 ? (int)n : parse_stat(buf, ret);
}

int proc_start_time(pid_t pid, uint64_t *ret)
{
	struct proc_stat st;
	int e = proc_stat(pid, &st);

	if (!e)
		*ret = st.start;
	return e;
}

int proc_env(pid_t pid, const char *name, char *ret, size_t size)
{
	static char env[1 << 17];   /* the kernel's limit for one string */
	const size_t len = strlen(name);
	char path[40];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
	n = read_file(path, env, sizeof env);
	if (n < 0)
		return (int)n;
	for (const char *p = env; p < env + n; p += strlen(p) + 1)
		if (!strncmp(p, name, len) && p[len] == '=') {
			snprintf(ret, size, "%s", p + len + 1);
			return 0;
		}
	return -ENOENT;
}

uint64_t proc_now(void)
{
	return sys_boot_us() / (1000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

int proc_children(void (*fn)(void *arg, pid_t pid), void *arg)
{
	int fd = sys_open("/proc/thread-self/children", O_RDONLY, 0);
	char buf[4096];
	unsigned pid = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	while ((n = sys_read(fd, buf, sizeof buf)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] != ' ') {
				pid = pid * 10 + (unsigned)(buf[i] - '0');
				continue;
			}
			fn(arg, (pid_t)pid);
			pid = 0;
		}
	sys_close(fd);
	return (int)n;
}

int proc_all(void (*fn)(void *arg, pid_t pid), void *arg)
{
	int fd = sys_open("/proc", O_RDONLY | O_DIRECTORY, 0);
	struct dirent *e;
	DIR *d;

	if (fd < 0)
		return fd;
	if (!(d = fdopendir(fd))) {
		sys_close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(d)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			fn(arg, (pid_t)strtol(e->d_name, NULL, 10));
	closedir(d);
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

bool proc_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return sys_poll(&p, 1, 0) > 0;
}
