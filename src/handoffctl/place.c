#include "handoffctl/place.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffctl/ask.h"
#include "handoffd/conf.h"

#define WAIT_RETRY_MS 200   /* a user may ask ten times a second */

static bool is_socket(const char *path)
{
	struct stat st;

	return sys_stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int absent(struct ctl *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int absent(struct ctl *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	out_verror(&c->out, CTL_NO_SUPERVISOR, fmt, ap);
	va_end(ap);
	return CTL_NO_SUPERVISOR;
}

static int no_memory(struct ctl *c)
{
	return absent(c, "out of memory");
}

static int denied(struct ctl *c, const char *socket)
{
	return out_error(&c->out, CTL_DENIED, "permission denied: %s; be root, or in the group "
	                 "`operators` of its configuration", socket);
}

int place_error(struct ctl *c, const char *name, const char *socket, int e, const char *detail)
{
	switch (e) {
	case -ENOENT:
	case -ENOTDIR:
		return absent(c, "no supervisor of %s runs here (there is no %s); start it: systemctl start "
		              "handoff@NAME, or handoffd -c FILE; those that run: handoffctl list", name, socket);
	case -ECONNREFUSED:
		return absent(c, "the supervisor of %s is gone (nobody answers at %s; its daemon "
		              "may still serve); systemd starts it again, and --wait waits for that; else start "
		              "it: handoffd -c FILE", name, socket);
	case -EACCES:
	case -EPERM:
		return denied(c, socket);
	case -ENAMETOOLONG:
		return out_error(&c->out, CTL_USAGE, "%s is longer than the 107 bytes that a "
		                 "socket's path may have; use a shorter one", socket);
	case -ETIMEDOUT:
		return absent(c, "the supervisor of %s does not answer (at %s); look whether it "
		              "is stopped or hangs", name, socket);
	case -EBADMSG:
		return absent(c, "what answers at %s does not speak this protocol: %s; is that "
		              "the socket of a handoffd, and of this version?", socket, detail);
	case -ENODATA:
	case -ECONNRESET:
	case -EPIPE:
		return absent(c, "the supervisor of %s closed the connection without an answer "
		              "(at %s); try again, and see its log", name, socket);
	default:
		return absent(c, "the supervisor of %s cannot be reached at %s: %s", name, socket,
		              strerror(-e));
	}
}

/* Where services have a directory each: the caller's place, and root's. */
struct where {
	int (*find)(const char *name, bool use_systemd, char *ret, size_t size, char *err, size_t err_size);
	const char *root;
};
static const struct where runtime_place = { dirs_runtime, "/run/handoff" };
static const struct where state_place = { dirs_state, "/var/lib/handoff" };

/*
 * Where a service of that name may be, best first: the caller's own place; for a user,
 * who may be one of the operators of root's services, root's place too. Returns how many.
 */
static int candidates(const struct where *w, const char *name, char dir[2][4096], char *err, size_t err_size)
{
	const char *ours = getenv("HANDOFF_RUNTIME_DIR");
	int n = w->find(name, false, dir[0], sizeof dir[0], err, err_size) == 0;

	if (geteuid() != 0 && !(ours && *ours))
		n += snprintf(dir[n], sizeof dir[n], "%s/%s", w->root, name) > 0;
	return n;
}

static int find_named(struct ctl *c, char **ret_socket)
{
	char dir[2][4096], err[200] = "";
	const int n = candidates(&runtime_place, c->name, dir, err, sizeof err);

	if (n == 0)
		return absent(c, "%s", err);
	for (int i = 0; i < n; i++) {
		free(*ret_socket);
		if (asprintf(ret_socket, "%s/control.sock", dir[i]) < 0) {
			*ret_socket = NULL;
			return no_memory(c);
		}
		if (is_socket(*ret_socket))
			return 0;
	}
	/* the first is the one to be named in a message */
	free(*ret_socket);
	if (asprintf(ret_socket, "%s/control.sock", dir[0]) < 0) {
		*ret_socket = NULL;
		return no_memory(c);
	}
	return 0;
}

/* ---- all of them ---- */

/* Takes its texts. */
static int append(struct places *p, struct place one)
{
	struct place *v = one.name ? realloc(p->v, (p->n + 1) * sizeof *v) : NULL;

	if (!v) {
		free(one.name);
		free(one.socket);
		return -ENOMEM;
	}
	p->v = v;
	p->v[p->n++] = one;
	return 0;
}

/* Where there is a control.sock. */
static int add(struct places *p, const char *dir, const char *name)
{
	struct place one = { 0 };

	if (asprintf(&one.socket, "%s/%s/control.sock", dir, name) < 0)
		return -ENOMEM;
	if (!is_socket(one.socket)) {
		free(one.socket);
		return 0;
	}
	one.error = ask_knock(one.socket);
	one.name = strdup(name);
	return append(p, one);
}

/* Where there is a directory, or what nobody may look at. */
static int add_stopped(struct places *p, const char *dir, const char *name)
{
	struct stat st;
	char *path;
	bool is;

	for (size_t i = 0; i < p->n; i++)
		if (!strcmp(p->v[i].name, name))
			return 0;
	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return -ENOMEM;
	is = sys_stat(path, &st) || S_ISDIR(st.st_mode);
	free(path);
	return is ? append(p, (struct place){ .name = strdup(name), .error = -ENOENT }) : 0;
}

typedef int (*add_fn)(struct places *p, const char *dir, const char *name);

static int scan_one(struct places *p, const char *dir, add_fn add_one)
{
	struct dirent *e;
	int r = 0;
	DIR *d = opendir(dir);

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!r && (e = readdir(d)))
		if (conf_name_ok(e->d_name))
			r = add_one(p, dir, e->d_name);
	closedir(d);
	return r;
}

static int by_name(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void places_free(struct places *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].name);
		free(p->v[i].socket);
	}
	free(p->v);
	*p = (struct places){ 0 };
}

