#include "handoffd/conf_value.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* "backlog = x is <rest>", and what would be right. */
#define WRONG(...) (snprintf(why, why_size, __VA_ARGS__), -EINVAL)
#define NO_MEMORY  (snprintf(why, why_size, "out of memory"), -ENOMEM)

/* A whole number in base; false: it is none, or does not fit. */
static bool number(const char *text, int base, long long *ret)
{
	char *end;

	if (!*text || strspn(text, base == 8 ? "01234567" : "-0123456789") != strlen(text))
		return false;
	errno = 0;
	*ret = strtoll(text, &end, base);
	return !*end && !errno;
}

static int set_text(char **field, const struct conf_option *o, const char *text, char *why,
		    size_t why_size)
{
	char *copy;

	if (!*text)
		return WRONG("%s is empty; give it a value, or leave it out", o->name);
	if (o->kind == CONF_PATH && *text != '/')
		return WRONG("%s = %s is a relative path; write it from / on", o->name, text);
	copy = strdup(text);
	if (!copy)
		return NO_MEMORY;
	free(*field);
	*field = copy;
	return 0;
}

static int set_list(char ***field, char *const *v, unsigned n, char *why, size_t why_size)
{
	char **copy = calloc(n + 1, sizeof *copy);

	for (unsigned i = 0; copy && i < n; i++) {
		copy[i] = strdup(v[i]);
		if (!copy[i]) {
			conf_list_free(copy);
			copy = NULL;
		}
	}
	if (!copy)
		return NO_MEMORY;
	conf_list_free(*field);
	*field = copy;
	return 0;
}

static int set_number(int *field, const struct conf_option *o, const char *text, char *why,
		      size_t why_size)
{
	long long n;

	if (!number(text, 10, &n))
		return WRONG("%s = %s is not a whole number; write one from %d to %d",
			     o->name, text, o->min, o->max);
	if (n < o->min || n > o->max)
		return WRONG("%s = %s is out of range; write a number from %d to %d",
			     o->name, text, o->min, o->max);
	*field = (int)n;
	return 0;
}

static int set_octal(mode_t *field, const struct conf_option *o, const char *text, char *why,
		     size_t why_size)
{
	long long n;

	if (!number(text, 8, &n) || n > o->max)
		return WRONG("%s = %s is not an octal mode; write one from 0000 to %04o", o->name,
			     text, (unsigned)o->max);
	*field = (mode_t)n;
	return 0;
}

static int set_bool(bool *field, const struct conf_option *o, const char *text, char *why,
		    size_t why_size)
{
	static const struct { const char *text; bool value; } words[] = {
		{ "true", true }, { "yes", true }, { "on", true },
		{ "false", false }, { "no", false }, { "off", false },
	};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(text, words[i].text)) {
			*field = words[i].value;
			return 0;
		}
	return WRONG("%s = %s is neither true nor false; write one of these", o->name, text);
}

static int set_duration(uint32_t *field, const struct conf_option *o, const char *text, char *why,
			size_t why_size)
{
	if (timers_parse(text, field) < 0)
		return WRONG(
			"%s = %s is not a duration; write a whole number and its unit, such as "
			"500ms, 2s, 5min, 1h, at most 24h",
			o->name, text);
	return 0;
}

/* "N" or "unlimited" up to end. */
static bool limit(const char *text, size_t n, rlim_t *ret)
{
	char copy[32];
	long long v;

	if (n >= sizeof copy)
		return false;
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (!strcmp(copy, "unlimited")) {
		*ret = RLIM_INFINITY;
		return true;
	}
	if (!number(copy, 10, &v) || v < 0)
		return false;
	*ret = (rlim_t)v;
	return true;
}

static int set_limit(struct conf *c, const struct conf_option *o, const char *text, char *why,
		     size_t why_size)
{
	struct conf_rlimit *v, l = { .option = o->name, .resource = o->min };
	const size_t n = strcspn(text, ":");

	if (!limit(text, n, &l.limit.rlim_cur) ||
	    !(text[n] ? limit(text + n + 1, strlen(text + n + 1), &l.limit.rlim_max) :
			limit(text, n, &l.limit.rlim_max)))
		return WRONG("%s = %s is not a limit; write a number, unlimited, or SOFT:HARD",
			     o->name, text);
	if (l.limit.rlim_cur > l.limit.rlim_max)
		return WRONG("%s = %s has a soft limit above the hard one; write SOFT:HARD with "
			     "SOFT <= HARD",
			     o->name, text);
	v = realloc(c->rlimits, (c->nrlimits + 1) * sizeof *v);
	if (!v)
		return NO_MEMORY;
	c->rlimits = v;
	v[c->nrlimits++] = l;
	return 0;
}

