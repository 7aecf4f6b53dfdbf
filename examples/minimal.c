/*
 * The smallest daemon whose binary can be replaced while it serves: it answers
 * each connection with a number, one higher each time, kept in DIR/counter.
 *
 *     minimal DIR          below handoffd, with a listener that is called "main"
 *
 * Lines that end in [h] are there for the handoff; the rest would be there anyway.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <handoff.h>                                                           /* [h] */

static uint64_t count;  /* the state: how many connections were ever answered */
static int file = -1, listener = -1;

/* Reads the state; makes no file: until it serves, a daemon writes nothing. */
static int load(int dir)
{
	if (file < 0)
		file = openat(dir, "counter", O_RDWR | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT ? 0 : -1;
	return pread(file, &count, sizeof(count), 0) < 0 ? -1 : 0;
}

static void serve_one(void)
{
	int c = accept(listener, NULL, NULL);

	if (c < 0)
		return; /* another process was faster, or the client has gone */
	count++;
	/* write first, then answer: what was answered survives this process */
	if (pwrite(file, &count, sizeof(count), 0) == (ssize_t)sizeof(count))
		dprintf(c, "%llu\n", (unsigned long long)count);
	close(c);
}

static struct handoff_state state(void)                                        /* [h] */
{                                                                              /* [h] */
	return (struct handoff_state){ .size = sizeof(struct handoff_state),   /* [h] */
		.revisions = &count, .shards = 1, .healthy = 1 };              /* [h] */
}                                                                              /* [h] */

/* What the supervisor asks of the daemon that serves. Returns 1: exit. */
static int on_event(handoff *h, int *accepting, const struct handoff_event *e) /* [h] */
{                                                                              /* [h] */
	struct handoff_state s = state();                                      /* [h] */

	if (e->type == HANDOFF_DRAIN) {        /* new clients wait in the kernel  [h] */
		*accepting = 0;                                                /* [h] */
		handoff_drained(h, 0);                                         /* [h] */
	} else if (e->type == HANDOFF_SEAL) {  /* nothing is written after it     [h] */
		*accepting = fdatasync(file) < 0;                              /* [h] */
		if (*accepting)                    /* still the writer            [h] */
			handoff_seal_failed(h, "fdatasync failed");            /* [h] */
		else                                                           /* [h] */
			handoff_sealed(h, &s);                                 /* [h] */
	} else if (e->type == HANDOFF_RESUME) { /* it did not work out: go on     [h] */
		if (e->reopen && load(-1) < 0)                                 /* [h] */
			return 1;                                              /* [h] */
		handoff_resumed(h);                                            /* [h] */
		*accepting = 1;                                                /* [h] */
	}                                                                      /* [h] */
	return e->type == HANDOFF_COMMIT;      /* the successor serves            [h] */
}                                                                              /* [h] */

static int run(handoff *h)
{
	struct handoff_event e = { .size = sizeof(e) };                        /* [h] */
	int accepting = 1;

	for (;;) {
		struct pollfd p[2] = {
			{ .fd = handoff_fd(h), .events = POLLIN },             /* [h] */
			{ .fd = accepting ? listener : -1, .events = POLLIN },
		};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			serve_one();
		if (p[0].revents)                                              /* [h] */
			handoff_dispatch(h);                                   /* [h] */
		while (handoff_next(h, &e) > 0)                                /* [h] */
			if (on_event(h, &accepting, &e))                       /* [h] */
				return 0;                                      /* [h] */
	}
}

static void say(void *arg, int level, const char *line)
{
	(void)arg;
	if (level <= HANDOFF_LOG_INFO)
		fprintf(stderr, "minimal: %s\n", line);
}

int main(int argc, char **argv)
{
	struct handoff_options o = { .size = sizeof(o), .log = say };          /* [h] */
	struct handoff_sealed sealed = { .size = sizeof(sealed) };             /* [h] */
	struct handoff_state s;                                                /* [h] */
	handoff *h;                                                            /* [h] */
	int dir;

	signal(SIGPIPE, SIG_IGN);
	dir = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (dir < 0) {
		fputs("usage: minimal DIR (which must exist)\n", stderr);
		return 2;
	}
	o.data_dir = argv[1];                                                  /* [h] */
	if (handoff_open(&o, &h) < 0)           /* who am I?                      [h] */
		return 1;                                                      /* [h] */
	if (handoff_begin(h, &sealed) < 0)      /* waits for its turn             [h] */
		return 1;                                                      /* [h] */
	listener = handoff_take_fd(h, "main");  /* bound by the supervisor        [h] */
	if (load(dir) < 0 || listener < 0) {
		fputs("minimal: no state, or no listener that is called main\n", stderr);
		return 1;
	}
	s = state();                                                           /* [h] */
	if (handoff_ready(h, &s) < 0)           /* another serves: not needed     [h] */
		return 0;                                                      /* [h] */
	if (file < 0)
		file = openat(dir, "counter", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	run(h);
	handoff_close(h);                                                      /* [h] */
	return 0;
}
