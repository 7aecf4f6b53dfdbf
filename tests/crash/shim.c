/*
 * shim: break points at every message and every record, in the real programs, by LD_PRELOAD.
 *
 * It stands before sendmsg, recvmsg, pwrite, fdatasync, write, pread, execveat and prctl. Before and
 * after a frame on a unix stream, before and after a record of the journal, of `current` or of the
 * lock, of what one handoffd hands to the next and of its exec, and where a successor is tied to its
 * supervisor (PR_SET_PDEATHSIG), it tells the controller (tests/crash/place.py) at the SEQPACKET
 * socket $CRASH_SOCKET
 *
 *     PROGRAM ROLE PID WHEN OP NAME       handoffd - 4711 before send PrepareHandoff
 *
 * (ROLE is $HANDOFF_ROLE, or "asked": a handoffd that is asked whether it can go on)
 *
 * and waits for one byte: 'g' go on, 'c' shut the frame's socket down, then go on. Until then the
 * thread that asked is here, at an exact point: the controller may kill or stop it, or anybody.
 * Each thread has a connection of its own, so that one which is held does not hold the others.
 * Without a controller it does nothing.
 *
 * The names are those of msg.def: a new message is here without a change. "before recv" is told
 * when the frame lies in the socket, "after recv" when it has been read and not yet acted upon,
 * "after write" when fdatasync has returned.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FRAME_HEADER 6
#define LENGTH_SIZE  4
#define SLOT_HEADER  20       /* of a record: "HNDF", checksum, sequence, length */
#define HEAD         (FRAME_HEADER + 4)
#define FDS          1024
#define EXPORT       __attribute__((visibility("default")))

static const char *const name_of[256] = {
#define MSG(name, type, text, limit) [type] = text,
#define F(...)
#define END(name)
#include "proto/msg.def"
#undef MSG
#undef F
#undef END
};

/* ----------------------------------------------------- the controller --- */

static __thread struct { int fd; pid_t pid; } line = { -1, 0 };
static const char *asked;   /* its role, if it is */

/* A fork has its parent's thread, and must not speak on its line. */
static int controller(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = getenv("CRASH_SOCKET");

	if (line.pid == getpid())
		return line.fd;
	line.pid = getpid();
	line.fd = path ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) : -1;
	if (line.fd < 0)
		return -1;
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	if (connect(line.fd, (struct sockaddr *)&sa, sizeof sa)) {
		close(line.fd);
		line.fd = -1;
	}
	return line.fd;
}

/* Tells, and waits for the answer. fd: what 'c' shuts down. */
static void boundary(const char *when, const char *op, const char *name, int fd)
{
	const int saved = errno, to = controller();
	const char *role = asked ? asked : getenv("HANDOFF_ROLE");
	char text[200], go = 'g';
	ssize_t r;
	int n;

	if (to < 0)
		return;
	n = snprintf(text, sizeof text, "%s %s %d %s %s %s", program_invocation_short_name,
		     role ? role : "-", (int)getpid(), when, op, name);
	if (send(to, text, (size_t)n, MSG_NOSIGNAL) == n) {
		do
			r = recv(to, &go, 1, 0);
		while (r < 0 && errno == EINTR);
		if (r == 1 && go == 'c')
			shutdown(fd, SHUT_RDWR);
	}
	errno = saved;
}

/* ------------------------------------------------------------- frames --- */

/* What has passed of the frame under way, each way; ino: of which socket. */
static struct stream {
	ino_t ino;
	int is_stream;
	unsigned char in[HEAD];
	size_t in_got, out_left;
	const char *out_name;
} streams[FDS];

static struct stream *stream_of(int fd)
{
	int domain = 0, type = 0;
	socklen_t n = sizeof domain;
	struct stream *s;
	struct stat st;

	if (fd < 0 || fd >= FDS || fstat(fd, &st) || !S_ISSOCK(st.st_mode))
		return NULL;
	s = &streams[fd];
	if (s->ino != st.st_ino) {
		memset(s, 0, sizeof *s);
		s->ino = st.st_ino;
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n);
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n);
		s->is_stream = domain == AF_UNIX && type == SOCK_STREAM;
	}
	return s->is_stream ? s : NULL;
}

/* [type, {...}]: the name, or NULL. */
static const char *item_name(const unsigned char *p)
{
	if (p[0] != 0x82)
		return NULL;
	return p[1] < 24 ? name_of[p[1]] : p[1] == 24 ? name_of[p[2]] : NULL;
}

static size_t frame_size(const unsigned char *p)
{
	return LENGTH_SIZE + ((size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24);
}

/* The next n bytes of the incoming stream: its frame's name when that is complete. */
static const char *take_in(struct stream *s, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++, s->in_got++)
		if (s->in_got < HEAD)
			s->in[s->in_got] = p[i];
	if (s->in_got < HEAD || s->in_got < frame_size(s->in))
		return NULL;
	s->in_got = 0;
	return item_name(s->in + FRAME_HEADER);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	static ssize_t (*real)(int, struct msghdr *, int);
	struct stream *s = stream_of(fd);
	unsigned char head[HEAD];
	const char *name = NULL;
	ssize_t r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "recvmsg");
	if (flags & MSG_PEEK)   /* a look takes nothing: it is read after it */
		return real(fd, m, flags);
	if (s && !s->in_got && recv(fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT) == sizeof head)
		name = item_name(head + FRAME_HEADER);
	if (name)
		boundary("before", "recv", name, fd);
	r = real(fd, m, flags);
	if (s && r > 0 && (name = take_in(s, m->msg_iov[0].iov_base, (size_t)r)))
		boundary("after", "recv", name, fd);
	return r;
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	static ssize_t (*real)(int, const struct msghdr *, int);
	struct stream *s = stream_of(fd);
	const unsigned char *p = m->msg_iov[0].iov_base;
	const int begins = s && !s->out_left && m->msg_iov[0].iov_len >= HEAD;
	ssize_t r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
	if (begins) {
		s->out_name = item_name(p + FRAME_HEADER);
		if (s->out_name)
			boundary("before", "send", s->out_name, fd);
		s->out_left = frame_size(p);
	}
	r = real(fd, m, flags);
	if (begins && r <= 0)
		s->out_left = 0;      /* not a byte has left: it comes again, or never */
	if (!s || r <= 0)
		return r;
	s->out_left -= (size_t)r < s->out_left ? (size_t)r : s->out_left;
	if (!s->out_left && s->out_name)
		boundary("after", "send", s->out_name, fd);
	return r;
}

