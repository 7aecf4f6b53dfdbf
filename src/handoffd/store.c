#include "handoffd/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/log.h"
#include "proto/slot.h"

#define SLOT_SIZE SLOTS_PAYLOAD_MAX
#define LOCK_WAIT_MS 1000
#define LOCK_TRY_MS  10

static int fail(char *err, size_t size, int e, const char *dir, const char *name, const char *what)
{
	snprintf(err, size, "%s/%s: %s: %s", dir, name, what, strerror(-e));
	return e;
}

int store_open_in(const char *dir, const char *name, char *err, size_t size)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = sys_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	return fd < 0 ? fail(err, size, fd, dir, name, "cannot be opened") : fd;
}

/* Three numbers each. */
static void unpack_past(const struct uints *u, struct journal *j)
{
	uint64_t v[3 * PAST_MAX];
	unsigned n = uints_copy(u, v, 3 * PAST_MAX);

	for (j->npast = 0; j->npast < n / 3; j->npast++) {
		const uint64_t *p = v + 3 * j->npast;
		j->past[j->npast] = (struct past){ (pid_t)p[0], p[1], p[2] };
	}
}

static void unpack(const struct msg *m, struct journal *j)
{
	j->phase = (int)m->journal.phase;
	j->id = m->journal.id;
	j->outcome = (enum s_outcome)m->journal.outcome;
	j->served = m->journal.served;
	j->incumbent = (struct process){ (pid_t)m->journal.pid, m->journal.start };
	j->successor = (struct process){ (pid_t)m->journal.successor_pid, m->journal.successor_start };
	span_copy(j->binary, sizeof j->binary, &m->journal.binary);
	span_copy(j->new_binary, sizeof j->new_binary, &m->journal.new_binary);
	span_copy(j->message, sizeof j->message, &m->journal.message);
	j->since = m->journal.since;
	j->last_id = m->journal.last_id;
	j->plan = m->journal.plan;
	j->at = m->journal.at;
	unpack_past(&m->journal.past, j);
	j->new_copy = m->journal.new_copy;
	j->back = m->journal.back;
}

/* Who wrote it may have been older, and have known the binary alone. */
static void unpack_current(const struct msg *m, struct current *c)
{
	const struct msg_current *r = &m->current;

	c->now.named = r->binary.n > 0;
	span_copy(c->now.path, sizeof c->now.path, MSG_HAS(m, current, path) ? &r->path : &r->binary);
	c->now.id = (struct exe_id){ r->ino, r->size, r->mtime, r->ctime };
	c->now.copy = r->copy;
	c->before.named = r->old_named;
	span_copy(c->before.path, sizeof c->before.path, &r->old_path);
	c->before.id = (struct exe_id){ r->old_ino, r->old_size, r->old_mtime, r->old_ctime };
	c->before.copy = r->old_copy;
	c->now.held = r->held;
	c->now.with = r->with;
	c->now.sum = r->sum;
	c->now.rest = r->rest;
	span_copy(c->boot, sizeof c->boot, &r->boot);
}

static int load_current(struct store *s, uint8_t *buf, struct current *c)
{
	char why[200];
	struct msg m;
	int e = slots_load(&s->current, s->current_fd, SLOT_SIZE, buf, &m, why, sizeof why);

	if (!e && m.type != MSG_current)
		e = -EBADMSG;
	if (!e)
		unpack_current(&m, c);
	return e;
}

static bool is_answer(int e)
{
	return !e || e == -ENODATA || e == -EBADMSG;
}

int store_read_again(struct store *s, struct current *c)
{
	uint8_t buf[SLOT_SIZE];
	int e = load_current(s, buf, c);

	if (is_answer(e))
		s->unread = 0;
	return e;
}

