/*
 * bench: what a handoff costs, each figure beside what it is compared with, measured in the
 * same run and in turn with it. Prints one table.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench.h"

static const char usage[] =
	"usage: bench [--build DIR] [--quick] [--realtime] [--trace] [--only PART]...\n"
	"             [--upgrades N]\n"
	"\n"
	"  --build DIR    where handoffd, nothing, kvd and kvload were built (.)\n"
	"  --quick        about a minute, fewer samples\n"
	"  --upgrades N   of the do-nothing daemon (200; with --quick 40)\n"
	"  --only PART    nothing, keys, load or moves; may be repeated\n"
	"  --realtime     under SCHED_RR, so that what else the machine does stays out (root)\n"
	"  --trace        no table: the system calls of one upgrade with their times (strace)\n";

enum { NOTHING = 1, KEYS = 2, LOAD = 4, MOVES = 8 };

struct arguments {
	const char *build;
	int parts, trace, realtime;
	struct bench bench;
};

void bench_row(struct bench *b, struct row r)
{
	b->missed += table_row(&r);
}

void bench_dir(char out[128], const char *parent, const char *name)
{
	if (snprintf(out, 128, "%s/%s", parent, name) >= 128 || mkdir(out, 0700))
		die("%s/%s: %s", parent, name, strerror(errno));
}

/* A thousand listeners, and the connections that wait during a stall. */
static void raise_descriptors(void)
{
	struct rlimit l;

	if (!getrlimit(RLIMIT_NOFILE, &l)) {
		l.rlim_cur = l.rlim_max < 65536 ? l.rlim_max : 65536;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int work(const struct places *p, void *arg)
{
	struct arguments *a = arg;
	struct bench *b = &a->bench;
	struct utsname u;
	double load = 0;

	b->places = p;
	raise_descriptors();
	if (a->realtime &&
	    sched_setscheduler(0, SCHED_RR, &(struct sched_param){ .sched_priority = 1 }))
		die("--realtime: %s", strerror(errno));
	programs_find(&b->bin, a->build);
	if (a->trace) {
		bench_trace(b);
		return 0;
	}
	uname(&u);
	getloadavg(&load, 1);
	printf("%s %s, %ld processors. floor: fork, exec of the same binary, first answer; "
	       "no protocol.\n"
	       "handoffd logs to a file beside its runtime directory.%s "
	       "load average at the start: %.1f.\n\n",
	       u.sysname, u.release, sysconf(_SC_NPROCESSORS_ONLN), a->realtime ? " SCHED_RR." : "",
	       load);
	table_head();
	if (a->parts & NOTHING)
		bench_nothing(b);
	if (a->parts & KEYS)
		bench_keys(b);
	if (a->parts & LOAD)
		bench_load(b);
	if (a->parts & MOVES)
		bench_moves(b);
	printf("\n%d aim%s missed\n", b->missed, b->missed == 1 ? "" : "s");
	return 0;
}

static int part(const char *name)
{
	return !strcmp(name, "nothing") ? NOTHING
	       : !strcmp(name, "keys")  ? KEYS
	       : !strcmp(name, "load")  ? LOAD
	       : !strcmp(name, "moves") ? MOVES
					: 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "build", required_argument, NULL, 'b' },
		{ "quick", no_argument, NULL, 'q' },
		{ "trace", no_argument, NULL, 't' },
		{ "only", required_argument, NULL, 'o' },
		{ "upgrades", required_argument, NULL, 'n' },
		{ "realtime", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static struct arguments a = { .build = "." };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'b': a.build = optarg; break;
		case 'q': a.bench.quick = 1; break;
		case 't': a.trace = 1; break;
		case 'r': a.realtime = 1; break;
		case 'o': a.parts |= part(optarg); break;
		case 'n': a.bench.upgrades = (unsigned)atoi(optarg); break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (!a.parts)
		a.parts = NOTHING | KEYS | LOAD | MOVES;
	if (!a.bench.upgrades)
		a.bench.upgrades = a.bench.quick ? 40 : 200;
	return keep(work, &a);
}
