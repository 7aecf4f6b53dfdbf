#include "moves.h"

#include <getopt.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mutant moves_mutant = LAW;
static const struct { const char *name; uint64_t seed; const char *what; } mutants[] = {
#define X(name, seed, what) { #name, seed, what },
	MUTANTS(X)
#undef X
};

unsigned rnd(struct world *w, unsigned below)
{
	w->rnd ^= w->rnd << 13;   /* xorshift64 */
	w->rnd ^= w->rnd >> 7;
	w->rnd ^= w->rnd << 17;
	return (unsigned)((w->rnd >> 11) % below);
}

void say(const struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void put(struct words *q, enum word word)
{
	q->w[(q->at + q->n++) % 16] = word;
}

bool get(struct words *q, enum word *ret)
{
	if (!q->n)
		return false;
	*ret = q->w[q->at];
	q->at = (q->at + 1) % 16;
	q->n--;
	return true;
}

/* ---------------------------------------------------------------- S --- */

static bool gone_o(const struct world *w) { return w->o == O_DEAD && !w->o2s.n; }
static bool gone_n(const struct world *w) { return w->n == N_DEAD && !w->n2s.n; }

static bool go(struct world *w, enum sup to)
{
	w->s = to;
	return true;
}

static bool order_o(struct world *w, enum word word, enum sup to)
{
	if (w->o != O_DEAD && !w->eof[O])
		put(&w->s2o, word);
	return go(w, to);
}

static bool order_n(struct world *w, enum word word, enum sup to)
{
	if (w->n != N_DEAD && !w->eof[N])
		put(&w->s2n, word);
	return go(w, to);
}

/* DRAIN, SEAL: O's answer, or its end. */
static bool await_o(struct world *w, enum word good, enum sup to)
{
	enum word word;

	if (get(&w->o2s, &word))
		return go(w, word == good ? to : S_ABORT);
	if (gone_o(w)) {
		w->nothing_sealed = true;
		return go(w, S_BEGIN);
	}
	return gone_n(w) && go(w, S_ABORT);
}

static bool await_ready(struct world *w)
{
	enum word word;

	if (w->n2s.n && (!w->o2s.n || (breaks(M_READY_FIRST) && rnd(w, 2)))) {
		get(&w->n2s, &word);
		return go(w, S_JCOMMIT);
	}
	return (get(&w->o2s, &word) || gone_n(w)) && go(w, S_ABORT);
}

static bool await_exit(struct world *w)
{
	enum word word;

	if (w->o == O_DEAD && get(&w->o2s, &word))
		return true;
	if (gone_o(w)) {
		w->outcome = COMMITTED;
		return go(w, S_DONE);
	}
	if (w->s == S_COMMITO && gone_n(w))
		return go(w, S_ABORT);
	if (w->s == S_COMMITO && !w->eof[O])
		return order_o(w, COMMIT, S_WOEXIT);
	if (w->s == S_WOEXIT && get(&w->o2s, &word)) {
		if (word == STATUS && w->n != N_DEAD)
			violated(w, "O serves, and N does", 0);
		return go(w, word == STATUS ? S_ABORT : S_WOEXIT);
	}
	return false;
}

static bool resume_o(struct world *w)
{
	enum word word;

	if (w->s == S_RESUMEO && w->o == O_DEAD && get(&w->o2s, &word))
		return true;
	if (gone_o(w)) {
		w->outcome = BOTH_DEAD;
		return go(w, S_DONE);
	}
	if (w->s == S_RESUMEO)
		return w->o != O_DEAD && !w->eof[O] && order_o(w, RESUME, S_WRES);
	if (!get(&w->o2s, &word))
		return false;
	if (word != STATUS)
		return true;
	w->outcome = w->may ? ROLLED_BACK : ABORTED;
	return go(w, S_DONE);
}

static bool await_status(struct world *w)
{
	enum word word;

	if (!get(&w->n2s, &word))
		return gone_n(w) && go(w, S_ABORT);
	w->may = true;
	return go(w, S_PROB);
}

static bool end_n(struct world *w)
{
	enum word word;

	if (w->s == S_ABORT) {
		if (w->n != N_DEAD)
			new_dies(w);
		return go(w, S_DRAINN);
	}
	if (!get(&w->n2s, &word))
		return gone_n(w) && go(w, S_RESUMEO);
	w->may |= word == STATUS;
	return true;
}

bool sup_step(struct world *w, bool timers)
{
	enum word word;

	if (timers && (w->s == S_WDRAINED || w->s == S_WSEAL || w->s == S_WREADY || w->s == S_WSERVING ||
	               w->s == S_PROB))
		return go(w, S_ABORT);
	switch (w->s) {
	case S_DOWN:
		w->may = w->committed;
		return go(w, w->committed ? S_RCOMM : S_ABORT);
	case S_PREP: return order_o(w, PREPARE, S_WDRAINED);
	case S_WDRAINED: return await_o(w, DRAINED, S_SEALREQ);
	case S_SEALREQ: return order_o(w, SEALREQ, S_WSEAL);
	case S_WSEAL: return await_o(w, SEALOK, S_BEGIN);
	case S_BEGIN: return order_n(w, w->nothing_sealed ? BEGIN_UNSEALED : BEGIN, S_WREADY);
	case S_WREADY: return await_ready(w);
	case S_JCOMMIT:
		w->committed = true;
		return go(w, S_COMMITN);
	case S_COMMITN: return order_n(w, COMMIT, S_WSERVING);
	case S_WSERVING:
	case S_RCOMM: return await_status(w);
	case S_PROB: return go(w, gone_n(w) ? S_ABORT : S_COMMITO);
	case S_COMMITO:
	case S_WOEXIT: return await_exit(w);
	case S_ABORT:
	case S_DRAINN: return end_n(w);
	case S_RESUMEO:
	case S_WRES: return resume_o(w);
	case S_DONE: return get(&w->o2s, &word) || get(&w->n2s, &word);
	}
	return false;
}

/* -------------------------------------------------------------- faults --- */

static bool strike(struct world *w, enum fault kind)
{
	switch (kind) {
	case KILL_O:
		if (w->o == O_DEAD)
			return false;
		w->o_crashed = true;
		old_dies(w);
		return true;
	case KILL_N:
		if (w->n == N_DEAD)
			return false;
		w->n_crashed = true;
		new_dies(w);
		return true;
	case KILL_S:
		if (w->s == S_DOWN || w->s == S_DONE)
			return false;
		w->s = S_DOWN;
		w->may = w->nothing_sealed = false;
		w->o2s.n = w->n2s.n = 0;
		w->eof[O] = w->o != O_DEAD;
		w->eof[N] = w->n != N_DEAD;
		return true;
	default:
		if (w->o != O_MOVING || w->broken || w->give.state >= GIVE_DONE)
			return false;
		channel_breaks(w);
		return true;
	}
}

static void faults(struct world *w)
{
	const unsigned o = w->o == O_SERVE && w->next ? O_AGAIN : w->o;
	const unsigned state[TRIGGERS] = { 0, o, w->n, w->s };

	for (unsigned i = 0; i < w->nfault; i++) {
		if (w->fault[i].done || state[w->fault[i].at] != w->fault[i].state || rnd(w, 12))
			continue;
		w->fault[i].done = strike(w, w->fault[i].kind);
		if (w->fault[i].done)
			say(w, "*** O %d, N %d, S %d, channel %s", w->o, w->n, w->s, w->broken ? "broken" : "whole");
	}
}

/* --------------------------------------------------------------- a run --- */

static bool client(struct world *w, unsigned c)
{
	struct conn *k = &w->conn[c];

	if (k->sent == BYTES * k->requests || k->fin)
		return false;
	k->sent++;
	return true;
}

static bool random_step(struct world *w)
{
	const unsigned c = rnd(w, w->nconn);
	const bool timers = !rnd(w, w->hurry);
	const unsigned who = rnd(w, 6);

	if (who == w->slow && rnd(w, w->how))
		return false;
	switch (who) {
	case 0: return client(w, c);
	case 1: return touch(w, O, c);
	case 2: return touch(w, N, c);
	case 3: return sup_step(w, timers);
	case 4: return new_step(w, timers);
	default: return old_step(w, timers);
	}
}

/* Whoever can do something does it, all of them in turn. */
static bool sweep(struct world *w, bool timers)
{
	bool done = sup_step(w, timers) | old_step(w, timers) | new_step(w, timers);

	for (unsigned c = 0; c < w->nconn; c++)
		done |= client(w, c) | touch(w, O, c) | touch(w, N, c);
	return done;
}

static void begin(struct world *w, uint64_t seed, bool verbose)
{
	memset(w, 0, offsetof(struct world, x));
	w->x.at = w->x.n = w->y.at = w->y.n = 0;
	w->seed = seed;
	w->rnd = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
	w->verbose = verbose;
	w->hurry = (unsigned[]){ 10, 60, 20000 }[rnd(w, 3)];
	w->slow = rnd(w, 7);   /* or nobody */
	w->how = 1 + rnd(w, 40);
	w->nfault = rnd(w, MAX_FAULT + 1);
	for (unsigned i = 0; i < w->nfault; i++) {
		static const unsigned states[TRIGGERS] = { 1, O_AGAIN + 1, N_SERVE + 1, S_DONE };
		w->fault[i].kind = rnd(w, FAULTS);
		w->fault[i].at = rnd(w, TRIGGERS);
		w->fault[i].state = rnd(w, states[w->fault[i].at]);
		if (w->fault[i].kind == BREAK) {
			w->fault[i].at = AT_O;
			w->fault[i].state = O_MOVING;
		}
	}
	w->nconn = 1 + rnd(w, rnd(w, 20) ? 3 : MAX_CONN);
	for (unsigned c = 0; c < w->nconn; c++) {   /* one draw in a statement: a seed is the same everywhere */
		w->conn[c] = (struct conn){ .ref[O] = true, .own[O] = true };
		w->conn[c].requests = 1 + rnd(w, 4);
		w->conn[c].large = !rnd(w, 10);
	}
	w->o = O_SERVE;
	w->n = N_WARM;
	w->s = S_PREP;
	w->lock = O;
	give_init(&w->give, rnd(w, 4) ? UINT64_MAX : rnd(w, 1 << 20));
	take_init(&w->take, rnd(w, 8) ? UINT64_MAX : rnd(w, 1 << 20));
}

static void run(struct world *w, uint64_t seed, bool verbose)
{
	unsigned idle = 0;

	begin(w, seed, verbose);
	for (unsigned early = rnd(w, 40); early--; )   /* some have asked before it begins */
		client(w, rnd(w, w->nconn)), touch(w, O, rnd(w, w->nconn));
	for (unsigned long steps = 0; !w->failed; steps++) {
		faults(w);
		idle = random_step(w) ? 0 : idle + 1;
		if (idle > 100 && !sweep(w, false) && !sweep(w, true))
			break;
		if (steps > 1000000)
			violated(w, "it does not come to an end", 0);
	}
	if (!w->failed)
		check_end(w);
}

static int usage(void)
{
	fputs("usage: moves [--runs N] [--seed S] [--mutant NAME] [--list-mutants] [-v]\n"
	      "  runs handoffs of live connections, seeds S, S+1, ...; --seed S -v tells a story;\n"
	      "  a mutant: the one run that is known to notice, unless told otherwise\n",
	      stderr);
	return 2;
}

static int parse(int argc, char **argv, uint64_t *runs, uint64_t *seed, bool *verbose)
{
	static const struct option table[] = {
		{ "runs", required_argument, NULL, 'r' }, { "seed", required_argument, NULL, 's' },
		{ "mutant", required_argument, NULL, 'm' }, { "list-mutants", no_argument, NULL, 'l' }, { NULL },
	};
	int c;

	while ((c = getopt_long(argc, argv, "v", table, NULL)) != -1)
		switch (c) {
		case 'r': *runs = strtoull(optarg, NULL, 10); break;
		case 's': *seed = strtoull(optarg, NULL, 10); break;
		case 'v': *verbose = true; break;
		case 'm':
			for (moves_mutant = 0; moves_mutant < LAW; moves_mutant++)
				if (!strcmp(mutants[moves_mutant].name, optarg))
					break;
			if (moves_mutant == LAW)
				return usage();
			break;
		case 'l':
			for (unsigned i = 0; i < LAW; i++)
				printf("%-16s %s\n", mutants[i].name, mutants[i].what);
			return -1;
		default: return usage();
		}
	return optind < argc ? usage() : 0;
}

int main(int argc, char **argv)
{
	static struct world w;
	uint64_t runs = 0, seed = 0;
	bool verbose = false;
	int e = parse(argc, argv, &runs, &seed, &verbose);

	if (e)
		return e < 0 ? 0 : e;
	if (!seed)
		seed = moves_mutant == LAW ? 1 : mutants[moves_mutant].seed;
	if (!runs)
		runs = verbose || moves_mutant != LAW ? 1 : 20000;
	for (uint64_t i = 0; i < runs; i++) {
		run(&w, seed + i, verbose);
		if (!w.failed)
			continue;
		printf("VIOLATION in run %llu, seed %llu: %s\n", (unsigned long long)i + 1,
		       (unsigned long long)w.seed, w.violation);
		return 1;
	}
	printf("%llu runs, seeds %llu to %llu: no violation\n", (unsigned long long)runs,
	       (unsigned long long)seed, (unsigned long long)(seed + runs - 1));
	return !cases_print(runs >= 10000 && moves_mutant == LAW);
}