/* ------------------------------------------------------------ records --- */

static char written[FDS][40];  /* the record that waits for its fdatasync */

/* The journal's record begins {0: 16 bytes, 1: text, 2: phase}: "Journal(committed)". */
static void record_name(const unsigned char *p, size_t n, char out[40])
{
	static const char *const phase[] = { "idle", "started", "committed" };
	const char *name = n > HEAD + SLOT_HEADER && !memcmp(p, "HNDF", 4) ? item_name(p + SLOT_HEADER)
									   : NULL;
	size_t at = SLOT_HEADER + 4 + 1 + 17 + 1;   /* the text's head, behind its key */

	*out = '\0';
	if (!name)
		return;
	snprintf(out, 40, "%s", name);
	if (strcmp(name, "Journal") || n < at + 2 || p[at] != 0x78)
		return;
	at += 2u + p[at + 1];
	if (n > at + 1 && p[at] == 2 && p[at + 1] < 3)
		snprintf(out, 40, "Journal(%s)", phase[p[at + 1]]);
}

EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off_t);
	char *name = fd >= 0 && fd < FDS ? written[fd] : NULL;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pwrite");
	if (name) {
		record_name(p, n, name);
		if (*name)
			boundary("before", "write", name, -1);
	}
	return real(fd, p, n, at);
}

EXPORT int fdatasync(int fd)
{
	static int (*real)(int);
	int r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
	r = real(fd);
	if (!r && fd >= 0 && fd < FDS && *written[fd]) {
		boundary("after", "write", written[fd], -1);
		*written[fd] = '\0';
	}
	return r;
}

/* ------------------------------------------------------------ re-exec --- */

static const char *carry_name(const unsigned char *p, size_t n)
{
	const char *name = n >= HEAD ? item_name(p + FRAME_HEADER) : NULL;

	return name && !strncmp(name, "Carry", 5) ? name : NULL;
}

EXPORT ssize_t write(int fd, const void *p, size_t n)
{
	static ssize_t (*real)(int, const void *, size_t);
	const char *name = carry_name(p, n);
	ssize_t r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "write");
	if (name)
		boundary("before", "write", name, -1);
	r = real(fd, p, n);
	if (name)
		boundary("after", "write", name, -1);
	return r;
}

/* All records are read at once; the first is Carry. */
EXPORT ssize_t pread(int fd, void *p, size_t n, off_t at)
{
	static ssize_t (*real)(int, void *, size_t, off_t);
	unsigned char head[HEAD];
	const char *name = NULL;
	ssize_t r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pread");
	if (at == 0 && real(fd, head, sizeof head, 0) == sizeof head)
		name = carry_name(head, sizeof head);
	if (name)
		boundary("before", "read", name, -1);
	r = real(fd, p, n, at);
	if (name)
		boundary("after", "read", name, -1);
	return r;
}

static void look_whether_asked(char *const argv[])
{
	for (int i = 1; argv[i]; i++)
		if (!strcmp(argv[i], "--check-carried"))
			asked = "asked";
}

/* Of handoffd by handoffd: a daemon is another program. */
EXPORT int execveat(int dir, const char *path, char *const argv[], char *const env[], int flags)
{
	static int (*real)(int, const char *, char *const[], char *const[], int);
	const char *base = strrchr(argv[0], '/');

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "execveat");
	if (!strcmp(base ? base + 1 : argv[0], program_invocation_short_name)) {
		look_whether_asked(argv);
		boundary("before", "exec", program_invocation_short_name, -1);
	}
	return real(dir, path, argv, env, flags);
}

/* (glibc gives it what main() gets) */
static void __attribute__((constructor)) after_exec(int argc, char **argv)
{
	(void)argc;
	look_whether_asked(argv);
	if (asked || getenv("HANDOFF_CARRIED"))
		boundary("after", "exec", program_invocation_short_name, -1);
}

/* ----------------------------------------------------------- the tie to S --- */

EXPORT int prctl(int option, ...)
{
	static int (*real)(int, unsigned long, unsigned long, unsigned long, unsigned long);
	const char *name;
	unsigned long a[4];
	va_list ap;
	int r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "prctl");
	va_start(ap, option);
	for (int i = 0; i < 4; i++)   /* as libc does: what was not given is not looked at */
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	name = option != PR_SET_PDEATHSIG ? NULL : a[0] ? "On" : "Off";
	if (name)
		boundary("before", "tie", name, -1);
	r = real(option, a[0], a[1], a[2], a[3]);
	if (name)
		boundary("after", "tie", name, -1);
	return r;
}
