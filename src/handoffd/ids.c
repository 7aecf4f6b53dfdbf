#include "handoffd/ids.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/answerer.h"
#include "handoffd/transient.h"

#define TIMEOUT_MS 5000
#define GIDS_MAX   65536          /* NGROUPS_MAX of Linux */

/* What the child hands back; n gids follow it. */
struct answer {
	int error;                /* 0, or a negative errno; -EINVAL: option and why say more */
	char option[16], why[256];
	uid_t uid;
	gid_t gid, operators;
	unsigned ngids;           /* of groups, or of the user */
	bool has_gids;
};

/* ---- the child ---- */

static bool by_number(const char *name, unsigned *ret)
{
	char *end;
	unsigned long n;

	if (strspn(name, "0123456789") != strlen(name))
		return false;
	errno = 0;
	n = strtoul(name, &end, 10);
	*ret = n;
	return !errno && !*end && n < (uid_t)-1;
}

/* error: errno of a look-up, whose modules may not be able to answer; 0: there is none of that name. */
static int wrong(struct answer *a, int error, const char *option, const char *what, const char *name,
		 const char *hint)
{
	if (transient(-error))
		return -error;
	snprintf(a->option, sizeof a->option, "%s", option);
	snprintf(a->why, sizeof a->why, "%s = %.64s: no such %s; %s", option, name, what, hint);
	return -EINVAL;
}

static int group(struct answer *a, const char *option, const char *name, gid_t *ret)
{
	const struct group *g;
	int error;

	errno = 0;
	g = getgrnam(name);
	error = errno;
	if (g)
		*ret = g->gr_gid;
	else if (!by_number(name, ret))
		return wrong(a, error, option, "group", name,
			     "create it with addgroup, or name one that exists");
	return 0;
}

static int user(struct answer *a, const struct conf *c, gid_t *gids)
{
	struct passwd *p;
	int n = GIDS_MAX, error;
	uid_t uid;

	errno = 0;
	p = getpwnam(c->user);
	error = errno;
	if (!p && by_number(c->user, &uid)) {
		errno = 0;
		p = getpwuid(uid);
		if (!p && (!c->group || transient(-errno)))
			return wrong(a, errno, "user", "user", c->user,
				     "a number without an account needs group = as well");
		a->uid = uid;
	}
	if (!p && a->uid == (uid_t)-1)
		return wrong(a, error, "user", "user", c->user,
			     "create it with adduser --system, or name one that exists");
	a->has_gids = true;
	if (!p)
		return 0;
	a->uid = p->pw_uid;
	a->gid = p->pw_gid;
	/* not asked for where groups says it all: a directory service may be slow */
	if (!c->groups && getgrouplist(p->pw_name, p->pw_gid, gids, &n) >= 0)
		a->ngids = n;
	return 0;
}

static int look_up(struct answer *a, const struct conf *c, gid_t *gids)
{
	int r = c->user ? user(a, c, gids) : 0;

	if (!r && c->group)
		r = group(a, "group", c->group, &a->gid);
	if (!r && c->operators)
		r = group(a, "operators", c->operators, &a->operators);
	if (!c->groups)
		return r;
	a->has_gids = true;
	a->ngids = 0;
	for (char **g = c->groups; !r && *g && a->ngids < GIDS_MAX; g++)
		r = group(a, "groups", *g, &gids[a->ngids++]);
	return r;
}

static void child(void *arg, pid_t parent, int fd)
{
	struct answer a = { .uid = -1, .gid = -1, .operators = -1 };
	gid_t *gids = calloc(GIDS_MAX, sizeof *gids);

	(void)parent;
	a.error = gids ? look_up(&a, arg, gids) : -ENOMEM;
	if (!sys_write_all(fd, &a, sizeof a))
		sys_write_all(fd, gids, a.ngids * sizeof *gids);
}

/* ---- the parent ---- */

static ssize_t read_all(int fd, char *to, size_t size, uint64_t until)
{
	size_t got = 0;

	while (got < size) {
		const uint64_t now = sys_now_ms();
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = now < until ? sys_poll(&p, 1, until - now) : 0;

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? n : -ETIMEDOUT;
		n = sys_read(fd, to + got, size - got);
		if (n <= 0)
			return n < 0 ? n : -EPIPE;
		got += n;
	}
	return got;
}