static int load_journal(struct store *s, uint8_t *buf, struct journal *j)
{
	char why[200];
	struct msg m;
	int e = slots_load(&s->journal, s->journal_fd, SLOT_SIZE, buf, &m, why, sizeof why);
	if (e == -ENODATA) {
		s->fresh = true;
		return slots_reserve(s->journal_fd, SLOT_SIZE);
	}
	if (!e && m.type != MSG_journal)
		e = -EBADMSG;
	if (e)
		return e;
	/* another boot's processes are nobody here: their pids may be anybody's */
	if (m.journal.boot.n != strlen(s->boot) || memcmp(m.journal.boot.p, s->boot, m.journal.boot.n))
		return 0;
	unpack(&m, j);
	return 0;
}

/*
 * A supervisor that has just died may have left a child at its gate, which has a copy of this
 * descriptor, and so the flock, until it has run (flock(2)): it is waited for. Another supervisor
 * keeps it.
 */
static int lock_supervisor(int fd)
{
	const uint64_t end = sys_now_ms() + LOCK_WAIT_MS;
	int e;

	while ((e = sys_flock(fd, LOCK_EX | LOCK_NB)) == -EWOULDBLOCK && sys_now_ms() < end)
		sys_poll(NULL, 0, LOCK_TRY_MS);
	return e;
}

static int take_lock(struct store *s, const char *dir, char *err, size_t size)
{
	int e;

	if ((s->lock = store_open_in(dir, "supervisor.lock", err, size)) < 0)
		return s->lock;
	if (!(e = lock_supervisor(s->lock)))
		return 0;
	if (e != -EWOULDBLOCK)
		return fail(err, size, e, dir, "supervisor.lock", "cannot be locked");
	snprintf(err, size, "another supervisor runs for this service (it holds %s/supervisor.lock)", dir);
	return e;
}

static void set_aside(struct store *s, const char *state_dir)
{
	const int e = keep_set_aside(state_dir);

	s->stray = e != 0;
	if (!e)
		log_error("%s/current: is damaged: a binary given by --binary and the kept executables are forgotten, "
		          "and these set aside in exe.damaged; the configuration's command counts", state_dir);
	else
		log_error("%s/current: is damaged: a binary given by --binary and the kept executables are forgotten; "
		          "these cannot be set aside in exe.damaged: %s; until they are, no copy is made, and the next "
		          "start removes them; the configuration's command counts", state_dir, strerror(-e));
}

static int load_both(struct store *s, const char *runtime_dir, const char *state_dir, uint8_t *buf,
                     struct journal *ret_j, struct current *ret_c, char *err, size_t size)
{
	int e;

	if ((s->current_fd = store_open_in(state_dir, "current", err, size)) < 0)
		return s->current_fd;
	e = load_current(s, buf, ret_c);
	if (e == -ENODATA && (e = slots_reserve(s->current_fd, SLOT_SIZE)))
		return fail(err, size, e, state_dir, "current", "cannot be written");
	if (e == -EBADMSG) {
		set_aside(s, state_dir);
	} else if (e) {
		log_error("%s/current cannot be read: %s; it stays as it is, and so do the kept executables; as long as "
		          "it is not known the configuration's command counts", state_dir, strerror(-e));
	}
	s->unread = is_answer(e) ? 0 : e;
	if ((s->journal_fd = store_open_in(runtime_dir, "journal", err, size)) < 0)
		return s->journal_fd;
	e = load_journal(s, buf, ret_j);
	return e ? fail(err, size, e, runtime_dir, "journal", e == -EBADMSG ? "is damaged" : "cannot be read or written") : 0;
}

int store_open(struct store *s, const char *runtime_dir, const char *state_dir, int lock,
               struct journal *ret_j, struct current *ret_c, char *err, size_t size)
{
	uint8_t *buf;
	int e;

	*s = (struct store){ .lock = lock, .journal_fd = -1, .current_fd = -1 };
	proc_boot_id(s->boot);
	if (!s->boot[0]) {   /* all of the journal would seem to be of another boot, and nobody alive */
		snprintf(err, size, "/proc/sys/kernel/random/boot_id cannot be read: whose the journal's pids are, nobody knows");
		return -EIO;
	}
	if (lock < 0 && (e = take_lock(s, runtime_dir, err, size)))
		return e;
	if (!(buf = malloc(SLOT_SIZE)))
		return fail(err, size, -ENOMEM, runtime_dir, "journal", "cannot be read or written");
	e = load_both(s, runtime_dir, state_dir, buf, ret_j, ret_c, err, size);
	free(buf);
	return e;
}

