#include "keeper.h"

#include <errno.h>
#include <ftw.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

static volatile sig_atomic_t stopped;

static void on_stop(int sig)
{
	stopped = sig;
}

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "FAILED: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

const char *fs_name(const char *path)
{
	static char number[32];
	struct statfs st;

	if (statfs(path, &st))
		return "unknown";
	switch ((unsigned long)st.f_type) {
	case TMPFS_MAGIC: return "tmpfs";
	case EXT4_SUPER_MAGIC: return "ext4";
	case BTRFS_SUPER_MAGIC: return "btrfs";
	case XFS_SUPER_MAGIC: return "xfs";
	case OVERLAYFS_SUPER_MAGIC: return "overlayfs";
	}
	snprintf(number, sizeof number, "file system %#lx", (unsigned long)st.f_type);
	return number;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

/* Its children are all that is left of the run: it is their subreaper. */
static void end_children(void)
{
	char path[64];
	long pid;
	int found;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	do {
		FILE *f = fopen(path, "r");
		found = 0;
		while (f && fscanf(f, "%ld", &pid) == 1)
			found += !kill((pid_t)pid, SIGKILL);
		if (f)
			fclose(f);
		while (found && waitpid(-1, NULL, 0) > 0 && --found)
			;
	} while (waitpid(-1, NULL, WNOHANG) >= 0);   /* orphans come to it as their parents end */
}

static int make_places(struct places *p)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(p->fast, sizeof p->fast, "%s/handoff-bench.XXXXXX",
	         access("/dev/shm", W_OK) ? "/run" : "/dev/shm");
	snprintf(p->slow, sizeof p->slow, "%.40s/handoff-bench.XXXXXX", tmp ? tmp : "/var/tmp");
	if (!mkdtemp(p->fast) || !mkdtemp(p->slow)) {
		fprintf(stderr, "%s, %s: %s\n", p->fast, p->slow, strerror(errno));
		rmdir(p->fast);
		return -1;
	}
	return 0;
}

int keep(int (*work)(const struct places *p, void *arg), void *arg)
{
	struct sigaction sa = { .sa_handler = on_stop };
	struct places p;
	int status = 1 << 8;
	pid_t pid;

	if (make_places(&p))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	fflush(NULL);
	if ((pid = fork()) == 0) {
		signal(SIGINT, SIG_IGN);   /* the parent decides */
		signal(SIGTERM, SIG_DFL);
		signal(SIGHUP, SIG_DFL);
		signal(SIGPIPE, SIG_IGN);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		exit(work(&p, arg));
	}
	while (pid > 0 && !stopped && waitpid(pid, &status, 0) != pid && errno == EINTR)
		;
	end_children();
	nftw(p.fast, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	nftw(p.slow, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	if (stopped)
		return 128 + stopped;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
