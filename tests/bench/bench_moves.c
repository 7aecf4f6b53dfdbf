/* Live connections: what moving one costs in the pause, and that none is lost. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"
#include "kvd.h"

#define MANY       18000
#define MANY_QUICK 2000
#define SPARE      500    /* descriptors for everything else */

struct crowd { int *fd; unsigned n; };

static void meet(struct crowd *c, const struct kvd *k)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	sa.sin_port = htons((uint16_t)atoi(strchr(k->address, ':') + 1));
	if (!(c->fd = calloc(c->n, sizeof *c->fd)))
		die("no memory");
	for (unsigned i = 0; i < c->n; i++) {
		c->fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd[i] < 0 || connect(c->fd[i], (struct sockaddr *)&sa, sizeof sa))
			die("connection %u: %s", i, strerror(errno));
	}
}

/* Each is asked, and answers: it is still the connection that it was. */
static unsigned lost(const struct crowd *c)
{
	unsigned n = 0;
	char in[8];

	for (unsigned i = 0; i < c->n; i++)
		n += write(c->fd[i], "PING\r\n", 6) != 6;
	for (unsigned i = 0; i < c->n; i++)
		n += recv(c->fd[i], in, 7, MSG_WAITALL) != 7 || memcmp(in, "+PONG\r\n", 7);
	return n;
}

static void part(struct crowd *c)
{
	for (unsigned i = 0; i < c->n; i++)
		close(c->fd[i]);
	free(c->fd);
}

void bench_moves(struct bench *b)
{
	struct crowd crowd = { .n = b->quick ? MANY_QUICK : MANY };
	struct samples none = { 0 }, many = { 0 }, each = { 0 };
	unsigned rounds = b->quick ? 4 : 7, gone = 0;
	struct kvd empty, full;
	struct rlimit l;
	struct took t;
	char data[128], what[64];

	if (!getrlimit(RLIMIT_NOFILE, &l) && l.rlim_cur < crowd.n + SPARE)
		crowd.n = l.rlim_cur > 2 * SPARE ? (unsigned)l.rlim_cur - SPARE : SPARE;
	bench_dir(data, b->places->fast, "moves");
	kvd_start(&empty, &b->bin, b->places->fast, data, "empty");
	kvd_start(&full, &b->bin, b->places->fast, data, "full");
	meet(&crowd, &full);
	gone += lost(&crowd);
	for (unsigned i = 0; i < rounds; i++) {
		kvd_upgrade(&empty, &t);
		samples_add(&none, t.pause);
		kvd_upgrade(&full, &t);
		samples_add(&many, t.pause);
		samples_add(&each, (t.pause - samples_median(&none)) / crowd.n);
		gone += lost(&crowd);
	}
	table_section("live connections: %u idle ones over %u upgrades of kvd, each asked after each; "
		      "%u lost", crowd.n, rounds, gone);
	snprintf(what, sizeof what, "pause with %u connections", crowd.n);
	bench_row(b, (struct row){ what, "us", &many, "with none", &none, AIM_VALUE, 150000 });
	bench_row(b, (struct row){ "for each of them, in the pause", "us", &each, NULL, NULL, AIM_VALUE, 5 });
	if (gone)
		die("%u connections were lost", gone);
	part(&crowd);
	kvd_stop(&full);
	kvd_stop(&empty);
	samples_free(&none);
	samples_free(&many);
	samples_free(&each);
}
