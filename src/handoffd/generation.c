#include "handoffd/generation.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/cgroup.h"
#include "handoffd/ids.h"
#include "handoffd/log.h"

#define LEFT_MAX   64   /* pidfds at once; the others are found when these have ended */
#define SAID_MAX   8    /* lines about one generation's processes */
#define RETRY_MS   10   /* doubled each time, until the deadline */
#define MOMENT_S   2    /* in which the kernel cannot give out all numbers of processes */

/* A process that has outlived its daemon. */
struct left {
	struct left *next;
	struct generation *of;
	pid_t pid;
	char name[32];
	bool member;            /* of its session */
	int pidfd;
	struct event *end;
};

struct generation {
	struct generation *next;
	struct generations *all;
	pid_t pid;              /* the daemon; its session, too */
	uint64_t start, ended;  /* ended 0: it lives */
	uint64_t surely;        /* until then its session was surely its own */
	bool child;             /* started here: what it leaves comes to this process */
	char name[24];          /* its HANDOFF_GENERATION; "": not known */
	int cgroup;             /* -1: none */
	char cgroup_name[200];
	struct left *left;
	unsigned seen;          /* processes so far */
	bool killing, given_up, incomplete;
	uint64_t kill_at, give_up_at, retry_at;   /* ms */
	unsigned retries;
};

struct generations {
	struct event_base *base;
	char service[80];
	void (*settled)(void *arg);
	void *arg;
	int cgroup;             /* handoffd's own, delegated; -1: none */
	bool strangers;         /* a child of handoffd's may be nobody's here */
	uint64_t stop_at;       /* ms; 0: no stop */
	struct generation *list;
	struct event *look;
};

/* ------------------------------------------------------------------ lists --- */

static struct generation *add(struct generations *g, pid_t pid, uint64_t start)
{
	struct generation *n = calloc(1, sizeof *n);

	if (!n) {
		log_error("no memory to remember pid %d: what it leaves behind is not ended", (int)pid);
		g->strangers = true;   /* it is one itself, and nobody's helper */
		return NULL;
	}
	*n = (struct generation){ .next = g->list, .all = g, .pid = pid, .start = start, .cgroup = -1 };
	return g->list = n;
}

static struct generation *find(struct generations *g, pid_t pid, uint64_t start)
{
	for (struct generation *n = g->list; n; n = n->next)
		if (n->pid == pid && n->start == start)
			return n;
	return NULL;
}

static void left_free(struct left *l)
{
	if (l->end)
		event_free(l->end);
	sys_closep(&l->pidfd);
	free(l);
}

static void drop(struct generations *g, struct generation *n)
{
	struct generation **p = &g->list;

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	for (struct left *l = n->left, *next; l; l = next) {
		next = l->next;
		left_free(l);
	}
	sys_closep(&n->cgroup);
	free(n);
}

/* ------------------------------------------------------ whose a process is --- */

/*
 * A session's number is its first process's, and is given to nobody else while a process is
 * in it. So who is in it and has lived while the daemon did, or beside one of whom that is
 * known, is in the daemon's session and not in a later one of the same number. Who was started
 * by one that has ended since, at its last breath, too: numbers are given out in turn, and the
 * same comes again only when all others have been.
 */
static void session_lived(struct generation *n)
{
	uint64_t now = proc_now();

	if (now - n->surely <= MOMENT_S * (uint64_t)sysconf(_SC_CLK_TCK))
		n->surely = now;
}

static bool surely_in_session(const struct generation *n, const struct proc_stat *st)
{
	if (st->start <= n->surely)
		return true;
	for (const struct left *l = n->left; l; l = l->next)
		if (l->member && !proc_ended(l->pidfd))
			return true;
	return false;
}

/* Started while several daemons lived, or perhaps by none of them: who was it? */
static struct generation *owner_by_name(struct generations *g, pid_t pid)
{
	char name[sizeof g->list->name];

	if (ids_proc_env(pid, "HANDOFF_GENERATION", name, sizeof name) || !name[0])
		return NULL;
	for (struct generation *n = g->list; n; n = n->next)
		if (!strcmp(n->name, name))
			return n->ended ? n : NULL;
	return NULL;
}

/* A child of handoffd that handoffd did not start: which daemon's? NULL: of one that lives, or
 * that is not known. */
