#include "target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BATCH      64
#define BATCH_SIZE (1u << 20)
#define SAY_AT_MOST 10

struct client {
	int fd;
	char *buf;
	size_t len, size, taken; /* taken: bytes of the last reply, still in buf */
};

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int parse_unix(const char *path, struct target *ret)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret->sa;

	if (path[0] == '\0' || strlen(path) >= sizeof(un->sun_path))
		return -EINVAL;
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path, path);
	ret->len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
	if (path[0] == '@') { /* abstract: the name has no end but its length */
		un->sun_path[0] = '\0';
		ret->len--;
	}
	return 0;
}

int target_parse(const char *text, struct target *ret)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)&ret->sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->sa;
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	unsigned long port;
	size_t n;

	*ret = (struct target){ .parse = resp_parse };
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret);
	if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port == 0 || port > 65535)
		return -EINVAL;
	n = colon - text;
	if (text[0] == '[' && text[n - 1] == ']') {
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, text + 1);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		ret->len = sizeof(*in6);
		return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
	}
	snprintf(host, sizeof(host), "%.*s", (int)n, text);
	in4->sin_family = AF_INET;
	in4->sin_port = htons(port);
	ret->len = sizeof(*in4);
	return inet_pton(AF_INET, host, &in4->sin_addr) == 1 ? 0 : -EINVAL;
}

/* The sentence goes into JSON: only what needs no quoting. */
static int failed(char *err, size_t size, const char *what, const char *detail)
{
	char *p;

	snprintf(err, size, "%s: %s", what, detail);
	for (p = err; *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
			*p = '?';
	return -1;
}

static void client_close(struct client *c)
{
	close(c->fd);
	free(c->buf);
}

static int client_open(struct client *c, const struct target *t, size_t size, unsigned timeout_ms,
                       char *err, size_t err_size)
{
	struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	*c = (struct client){ .size = size, .buf = malloc(size) };
	c->fd = socket(t->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || c->buf == NULL) {
		failed(err, err_size, "no socket", strerror(errno));
		client_close(c);
		return -1;
	}
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(c->fd, (const struct sockaddr *)&t->sa, t->len) < 0) {
		failed(err, err_size, "cannot connect", errno == EINPROGRESS || errno == EAGAIN ?
		       "nobody accepts" : strerror(errno));
		client_close(c);
		return -1;
	}
	return 0;
}

static int client_send(struct client *c, const char *buf, size_t len, char *err, size_t err_size)
{
	while (len > 0) {
		ssize_t n = send(c->fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(err, err_size, "cannot send", strerror(errno));
		buf += n;
		len -= n;
	}
	return 0;
}

/* The next reply; its text is valid until the next call. */
static int client_reply(struct client *c, struct resp *ret, char *err, size_t err_size)
{
	memmove(c->buf, c->buf + c->taken, c->len - c->taken);
	c->len -= c->taken;
	c->taken = 0;
	for (;;) {
		ssize_t n = resp_parse(c->buf, c->len, ret);

		if (n > 0) {
			c->taken = n;
			return 0;
		}
		if (n < 0 || c->len == c->size)
			return failed(err, err_size, "not a reply", "is it a RESP2 server");
		n = recv(c->fd, c->buf + c->len, c->size - c->len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failed(err, err_size, "no reply", errno == EAGAIN ? "timeout" :
			              strerror(errno));
		if (n == 0)
			return failed(err, err_size, "no reply", "the connection ended");
		c->len += n;
	}
}

int target_probe(const struct target *t, unsigned timeout_ms, char *err, size_t err_size)
{
	static const char ping[] = "*1\r\n$4\r\nPING\r\n";
	struct client c;
	struct resp reply;
	char line[100];
	int r;

	if (client_open(&c, t, 4096, timeout_ms, err, err_size) < 0)
		return -1;
	r = client_send(&c, ping, sizeof(ping) - 1, err, err_size);
	if (r == 0)
		r = client_reply(&c, &reply, err, err_size);
	if (r == 0 && reply.type != RESP_SIMPLE) {
		snprintf(line, sizeof(line), "%.*s", (int)reply.len,
		         reply.len > 0 ? reply.text : "");
		r = failed(err, err_size, "PING is refused", line);
	}
	client_close(&c);
	return r;
}

static void verify_reply(struct keys *k, unsigned i, const struct resp *reply, struct stats *s)
{
	char why[160];
	enum verdict v = keys_check(k, i, reply, now_us(), why, sizeof(why));

	s->verify.keys++;
	s->verify.good += v == KEY_GOOD;
	s->verify.applied += v == KEY_APPLIED;
	s->verify.not_applied += v == KEY_NOT_APPLIED;
	s->verify.lost += v == KEY_LOST;
	s->verify.wrong += v == KEY_WRONG;
	s->unknown_applied += v == KEY_APPLIED;
	s->unknown_not_applied += v == KEY_NOT_APPLIED;
	s->lost_writes += v == KEY_LOST;
	s->wrong_values += v == KEY_WRONG;
	if ((v == KEY_LOST || v == KEY_WRONG) && s->verify.lost + s->verify.wrong <= SAY_AT_MOST)
		fprintf(stderr, "kvload: verify: %s\n", why);
}

static int verify_batch(struct client *c, struct keys *k, unsigned first, unsigned end,
                        struct stats *s)
{
	char *err = s->verify.error, out[BATCH * (KEYS_MAX_NAME + 64)] = "", name[KEYS_MAX_NAME];
	size_t n = 0, size = sizeof(s->verify.error);
	struct resp reply;
	unsigned i;

	for (i = first; i < end; i++) {
		n += resp_header(out + n, 2);
		n += resp_arg(out + n, "GET", 3);
		n += resp_arg(out + n, name, keys_name(k, i, name));
	}
	if (client_send(c, out, n, err, size) < 0)
		return -1;
	for (i = first; i < end; i++) {
		if (client_reply(c, &reply, err, size) < 0)
			return -1;
		if (reply.type == RESP_ERROR)
			return failed(err, size, "GET is refused", "an error reply");
		verify_reply(k, i, &reply, s);
	}
	return 0;
}

void target_verify(const struct target *t, struct keys *k, struct stats *s, unsigned timeout_ms)
{
	unsigned batch = BATCH_SIZE / k->value_size, i, end;
	struct client c;

	if (batch > BATCH)
		batch = BATCH;
	s->verify.done = true;
	if (client_open(&c, t, batch * (k->value_size + 64) + 4096, timeout_ms, s->verify.error,
	                sizeof(s->verify.error)) == 0) {
		for (i = 0; i < k->count; i = end) {
			end = i + batch < k->count ? i + batch : k->count;
			if (verify_batch(&c, k, i, end, s) < 0)
				break;
		}
		client_close(&c);
	}
	s->open_unknown = keys_open(k);
}
