#include "exporter/traces.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "exporter/query.h"
#include "exporter/span.h"
#include "handoffctl/place.h"

#define AT_ONCE     8            /* records of one answer, as msg.def has it */
#define ANSWERS_MAX 16           /* which are all that a supervisor remembers */
#define PENDING_MAX (1u << 20)   /* bytes that wait for a reader */
#define FILE_MAX    (8u << 20)   /* of a file's end: what is known to be in it */
#define ID_SIZE     36           /* as text */

/* A service, and how far its handoffs were written. */
struct source {
	struct source *next;
	struct traces *all;
	char *name, *socket;
	struct query *query;
	uint64_t written;            /* the highest number that was */
	uint64_t before;             /* the lowest number that has come; 0: none */
	unsigned answers, came;      /* came: in this answer */
	bool lacks;                  /* memory for one of them: they are asked for again */
	char *lines[AT_ONCE * ANSWERS_MAX];   /* newest first */
	unsigned nlines;
	uint64_t newest;             /* the highest number among them */
};

struct traces {
	struct event_base *base;
	struct event *tick;
	const char *path;
	struct source *sources;
	char *in_file;               /* the ids in the whole lines at the end of the file, as it was; NULL: none */
	size_t in_file_n;
	uint64_t started_ms;
	bool pipe;
	bool torn;                   /* the last line is none: a disk was full, an exporter killed */
	char *pending;               /* lines that are to be written, PENDING_MAX */
	size_t n;
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

/*
 * Of a line of more than PIPE_BUF bytes a pipe takes what it has room for (pipe(7)), and the rest would be
 * what the next reader begins with. So it goes into an empty pipe that is large enough for all of it.
 * 0; -EAGAIN; -EMSGSIZE: the pipe will not be (fcntl(2): the user has too many others).
 */
static int make_room(int fd, size_t line)
{
	const int size = sys_fcntl(fd, F_GETPIPE_SZ, 0);   /* -EBADF: no pipe */
	int used;

	if (size < 0 || line <= PIPE_BUF)
		return 0;
	if ((used = sys_pipe_used(fd)))
		return used < 0 ? used : -EAGAIN;
	return (size_t)size < line && sys_fcntl(fd, F_SETPIPE_SZ, (long)line) < 0 ? -EMSGSIZE : 0;
}

/* What a full disk has taken of a line stays, and gets an end of its own before the line is written again. */
static int write_line(struct traces *t, int fd, size_t line)
{
	size_t at = 0;
	ssize_t n = make_room(fd, line);

	if (n >= 0 && t->torn && (n = sys_write(fd, "\n", 1)) == 1)
		t->torn = false;
	while (n >= 0 && at < line)
		if ((n = sys_write(fd, t->pending + at, line - at)) > 0)
			at += (size_t)n;
	t->torn |= at && at < line;
	return n < 0 ? (int)n : 0;
}

static void drop_first(struct traces *t, size_t line)
{
	memmove(t->pending, t->pending + line, t->n -= line);
}

static bool is_empty_file(int fd)
{
	struct stat st;

	return !sys_fstat(fd, &st) && S_ISREG(st.st_mode) && !st.st_size;
}

/* As far as it goes. It is opened each time: it may be rotated, and what a reader of a pipe leaves behind
 * in it goes with that reader. */
static void write_out(struct traces *t)
{
	int fd, e = 0;

	if (!t->n)
		return;
	fd = sys_open(t->path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY, 0640);
	if (fd < 0) {
		complain(t, fd, "cannot be opened");   /* -ENXIO: a pipe that nobody reads */
		return;
	}
	t->torn = t->torn && !is_empty_file(fd);
	while (t->n && !e) {
		const size_t line = (size_t)((char *)memchr(t->pending, '\n', t->n) - t->pending) + 1;

		if (!(e = write_line(t, fd, line))) {
			t->complained = 0;
			drop_first(t, line);
		} else if (e == -EMSGSIZE) {
			complain(t, e, "a trace is left out, the pipe cannot be made large enough");
			drop_first(t, line);
			e = 0;
		}
	}
	sys_close(fd);
	if (e && e != -EAGAIN)
		complain(t, e, "cannot be written");
}

static void add(struct traces *t, const char *line)
{
	const size_t n = strlen(line);

	if (t->n + n > PENDING_MAX) {
		complain(t, -ENOBUFS, "a trace is left out");
		return;
	}
	memcpy(t->pending + t->n, line, n);
	t->n += n;
}

/* ---- in ---- */

static bool is_under_way(const struct msg *m)
{
	return m->handoff.outcome.n == 9 && !memcmp(m->handoff.outcome.p, "under way", 9);
}

static bool wanted(const struct traces *t, const struct msg *m)
{
	char id[37];

	if (t->pipe)
		return m->handoff.asked_ms >= t->started_ms;
	hid_format(&m->handoff.id, id);
	return !t->in_file || !memmem(t->in_file, t->in_file_n, id, strlen(id));
}

static void on_message(void *arg, const struct msg *m)
{
	struct source *s = arg;
	const uint64_t number = m->type == MSG_handoff ? m->handoff.number : 0;
	char *line;

	/* newest first: else there would be no end of asking */
	if (!number || (s->before && number >= s->before) || s->came == AT_ONCE)
		return;
	if (!s->before && number < s->written)   /* of a service that was removed, and installed again */
		s->written = 0;
	s->came++;
	s->before = number;
	/* what is under way is written when it has ended: nothing after it is taken for written */
	if (number <= s->written || is_under_way(m))
		return;
	if (number > s->newest)
		s->newest = number;
	if (!wanted(s->all, m))
		return;
	if ((line = span_line(s->name, m)))
		s->lines[s->nlines++] = line;
	s->lacks |= !line;
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
	if (!error && s->came == AT_ONCE && s->before > s->written + 1 && s->answers < ANSWERS_MAX) {
		if (ask(s))
			return;
		s->lacks = true;
	}
	if (!error && !s->lacks) {
		for (unsigned i = s->nlines; i--; )
			add(s->all, s->lines[i]);
		if (s->newest > s->written)
			s->written = s->newest;
	}
	drop_lines(s);
	s->before = s->newest = s->answers = 0;
	s->lacks = false;
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
	s->answers += s->query != NULL;
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
}

/* ---- its life ---- */

/* An id is all that is looked for in those lines: no room is kept for their text. */
static void keep_ids(struct traces *t)
{
	static const char before[] = "\"handoff.id\",\"value\":{\"stringValue\":\"";   /* span.c */
	const char *p = t->in_file, *end = p + t->in_file_n;
	char *ids;

	t->in_file_n = 0;
	while ((p = memmem(p, (size_t)(end - p), before, sizeof before - 1)) &&
	       end - (p += sizeof before - 1) >= ID_SIZE) {
		memmove(t->in_file + t->in_file_n, p, ID_SIZE);
		t->in_file_n += ID_SIZE;
	}
	ids = t->in_file_n ? realloc(t->in_file, t->in_file_n) : NULL;
	if (!t->in_file_n)
		free(t->in_file);
	if (ids || !t->in_file_n)
		t->in_file = ids;
}

/* What lies at the end of a regular file. A line without an end is none: it is written again. */
static int read_end(struct traces *t)
{
	struct stat st;
	int fd = sys_open(t->path, O_RDONLY | O_NONBLOCK, 0), e;
	ssize_t n = 0;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	e = sys_fstat(fd, &st);
	t->pipe = !e && !S_ISREG(st.st_mode);
	if (!e && !t->pipe && !(t->in_file = malloc(FILE_MAX)))
		e = -ENOMEM;
	if (t->in_file)
		n = sys_pread(fd, t->in_file, FILE_MAX, st.st_size > FILE_MAX ? st.st_size - FILE_MAX : 0);
	sys_close(fd);
	if (e || n < 0)
		return e ? e : (int)n;
	t->in_file_n = (size_t)n;
	while (t->in_file_n && t->in_file[t->in_file_n - 1] != '\n')
		t->in_file_n--;
	t->torn = t->in_file_n < (size_t)n;
	if (t->in_file)
		keep_ids(t);
	return 0;
}

struct traces *traces_open(struct event_base *base, const char *path, unsigned every_ms, char *err,
                           size_t size)
{
	const struct timeval every = { every_ms / 1000, every_ms % 1000 * 1000 };
	struct traces *t = calloc(1, sizeof *t);
	int e;

	if (t)   /* (one that stays has its room in libevent's heap for good) */
		t->tick = event_new(base, -1, EV_PERSIST, on_tick, t);
	if (!t || !t->tick || !(t->pending = malloc(PENDING_MAX)) || event_add(t->tick, &every)) {
		traces_close(t);
		snprintf(err, size, "no memory");
		return NULL;
	}
	t->base = base;
	t->path = path;
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
	if (t->tick)
		event_free(t->tick);
	free(t->in_file);
	free(t->pending);
	free(t);
}