/* code: of a place that cannot be listed; 0: only where nothing is found elsewhere it is an error. */
static int scan(struct ctl *c, const struct where *w, add_fn add_one, int code, struct places *p)
{
	char dir[2][4096], err[200] = "";
	const int n = candidates(w, "x", dir, err, sizeof err);
	int failed = -1, e = 0;

	if (n == 0 && !p->n)
		return absent(c, "%s", err);
	for (int i = 0; i < n; i++) {
		*strrchr(dir[i], '/') = '\0';
		const int r = scan_one(p, dir[i], add_one);

		if (r == -ENOMEM)
			return no_memory(c);
		if (r < 0)
			failed = i, e = r;
	}
	if (failed >= 0 && (code || !p->n))
		return out_error(&c->out, code ? code : e == -EACCES ? CTL_DENIED : CTL_NO_SUPERVISOR,
		                 "%s cannot be listed: %s; name the service", dir[failed],
		                 strerror(-e));
	if (p->n)
		qsort(p->v, p->n, sizeof *p->v, by_name);
	return 0;
}

int places_scan(struct ctl *c, struct places *ret)
{
	*ret = (struct places){ 0 };
	return scan(c, &runtime_place, add, 0, ret);
}

/* Those, too, that have been stopped: systemd removes the runtime directory, and nobody the state's. */
static int scan_stopped(struct ctl *c, struct places *p)
{
	const int r = scan(c, &runtime_place, add_stopped, CTL_USAGE, p);

	return r ? r : scan(c, &state_place, add_stopped, CTL_USAGE, p);
}

/* ---- the only one ---- */

/* Whether it may be meant where no name is given. Who acts may mean one whose supervisor has died, or
 * was stopped: another one is not to be hit in its place. Who may not connect does not mean it. */
static bool may_be_meant(const struct ctl *c, const struct place *p)
{
	return !p->error || (c->command->acts && p->error != -EACCES && p->error != -EPERM);
}

