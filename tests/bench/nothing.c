/*
 * nothing: a daemon that does nothing but say its pid to whoever connects. What a handoff
 * costs by itself is measured with it; --alone is the floor: the same program, linked the
 * same way, bound and accepting, without any protocol.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <handoff.h>

static void on_log(void *arg, int level, const char *line)
{
	(void)arg;
	(void)level;
	fprintf(stderr, "nothing[%d]: %s\n", (int)getpid(), line);
}

static void answer(int listener)
{
	char text[32];
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (write(fd, text, (size_t)n) != n)
		fprintf(stderr, "nothing: %s\n", strerror(errno));
	close(fd);
}

/* 1: exit now */
static int events(handoff *h, int *serving)
{
	struct handoff_event e = { .size = sizeof e };
	struct handoff_state s = { .size = sizeof s, .healthy = 1 };

	handoff_dispatch(h);
	while (handoff_next(h, &e) > 0)
		switch (e.type) {
		case HANDOFF_DRAIN: *serving = 0; handoff_drained(h, 0); break;
		case HANDOFF_SEAL: handoff_sealed(h, &s); break;
		case HANDOFF_RESUME: handoff_resumed(h); *serving = 1; break;
		case HANDOFF_COMMIT: return 1;
		default: break;
		}
	return 0;
}

int main(int argc, char **argv)
{
	struct handoff_options o = { .size = sizeof o, .log = on_log };
	struct handoff_sealed sealed = { .size = sizeof sealed };
	struct handoff_state s = { .size = sizeof s, .healthy = 1 };
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };
	int serving = 1;
	handoff *h;

	if (argc > 2 && !strcmp(argv[1], "--alone")) {   /* a listener, given as a descriptor */
		p[0].fd = atoi(argv[2]);
		while (poll(p, 1, -1) > 0)
			answer(p[0].fd);
		return 0;
	}
	if (argc > 1)
		o.data_dir = argv[1];
	if (handoff_open(&o, &h) || handoff_begin(h, &sealed))
		return 1;
	if ((p[0].fd = handoff_take_fd(h, "main")) < 0 || handoff_ready(h, &s))
		return 1;
	p[1].fd = handoff_fd(h);
	for (;;) {
		p[0].events = serving ? POLLIN : 0;
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (p[1].revents && events(h, &serving))
			return 0;
		if (serving && p[0].revents)
			answer(p[0].fd);
	}
}
