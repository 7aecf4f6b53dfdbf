#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handoffd/conf.h"

bool conf_name_ok(const char *name)
{
	const size_t n = strspn(
		name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-");

	return n > 0 && n <= CONF_MAX_NAME && !name[n] && !strchr(".@-", *name);
}

static const char *set(const char *variable)
{
	const char *v = getenv(variable);

	return v && *v ? v : NULL;
}

/* The first n bytes of base, then rest, then /name (NULL: not). */
static int put(char *ret, size_t size, char *err, size_t err_size, const char *base, size_t n,
	       const char *rest, const char *name)
{
	const int r = snprintf(ret, size, "%.*s%s%s%s", (int)n, base, rest, name ? "/" : "",
			       name ? name : "");

	if (r >= 0 && (size_t)r < size)
		return 0;
	snprintf(err, err_size, "the path below %.*s%s is longer than %zu bytes; use a shorter one",
		 (int)n, base, rest, size - 1);
	return -ENAMETOOLONG;
}

struct place {
	const char *variable;      /* ours */
	const char *systemd;       /* a colon list; its first is the directory itself */
	const char *root;          /* root's */
	const char *xdg;           /* a user's, below handoff/ */
	const char *home;          /* a user's below $HOME; NULL: there is none */
	const char *hint;
};

static int find(const struct place *p, const char *name, bool use_systemd, char *ret, size_t size,
		char *err, size_t err_size)
{
	const char *base;

	if ((base = set(p->variable)))
		return put(ret, size, err, err_size, base, strlen(base), "", name);
	if (use_systemd && (base = set(p->systemd)))
		return put(ret, size, err, err_size, base, strcspn(base, ":"), "", NULL);
	if (geteuid() == 0)
		return put(ret, size, err, err_size, p->root, strlen(p->root), "", name);
	if ((base = set(p->xdg)))
		return put(ret, size, err, err_size, base, strlen(base), "/handoff", name);
	if (p->home && (base = set("HOME")))
		return put(ret, size, err, err_size, base, strlen(base), p->home, name);
	snprintf(err, err_size, "%s", p->hint);
	return -ENOENT;
}

int dirs_runtime(const char *name, bool use_systemd, char *ret, size_t size, char *err,
		 size_t err_size)
{
	static const struct place p = {
		"HANDOFF_RUNTIME_DIR",
		"RUNTIME_DIRECTORY",
		"/run/handoff",
		"XDG_RUNTIME_DIR",
		NULL,
		"no runtime directory: neither HANDOFF_RUNTIME_DIR nor XDG_RUNTIME_DIR is set; set "
		"one of them",
	};

	return find(&p, name, use_systemd, ret, size, err, err_size);
}

int dirs_state(const char *name, bool use_systemd, char *ret, size_t size, char *err,
	       size_t err_size)
{
	static const struct place p = {
		"HANDOFF_STATE_DIR",
		"STATE_DIRECTORY",
		"/var/lib/handoff",
		"XDG_STATE_HOME",
		"/.local/state/handoff",
		"no state directory: none of HANDOFF_STATE_DIR, XDG_STATE_HOME and HOME is set; "
		"set one of them",
	};

	return find(&p, name, use_systemd, ret, size, err, err_size);
}