static struct generation *owner_of_child(struct generations *g, pid_t pid,
                                         const struct proc_stat *st)
{
	struct generation *newest = NULL;

	if (st->session == getsid(0))
		return NULL;
	for (struct generation *n = g->list; n; n = n->next)
		if (st->session == n->pid)
			return n->ended ? n : NULL;
	/* it has a session of its own */
	if (g->strangers)
		return owner_by_name(g, pid);
	for (struct generation *n = g->list; n; n = n->next)
		if (!n->ended && st->start >= n->start)
			return owner_by_name(g, pid);
		else if (n->child && n->ended && st->start >= n->start && (!newest || n->start > newest->start))
			newest = n;
	return newest;
}

static struct generation *owner(struct generations *g, pid_t pid, const struct proc_stat *st)
{
	if (st->state == 'Z' || st->state == 'X')
		return NULL;
	if (st->parent == getpid())
		return owner_of_child(g, pid, st);
	for (struct generation *n = g->list; n; n = n->next)
		if (n->ended && !n->child && n->cgroup < 0 && st->session == n->pid && st->start >= n->start &&
		    surely_in_session(n, st))
			return n;
	return NULL;
}

static bool belongs(struct generation *n, pid_t pid, struct proc_stat *st)
{
	if (proc_stat(pid, st))
		return false;
	return n->cgroup >= 0 ? cgroup_has(n->cgroup, pid) : owner(n->all, pid, st) == n;
}

/* ---------------------------------------------------------------- signals --- */

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	struct left *l = arg, **p = &l->of->left;

	(void)fd;
	(void)what;
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	if (l->member)
		session_lived(l->of);
	event_active(l->of->all->look, EV_TIMEOUT, 0);   /* its children may have come up */
	left_free(l);
}

static void send_signal(struct generation *n, struct left *l)
{
	int e = sys_pidfd_signal(l->pidfd, n->killing ? SIGKILL : SIGTERM);

	if (n->seen <= SAID_MAX)
		log_info("helper %s (pid %d) of the daemon that ended (pid %d) is ended%s%s", l->name,
		         (int)l->pid, (int)n->pid, n->killing ? " by force" : "",
		         !e || e == -ESRCH ? "" : ", which the kernel refuses");
	else if (n->seen == SAID_MAX + 1)
		log_info("so are more helpers of the daemon that ended (pid %d)", (int)n->pid);
}

static bool watched(const struct generation *n, pid_t pid)
{
	for (const struct left *l = n->left; l; l = l->next)
		if (l->pid == pid)
			return true;
	return false;
}

/* The pidfd first: whoever it is then, it is the one that is looked at, unless it has ended. */
static void take(struct generation *n, pid_t pid)
{
	struct left *l = calloc(1, sizeof *l);
	struct proc_stat st;

	if (!l || generations_left(n->all) >= LEFT_MAX) {
		n->incomplete = true;
		free(l);
		return;
	}
	l->of = n;
	l->pid = pid;
	l->pidfd = sys_pidfd_open(pid);
	n->incomplete |= l->pidfd < 0 && l->pidfd != -ESRCH;
	if (l->pidfd < 0 || !belongs(n, pid, &st) || proc_ended(l->pidfd)) {
		left_free(l);
		return;
	}
	l->end = event_new(n->all->base, l->pidfd, EV_READ, on_end, l);
	if (!l->end || event_add(l->end, NULL)) {
		n->incomplete = true;
		left_free(l);
		return;
	}
	memcpy(l->name, st.name, sizeof l->name);
	l->member = st.session == n->pid;
	if (l->member)
		n->surely = proc_now();   /* it lives */
	l->next = n->left;
	n->left = l;
	n->seen++;
	send_signal(n, l);
}

/* ------------------------------------------------------------------- look --- */

static void consider(void *arg, pid_t pid)
{
	struct generations *g = arg;
	struct generation *n;
	struct proc_stat st;

	for (n = g->list; n; n = n->next)
		if ((!n->ended && n->pid == pid) || watched(n, pid))
			return;
	if (!proc_stat(pid, &st) && (n = owner(g, pid, &st)) && n->cgroup < 0)
		take(n, pid);
}

static void consider_member(void *arg, pid_t pid)
{
	struct generation *n = arg;

	if (!watched(n, pid))
		take(n, pid);
}

static void look_around(struct generations *g)
{
	bool children = false, all = false;

	for (struct generation *n = g->list; n; n = n->next) {
		if (!n->ended)
			continue;
		n->incomplete = false;
		if (n->cgroup >= 0)
			n->incomplete = cgroup_each(n->cgroup, consider_member, n) < 0;
		else if (n->child)
			children = true;
		else
			all = true;
	}
	if (children && proc_children(consider, g) < 0)
		all = true;
	if (all)
		proc_all(consider, g);
}

