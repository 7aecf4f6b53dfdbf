/*
 * nothing: a daemon that does nothing but say its pid to whoever connects. What a handoff
 * costs by itself is measured with it; --alone is the floor: the same program, linked the
 * same way, bound and accepting, without any protocol.
 *
 *     nothing [DATA-DIR]       all listeners of the supervisor
 *     nothing --alone FD       the listener FD, nothing else
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <handoff.h>

#define MOST 4096

static struct pollfd polled[1 + MOST];   /* the library's, then the listeners */
static nfds_t npolled = 1;

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

static int alone(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	while (poll(&p, 1, -1) > 0)
		answer(listener);
	return 0;
}

static int take_listeners(handoff *h)
{
	const char *name;

	for (; npolled <= MOST && (name = handoff_fd_name(h, (unsigned)npolled - 1)); npolled++) {
		polled[npolled] = (struct pollfd){ .fd = handoff_take_fd(h, name), .events = POLLIN };
		if (polled[npolled].fd < 0)
			return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct handoff_options o = { .size = sizeof o, .log = on_log };
	struct handoff_sealed sealed = { .size = sizeof sealed };
	struct handoff_state s = { .size = sizeof s, .healthy = 1 };
	int serving = 1;
	handoff *h;

	if (argc > 2 && !strcmp(argv[1], "--alone"))
		return alone(atoi(argv[2]));
	if (argc > 1)
		o.data_dir = argv[1];
	if (handoff_open(&o, &h) || handoff_begin(h, &sealed))
		return 1;
	if (take_listeners(h) || handoff_ready(h, &s))
		return 1;
	polled[0] = (struct pollfd){ .fd = handoff_fd(h), .events = POLLIN };
	for (;;) {
		if (poll(polled, serving ? npolled : 1, -1) < 0 && errno != EINTR)
			return 1;
		if (polled[0].revents && events(h, &serving))
			return 0;
		for (nfds_t i = 1; serving && i < npolled; i++)
			if (polled[i].revents)
				answer(polled[i].fd);
	}
}
