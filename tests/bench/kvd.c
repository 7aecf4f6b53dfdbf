#include "kvd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper.h"

#define BATCH 1000   /* commands in a pipeline */

static unsigned free_port(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, n) ||
	    getsockname(fd, (struct sockaddr *)&sa, &n))
		die("no port on loopback: %s", strerror(errno));
	close(fd);
	return ntohs(sa.sin_port);
}

void kvd_start(struct kvd *k, const struct programs *bin, const char *place, const char *data_place,
               const char *name)
{
	char conf[2048];

	*k = (struct kvd){ .bin = bin, .fd = -1 };
	snprintf(k->address, sizeof k->address, "127.0.0.1:%u", free_port());
	if (snprintf(k->root, sizeof k->root, "%s/%s", place, name) >= (int)sizeof k->root ||
	    mkdir(k->root, 0700) ||
	    snprintf(k->data, sizeof k->data, "%s/%s.data", data_place, name) >=
		    (int)sizeof k->data ||
	    mkdir(k->data, 0700))
		die("%s, %s: %s", k->root, k->data, strerror(errno));
	snprintf(conf, sizeof conf,
		 "  command = {\"%s\", \"--max-clients\", \"19000\", \"--data-dir\", \"%s\"}\n  data-dir = \"%s\"\n"
		 "  listen resp { address = \"tcp:%s\" }\n  drain-grace = 10s\n  deadline = 20s\n",
		 bin->kvd1, k->data, k->data, k->address);
	service_start(&k->service, bin->handoffd, k->root, name, conf, NULL);
}

static void disconnect(struct kvd *k)
{
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
}

void kvd_upgrade(struct kvd *k, struct took *ret)
{
	disconnect(k);
	service_upgrade(&k->service, k->upgrades++ % 2 ? k->bin->kvd1 : k->bin->kvd2, ret);
}

void kvd_stop(struct kvd *k)
{
	disconnect(k);
	service_stop(&k->service);
}

/* -------------------------------------------------------------- commands --- */

static int connection(struct kvd *k)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int one = 1;

	if (k->fd >= 0)
		return k->fd;
	sa.sin_port = htons((uint16_t)atoi(strchr(k->address, ':') + 1));
	k->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (k->fd < 0 || connect(k->fd, (struct sockaddr *)&sa, sizeof sa))
		die("%s: %s", k->address, strerror(errno));
	setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return k->fd;
}

static void put(struct kvd *k, const char *text, size_t n)
{
	int fd = connection(k);

	for (size_t done = 0; done < n; ) {
		ssize_t w = write(fd, text + done, n - done);
		if (w < 0)
			die("%s: %s", k->address, strerror(errno));
		done += (size_t)w;
	}
}

/* One reply of at most size bytes; how it ends is known by the caller. */
static void get_until(struct kvd *k, char *buf, size_t size, const char *end)
{
	size_t got = 0, n = strlen(end);

	while (got < n || memcmp(buf + got - n, end, n)) {
		ssize_t r = read(k->fd, buf + got, size - 1 - got);
		if (r <= 0)
			die("%s: %s", k->address,
			    r < 0             ? strerror(errno)
			    : got == size - 1 ? "a long reply"
					      : "no reply");
		got += (size_t)r;
		buf[got] = '\0';
	}
}

void kvd_fill(struct kvd *k, unsigned keys)
{
	static char out[BATCH * 128], in[BATCH * 5 + 1];

	for (unsigned at = 0; at < keys; ) {
		size_t n = 0, got = 0, want = 0;
		for (; at < keys && want < BATCH * 5; at++, want += 5)
			n += (size_t)snprintf(
				out + n, sizeof out - n,
				"*3\r\n$3\r\nSET\r\n$11\r\nfill%07u\r\n$64\r\n%064u\r\n", at, at);
		put(k, out, n);
		while (got < want) {
			ssize_t r = read(k->fd, in + got, want - got);
			if (r <= 0)
				die("%s: %s", k->address,
				    r ? strerror(errno) : "the connection ended");
			got += (size_t)r;
		}
		for (size_t i = 0; i < want; i += 5)
			if (memcmp(in + i, "+OK\r\n", 5))
				die("%s: not every SET was taken: %.60s", k->address, in + i);
	}
}

double kvd_info(struct kvd *k, const char *field)
{
	char buf[16384], *p;

	put(k, "INFO\r\nPING\r\n", 12);
	get_until(k, buf, sizeof buf, "+PONG\r\n");
	if (!(p = strstr(buf, field)) || p[strlen(field)] != ':')
		die("INFO has no %s", field);
	return atof(p + strlen(field) + 1);
}

static int try_compact(struct kvd *k)
{
	char buf[1024];

	put(k, "BGREWRITEAOF\r\nPING\r\n", 20);
	get_until(k, buf, sizeof buf, "+PONG\r\n");
	return buf[0] == '+' && kvd_info(k, "compaction_in_progress") > 0;
}

/* Right after a handoff it is not final yet and refuses; a small one may be over at once. */
void kvd_compact(struct kvd *k)
{
	for (int i = 0; i < 200 && !try_compact(k); i++)
		sleep_ms(2);
}

void kvd_settle(struct kvd *k)
{
	double before, after = kvd_info(k, "log_bytes");

	do {
		before = after;
		sleep_ms(300);
		after = kvd_info(k, "log_bytes");
	} while (kvd_info(k, "compaction_in_progress") > 0 || before > after);
}

/* ------------------------------------------------------------------ load --- */

void load_start(struct load *l, struct kvd *k, const char *name, const char *const *options)
{
	char *argv[32] = { (char *)(uintptr_t)k->bin->kvload, (char *)"--target", k->address,
			   (char *)"--json" };
	int n = 4;

	while (*options && n < 31)
		argv[n++] = (char *)(uintptr_t)*options++;
	snprintf(l->out, sizeof l->out, "%s/%s.json", k->root, name);
	unlink(l->out);
	l->pid = run(argv, l->out);
}

int load_end(struct load *l, int stop, char *json, size_t size)
{
	FILE *f;
	int status;

	if (stop)
		kill(l->pid, SIGTERM);
	status = finish(l->pid);
	*json = '\0';
	if (!(f = fopen(l->out, "r")) || !fgets(json, (int)size, f) || *json != '{')
		die("kvload ended with %d and said: %s", status, *json ? json : "nothing");
	fclose(f);
	return status;
}

double json_number(const char *json, const char *section, const char *key)
{
	char quoted[64];
	const char *p = json;

	if (section) {
		snprintf(quoted, sizeof quoted, "\"%s\":{", section);
		p = strstr(p, quoted);
	}
	snprintf(quoted, sizeof quoted, "\"%s\":", key);
	if (!p || !(p = strstr(p, quoted)))
		die("kvload's result has no %s %s", section ? section : "", key);
	return atof(p + strlen(quoted));
}
