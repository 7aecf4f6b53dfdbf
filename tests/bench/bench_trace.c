/* Where the time of one upgrade goes: the system calls of S, O and N, with times. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define THREADS 64

/* A thread's name in the timeline: S, O, N, and the library's thread as O' and N'. */
static struct { long tid; char name[4]; } names[THREADS];
static unsigned nnames;

static const char *name_of(long tid)
{
	for (unsigned i = 0; i < nnames; i++)
		if (names[i].tid == tid)
			return names[i].name;
	return NULL;
}

static void call_it(long tid, const char *name, const char *suffix)
{
	if (nnames < THREADS && !name_of(tid)) {
		names[nnames].tid = tid;
		snprintf(names[nnames++].name, sizeof names->name, "%s%s", name, suffix);
	}
}

/* clone3(...) = TID by a daemon: its library's thread. */
static void note_thread(long tid, const char *text)
{
	const char *name = name_of(tid), *p = strrchr(text, '=');

	if (name && name[0] != 'S' && !strncmp(text, "clone", 5) && p && atol(p + 1) > 0)
		call_it(atol(p + 1), name, "'");
}

static void show(const char *path, double from, double to)
{
	char line[2048];
	double last = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		die("%s: strace wrote nothing", path);
	printf("%10s %8s  %-3s %s\n", "us", "since", "", "system call (<seconds in it>)");
	while (fgets(line, sizeof line, f)) {
		char *p;
		long tid = strtol(line, &p, 10);
		double at = strtod(p, &p) * 1e6;
		while (isspace((unsigned char)*p))
			p++;
		note_thread(tid, p);
		const char *name = name_of(tid);
		if (!name || at < from || at > to)
			continue;
		p[strcspn(p, "\n")] = '\0';
		printf("%10.0f %8.0f  %-3s %.150s\n", at - from, last > 0 ? at - last : 0, name, p);
		last = at;
	}
	fclose(f);
}

static double wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);   /* as strace -ttt */
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Without strace: when each phase began, after the request. */
static void phases(struct bench *b)
{
	struct samples at[16] = { 0 }, pause = { 0 }, serving = { 0 }, reported = { 0 };
	char root[128], conf[2048], label[16][16];
	struct service s;
	struct took t;

	bench_dir(root, b->places->fast, "phases");
	nothing_conf(conf, sizeof conf, b, root, 1);
	service_start(&s, b->bin.handoffd, root, "phases", conf, NULL);
	for (unsigned i = 0; i < b->upgrades; i++) {
		service_upgrade(&s, NULL, &t);
		for (unsigned k = 0; k < t.nphases; k++) {
			samples_add(&at[k], t.phase[k].at);
			strcpy(label[k], t.phase[k].name);
		}
		samples_add(&pause, t.pause);
		samples_add(&serving, t.serving);
		samples_add(&reported, t.reported);
	}
	service_stop(&s);
	printf("without strace, medians of %u upgrades: each phase began, us after the request\n",
	       b->upgrades);
	for (unsigned k = 0; k < t.nphases; k++) {
		printf("%10.0f  %s\n", samples_median(&at[k]), label[k]);
		samples_free(&at[k]);
	}
	printf("pause %.0f us, request to N's Status %.0f us, to \"committed\" %.0f us\n\n",
	       samples_median(&pause), samples_median(&serving), samples_median(&reported));
	samples_free(&pause);
	samples_free(&serving);
	samples_free(&reported);
}

void bench_trace(struct bench *b)
{
	char root[128], conf[2048], path[160];
	char *trace[] = { (char *)"strace", (char *)"-f", (char *)"-qq",
			  (char *)"-ttt",   (char *)"-T", (char *)"-s",
			  (char *)"16",     (char *)"-o", path,
			  (char *)"--",     NULL };
	struct service s;
	struct took t;
	double from, to;
	pid_t before;

	phases(b);
	bench_dir(root, b->places->fast, "trace");
	snprintf(path, sizeof path, "%s/strace", root);
	nothing_conf(conf, sizeof conf, b, root, 1);
	service_start(&s, b->bin.handoffd, root, "trace", conf, trace);
	service_upgrade(&s, NULL, &t);   /* the first pays for cold caches */
	before = s.daemon;
	sleep_ms(50);
	from = wall_us();
	service_upgrade(&s, NULL, &t);
	to = wall_us();
	call_it(s.handoffd, "S", "");
	call_it(before, "O", "");
	call_it(s.daemon, "N", "");
	service_stop(&s);
	show(path, from, to);
	printf("\nbelow strace: pause %.0f us, to N's Status %.0f us, to \"committed\" %.0f us; "
	       "each system call\n"
	       "costs some 20 to 50 us more than without it, so read the order and the waits, "
	       "not the sums\n",
	       t.pause, t.serving, t.reported);
}
