/*
 * The smallest daemon whose binary can be replaced while it serves: each connection gets
 * a number, one higher each time, kept in DIR/counter. Below handoffd, with data-dir = DIR
 * and a listener called "main"; by hand there is none, and it ends with 1. About half of
 * these lines are there for the handoff.
 */
#include <errno.h>
#include <fcntl.h>
#include <handoff.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int file;
static uint64_t count;   /* the state; in the file, 0 if it is new */

static void load(void) { if (pread(file, &count, sizeof count, 0) != sizeof count) count = 0; }

static void serve(int listener)
{
	int client = accept(listener, NULL, NULL);   /* it is O_NONBLOCK: leave it so */
	uint64_t next = count + 1;

	if (client < 0)
		return;
	/* written first, answered then: what was acknowledged survives this process */
	if (pwrite(file, &next, sizeof next, 0) == sizeof next)
		dprintf(client, "%llu\n", (unsigned long long)(count = next));
	close(client);
}

/* What the supervisor wants. 0: exit. *accepting: may clients be accepted? */
static int obey(handoff *h, int *accepting)
{
	struct handoff_event e = { .size = sizeof e };
	struct handoff_state sealed = { .size = sizeof sealed, .revisions = &count, .shards = 1 };

	handoff_dispatch(h);
	while (handoff_next(h, &e) > 0)
		switch (e.type) {
		case HANDOFF_DRAIN: *accepting = 0; handoff_drained(h, 0); break;
		case HANDOFF_SEAL:
			if (!(*accepting = fsync(file) != 0))
				handoff_sealed(h, &sealed);             /* writes nothing from here on */
			else
				handoff_seal_failed(h, "fsync failed"); /* serves on */
			break;
		case HANDOFF_RESUME: load(); handoff_resumed(h); *accepting = 1; break;
		case HANDOFF_COMMIT: return 0;                          /* the successor serves */
		default: break;                                         /* LOST, FINAL: nothing to do */
		}
	return 1;
}

int main(int argc, char **argv)
{
	struct handoff_options options = { .size = sizeof options, .data_dir = argv[1] };
	struct handoff_sealed before = { .size = sizeof before };
	struct handoff_state mine = { .size = sizeof mine, .revisions = &count, .shards = 1, .healthy = 1 };
	int accepting = 1;
	handoff *h;

	if (argc != 2 || chdir(argv[1]) || (file = open("counter", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return 2;
	if (handoff_open(&options, &h) || handoff_begin(h, &before))   /* waits for its turn */
		return 1;
	load();                                                        /* only now: the lock is ours */
	struct pollfd p[2] = { { handoff_take_fd(h, "main"), POLLIN, 0 }, { handoff_fd(h), POLLIN, 0 } };
	if (p[0].fd < 0 || handoff_ready(h, &mine))                    /* 0: we serve */
		return 1;
	for (;;) {
		p[0].events = accepting ? POLLIN : 0;
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (p[1].revents && !obey(h, &accepting))
			return 0;
		if (accepting && p[0].revents)
			serve(p[0].fd);
	}
}
