/*
 * soak: many upgrades of kvd under load, from one version to the other and back. Nothing may
 * fail, nothing acknowledged may be lost, no connection may end, and nothing may grow: what is there is counted after
 * the 10th and after the last, each time when the load has ended and all is compacted.
 */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "keeper.h"
#include "kvd.h"
#include "stat.h"

#define FIRST 10
#define KEEPALIVE "20"

static const char usage[] =
	"usage: soak [--build DIR] [--gap MS] [N]\n"
	"\n"
	"  --build DIR   where handoffd, kvd and kvload were built (.)\n"
	"  --gap MS      between two upgrades (50)\n"
	"  N             upgrades (1000)\n"
	"Exit status: 0 nothing failed, was lost or grew; 1 something did.\n";

struct arguments { const char *build; unsigned upgrades, gap_ms; };

/* PSS, and even USS, grow when other processes that have the same libraries end: shown, not judged.
 */
#define OTHERS 1e9
/* A heap settles: it was seen to grow by 160 kB in 1,000 upgrades, and by 16 in the next 2,000. */
#define HEAP 256

/* What must not grow. name, unit, and by how much it may be more at the end */
#define COUNTS(X) \
	X(handoffd_fds, "handoffd: open descriptors", 0) \
	X(handoffd_pss, "handoffd: memory (PSS, kB)", OTHERS) \
	X(handoffd_anon, "handoffd: heap, stack, data (kB)", HEAP) \
	X(daemon_fds, "kvd: open descriptors", 0) \
	X(daemon_pss, "kvd: memory (PSS, kB)", OTHERS) \
	X(daemon_anon, "kvd: heap, stack, data (kB)", 1024) /* it has 500 keys more */ \
	X(daemon_threads, "kvd: threads", 0) \
	X(children, "processes below handoffd", 0) \
	X(zombies, "zombies", 0) \
	X(runtime_files, "files in the runtime directory", 0) \
	X(state_files, "files in the state directory", 0) \
	X(data_files, "files in the data directory", 0)

struct counts {
#define X(name, text, more) double name;
	COUNTS(X)
#undef X
};

struct sums {
	double fresh, fresh_failed, keepalive, acked, lost, wrong, unknown, failed;
	double opened, anew, ended;    /* connections that stay: at the start, later; lost */
	int status;
};

/* ----------------------------------------------------------------- counts --- */

static unsigned entries(const char *path)
{
	unsigned n = 0;
	struct dirent *e;
	DIR *d = opendir(path);

	if (!d)
		die("%s: %s", path, strerror(errno));
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static unsigned in_proc(pid_t pid, const char *what)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
	return entries(path);
}

/* The sum of the rows that begin with this: "Pss:" or "Anonymous:". */
static double memory(pid_t pid, const char *row)
{
	char path[64], line[256];
	double kb = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
	if (!(f = fopen(path, "r")))
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, row, strlen(row)))
			kb += atof(strchr(line, ':') + 1);
	fclose(f);
	return kb;
}

static void count_children(pid_t parent, struct counts *c)
{
	struct dirent *e;
	DIR *d = opendir("/proc");

	while (d && (e = readdir(d))) {
		char path[300], line[600], state, *p;
		int ppid = 0;
		FILE *f;
		snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
		if (atoi(e->d_name) <= 0 || !(f = fopen(path, "r")))
			continue;
		if (fgets(line, sizeof line, f) && (p = strrchr(line, ')')) &&
		    sscanf(p + 1, " %c %d", &state, &ppid) == 2 && ppid == parent) {
			c->children++;
			c->zombies += state == 'Z';
		}
		fclose(f);
	}
	if (d)
		closedir(d);
}

static double files;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path;
	(void)st;
	(void)at;
	files += type != FTW_D && type != FTW_DP;
	return 0;
}

static double count_files(const char *format, const char *dir)
{
	char path[200];

	snprintf(path, sizeof path, "%s%s", dir, format);
	files = 0;
	if (nftw(path, count_one, 16, FTW_PHYS))
		die("%s: %s", path, strerror(errno));
	return files;
}

static unsigned snapshots(const struct kvd *k)
{
	unsigned n = 0;
	struct dirent *e;
	DIR *d = opendir(k->data);

	while (d && (e = readdir(d)))
		n += strstr(e->d_name, ".snap") != NULL;
	if (d)
		closedir(d);
	return n;
}

/* The load has ended; its connections and its garbage go first: one snapshot a shard. */
static void count(struct kvd *k, struct counts *c)
{
	pid_t s = k->service.handoffd, d = k->service.daemon;

	*c = (struct counts){ 0 };
	do {
		kvd_compact(k);
		kvd_settle(k);
	} while (snapshots(k) != kvd_info(k, "shards"));
	while (kvd_info(k, "connected_clients") > 1)
		sleep_ms(10);
	c->handoffd_fds = in_proc(s, "fd");
	c->handoffd_pss = memory(s, "Pss:");
	c->handoffd_anon = memory(s, "Anonymous:");
	c->daemon_fds = in_proc(d, "fd");
	c->daemon_pss = memory(d, "Pss:");
	c->daemon_anon = memory(d, "Anonymous:");
	c->daemon_threads = in_proc(d, "task");
	count_children(s, c);
	c->runtime_files = count_files("/run", k->root);
	c->state_files = count_files("/state", k->root);
	c->data_files = count_files("", k->data);
}

