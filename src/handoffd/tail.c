#include "handoffd/tail.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/ids.h"
#include "proto/msg.h"

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
	off_t size = 0;
	int fd = open_output(c, &size);

	if (fd >= 0)
		sys_close(fd);
	return size;
}

static bool is_own(const char *line, size_t n)
{
	static const char own[] = " handoffd[";

	return memmem(line, n < OWN_AT ? n : OWN_AT, own, strlen(own)) != NULL;
}

/* Drops a first line that is cut, and what is handoffd's own. */
static void keep_lines(char *text, bool cut)
{
	char *out = text, *line = text, *end;

	if (cut)
		line = strchr(line, '\n') ? strchr(line, '\n') + 1 : line + strlen(line);
	for (; *line; line = end) {
		size_t n = strcspn(line, "\n");

		end = line + n + (line[n] == '\n');
		if (!n || is_own(line, n))
			continue;
		memmove(out, line, (size_t)(end - line));
		out += end - line;
	}
	*out = '\0';
}

void tail_read(const struct conf *c, off_t mark, char *out, size_t size)
{
	off_t end = 0, at;
	int fd = open_output(c, &end);
	ssize_t n = 0;

	out[0] = '\0';
	if (fd < 0)
		return;
	at = end - mark >= (off_t)size ? end - (off_t)size + 1 : mark;
	if (end > at)
		n = sys_pread(fd, out, (size_t)(end - at), at);
	sys_close(fd);
	if (n <= 0)
		return;
	for (ssize_t i = 0; i < n; i++)
		if (!out[i])
			out[i] = '?';
	out[n] = '\0';
	keep_lines(out, at > mark);
	utf8_mend(out);
}
