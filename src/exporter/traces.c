#include "exporter/traces.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "exporter/query.h"
#include "exporter/span.h"
#include "handoffctl/place.h"

#define EVERY_S     2
#define AT_ONCE     8            /* records of one answer, as msg.def has it */
#define PENDING_MAX (1u << 20)   /* bytes that wait for a reader */
#define FILE_MAX    (8u << 20)   /* of a file's end: what is known to be in it */

/* A service, and how far its handoffs were written. */
struct source {
	struct source *next;
	struct traces *all;
	char *name, *socket;
	struct query *query;
	uint64_t written;            /* the highest number that was */
	uint64_t before;             /* the lowest number that has come; 0: none */
	unsigned came;               /* in this answer */
	char *lines[AT_ONCE * 16];   /* newest first */
	unsigned nlines;
	uint64_t newest;             /* the highest number among them */
};

struct traces {
	struct event_base *base;
	struct event *tick;
	const char *path;
	struct source *sources;
	char *in_file;               /* the end of the file, as it was */
	uint64_t started_ms;
	bool pipe;
	char *pending;               /* lines that are to be written */
	size_t n, sent;              /* sent: of the first line, to a pipe that took no more */
	int fd;                      /* only while a line is half written */
	int complained;              /* the error that was said last */
};

static void complain(struct traces *t, int e, const char *what)
{
	if (e != t->complained)
		fprintf(stderr, "handoff-exporter: %s: %s: %s; traces wait, up to %u kB of them\n", t->path, what,
		        strerror(-e), PENDING_MAX / 1024);
	t->complained = e;
}

/* ---- out ---- */

/* A reader that has gone and left half a line gets it again, from its beginning. */
static void give_up(struct traces *t)
{
	sys_closep(&t->fd);
	t->sent = 0;
}

static void write_out(struct traces *t)
{
	while (t->n) {
		const size_t line = (size_t)((char *)memchr(t->pending, '\n', t->n) - t->pending) + 1;
		ssize_t n;

		if (t->fd < 0 && (t->fd = sys_open(t->path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY, 0640)) < 0) {
			complain(t, t->fd, "cannot be opened");   /* -ENXIO: a pipe that nobody reads */
			t->fd = -1;
			return;
		}
		n = sys_write(t->fd, t->pending + t->sent, line - t->sent);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			complain(t, (int)n, "cannot be written");
			give_up(t);
			return;
		}
		t->complained = 0;
		if ((t->sent += (size_t)n) < line)
			continue;
		t->sent = 0;
		memmove(t->pending, t->pending + line, t->n -= line);
	}
	sys_closep(&t->fd);   /* it may be rotated meanwhile */
}

static void add(struct traces *t, const char *line)
{
	const size_t n = strlen(line);
	char *p = t->n + n <= PENDING_MAX ? realloc(t->pending, t->n + n) : NULL;

	if (!p) {
		complain(t, -ENOBUFS, "a trace is left out");
		return;
	}
	memcpy(p + t->n, line, n);
	t->pending = p;
	t->n += n;
}

/* ---- in ---- */

static bool wanted(const struct traces *t, const struct msg *m)
{
	char id[37];

	if (m->handoff.outcome.n == 9 && !memcmp(m->handoff.outcome.p, "under way", 9))
		return false;
	if (t->pipe)
		return m->handoff.asked_ms >= t->started_ms;
	hid_format(&m->handoff.id, id);
	return !t->in_file || !strstr(t->in_file, id);
}

static void on_message(void *arg, const struct msg *m)
{
	struct source *s = arg;
	char *line;

	if (m->type != MSG_handoff)
		return;
	s->came++;
	s->before = m->handoff.number;
	if (m->handoff.number <= s->written || s->nlines == sizeof s->lines / sizeof *s->lines)
		return;
	/* what is under way is written when it has ended: nothing after it is taken for written */
	if (m->handoff.outcome.n == 9 && !memcmp(m->handoff.outcome.p, "under way", 9))
		return;
	if (m->handoff.number > s->newest)
		s->newest = m->handoff.number;
	if (wanted(s->all, m) && (line = span_line(s->name, m)))
		s->lines[s->nlines++] = line;
}