static void pass_deadlines(struct generation *n, uint64_t now)
{
	if (!n->killing && now >= n->kill_at) {
		n->killing = true;
		for (struct left *l = n->left; l; l = l->next)
			send_signal(n, l);
		if (n->cgroup >= 0)
			cgroup_kill(n->cgroup);
	}
	if (n->given_up || now < n->give_up_at)
		return;
	n->given_up = true;
	for (struct left *l = n->left; l; l = l->next) {
		struct proc_stat st = { .state = '?' };

		proc_stat(l->pid, &st);
		log_warning("helper %s (pid %d, state %c) of the daemon that ended (pid %d) does not end; "
		            "nothing waits for it", l->name, (int)l->pid, st.state, (int)n->pid);
	}
}

/* Nothing is left of it. The group can be a moment behind the end of the last process in it. */
static bool done(struct generations *g, struct generation *n)
{
	if (n->left || (n->incomplete && !n->given_up))
		return false;
	if (n->cgroup < 0 || !cgroup_remove(g->cgroup, n->cgroup_name))
		return true;
	if (n->given_up)
		log_warning("the cgroup %s cannot be removed; it goes with the unit", n->cgroup_name);
	n->incomplete = true;
	return n->given_up;
}

static uint64_t next_look(struct generation *n, uint64_t now)
{
	uint64_t at = n->killing ? n->give_up_at : n->kill_at;

	if (!n->ended || n->given_up)
		return UINT64_MAX;
	if (n->incomplete && now >= n->retry_at)
		n->retry_at = now + ((uint64_t)RETRY_MS << (n->retries < 6 ? n->retries++ : 6));
	return n->incomplete && n->retry_at < at ? n->retry_at : at;
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct generations *g = arg;
	uint64_t now = sys_now_ms(), at = UINT64_MAX;

	(void)fd;
	(void)what;
	for (struct generation *n = g->list; n; n = n->next)
		if (n->ended)
			pass_deadlines(n, now);
	look_around(g);
	for (struct generation *n = g->list, *next; n; n = next) {
		next = n->next;
		if (n->ended && done(g, n)) {
			if (n->seen)
				log_info("nothing is left of the daemon that ended (pid %d)", (int)n->pid);
			drop(g, n);
			continue;
		}
		uint64_t mine = next_look(n, now);
		at = mine < at ? mine : at;
	}
	if (at != UINT64_MAX) {
		struct timeval tv = { 0, 0 };

		at = at > now ? at - now : 0;
		tv = (struct timeval){ (time_t)(at / 1000), (suseconds_t)(at % 1000 * 1000) };
		event_add(g->look, &tv);
	}
	if (generations_settled(g, 0))
		g->settled(g->arg);
}

static void end(struct generation *n, uint64_t ended)
{
	uint64_t now = sys_now_ms(), stop = n->all->stop_at;

	n->ended = n->surely = ended ? ended : 1;
	n->kill_at = now + GENERATION_TERM_MS;
	if (stop && stop < n->kill_at)
		n->kill_at = stop;
	n->give_up_at = n->kill_at + GENERATION_KILL_MS;
	event_active(n->all->look, EV_TIMEOUT, 0);
}

/* ------------------------------------------------------------ generations --- */

/* handoff-SERVICE-PID-START: a group that an earlier handoffd of this service has made. */
static void adopt_group(void *arg, const char *name)
{
	struct generations *g = arg;
	unsigned long long start;
	struct generation *n;
	char again[200];
	const char *p;
	int pid;

	if (strncmp(name, "handoff-", 8) || strncmp(name + 8, g->service, strlen(g->service)))
		return;
	p = name + 8 + strlen(g->service);
	if (sscanf(p, "-%d-%llu", &pid, &start) != 2)
		return;
	snprintf(again, sizeof again, "handoff-%s-%d-%llu", g->service, pid, start);
	if (strcmp(again, name) || !(n = add(g, pid, start)))
		return;
	snprintf(n->cgroup_name, sizeof n->cgroup_name, "%s", name);
	n->cgroup = cgroup_open(g->cgroup, name);
	/* if it lives, and the journal names it or it has the lock, it is adopted, and that is over
	 * before this is looked at */
	end(n, proc_now());
}