int store_journal(struct store *s, const struct journal *j)
{
	struct msg m = { .type = MSG_journal };
	uint64_t past[3 * PAST_MAX];
	int e;

	m.journal.id = j->id;
	m.journal.boot = SPAN(s->boot);
	m.journal.phase = (uint64_t)j->phase;
	m.journal.outcome = j->outcome;
	m.journal.served = j->served;
	if (j->incumbent.pid) {
		MSG_SET(&m, journal, pid, (uint64_t)j->incumbent.pid);
		MSG_SET(&m, journal, start, j->incumbent.start);
	}
	if (j->successor.pid) {
		MSG_SET(&m, journal, successor_pid, (uint64_t)j->successor.pid);
		MSG_SET(&m, journal, successor_start, j->successor.start);
	}
	m.journal.binary = SPAN(j->binary);
	if (j->new_binary[0])
		MSG_SET(&m, journal, new_binary, SPAN(j->new_binary));
	if (j->message[0])
		MSG_SET(&m, journal, message, SPAN(j->message));
	MSG_SET(&m, journal, since, j->since);
	if (j->outcome != OUTCOME_NONE)
		MSG_SET(&m, journal, last_id, j->last_id);
	MSG_SET(&m, journal, plan, j->plan);
	MSG_SET(&m, journal, at, proc_now());
	for (unsigned i = 0; i < j->npast; i++) {
		past[3 * i] = (uint64_t)j->past[i].pid;
		past[3 * i + 1] = j->past[i].start;
		past[3 * i + 2] = j->past[i].ended;
	}
	if (j->npast)
		MSG_SET(&m, journal, past, ((struct uints){ .n = 3 * j->npast, .v = past }));
	MSG_SET(&m, journal, back, j->back);
	if (j->new_copy)
		MSG_SET(&m, journal, new_copy, j->new_copy);
	e = slots_store(&s->journal, &m);
	s->dirty = e != 0;
	return e;
}

int store_current(struct store *s, const struct current *c)
{
	struct msg m = { .type = MSG_current };
	const struct kept *now = &c->now, *old = &c->before;

	if (s->unread)   /* what it says is not lost yet */
		return s->unread;
	m.current.binary = SPAN(now->named ? now->path : "");
	MSG_SET(&m, current, boot, SPAN(c->boot));
	if (now->path[0]) {
		MSG_SET(&m, current, path, SPAN(now->path));
		MSG_SET(&m, current, ino, now->id.ino);
		MSG_SET(&m, current, size, now->id.size);
		MSG_SET(&m, current, mtime, now->id.mtime);
		MSG_SET(&m, current, ctime, now->id.ctime);
		MSG_SET(&m, current, copy, now->copy);
		MSG_SET(&m, current, held, now->held);
	}
	if (sum_known(&now->with))
		MSG_SET(&m, current, with, now->with);
	if (sum_known(&now->sum)) {
		MSG_SET(&m, current, sum, now->sum);
		MSG_SET(&m, current, rest, now->rest);
	}
	if (old->path[0]) {
		MSG_SET(&m, current, old_named, old->named);
		MSG_SET(&m, current, old_path, SPAN(old->path));
		MSG_SET(&m, current, old_ino, old->id.ino);
		MSG_SET(&m, current, old_size, old->id.size);
		MSG_SET(&m, current, old_mtime, old->id.mtime);
		MSG_SET(&m, current, old_ctime, old->id.ctime);
		MSG_SET(&m, current, old_copy, old->copy);
	}
	return slots_store(&s->current, &m);
}

void store_close(struct store *s)
{
	sys_closep(&s->journal_fd);
	sys_closep(&s->current_fd);
	sys_closep(&s->lock);
}