/* ------------------------------------------------------------------- load --- */

static void upgrades(struct kvd *k, const struct arguments *a, unsigned n, struct samples *pause,
		     struct sums *sum)
{
	static unsigned number;
	char name[32], prefix[32], json[8192];
	const char *options[] = {
		"--keepalive", KEEPALIVE, "--keepalive-rate", "400", "--fresh-rate", "200", "--keys",
		"500", "--verify", "--prefix", prefix, NULL
	};
	struct load load;
	struct took t;

	snprintf(name, sizeof name, "soak%u", number);
	snprintf(prefix, sizeof prefix, "soak%u", number++);
	load_start(&load, k, name, options);
	for (unsigned i = 0; i < n; i++) {
		sleep_ms(a->gap_ms);
		kvd_upgrade(k, &t);
		samples_add(pause, t.pause);
	}
	sleep_ms(200);
	sum->status |= load_end(&load, 1, json, sizeof json);
	sum->fresh += json_number(json, "fresh", "requests");
	sum->fresh_failed += json_number(json, "fresh", "failed");
	sum->keepalive += json_number(json, "keepalive", "requests");
	sum->opened += atof(KEEPALIVE);
	sum->anew += json_number(json, "keepalive", "connections") - atof(KEEPALIVE);
	sum->ended += json_number(json, "keepalive", "lost") + json_number(json, "keepalive", "closed_idle");
	sum->failed += json_number(json, NULL, "failed");
	sum->acked += json_number(json, NULL, "acked_writes");
	sum->lost += json_number(json, NULL, "lost_writes") + json_number(json, "verify", "lost");
	sum->wrong +=
		json_number(json, NULL, "wrong_values") + json_number(json, "verify", "wrong");
	sum->unknown += json_number(json, NULL, "unknown_writes");
}

static int line(const char *what, double first, double last, double more)
{
	int bad = last > first + more;

	printf("%-34s %10.0f %10.0f   %s\n", what, first, last, bad ? "GREW" : "ok");
	return bad;
}

static int zero(const char *what, double n)
{
	printf("%-34s %10s %10.0f   %s\n", what, "", n, n > 0 ? "FAILED" : "ok");
	return n > 0;
}

static int table(const struct arguments *a, struct samples *pause, const struct sums *s,
                 const struct counts *first, const struct counts *last)
{
	int bad = 0;

	printf("%u upgrades of kvd, 1.0 to 2.0 and back, all committed; pause: median %.0f us, "
	       "quartiles %.0f and %.0f, "
	       "longest %.0f\n\n",
	       pause->n, samples_median(pause), samples_quantile(pause, 0.25),
	       samples_quantile(pause, 0.75), samples_quantile(pause, 1));
	printf("%-34s %10s %10.0f\n", "requests over fresh connections", "", s->fresh);
	bad |= zero("  failed", s->fresh_failed);
	printf("%-34s %10s %10.0f\n", "requests over keep-alive", "", s->keepalive);
	bad |= zero("  failed", s->failed - s->fresh_failed);
	printf("%-34s %10s %10.0f\n", "keep-alive connections", "", s->opened);
	bad |= zero("  ended", s->ended);
	bad |= zero("  made anew", s->anew);
	printf("%-34s %10s %10.0f\n", "acknowledged writes", "", s->acked);
	bad |= zero("  lost", s->lost);
	bad |= zero("values that were never written", s->wrong);
	printf("%-34s %10s %10.0f   (on established connections: applied or not)\n",
	       "unanswered writes: unknown", "", s->unknown);
	printf("\n%-34s %7s %2u. %5s %4u.\n", "", "after", FIRST, "after", a->upgrades);
#define X(name, text, more) bad |= line(text, first->name, last->name, more);
	COUNTS(X)
#undef X
	return bad || s->status;
}

static int work(const struct places *p, void *arg)
{
	const struct arguments *a = arg;
	struct samples pause = { 0 };
	struct counts first, last;
	struct sums sums = { 0 };
	struct programs bin;
	struct kvd k;
	int bad;

	programs_find(&bin, a->build);
	kvd_start(&k, &bin, p->fast, p->slow, "soak");
	kvd_fill(&k, 1000);
	upgrades(&k, a, FIRST, &pause, &sums);
	count(&k, &first);
	upgrades(&k, a, a->upgrades - FIRST, &pause, &sums);
	count(&k, &last);
	bad = table(a, &pause, &sums, &first, &last);
	kvd_stop(&k);
	printf("\n%s\n", bad ? "FAILED" : "nothing failed, nothing was lost, nothing grew");
	return bad;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "build", required_argument, NULL, 'b' }, { "gap", required_argument, NULL, 'g' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	struct arguments a = { ".", 1000, 50 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'b': a.build = optarg; break;
		case 'g': a.gap_ms = (unsigned)atoi(optarg); break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	if (optind < argc)
		a.upgrades = (unsigned)atoi(argv[optind++]);
	/* the same version serves after the 10th and after the last */
	a.upgrades += a.upgrades % 2;
	if (optind < argc || a.upgrades < 2 * FIRST) {
		fputs(usage, stderr);
		return 2;
	}
	return keep(work, &a);
}
