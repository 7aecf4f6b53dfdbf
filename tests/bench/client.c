#include "client.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"
#include "service.h"

#define RING (1u << 16)

struct client {
	_Atomic unsigned head;       /* answers so far */
	_Atomic int error;           /* errno of a connection that failed; it has ended then */
	unsigned taken;              /* of head, by client_longest */
	pid_t pid;
	float gap[RING];
};

static int connect_to(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)sa, sizeof *sa)) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

/* One connection and its answer, read to the end. 0 or an errno. */
static int one(const struct sockaddr_un *sa)
{
	char buf[64];
	ssize_t n = -1, got = 0;
	int fd = connect_to(sa);

	while (fd >= 0 && (n = read(fd, buf, sizeof buf)) > 0)
		got += n;
	int e = fd < 0 || n < 0 ? errno : got ? 0 : ECONNRESET;
	if (fd >= 0)
		close(fd);
	return e;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof sa.sun_path)
		die("%s: too long a path", path);
	strcpy(sa.sun_path, path);
	return sa;
}

static void __attribute__((noreturn)) loop(struct client *c, const char *path)
{
	struct sockaddr_un sa = address(path);
	double last = now_us(), now;
	int e;

	while (!(e = one(&sa))) {
		now = now_us();
		c->gap[c->head % RING] = (float)(now - last);
		atomic_fetch_add(&c->head, 1);
		last = now;
	}
	c->error = e;
	_exit(1);
}

struct client *client_start(const char *path)
{
	struct client *c =
		mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	if (c == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fflush(NULL);
	if ((pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		loop(c, path);
	}
	if (pid < 0)
		die("fork: %s", strerror(errno));
	c->pid = pid;   /* here only: the memory is shared */
	while (!c->head && !c->error)
		sleep_ms(1);
	return c;
}

double client_longest(struct client *c, struct samples *normal)
{
	unsigned at = c->taken, head = c->head, longest_at = at;
	float longest = 0;

	if (c->error)
		die("a client's connection failed: %s", strerror(c->error));
	if (head - at > RING)
		at = head - RING;
	c->taken = head;
	for (unsigned i = at; i != head; i++)
		if (c->gap[i % RING] > longest) {
			longest = c->gap[i % RING];
			longest_at = i;
		}
	for (unsigned i = at; normal && i != head; i++)
		if (i != longest_at)
			samples_add(normal, (double)c->gap[i % RING]);
	return (double)longest;
}

void client_stop(struct client *c)
{
	kill(c->pid, SIGKILL);
	finish(c->pid);
	munmap(c, sizeof *c);
}

/* ----------------------------------------------------------------- floor --- */

int floor_listen(const char *path)
{
	struct sockaddr_un sa = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);   /* goes on into the program */

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) || listen(fd, 4096))
		die("%s: %s", path, strerror(errno));
	return fd;
}

double floor_once(const struct programs *bin, int listener, const char *path)
{
	struct sockaddr_un sa = address(path);
	char number[16], buf[64];
	int fd = connect_to(&sa);   /* waits in the queue from before the start */
	double start, end;
	pid_t pid;

	snprintf(number, sizeof number, "%d", listener);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	start = now_us();
	if ((pid = fork()) == 0) {
		char *argv[] = { (char *)(uintptr_t)bin->nothing, (char *)"--alone", number, NULL };
		char *env[] = { (char *)(uintptr_t)bin->preload, NULL };
		execve(bin->nothing, argv, env);
		_exit(127);
	}
	if (pid < 0 || read(fd, buf, sizeof buf) <= 0)
		die("the floor: no answer of %s --alone", bin->nothing);
	end = now_us();
	close(fd);
	kill(pid, SIGKILL);
	finish(pid);
	return end - start;
}
