/* Files of /proc: a process's name is any bytes, and so are its environment and its cgroup. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/lockfile.h"
#include "base/proc.h"
#include "base/sys.h"
#include "fuzz.h"
#include "handoffd/cgroup.h"

static void child(void *arg, pid_t pid)
{
	(void)pid;
	++*(unsigned *)arg;
}

void fuzz_proc(const uint8_t *p, size_t n)
{
	char text[64], boot[BOOT_ID_SIZE];
	struct proc_stat st;
	unsigned children = 0;
	uint64_t start;

	world.proc = fuzz_file("proc", p, n);
	if (!proc_stat(1, &st))
		HOLDS(strlen(st.name) < sizeof st.name && st.state, "%s", st.name);
	const int e = proc_env(1, "HANDOFF_DIR", text, sizeof text);
	HOLDS(!e || e == -ENOENT, "%d", e);
	HOLDS(e || strlen(text) < sizeof text, "%d", e);
	proc_boot_id(boot);
	HOLDS(strlen(boot) < sizeof boot, "%s", boot);
	proc_children(child, &children);
	HOLDS(children <= n, "%u children", children);
	proc_start_time(1, &start);
	int fd = cgroup_own();
	sys_closep(&fd);
	fd = open(fuzz_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	lockfile_holder(fd);
	close(fd);
	fd = sys_open("/proc/cgroup.procs", O_RDONLY, 0);
	sys_closep(&fd);
	world.proc = NULL;
}
