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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <handoff.h>

#define AT_ONCE 64

static void on_log(void *arg, int level, const char *line)
{
	(void)arg;
	if (level >= HANDOFF_LOG_DEBUG)   /* the protocol's steps, which no daemon logs but to be debugged */
		return;
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

/* Those that have come since the last call. */
static void take_listeners(handoff *h, int set)
{
	static unsigned taken;
	const char *name;

	for (; (name = handoff_fd_name(h, taken)); taken++) {
		struct epoll_event e = { .events = EPOLLIN, .data.fd = handoff_take_fd(h, name) };
		if (e.data.fd < 0 || epoll_ctl(set, EPOLL_CTL_ADD, e.data.fd, &e))
			exit(1);
	}
}

/* What has come is read by the call that said -EAGAIN. Events stay: behind the decision the next Prepare may lie. */
static void wait_for_more(handoff *h)
{
	struct pollfd p = { .fd = handoff_fd(h), .events = POLLIN };

	poll(&p, 1, -1);
}

/*
 * The listeners' set is made while the incumbent still serves: 1,000 of them take a millisecond.
 * To stop accepting is to look at the set no more.
 */
static int start(handoff *h, int set)
{
	struct handoff_sealed sealed = { .size = sizeof sealed };
	struct handoff_state s = { .size = sizeof s, .healthy = 1 };
	int r;

	while ((r = handoff_begin(h, &sealed)) == -EAGAIN) {
		take_listeners(h, set);
		wait_for_more(h);
	}
	if (r)
		return r;
	take_listeners(h, set);
	while ((r = handoff_ready(h, &s)) == -EAGAIN)
		wait_for_more(h);
	return r;
}

static void answer_all(int set)
{
	struct epoll_event e[AT_ONCE];
	int n = epoll_wait(set, e, AT_ONCE, 0);

	for (int i = 0; i < n; i++)
		answer(e[i].data.fd);
}

int main(int argc, char **argv)
{
	struct handoff_options o = { .size = sizeof o, .log = on_log, .flags = HANDOFF_NONBLOCK };
	int serving = 1, set = epoll_create1(EPOLL_CLOEXEC);
	handoff *h;

	if (argc > 2 && !strcmp(argv[1], "--alone"))
		return alone(atoi(argv[2]));
	if (argc > 1)
		o.data_dir = argv[1];
	if (set < 0 || handoff_open(&o, &h) || start(h, set))
		return 1;
	struct pollfd p[2] = {
		{ .fd = handoff_fd(h), .events = POLLIN }, { .fd = set, .events = POLLIN }
	};
	for (;;) {
		if (poll(p, serving ? 2 : 1, -1) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents && events(h, &serving))
			return 0;
		if (serving && p[1].revents)
			answer_all(set);
	}
}