static void stranger(void *arg, pid_t pid)
{
	(void)pid;
	*(bool *)arg = true;
}

struct generations *generations_new(struct event_base *base, const char *service,
                                    void (*settled)(void *arg), void *arg)
{
	struct generations *g = calloc(1, sizeof *g);

	if (!g)
		return NULL;
	*g = (struct generations){ .base = base, .settled = settled, .arg = arg };
	snprintf(g->service, sizeof g->service, "%s", service);
	if (!(g->look = event_new(base, -1, 0, on_look, g))) {
		free(g);
		return NULL;
	}
	/* to process 1 come the orphans of all the world; other children are those of whoever
	 * called exec for handoffd */
	g->strangers = getpid() == 1;
	proc_children(stranger, &g->strangers);
	g->cgroup = cgroup_own();
	if (g->cgroup >= 0)
		cgroup_list(g->cgroup, adopt_group, g);
	else
		log_debug("daemons get no cgroups of their own: %s", strerror(-g->cgroup));
	return g;
}

void generations_free(struct generations *g)
{
	if (!g)
		return;
	while (g->list)
		drop(g, g->list);
	event_free(g->look);
	sys_closep(&g->cgroup);
	free(g);
}

void generation_begin(struct generations *g, pid_t pid, uint64_t start, const char *name)
{
	struct generation *n = add(g, pid, start);
	int e;

	if (!n)
		return;
	n->child = true;
	snprintf(n->name, sizeof n->name, "%s", name);
	if (g->cgroup < 0)
		return;
	snprintf(n->cgroup_name, sizeof n->cgroup_name, "handoff-%s-%d-%llu", g->service, (int)pid,
	         (unsigned long long)start);
	n->cgroup = cgroup_make(g->cgroup, n->cgroup_name);
	e = n->cgroup < 0 ? n->cgroup : cgroup_enter(n->cgroup, pid);
	if (!e)
		return;
	log_warning("the daemon (pid %d) gets no cgroup of its own: %s", (int)pid, strerror(-e));
	if (n->cgroup >= 0)
		cgroup_remove(g->cgroup, n->cgroup_name);
	sys_closep(&n->cgroup);
}

void generation_adopt(struct generations *g, pid_t pid, uint64_t start)
{
	struct generation *n = find(g, pid, start);

	if (n)
		n->ended = 0;
	else if (!(n = add(g, pid, start)))
		return;
	if (ids_proc_env(pid, "HANDOFF_GENERATION", n->name, sizeof n->name))
		n->name[0] = '\0';
}

void generation_goes_on(struct generations *g, pid_t pid, uint64_t start, bool child, bool strangers)
{
	struct generation *n;

	generation_adopt(g, pid, start);
	if ((n = find(g, pid, start)))
		n->child = child;
	g->strangers = strangers;   /* its children were not unknown */
}

bool generations_strangers(const struct generations *g)
{
	return g->strangers;
}

void generation_past(struct generations *g, const struct past *p)
{
	struct generation *n = find(g, p->pid, p->start);

	if (!n && (n = add(g, p->pid, p->start)))
		end(n, p->ended);
}

void generation_ended(struct generations *g, pid_t pid)
{
	for (struct generation *n = g->list; n; n = n->next)
		if (n->pid == pid && !n->ended) {
			end(n, proc_now());
			return;
		}
}

unsigned generations_past(const struct generations *g, struct past *ret, unsigned max)
{
	unsigned i = 0;

	for (const struct generation *n = g->list; n && i < max; n = n->next)
		if (n->ended)
			ret[i++] = (struct past){ n->pid, n->start, n->ended };
	return i;
}

unsigned generations_left(const struct generations *g)
{
	unsigned i = 0;

	for (const struct generation *n = g->list; n; n = n->next)
		for (const struct left *l = n->left; l; l = l->next)
			i++;
	return i;
}

bool generations_settled(const struct generations *g, pid_t but)
{
	for (const struct generation *n = g->list; n; n = n->next)
		if (n->ended && !n->given_up && n->pid != but)
			return false;
	return true;
}

void generations_stop(struct generations *g, uint64_t at)
{
	g->stop_at = at;
	for (struct generation *n = g->list; n; n = n->next)
		if (n->ended && !n->killing && at < n->kill_at) {
			n->kill_at = at;
			n->give_up_at = at + GENERATION_KILL_MS;
		}
	event_active(g->look, EV_TIMEOUT, 0);
}