static int take_answer(struct conf *c, int fd, const char **ret_option, char *why, size_t why_size)
{
	const uint64_t until = sys_now_ms() + TIMEOUT_MS;
	struct answer a;
	gid_t *gids;
	ssize_t r = read_all(fd, (char *)&a, sizeof a, until);

	if (r < 0)
		return r;
	if (a.error) {
		const int i = conf_option_find(conf_options, a.option);

		*ret_option = i >= 0 ? conf_options[i].name : NULL;
		snprintf(why, why_size, "%s", a.why);
		return a.error;
	}
	gids = calloc(a.ngids + 1, sizeof *gids);
	if (!gids)
		return -ENOMEM;
	r = read_all(fd, (char *)gids, a.ngids * sizeof *gids, until);
	if (r < 0) {
		free(gids);
		return r;
	}
	c->uid = a.uid;
	c->gid = a.gid;
	c->operators_gid = a.operators;
	free(c->gids);
	c->gids = a.has_gids ? gids : NULL;
	c->ngids = a.ngids;
	if (!a.has_gids)
		free(gids);
	return 0;
}

/* SIGKILL first: on success it is exiting already, on failure it may hang. */
static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	sys_waitpid(pid, NULL, 0);
}

static int ask_child(struct conf *c, const char **ret_option, char *why, size_t why_size)
{
	int r, out;
	const pid_t pid = answerer_fork(child, c, &out);

	if (pid < 0)
		return pid;
	r = take_answer(c, out, ret_option, why, why_size);
	reap(pid);
	sys_close(out);
	return r;
}

int ids_resolve(struct conf *c, const char **ret_option, char *why, size_t why_size)
{
	int r;

	*ret_option = NULL;
	*why = '\0';
	c->uid = -1;
	c->gid = c->operators_gid = -1;
	if (!c->user && !c->group && !c->groups && !c->operators)
		return 0;
	r = ask_child(c, ret_option, why, why_size);
	if (r == -ETIMEDOUT)
		snprintf(why, why_size,
			 "the name service did not answer within %d s; "
			 "use numbers for user and groups, or repair it (getent passwd)",
			 TIMEOUT_MS / 1000);
	else if (r < 0 && !*why)
		snprintf(why, why_size, "cannot look up users and groups: %s; try again",
			 strerror(-r));
	return r;
}

int ids_enter(uid_t uid, gid_t gid, const gid_t *gids, unsigned ngids, struct ids_saved *ret)
{
	int r = 0;

	*ret = (struct ids_saved){ .on = false };
	if (uid == (uid_t)-1 || uid == 0 || geteuid() != 0)
		return 0;
	ret->n = getgroups(0, NULL);
	ret->gids = calloc(ret->n + 1, sizeof *ret->gids);
	if (!ret->gids || (ret->n = getgroups(ret->n, ret->gids)) < 0) {
		free(ret->gids);
		return -ENOMEM;
	}
	ret->on = true;
	if (gids)
		r = sys_setgroups(ngids, gids);
	if (r >= 0 && gid != (gid_t)-1)
		r = sys_setfsgid(gid);
	if (r >= 0)
		r = sys_setfsuid(uid);
	if (r < 0)
		ids_leave(ret);
	return r;
}

int ids_enter_pid(pid_t pid, struct ids_saved *ret)
{
	char proc[32];
	struct stat st;
	int r;

	snprintf(proc, sizeof proc, "/proc/%d", (int)pid);
	r = sys_stat(proc, &st);
	return r ? r : ids_enter(st.st_uid, st.st_gid, NULL, 0, ret);
}

/* Past sys.h: coming back cannot fail for root, and a test must not make it. */
void ids_leave(struct ids_saved *s)
{
	if (!s->on)
		return;
	setfsuid(geteuid());
	setfsgid(getegid());
	if (setgroups(s->n, s->gids) < 0)
		s->on = false; /* short of memory: root's groups give it nothing that it lacks */
	free(s->gids);
	*s = (struct ids_saved){ .on = false };
}

int ids_proc_env(pid_t pid, const char *name, char *ret, size_t size)
{
	struct ids_saved saved;
	int r = ids_enter_pid(pid, &saved);

	if (r)
		return r;
	r = proc_env(pid, name, ret, size);
	ids_leave(&saved);
	return r;
}
