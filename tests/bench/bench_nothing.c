/* Handoffs of a daemon that does nothing: what the handoff itself costs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <unistd.h>

#include "base/slots.h"
#include "bench.h"
#include "client.h"

#define MANY 1000

/* Upgraded in turn, so that what else the machine does falls on all alike. */
enum { FAST, SLOW, MANY_LISTENERS, SUBJECTS };

struct subject {
	struct service service;
	char root[128];
	struct samples pause, serving, total, reported;
};

void nothing_conf(char *out, size_t size, const struct bench *b, const char *root,
		  unsigned listeners)
{
	size_t n = (size_t)snprintf(
		out, size,
		"  command = {\"%s\"}\n  environment = {\"%s\"}\n"
		"  clear-environment = true\n  listen main { address = \"unix:%s/main.sock\" }\n",
		b->bin.nothing, b->bin.preload, root);

	for (unsigned i = 1; i < listeners && n < size; i++)
		n += (size_t)snprintf(out + n, size - n,
				      "  listen l%u { address = \"unix:%s/l%u\" }\n", i, root, i);
	if (n >= size)
		die("no room for the configuration of %u listeners", listeners);
}

static void start(struct bench *b, struct subject *s, const char *place, const char *name,
		  unsigned listeners)
{
	size_t size = 1024 + listeners * 200;
	char *conf = malloc(size);

	if (!conf)
		die("no memory");
	bench_dir(s->root, place, name);
	nothing_conf(conf, size, b, s->root, listeners);
	service_start(&s->service, b->bin.handoffd, s->root, name, conf, NULL);
	free(conf);
}

static void upgrade(struct subject *s, int counts)
{
	struct took t;

	service_upgrade(&s->service, NULL, &t);
	if (!counts)
		return;
	samples_add(&s->pause, t.pause);
	samples_add(&s->serving, t.serving);
	samples_add(&s->total, t.total);
	samples_add(&s->reported, t.reported);
}

static void end(struct subject *s)
{
	service_stop(&s->service);
	samples_free(&s->pause);
	samples_free(&s->serving);
	samples_free(&s->total);
	samples_free(&s->reported);
}

static void rows(struct bench *b, struct subject *s, struct samples *floor)
{
	bench_row(b, (struct row){ "pause (Prepare sent to N's Status)", "us", &s->pause, "floor",
				   floor, AIM_VALUE, 500 });
	bench_row(b, (struct row){ "request to N's Status", "us", &s->serving, "floor", floor,
				   AIM_RATIO, 1.8 });
	bench_row(b, (struct row){ "request to \"committed\" reported", "us", &s->reported, "floor",
				   floor, AIM_RATIO, 2.2 });
}

/* A file as the journal is: two records, preallocated, written in turn, in place. */
static void record_open(struct slots *s, const char *place)
{
	char path[160];
	int fd;

	snprintf(path, sizeof path, "%s/record", place);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	*s = (struct slots){ .fd = fd, .slot_size = SLOTS_PAYLOAD_MAX, .place = -1 };
	if (fd < 0 || slots_reserve(fd, s->slot_size))
		die("%s: %s", path, strerror(errno));
}

static double record_once(struct slots *s)
{
	struct msg m = { .type = MSG_owner };
	double start = now_us();

	if (slots_store(s, &m))
		die("a record cannot be written");
	return now_us() - start;
}

static void handoffs(struct bench *b, struct subject subject[SUBJECTS])
{
	struct samples floor = { 0 }, durable = { 0 };
	struct slots record;
	char path[160];
	int listener;

	snprintf(path, sizeof path, "%s/floor.sock", b->places->fast);
	listener = floor_listen(path);
	record_open(&record, b->places->slow);
	for (unsigned i = 0; i < b->upgrades + 5; i++) {   /* five that do not count: caches fill */
		double f = floor_once(&b->bin, listener, path), r = record_once(&record);
		if (i >= 5) {
			samples_add(&floor, f);
			samples_add(&durable, r);
		}
		for (int k = 0; k < SUBJECTS; k++)
			if (k != MANY_LISTENERS || i % 4 == 0)
				upgrade(&subject[k], i >= 5);
	}
	table_section("a daemon that does nothing; runtime directory on %s",
		      fs_name(b->places->fast));
	rows(b, &subject[FAST], &floor);
	table_section("the same; runtime directory on disk (%s)", fs_name(b->places->slow));
	rows(b, &subject[SLOW], &floor);
	bench_row(b, (struct row){ "a record made durable, by itself", "us", &durable, "floor", &floor,
				   AIM_NONE, 0 });
	table_section("%u listeners; runtime directory on %s", MANY, fs_name(b->places->fast));
	bench_row(b, (struct row){ "pause", "us", &subject[MANY_LISTENERS].pause, "with 1 listener",
	                           &subject[FAST].pause, AIM_RATIO, 2 });
	bench_row(b, (struct row){ "request to \"committed\" reported", "us",
				   &subject[MANY_LISTENERS].reported, "with 1 listener",
				   &subject[FAST].reported, AIM_NONE, 0 });
	samples_free(&floor);
	samples_free(&durable);
	close(record.fd);
}

