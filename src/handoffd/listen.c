#include "handoffd/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/sys.h"
#include "handoffd/fdstore.h"
#include "handoffd/listen_unix.h"
#include "handoffd/transient.h"

static void clear(struct listener *l)
{
	sys_closep(&l->fd);
	free(l->name);
	free(l->address);
	free(l->path);
	*l = (struct listener){ .fd = -1 };
}

struct listener *listeners_find(const struct listeners *l, const struct conf_listen *cl)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!strcmp(l->v[i].name, cl->name) && !strcmp(l->v[i].address, cl->address))
			return &l->v[i];
	return NULL;
}

/* Moves *one into l; on failure it is cleared. */
static int keep(struct listeners *l, struct listener *one)
{
	struct listener *v = l->v;

	if ((l->n & (l->n - 1)) == 0)      /* a power of two: full */
		v = realloc(l->v, (l->n ? 2 * l->n : 1) * sizeof *v);
	if (!v) {
		clear(one);
		return -ENOMEM;
	}
	l->v = v;
	v[l->n++] = *one;
	return 0;
}

static int set_option(int fd, int level, int name, int value)
{
	return sys_setsockopt(fd, level, name, &value, sizeof value);
}

static int bind_tcp(int fd, const struct conf_listen *cl)
{
	int r = 0;

	if (cl->sa.ss_family == AF_INET6)
		r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, cl->v6only);
	if (r >= 0)
		r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, cl->reuseaddr);
	return r < 0 ? r : sys_bind(fd, (const struct sockaddr *)&cl->sa, cl->sa_len);
}

/* trial: it is closed again, see listeners_try. */
static int new_listener(const struct conf *c, const struct conf_listen *cl, bool trial,
			struct listener *ret, char *why, size_t why_size)
{
	int r;

	*ret = (struct listener){
		.name = strdup(cl->name), .address = strdup(cl->address), .backlog = cl->backlog,
		.fd = sys_socket(cl->sa.ss_family, SOCK_STREAM, 0),
	};
	r = !ret->name || !ret->address ? -ENOMEM : ret->fd < 0 ? ret->fd : 0;
	if (r >= 0)
		r = cl->sa.ss_family == AF_UNIX
			    ? listen_unix_bind(ret->fd, c, cl, trial, ret, why, why_size)
			    : bind_tcp(ret->fd, cl);
	if (r == 0)
		r = sys_listen(ret->fd, cl->backlog);
	if (r < 0) {
		listen_unix_remove(ret);
		clear(ret);
	}
	return r;
}

/* What a person should know and do about a bind that failed. */
static void explain(const struct conf *c, const struct conf_listen *cl, int error, char *why,
		    size_t size)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&cl->sa;
	const bool tcp = cl->sa.ss_family != AF_UNIX;
	const char *who = c->user ? c->user : "handoffd's user";

	if (error == -EADDRINUSE && tcp)       /* the port lies at the same place in sockaddr_in6 */
		snprintf(why, size, "address in use: find its owner with: ss -tlnp sport = :%u",
			 ntohs(in->sin_port));
	else if (error == -EADDRINUSE)
		snprintf(why, size, "address in use: find its owner with: ss -xlp");
	else if (error == -EADDRNOTAVAIL)
		snprintf(why, size,
			 "no interface of this machine has the address; correct it, or set it up "
			 "first");
	else if (error == -EACCES && tcp)
		snprintf(why, size,
			 "not permitted: a port below 1024 needs root or CAP_NET_BIND_SERVICE");
	else if (error == -EACCES || error == -EPERM)
		snprintf(why, size, "not permitted: let %s write its directory", who);
	else if (error == -ENOENT || error == -ENOTDIR)
		snprintf(why, size, "its directory does not exist; create it for %s", who);
	else
		snprintf(why, size, "%s%s", strerror(-error), transient_hint(error));
}

static const struct conf_listen *configured(const struct conf *c, const char *name)
{
	for (unsigned i = 0; i < c->nlisten; i++)
		if (!strcmp(c->listen[i].name, name))
			return &c->listen[i];
	return NULL;
}

static int take(struct listeners *l, const struct conf *c, const struct conf_listen *cl, int fd)
{
	struct listener one = { .fd = fd,
				.name = strdup(cl->name),
				.address = strdup(cl->address) };
	int r = !one.name || !one.address ? -ENOMEM : sys_fcntl(fd, F_SETFD, FD_CLOEXEC);

	if (r >= 0)
		r = sys_nonblock(fd);
	if (r < 0) {
		clear(&one);
		return r;
	}
	listen_unix_own(c, cl, &one);
	return keep(l, &one);
}

static bool is_named(const struct conf *c, const struct listener *l)
{
	const struct conf_listen *cl = configured(c, l->name);

	return cl && !strcmp(cl->address, l->address);
}

/* The listener that has cl's address under a name that c has no more, or NULL. */
static const struct listener *former(const struct listeners *l, const struct conf *c,
				     const struct conf_listen *cl)
{
	for (unsigned i = 0; i < l->n; i++)
		if (!strcmp(l->v[i].address, cl->address) && !is_named(c, &l->v[i]))
			return &l->v[i];
	return NULL;
}

