#include "handoffctl/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ring.h"
#include "base/sys.h"
#include "handoffd/conf.h"
#include "handoffd/history_file.h"

/* As the next supervisor will, which knows more: its journal. */
static void settle(struct msg *m)
{
	const struct span *o = &m->handoff.outcome;

	if (o->n != strlen(HISTORY_UNDER_WAY) || memcmp(o->p, HISTORY_UNDER_WAY, o->n))
		return;
	m->handoff.outcome = SPAN("unknown");
	MSG_SET(m, handoff, code, 6);
	MSG_SET(m, handoff, message, SPAN("the supervisor ended before it had; when it is started again it finishes it, "
	                                  "or takes it back"));
}

static int read_all(int fd, bool (*take)(void *arg, const struct msg *m), void *arg)
{
	uint8_t *buf = malloc(HISTORY_SLOT_SIZE);
	struct ring r;
	struct msg m;
	int e = buf ? ring_open(&r, fd, HISTORY_SLOT_SIZE, HISTORY_SLOTS) : -ENOMEM;
	bool more = true;

	for (unsigned i = 0; !e && more && i < HISTORY_SLOTS && i < r.newest; i++) {
		if (ring_read(&r, r.newest - i, buf, &m) || m.type != MSG_handoff)
			continue;   /* torn by a loss of power */
		m.handoff.number = r.newest - i;
		settle(&m);
		more = take(arg, &m);
	}
	free(buf);
	return e;
}

int archive_read(const char *name, bool (*take)(void *arg, const struct msg *m), void *arg,
                 char *ret_path, size_t path_size)
{
	char dir[4096], err[600];
	int fd, e = dirs_state(name, false, dir, sizeof dir, err, sizeof err);

	if (e)
		return -ENOENT;
	snprintf(ret_path, path_size, "%s/history", dir);
	if ((fd = sys_open(ret_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)) < 0)
		return fd;
	e = read_all(fd, take, arg);
	sys_close(fd);
	return e;
}