static int set_address(struct conf_listen *l, const struct conf_option *o, const char *text,
		       char *why, size_t why_size)
{
	const int r = conf_address(text, &l->sa, &l->sa_len, why, why_size);

	return r < 0 ? r : set_text(&l->address, o, text, why, why_size);
}

int conf_value_set(void *base, const struct conf_option *o, char *const *v, unsigned n,
		   char *why, size_t why_size)
{
	void *const field = (char *)base + o->offset;

	switch (o->kind) {
	case CONF_STRING:
	case CONF_PATH:
		return set_text(field, o, v[0], why, why_size);
	case CONF_LIST:
		return set_list(field, v, n, why, why_size);
	case CONF_NUMBER:
		return set_number(field, o, v[0], why, why_size);
	case CONF_OCTAL:
		return set_octal(field, o, v[0], why, why_size);
	case CONF_BOOL:
		return set_bool(field, o, v[0], why, why_size);
	case CONF_DURATION:
		return set_duration(field, o, v[0], why, why_size);
	case CONF_LIMIT:
		return set_limit(base, o, v[0], why, why_size);
	case CONF_ADDRESS:
		return set_address(base, o, v[0], why, why_size);
	case CONF_KIND_COUNT:
		break;
	}
	return WRONG("%s has no kind", o->name);
}

void conf_list_free(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

/* ---- addresses ---- */

static int unix_address(const char *text, const char *name, struct sockaddr_un *sa,
			socklen_t *sa_len, char *why, size_t why_size)
{
	const size_t n = strlen(name);

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((*name != '/' && *name != '@') || n < 2)
		return WRONG("address = %s is not a unix address; write unix:/PATH, or unix:@NAME "
			     "for an "
			     "abstract one",
			     text);
	if (n > sizeof sa->sun_path - 1)
		return WRONG("address = %s: %s of %zu bytes is too long; a unix socket takes at "
			     "most %zu",
			     text, *name == '/' ? "a path" : "a name", n, sizeof sa->sun_path - 1);
	memcpy(sa->sun_path, name, n);
	if (*name == '@')
		sa->sun_path[0] = '\0';
	/* an abstract name ends where the length says, a path at its NUL */
	*sa_len = offsetof(struct sockaddr_un, sun_path) + n + (*name == '/');
	return 0;
}

/* "[::1]" or "[fe80::1%eth0]" */
static bool ipv6(char *host, struct sockaddr_in6 *sa)
{
	char *scope = strchr(host, '%');

	if (scope) {
		*scope++ = '\0';
		sa->sin6_scope_id = if_nametoindex(scope);
		if (!sa->sin6_scope_id)
			return false;
	}
	return inet_pton(AF_INET6, host, &sa->sin6_addr) == 1;
}

static int tcp_address(const char *text, const char *rest, struct sockaddr_storage *sa,
		       socklen_t *sa_len, char *why, size_t why_size)
{
	struct sockaddr_in *in = (struct sockaddr_in *)sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sa;
	const char *colon = strrchr(rest, ':');
	char host[128];
	long long port;

	if (!colon || colon == rest || (size_t)(colon - rest) >= sizeof host)
		return WRONG("address = %s is not a tcp address; write tcp:HOST:PORT, such as "
			     "tcp:127.0.0.1:6380 or tcp:[::]:6380", text);
	if (!number(colon + 1, 10, &port) || port < 1 || port > 65535)
		return WRONG("address = %s: the port is not a number from 1 to 65535; write "
			     "tcp:HOST:PORT, such as tcp:127.0.0.1:6380", text);
	memset(sa, 0, sizeof *sa);
	memcpy(host, rest, colon - rest);
	host[colon - rest] = '\0';
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		*sa_len = sizeof *in;
		return 0;
	}
	if (host[0] == '[' && colon[-1] == ']') {
		host[colon - rest - 1] = '\0';
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		*sa_len = sizeof *in6;
		if (ipv6(host + 1, in6))
			return 0;
	}
	return WRONG(
		"address = %s: the host is not an IP address; write one as in tcp:127.0.0.1:%lld, "
		"tcp:0.0.0.0:%lld or tcp:[::]:%lld",
		text, port, port, port);
}

int conf_address(const char *text, struct sockaddr_storage *sa, socklen_t *sa_len,
		 char *why, size_t why_size)
{
	if (!strncmp(text, "tcp:", 4))
		return tcp_address(text, text + 4, sa, sa_len, why, why_size);
	if (!strncmp(text, "unix:", 5))
		return unix_address(text, text + 5, (struct sockaddr_un *)sa, sa_len, why,
				    why_size);
	return WRONG(
		"address = %s has no known kind; write tcp:HOST:PORT, unix:/PATH or unix:@NAME",
		text);
}