/* A listener that c calls otherwise, at the same address: it is the same socket under both names,
 * until it is known which of them stays; the address could not be bound twice. 0 or -errno. */
static int rename_one(struct listeners *l, const struct conf *c, const struct conf_listen *cl)
{
	const struct listener *old = former(l, c, cl);
	int fd, backlog, r;

	if (!old)
		return 0;
	backlog = old->backlog;   /* take() moves them */
	fd = sys_dup(old->fd, 3);
	r = fd < 0 ? fd : take(l, c, cl, fd);
	if (r >= 0) {
		l->v[l->n - 1].backlog = backlog;
		fdstore_put(cl->name, fd);
	}
	return r;
}

/* Under each of its names. */
static int set_backlog(struct listeners *l, const struct listener *one, int backlog)
{
	const int r = sys_listen(one->fd, backlog);

	for (unsigned i = 0; r >= 0 && i < l->n; i++)
		if (!strcmp(l->v[i].address, one->address))
			l->v[i].backlog = backlog;
	return r;
}

/* error, with its sentence: why, or what explain() knows. */
static int refused(const struct conf *c, const struct conf_listen *cl, int error, char *why,
		   size_t why_size, char *err, size_t err_size)
{
	if (!*why)
		explain(c, cl, error, why, why_size);
	snprintf(err, err_size, "listener %s (%s): %s", cl->name, cl->address, why);
	return error;
}

static int open_one(struct listeners *l, const struct conf *c, const struct conf_listen *cl,
		    char *err, size_t err_size)
{
	struct listener *old = listeners_find(l, cl), one;
	char why[512] = "";
	int r = old ? 0 : rename_one(l, c, cl);

	if (r >= 0 && !old)
		old = listeners_find(l, cl);
	if (r < 0) {
		;
	} else if (!old) {
		r = new_listener(c, cl, false, &one, why, sizeof why);
		if (r >= 0)
			r = keep(l, &one);
		if (r >= 0)
			fdstore_put(one.name, one.fd);
	} else if (old->backlog != cl->backlog) {
		r = set_backlog(l, old, cl->backlog);
	}
	return r < 0 ? refused(c, cl, r, why, sizeof why, err, err_size) : 0;
}

int listeners_open(struct listeners *l, const struct conf *c, char *err, size_t err_size)
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < c->nlisten; i++)
		r = open_one(l, c, &c->listen[i], err, err_size);
	return r;
}

int listeners_try(const struct listeners *l, const struct conf *c, char *err, size_t err_size)
{
	struct listeners tried = { 0 };
	struct listener one;
	int r = 0;

	/* all at once, as they would be: two of them may be in each other's way */
	for (unsigned i = 0; r >= 0 && i < c->nlisten; i++) {
		const struct conf_listen *cl = &c->listen[i];
		char why[512] = "";

		if (listeners_find(l, cl) || former(l, c, cl))
			continue;
		r = new_listener(c, cl, true, &one, why, sizeof why);
		if (r >= 0)
			r = keep(&tried, &one);
		if (r < 0)
			refused(c, cl, r, why, sizeof why, err, err_size);
	}
	listeners_close(&tried, true);
	return r < 0 ? r : 0;
}

/* ---- what comes back from a daemon, or from the descriptor store ---- */

static int option_of(int fd, int name)
{
	socklen_t n = sizeof(int);
	int v = 0, r = sys_getsockopt(fd, SOL_SOCKET, name, &v, &n);

	return r < 0 ? r : v;
}

static bool same_address(const struct sockaddr_storage *a, socklen_t na,
			 const struct conf_listen *cl)
{
	const struct sockaddr_in *x = (const struct sockaddr_in *)a,
				 *y = (const struct sockaddr_in *)&cl->sa;
	const struct sockaddr_in6 *x6 = (const struct sockaddr_in6 *)a,
				  *y6 = (const struct sockaddr_in6 *)&cl->sa;

	if (a->ss_family != cl->sa.ss_family)
		return false;
	switch (a->ss_family) {
	case AF_INET:
		return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
	case AF_INET6:
		return x6->sin6_port == y6->sin6_port && x6->sin6_scope_id == y6->sin6_scope_id &&
		       !memcmp(&x6->sin6_addr, &y6->sin6_addr, sizeof x6->sin6_addr);
	default:
		return na == cl->sa_len && !memcmp(a, &cl->sa, na);
	}
}

static int check_adopted(int fd, const struct conf_listen *cl, const char **what)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof sa;
	int r, domain = option_of(fd, SO_DOMAIN), type, accepts;

	*what = "not a socket";
	if (domain < 0)
		return domain;
	*what = "not a listening stream socket";
	if ((type = option_of(fd, SO_TYPE)) < 0 || (accepts = option_of(fd, SO_ACCEPTCONN)) < 0)
		return type < 0 ? type : accepts;
	if (type != SOCK_STREAM || accepts != 1)
		return -EINVAL;
	*what = "of another address than configured";
	r = sys_getsockname(fd, (struct sockaddr *)&sa, &n);
	if (r < 0)
		return r;
	return domain == cl->sa.ss_family && same_address(&sa, n, cl) ? 0 : -EINVAL;
}