/* The client takes one of the processors: its pauses are another matter than those above. */
static void as_a_client_sees_it(struct bench *b, struct subject *s)
{
	struct samples gap = { 0 }, normal = { 0 }, calm = { 0 };
	struct client *c;
	struct took t;
	char path[160];

	snprintf(path, sizeof path, "%s/main.sock", s->root);
	c = client_start(path);
	for (unsigned i = 0; i < b->upgrades / 2; i++) {
		double start = now_us();
		client_longest(c, NULL);
		service_upgrade(&s->service, NULL, &t);
		double took = now_us() - start;
		sleep_ms(2);   /* the gap ends with the first answer behind it */
		samples_add(&gap, client_longest(c, NULL));
		sleep_ms(1 + (unsigned)(took / 1000));
		samples_add(&calm, client_longest(c, &normal));
	}
	client_stop(c);
	table_section("the same, as a client that connects in a tight loop sees it; on %s",
		      fs_name(b->places->fast));
	bench_row(b, (struct row){ "longest gap between two answers", "us", &gap,
				   "longest gap, calm", &calm, AIM_NONE, 0 });
	bench_row(b, (struct row){ "normal gap between two answers", "us", &normal, NULL, NULL,
				   AIM_NONE, 0 });
	samples_free(&gap);
	samples_free(&normal);
	samples_free(&calm);
}

/* ------------------------------------------------------------------ idle --- */

static double number_in(const char *path, const char *key)
{
	char line[256];
	double v = -1;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, key, strlen(key)))
			v = atof(line + strlen(key));
	if (f)
		fclose(f);
	if (v < 0)
		die("%s: no %s", path, key);
	return v;
}

static double memory(pid_t pid, const char *const *keys)
{
	char path[64];
	double kb = 0;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	for (; *keys; keys++)
		kb += number_in(path, *keys);
	return kb;
}

static double switches(pid_t pid, long tid)
{
	char path[80];

	snprintf(path, sizeof path, "/proc/%d/task/%ld/status", (int)pid, tid);
	return number_in(path, "voluntary_ctxt_switches:") +
	       number_in(path, "nonvoluntary_ctxt_switches:");
}

/* The daemon's one other thread is the library's. */
static long other_thread(pid_t pid)
{
	char path[64];
	long tid = 0;
	struct dirent *e;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	DIR *d = opendir(path);
	while (d && (e = readdir(d)))
		if (atol(e->d_name) > 0 && atol(e->d_name) != pid)
			tid = atol(e->d_name);
	if (d)
		closedir(d);
	if (!tid)
		die("pid %d has no thread of the library's", (int)pid);
	return tid;
}

/* While it is the only handoffd: pages shared with another would count half. */
static void idle(struct bench *b, struct subject *s, const char *when)
{
	static const char *const pss[] = { "Pss:", NULL };
	static const char *const uss[] = { "Private_Clean:", "Private_Dirty:", NULL };
	struct samples p = { 0 }, u = { 0 }, wakes = { 0 }, thread = { 0 };
	pid_t pid = s->service.handoffd, daemon = s->service.daemon;
	long tid = other_thread(daemon);
	double before, thread_before;

	sleep_ms(500);   /* what the upgrade left to do is done; the child that copies shares its pages */
	samples_add(&p, memory(pid, pss));
	samples_add(&u, memory(pid, uss));
	before = switches(pid, pid);
	thread_before = switches(daemon, tid);
	sleep_ms(b->quick ? 3000 : 10000);
	samples_add(&wakes, switches(pid, pid) - before);
	samples_add(&thread, switches(daemon, tid) - thread_before);
	table_section("idle, %s", when);
	bench_row(b, (struct row){ "handoffd: PSS", "kB", &p, "USS", &u, AIM_VALUE, 1229 });
	bench_row(b, (struct row){ b->quick ? "handoffd: wake-ups in 3 s"
					    : "handoffd: wake-ups in 10 s",
				   "", &wakes, NULL, NULL, AIM_VALUE, 0 });
	bench_row(b, (struct row){ "the library's thread: the same", "", &thread, NULL, NULL,
				   AIM_VALUE, 0 });
	samples_free(&p);
	samples_free(&u);
	samples_free(&wakes);
	samples_free(&thread);
}

void bench_nothing(struct bench *b)
{
	struct subject subject[SUBJECTS] = { 0 };

	start(b, &subject[FAST], b->places->fast, "one", 1);
	upgrade(&subject[FAST], 0);
	idle(b, &subject[FAST], "after one upgrade");
	start(b, &subject[SLOW], b->places->slow, "disk", 1);
	start(b, &subject[MANY_LISTENERS], b->places->fast, "many", MANY);
	handoffs(b, subject);
	end(&subject[SLOW]);
	end(&subject[MANY_LISTENERS]);
	as_a_client_sees_it(b, &subject[FAST]);
	idle(b, &subject[FAST], "after all of these");
	end(&subject[FAST]);
}
