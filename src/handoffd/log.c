#include "handoffd/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

/* A pipe that poll calls writable takes this much without blocking. */
#define LINE_MAX_BYTES 2048

static struct {
	char service[80];
	enum log_level max;
	bool journal;              /* stderr is a stream to the journal: it adds time and name */
	mode_t type;               /* of stderr */
	bool hold;
	size_t held;               /* bytes of lines */
	char lines[4 * LINE_MAX_BYTES];
} state = { .max = LOG_L_INFO };

static const char *const level_name[] = {
	[LOG_L_ERROR] = "error",
	[LOG_L_WARNING] = "warning",
	[LOG_L_INFO] = "info",
	[LOG_L_DEBUG] = "debug",
};

void log_open(const char *service, enum log_level max)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	snprintf(state.service, sizeof state.service, "%s", service);
	state.max = max;
	state.type = 0;
	state.journal = false;
	if (sys_fstat(STDERR_FILENO, &st) < 0)
		return;
	state.type = st.st_mode & S_IFMT;
	state.journal = stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
			dev == st.st_dev && ino == st.st_ino;
}

bool log_to_journal(void)
{
	return state.journal;
}

static int prefix(char *to, size_t size, enum log_level level)
{
	const uint64_t now = sys_wall_ms();
	const time_t s = now / 1000;
	char at[32];
	struct tm tm;

	if (state.journal)
		return snprintf(to, size, "<%d>", level);
	gmtime_r(&s, &tm);
	strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &tm);
	return snprintf(to, size, "%s.%03uZ handoffd[%s]: %s: ", at, (unsigned)(now % 1000),
			state.service, level_name[level]);
}

/* What is said may come from outside: a line stays a line. */
static void clean(char *p)
{
	for (; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
}

/*
 * O_NONBLOCK would be on the open file that the daemon shares, so stderr is asked
 * before (a pipe), or told for this once (a socket).
 */
static void put(const char *line, size_t n)
{
	struct iovec iov = { .iov_base = (char *)line, .iov_len = n };
	const struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (state.type == S_IFSOCK)
		sys_sendmsg(STDERR_FILENO, &m, MSG_DONTWAIT);
	else if (state.type == S_IFREG ||
		 (sys_poll(&p, 1, 0) == 1 && !(p.revents & (POLLERR | POLLNVAL))))
		sys_write(STDERR_FILENO, line, n);
}

/* One by one: see LINE_MAX_BYTES. */
void log_flush(void)
{
	for (char *line = state.lines, *end = line + state.held; line < end; ) {
		const size_t n = (char *)memchr(line, '\n', end - line) + 1 - line;

		put(line, n);
		line += n;
	}
	state.held = 0;
}

void log_hold(bool hold)
{
	log_flush();
	state.hold = hold;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	const int saved = errno;
	char line[LINE_MAX_BYTES];
	int n, room;
	va_list ap;

	if (level > state.max)
		return;
	n = prefix(line, sizeof line, level);
	room = sizeof line - n;
	va_start(ap, fmt);
	vsnprintf(line + n, room, fmt, ap);
	va_end(ap);
	clean(line + n);
	n += strlen(line + n);
	if (n == sizeof line - 1)
		memcpy(line + n - 3, "...", 3);
	line[n++] = '\n';          /* in place of the NUL */
	if (state.held + n > sizeof state.lines)
		log_flush();
	memcpy(state.lines + state.held, line, n);
	state.held += n;
	if (!state.hold || level <= LOG_L_WARNING)
		log_flush();
	errno = saved;
}

void log_limited(struct log_limit *l, enum log_level level, const char *fmt, ...)
{
	const uint64_t now = sys_now_ms();
	char what[LINE_MAX_BYTES];
	va_list ap;

	if (bucket_wait(&l->lines, now, l->burst, l->interval_ms)) {
		l->left_out++;
		return;
	}
	bucket_take(&l->lines, now, l->interval_ms);
	if (l->left_out)
		log_line(level, "%u more lines like the next one were left out", l->left_out);
	l->left_out = 0;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	log_line(level, "%s", what);
}