/* What c calls the socket that was called name: so still if the address is that name's, else as
 * what has its address. 0; -ENOENT, or as check_adopted says: *ret is NULL, or that name's. */
static int recognize(const struct conf *c, const char *name, int fd, const struct conf_listen **ret,
		     const char **what)
{
	const char *other;
	int r;

	*ret = configured(c, name);
	r = *ret ? check_adopted(fd, *ret, what) : -ENOENT;
	for (unsigned i = 0; (r == -ENOENT || r == -EINVAL) && i < c->nlisten; i++)
		if (!check_adopted(fd, &c->listen[i], &other)) {
			*ret = &c->listen[i];
			r = 0;
		}
	return r;
}

static int adopt(struct listeners *l, const struct conf *c, const char *name, int fd, char *err,
		 size_t err_size)
{
	const struct conf_listen *cl;
	const char *what = "";
	int r = recognize(c, name, fd, &cl, &what);

	if (r >= 0 && listeners_find(l, cl))
		r = -EEXIST;
	if (r >= 0) {
		r = take(l, c, cl, fd);
		if (r < 0)
			snprintf(err, err_size, "listener %s: %s", name, strerror(-r));
		if (r >= 0 && strcmp(cl->name, name)) {   /* the store takes a socket once: see listeners_prune */
			fdstore_remove(name, fd);
			fdstore_put(cl->name, fd);
		}
		return r;
	}
	sys_close(fd);
	if (r == -ENOENT)
		snprintf(err, err_size, "listener %s: not configured; it is closed", name);
	else if (r == -EEXIST)
		snprintf(err, err_size, "listener %s: in hand already", name);
	else if (r != -EINVAL && r != -ENOTSOCK)
		snprintf(err, err_size, "listener %s: %s", name, strerror(-r));
	else
		snprintf(err, err_size, "listener %s: what came is %s (%s); it is closed", name,
			 what, cl->address);
	return r;
}

int listeners_adopt(struct listeners *l, const struct conf *c, const char *name, int fd, char *err,
		    size_t err_size)
{
	const int r = adopt(l, c, name, fd, err, err_size);

	if (r >= 0)
		fdstore_put(l->v[l->n - 1].name, fd);
	return r;
}

int listeners_restore(struct listeners *l, const struct conf *c, const char *stored, int fd,
		      char *err, size_t err_size)
{
	const struct conf_listen *cl;
	char name[FDSTORE_NAME];
	const char *what;

	if (!fdstore_listener(stored, fd, name)) {
		sys_close(fd);
		snprintf(err, err_size, "no listener was stored so; it is closed");
		return -ENOENT;
	}
	if (!recognize(c, name, fd, &cl, &what) && listen_unix_gone(cl)) {
		sys_close(fd);
		snprintf(err, err_size, "listener %s: nobody reaches it, its path is gone (%s); it is "
			 "closed", name, cl->address);
		return -ENOENT;
	}
	return adopt(l, c, name, fd, err, err_size);
}

void listeners_nonblock(const struct listeners *l)
{
	for (unsigned i = 0; i < l->n; i++)
		sys_nonblock(l->v[i].fd);
}

bool listeners_complete(const struct listeners *l, const struct conf *c)
{
	for (unsigned i = 0; i < c->nlisten; i++)
		if (!listeners_find(l, &c->listen[i]))
			return false;
	return true;
}

/* The same socket's, see rename_one. */
static const struct listener *another_name(const struct listeners *l, unsigned at)
{
	for (unsigned i = 0; i < l->n; i++)
		if (i != at && !strcmp(l->v[i].address, l->v[at].address))
			return &l->v[i];
	return NULL;
}

void listeners_prune(struct listeners *l, const struct conf *c)
{
	for (unsigned i = l->n; i-- > 0;) {
		const struct listener *other = another_name(l, i);

		if (is_named(c, &l->v[i]))
			continue;
		fdstore_remove(l->v[i].name, l->v[i].fd);
		if (other)   /* the store takes a socket once, under the first name that it is given */
			fdstore_put(other->name, other->fd);
		else
			listen_unix_remove(&l->v[i]);
		clear(&l->v[i]);
		memmove(&l->v[i], &l->v[i + 1], (--l->n - i) * sizeof *l->v);
	}
}

void listeners_close(struct listeners *l, bool remove)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (remove)
			listen_unix_remove(&l->v[i]);
		clear(&l->v[i]);
	}
	free(l->v);
	*l = (struct listeners){ 0 };
}

int listeners_capped(const struct conf *c, unsigned i)
{
	char text[32];
	const ssize_t n = sys_read_file("/proc/sys/net/core/somaxconn", 0, text, sizeof text - 1);
	int cap;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	cap = atoi(text);
	return cap > 0 && cap < c->listen[i].backlog ? cap : 0;
}