static void drop_lines(struct source *s)
{
	while (s->nlines)
		free(s->lines[--s->nlines]);
}

static bool ask(struct source *s);

static void on_ended(void *arg, int error)
{
	struct source *s = arg;
	struct query *done = s->query;

	s->query = NULL;
	query_free(done);
	if (!error && s->came == AT_ONCE && s->before > s->written + 1 && ask(s))
		return;
	if (!error) {
		for (unsigned i = s->nlines; i--; )
			add(s->all, s->lines[i]);
		if (s->newest > s->written)
			s->written = s->newest;
	}
	drop_lines(s);
	s->before = 0;
	write_out(s->all);
}

static bool ask(struct source *s)
{
	static const struct query_handler handler = { on_message, on_ended };
	struct msg m = { .type = MSG_op_history };

	s->came = 0;
	MSG_SET(&m, op_history, count, AT_ONCE);
	if (s->before)
		MSG_SET(&m, op_history, before, s->before);
	s->query = query_new(s->all->base, s->socket, &m, &handler, s);
	return s->query != NULL;
}

/* ---- the services ---- */

static struct source *source_of(struct traces *t, const struct place *p)
{
	struct source *s;

	for (s = t->sources; s; s = s->next)
		if (!strcmp(s->socket, p->socket))
			return s;
	if (!(s = calloc(1, sizeof *s)) || !(s->name = strdup(p->name)) || !(s->socket = strdup(p->socket))) {
		free(s ? s->name : NULL);
		free(s);
		return NULL;
	}
	s->all = t;
	s->next = t->sources;
	return t->sources = s;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval tv = { EVERY_S, 0 };
	struct traces *t = arg;
	struct places p;
	struct ctl c = { 0 };

	(void)fd;
	(void)what;
	write_out(t);
	if (!places_scan(&c, &p))
		for (size_t i = 0; i < p.n; i++) {
			struct source *s = source_of(t, &p.v[i]);
			if (s && !s->query)
				ask(s);
		}
	places_free(&p);
	event_add(t->tick, &tv);
}

/* ---- its life ---- */

/* What lies at the end of a regular file, as one string. */
static int read_end(struct traces *t)
{
	struct stat st;
	int fd = sys_open(t->path, O_RDONLY | O_NONBLOCK, 0), e;
	ssize_t n = 0;
	off_t from;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if ((e = sys_fstat(fd, &st)) || !S_ISREG(st.st_mode)) {
		t->pipe = !e;
		sys_close(fd);
		return e;
	}
	from = st.st_size > FILE_MAX ? st.st_size - FILE_MAX : 0;
	if ((t->in_file = malloc(FILE_MAX + 1))) {
		n = sys_pread(fd, t->in_file, FILE_MAX, from);
		t->in_file[n > 0 ? n : 0] = '\0';
	}
	sys_close(fd);
	return n < 0 ? (int)n : t->in_file ? 0 : -ENOMEM;
}

struct traces *traces_open(struct event_base *base, const char *path, char *err, size_t size)
{
	struct traces *t = calloc(1, sizeof *t);
	int e;

	if (!t || !(t->tick = event_new(base, -1, 0, on_tick, t))) {
		free(t);
		snprintf(err, size, "no memory");
		return NULL;
	}
	t->base = base;
	t->path = path;
	t->fd = -1;
	t->started_ms = sys_wall_ms();
	if ((e = read_end(t))) {
		snprintf(err, size, "%s cannot be read: %s; what was written already is looked up there", path, strerror(-e));
		traces_close(t);
		return NULL;
	}
	event_active(t->tick, EV_TIMEOUT, 0);
	return t;
}

void traces_close(struct traces *t)
{
	if (!t)
		return;
	while (t->sources) {
		struct source *s = t->sources;
		t->sources = s->next;
		query_free(s->query);
		drop_lines(s);
		free(s->name);
		free(s->socket);
		free(s);
	}
	event_free(t->tick);
	sys_closep(&t->fd);
	free(t->in_file);
	free(t->pending);
	free(t);
}
