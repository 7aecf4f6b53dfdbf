#include "handoffd/tail.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/ids.h"
#include "proto/msg.h"

#define WINDOW (256 * 1024)
#define OWN_AT 40   /* "2026-11-21T08:45:01.123Z handoffd[" begins a line of handoffd's */

/* A descriptor and the file's size, or -errno. */
static int open_output(const struct conf *c, off_t *ret_size)
{
	struct ids_saved saved;
	struct stat st;
	int fd = -1, e = 0;

	if (!c->output)   /* what handoffd was given it may read */
		fd = sys_open("/proc/self/fd/2", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	else if (!(e = ids_enter(c->uid, c->gid, c->gids, c->ngids, &saved))) {
		fd = sys_open(c->output, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
		ids_leave(&saved);
	}
	if (fd < 0)
		return e ? e : fd;
	if (sys_fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		sys_close(fd);
		return -1;
	}
	*ret_size = st.st_size;
	return fd;
}

off_t tail_mark(const struct conf *c)
{
	struct stat st;
	off_t size = 0;
	int fd;

	if (!c->output)
		return !sys_fstat(STDERR_FILENO, &st) && S_ISREG(st.st_mode) ? st.st_size : 0;
	if ((fd = open_output(c, &size)) >= 0)
		sys_close(fd);
	return size;
}

static bool bears(const char *line, size_t n, const char *what)
{
	return *what && memmem(line, n, what, strlen(what));
}

/* Drops the lines that have this in their first `within` bytes. */
static void drop_lines(char *text, const char *what, size_t within)
{
	char *out = text, *line = text, *end;

	for (; *line; line = end) {
		size_t n = strcspn(line, "\n");

		end = line + n + (line[n] == '\n');
		if (!n || bears(line, n < within ? n : within, what))
			continue;
		memmove(out, line, (size_t)(end - line));
		out += end - line;
	}
	*out = '\0';
}

/* A byte of another character set does not hide what stands behind it. */
static void mend(char *s)
{
	const char *end = s + strlen(s);

	for (utf8_mend(s); (s += strlen(s)) < end; utf8_mend(++s))
		*s = '?';
}

/* Whole lines from text's end, as many as fit. */
static void copy_last(const char *text, char *out, size_t size)
{
	const size_t n = strlen(text);
	const char *from = text;

	if (n >= size) {
		from = strchr(text + n - size, '\n');   /* one byte more: whether a line ends there */
		from = from ? from + 1 : text + n;
	}
	memcpy(out, from, strlen(from) + 1);
}

/* What is behind mark, or its end. Whether it begins in the middle of it comes back. */
static bool read_window(const struct conf *c, off_t mark, char *text)
{
	off_t end = 0, at;
	int fd = open_output(c, &end);
	ssize_t n = 0;

	text[0] = '\0';
	if (fd < 0)
		return false;
	at = end - mark >= WINDOW ? end - WINDOW + 1 : mark;
	if (end > at)
		n = sys_pread(fd, text, (size_t)(end - at), at);
	sys_close(fd);
	for (ssize_t i = 0; i < n; i++)
		if (!text[i])
			text[i] = '?';
	text[n > 0 ? n : 0] = '\0';
	return at > mark;
}

void tail_read(const struct conf *c, off_t mark, pid_t but, char *out, size_t size)
{
	char *text = malloc(2 * WINDOW), *rest, *line;
	char other[16] = "";

	out[0] = '\0';
	if (!text)
		return;
	line = text;
	rest = text + WINDOW;
	if (read_window(c, mark, text))
		line = strchr(text, '\n') ? strchr(text, '\n') + 1 : text + strlen(text);
	drop_lines(line, " handoffd[", OWN_AT);
	strcpy(rest, line);
	if (but)
		snprintf(other, sizeof other, "[%d]", (int)but);
	drop_lines(rest, other, WINDOW);
	copy_last(*rest ? rest : line, out, size);   /* nobody else has said anything */
	free(text);
	mend(out);
}