static int several(struct ctl *c, const struct places *p)
{
	char *names = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&names, &size);
	const char *sep = "";

	if (!f)
		return no_memory(c);
	for (size_t i = 0; i < p->n; i++)
		if (may_be_meant(c, &p->v[i])) {
			fprintf(f, "%s%s%s", sep, p->v[i].name, p->v[i].error ? " (no supervisor answers)" : "");
			sep = ", ";
		}
	if (fclose(f))
		return no_memory(c);
	out_error(&c->out, CTL_USAGE, "several services are here: %s; say which: "
	          "handoffctl %s NAME", names, c->command->name);
	free(names);
	return CTL_USAGE;
}

static int none(struct ctl *c, const struct places *p)
{
	char dir[2][4096], err[200];

	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].error == -EACCES || p->v[i].error == -EPERM)
			return denied(c, p->v[i].socket);
	if (p->n)
		return absent(c, "no supervisor runs here (nobody answers at %s; its daemon may still serve); systemd "
		              "starts it again; else start it: handoffd -c FILE", p->v[0].socket);
	candidates(&runtime_place, "NAME", dir, err, sizeof err);
	return absent(c, "no supervisor runs here (there is no %s/control.sock); start one: "
	              "systemctl start handoff@NAME, or handoffd -c FILE", dir[0]);
}

static struct place *who_answers(const struct places *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (!p->v[i].error)
			return &p->v[i];
	return NULL;
}

static int find_only(struct ctl *c, char **ret_socket, char **ret_name)
{
	struct places p;
	size_t meant = 0;
	int r = places_scan(c, &p);

	if (!r && !who_answers(&p))
		r = none(c, &p);
	if (!r && c->command->acts)
		r = scan_stopped(c, &p);
	for (size_t i = 0; !r && i < p.n; i++)
		meant += may_be_meant(c, &p.v[i]);
	if (!r && meant > 1)
		r = several(c, &p);
	if (!r) {
		struct place *only = who_answers(&p);

		*ret_socket = only->socket;
		*ret_name = only->name;
		only->socket = only->name = NULL;
	}
	places_free(&p);
	return r;
}

static int find(struct ctl *c, char **ret_socket, char **ret_name)
{
	int r = 0;

	*ret_socket = *ret_name = NULL;
	if (!c->socket && !c->name)
		return find_only(c, ret_socket, ret_name);
	if (c->name)
		r = find_named(c, ret_socket);
	else if (!(*ret_socket = strdup(c->socket)))
		r = no_memory(c);
	if (!r && !(*ret_name = strdup(c->name ? c->name : c->socket)))
		r = no_memory(c);
	if (r) {
		free(*ret_socket);
		*ret_socket = NULL;
	}
	return r;
}

/* ---- --wait ---- */

/* Whether the wait is over: an upgrade would be begun, or that will not change by itself. */
static bool is_ready(struct ctl *c, const char *name, const char *socket, uint64_t limit_ms, bool *told)
{
	const struct msg question = { .type = MSG_op_status };
	struct ask a = ASK_INIT(socket);
	bool refuses, ready;

	ask_all(&a, 1, &question, limit_ms, -1);
	refuses = !a.result && a.msg.type == MSG_op_state && MSG_HAS(&a.msg, op_state, refused);
	ready = a.result ? a.result == -EACCES || a.result == -EPERM || a.result == -ENAMETOOLONG : !refuses;
	if (!ready && !*told && !c->json) {
		out_note(&c->out, "waiting for %s: %.*s", name,
		         refuses ? (int)a.msg.op_state.refused.n : INT_MAX,
		         refuses ? a.msg.op_state.refused.p : "no supervisor answers");
		*told = true;
	}
	ask_end(&a);
	return ready;
}

int place_find(struct ctl *c, char **ret_socket, char **ret_name)
{
	const uint64_t end = sys_now_ms() + c->wait.ms;
	bool told = false;
	uint64_t now;
	int r;

	/* found anew each time: a user's operator may wait for one that comes in root's place */
	while (!(r = find(c, ret_socket, ret_name)) && (now = sys_now_ms()) < end &&
	       !is_ready(c, *ret_name, *ret_socket, end - now, &told)) {
		free(*ret_socket);
		free(*ret_name);
		sys_poll(NULL, 0, WAIT_RETRY_MS);
	}
	return r;
}
