/* main: the command line of the simulator. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"

static struct world world;

struct options {
	uint64_t runs, seed;
	bool verbose, coverage, histogram, dump, rows, each_rule, each_row;
	const struct mutant *mutant;
	const char *without;
};

static int usage(void)
{
	fputs("usage: sim [--runs N] [--seed S] [--mutant NAME] [--list-mutants] [-v] [--coverage] "
	      "[--histogram] [--trace] [--without RULE] [--each-rule] [--each-row]\n"
	      "  runs handoffs of the real machines over a simulated kernel, seeds S, S+1, ...\n"
	      "  sim --seed S -v tells the story of one run\n"
	      "  sim --each-rule removes each rule in turn; that must be noticed (--runs N: seeds anew)\n"
	      "  sim --each-row the same with each row of the tables alone, or with each of --without RULE\n",
	      stderr);
	return 2;
}

/* For tests/model/compare.py: ROLE STATE EVENT GUARD NEXT ACTIONS FACTS RULE; FACTS: a set, in hex */
static void print_rows(void)
{
	for (const struct s_row *r = sim_s_table; r->rule; r++) {
		printf("S ");
		cover_print_s(r);
		putchar(' ');
		facts_print_s(r);
		printf(" %s\n", r->rule);
	}
	for (const struct d_row *r = sim_d_table; r->rule; r++) {
		printf("D ");
		cover_print_d(r);
		putchar(' ');
		facts_print_d(r);
		printf(" %s\n", r->rule);
	}
}

/* 0; 2: wrong usage; -1: done */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option table[] = {
		{ "runs", required_argument, NULL, 'r' }, { "seed", required_argument, NULL, 's' },
		{ "mutant", required_argument, NULL, 'm' }, { "list-mutants", no_argument, NULL, 'l' },
		{ "verbose", no_argument, NULL, 'v' }, { "coverage", no_argument, NULL, 'c' },
		{ "histogram", no_argument, NULL, 'h' }, { "dump-cells", no_argument, NULL, 'd' },
		{ "rows", no_argument, NULL, 'R' }, { "trace", no_argument, NULL, 'T' },
		{ "without", required_argument, NULL, 'w' },
		{ "each-rule", no_argument, NULL, 'e' }, { "each-row", no_argument, NULL, 'E' },
		{ NULL },
	};
	int c;

	while ((c = getopt_long(argc, argv, "v", table, NULL)) != -1)
		switch (c) {
		case 'r': o->runs = strtoull(optarg, NULL, 10); break;
		case 's': o->seed = strtoull(optarg, NULL, 10); break;
		case 'v': o->verbose = true; break;
		case 'c': o->coverage = true; break;
		case 'h': o->histogram = true; break;
		case 'd': o->dump = true; break;
		case 'R': o->rows = true; break;
		case 'T': sim_trace = true; break;
		case 'e': o->each_rule = true; break;
		case 'E': o->each_row = true; break;
		case 'm':
			o->mutant = mutant_find(optarg);
			if (!o->mutant && !o->without) {
				fprintf(stderr, "sim: no mutant is called %s; see --list-mutants\n", optarg);
				return 2;
			}
			break;
		case 'w':
			o->without = optarg;
			if (!mutant_without(optarg)) {
				fprintf(stderr, "sim: no row bears the rule \"%s\"\n", optarg);
				return 2;
			}
			break;
		case 'l':
			for (const struct mutant *m = mutants; m->name; m++)
				printf("%-30s %s\n", m->name, m->what);
			return -1;
		default: return usage();
		}
	return optind < argc ? usage() : 0;
}

static int summary(const struct options *o, double seconds)
{
	/* few runs cannot be asked to have seen everything; mutants need not */
	bool require = o->runs >= 100000 && !o->mutant && !o->without;
	unsigned rows = 0, cells = 0;

	fprintf(sim_trace ? stderr : stdout,
	        "%llu runs, %llu handoffs, seeds %llu to %llu, %.1f s: no violation\n",
	       (unsigned long long)o->runs, (unsigned long long)cover_handoffs(),
	       (unsigned long long)o->seed, (unsigned long long)(o->seed + o->runs - 1), seconds);
	if (o->dump)
		cover_dump(o->runs / 5000 + 1);
	if (!o->mutant && !o->without) {
		cells = cover_histogram(o->histogram || require, require);
		rows = cover_rows(o->coverage, require);
	}
	if (rows)
		printf("%u rows of the tables were never taken\n", rows);
	return rows || cells;
}

int main(int argc, char **argv)
{
	struct options o = { .runs = 0, .seed = 1 };
	clock_t start = clock();
	int e = parse(argc, argv, &o);

	if (e)
		return e < 0 ? 0 : e;
	if (o.each_rule)
		return rules_check(&world, o.runs) != 0;
	if (o.each_row)
		return rows_check(&world, o.runs ? o.runs : 100000, o.without) != 0;
	if (!o.runs)
		o.runs = o.verbose ? 1 : 100000;
	if (o.mutant)
		mutant_become(o.mutant);
	if (o.rows) {
		print_rows();
		return 0;
	}
	for (uint64_t i = 0; i < o.runs; i++) {
		sim_run(&world, o.seed + i, o.verbose);
		if (!world.failed)
			continue;
		printf("VIOLATION in run %llu, seed %llu: %s\n  the story: sim --seed %llu -v%s%s%s\n",
		       (unsigned long long)i + 1, (unsigned long long)world.seed, world.violation,
		       (unsigned long long)world.seed,
		       o.mutant ? " --mutant " : o.without ? " --without '" : "",
		       o.mutant ? o.mutant->name : o.without ? o.without : "", o.without ? "'" : "");
		return 1;
	}
	return summary(&o, (double)(clock() - start) / CLOCKS_PER_SEC);
}
