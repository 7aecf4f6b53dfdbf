#include "handoffd/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/logline.h"

/* A pipe that poll calls writable takes this much without blocking. */
#define LINE_MAX_BYTES 4096
#define MESSAGE_BYTES  2048

static struct {
	char service[80];
	enum log_level max;
	bool journal;              /* stderr is a stream to the journal: it adds time and name */
	bool json;
	int fields;                /* the journal's socket for entries with fields; -1 */
	const struct log_about *about;
	mode_t type;               /* of stderr */
	bool hold;
	size_t held;               /* bytes of held_lines, each line behind its length */
} state = { .max = LOG_L_INFO, .fields = -1 };

static char held_lines[4 * LINE_MAX_BYTES];   /* by itself: zeros have no page before they are written to */

typedef uint16_t length_t;

const char *log_journal_socket = "/run/systemd/journal/socket";

static int open_fields(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = sys_socket(AF_UNIX, SOCK_DGRAM, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", log_journal_socket);

	if (fd >= 0 && sys_connect(fd, (const struct sockaddr *)&sa, sizeof sa) < 0)
		sys_closep(&fd);
	return fd;
}

void log_open(const char *service, enum log_level max)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	snprintf(state.service, sizeof state.service, "%s", service);
	state.max = max;
	state.type = 0;
	state.journal = state.json = false;
	state.about = NULL;
	sys_closep(&state.fields);
	if (sys_fstat(STDERR_FILENO, &st) < 0)
		return;
	state.type = st.st_mode & S_IFMT;
	state.journal = stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
			dev == st.st_dev && ino == st.st_ino;
	if (state.journal)
		state.fields = open_fields();
}

void log_as_json(void)
{
	state.json = true;
	sys_closep(&state.fields);
}

void log_about(const struct log_about *about)
{
	state.about = about;
}

bool log_to_journal(void)
{
	return state.journal;
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

/* "PRIORITY=6\nMESSAGE=text\n...": where the journal takes no fields it gets the text. */
static void put_fields(char *entry, size_t n)
{
	struct iovec iov = { entry, n };
	const struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	char *text = entry + strlen("PRIORITY=N\nMESSAGE="), *end = memchr(text, '\n', n - (size_t)(text - entry));

	if (sys_sendmsg(state.fields, &m, MSG_DONTWAIT) >= 0)
		return;
	text -= 3;   /* over "E=", which nobody reads any more */
	text[0] = '<', text[1] = entry[strlen("PRIORITY=")], text[2] = '>';
	put(text, (size_t)(end + 1 - text));
}

/* One by one: see LINE_MAX_BYTES. */
void log_flush(void)
{
	length_t n;

	for (char *line = held_lines, *end = line + state.held; line < end; line += n) {
		memcpy(&n, line, sizeof n);
		line += sizeof n;
		if (state.fields >= 0)
			put_fields(line, n);
		else
			put(line, n);
	}
	state.held = 0;
}

void log_hold(bool hold)
{
	log_flush();
	state.hold = hold;
}

static void say(enum log_event event, enum log_level level, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
static void say(enum log_event event, enum log_level level, const char *fmt, va_list ap)
{
	const int saved = errno;
	char line[LINE_MAX_BYTES], message[MESSAGE_BYTES];
	const struct log_entry e = { level, event, state.service, state.about, sys_wall_ms(), message };
	length_t n;

	if (level > state.max)
		return;
	if (vsnprintf(message, sizeof message, fmt, ap) >= (int)sizeof message)
		memcpy(message + sizeof message - 4, "...", 4);
	n = (length_t)(state.json ? logline_json(&e, line, sizeof line)
	               : state.fields >= 0 ? logline_fields(&e, line, sizeof line)
	               : logline_text(&e, state.journal, line, sizeof line));
	if (state.held + sizeof n + n > sizeof held_lines)
		log_flush();
	memcpy(held_lines + state.held, &n, sizeof n);
	memcpy(held_lines + state.held + sizeof n, line, n);
	state.held += sizeof n + n;
	if (!state.hold || level <= LOG_L_WARNING)
		log_flush();
	errno = saved;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(LOG_E_NONE, level, fmt, ap);
	va_end(ap);
}

void log_event(enum log_event event, enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(event, level, fmt, ap);
	va_end(ap);
}

void log_limited(struct log_limit *l, enum log_level level, const char *fmt, ...)
{
	const uint64_t now = sys_now_ms();
	char what[MESSAGE_BYTES];
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
