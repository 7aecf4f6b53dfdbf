/* kvd under load: does the pause grow with the data, and what do its clients notice? */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "kvd.h"

static const char *const some_load[] = {
	"--keepalive", "50", "--keepalive-rate", "1000", "--fresh-rate", "200", "--keys", "2000",
	NULL
};

struct sized {
	struct kvd kvd;
	unsigned keys;
	struct samples pause;
	int compacted;               /* a compaction ran when an upgrade was asked for */
};

static void start(struct bench *b, struct sized *s, const char *data_place, const char *name)
{
	kvd_start(&s->kvd, &b->bin, b->places->fast, data_place, name);
	kvd_fill(&s->kvd, s->keys);
}

/* Load on one at a time: the other store would share its processors. */
static void upgrades(struct sized *s, unsigned n)
{
	struct load load;
	struct took t;
	char json[8192];

	load_start(&load, &s->kvd, "load", some_load);
	sleep_ms(300);
	for (unsigned i = 0; i < n; i++) {
		if (i == n / 2) {
			kvd_compact(&s->kvd);
			s->compacted += kvd_info(&s->kvd, "compaction_in_progress") > 0;
		}
		kvd_upgrade(&s->kvd, &t);
		samples_add(&s->pause, t.pause);
		/* its connections come anew and have asked something: a drain would wait */
		sleep_ms(300);
	}
	if (load_end(&load, 1, json, sizeof json))
		die("kvload counts failures during the upgrades: %s", json);
}

static void sizes(struct bench *b, const char *data_place, const char *name_few,
		  const char *name_many)
{
	struct sized few = { .keys = 10000 }, many = { .keys = b->quick ? 100000 : 1000000 };
	unsigned rounds = b->quick ? 2 : 4;
	char what[64];   /* within twice the smallest: both ways */

	start(b, &few, data_place, name_few);
	start(b, &many, data_place, name_many);
	for (unsigned i = 0; i < rounds; i++) {
		upgrades(&few, 6);
		upgrades(&many, 6);
	}
	table_section(
		"kvd under load (50 connections with 1000 requests/s, 200 fresh ones/s), data on "
		"%s; "
		"%d of %u rounds upgraded while %u keys were compacted",
		fs_name(data_place), many.compacted, rounds, many.keys);
	snprintf(what, sizeof what, "pause with %u keys", few.keys);
	bench_row(b, (struct row){ what, "us", &few.pause, "with more keys", &many.pause, AIM_RATIO,
				   2 });
	snprintf(what, sizeof what, "pause with %u keys", many.keys);
	bench_row(b, (struct row){ what, "us", &many.pause, "with 10000 keys", &few.pause,
				   AIM_RATIO, 2 });
	kvd_stop(&few.kvd);
	kvd_stop(&many.kvd);
	samples_free(&few.pause);
	samples_free(&many.pause);
}

void bench_keys(struct bench *b)
{
	char fast[128], slow[128];

	bench_dir(fast, b->places->fast, "keys");
	sizes(b, fast, "few", "many_keys");
	if (b->quick)
		return;
	bench_dir(slow, b->places->slow, "keys");
	sizes(b, slow, "few_disk", "many_disk");
}

/* ------------------------------------------------------------------ load --- */

struct seen { struct samples fresh, keepalive, stall, late; };

static void one_run(struct bench *b, struct kvd *k, struct seen *s, unsigned number,
		    int with_upgrade)
{
	const char *options[] = {
		"--keepalive", "50", "--keepalive-rate", "1000", "--fresh-rate", "500", "--keys",
		"2000", "--verify", "--duration", b->quick ? "3" : "8", NULL
	};
	struct load load;
	struct took t;
	char json[8192], name[32];

	snprintf(name, sizeof name, "load%u", number);
	load_start(&load, k, name, options);
	if (with_upgrade) {
		sleep_ms(b->quick ? 1500 : 4000);
		kvd_upgrade(k, &t);
	}
	if (load_end(&load, 0, json, sizeof json))
		die("kvload counts failures: %s", json);
	samples_add(&s->fresh, json_number(json, "fresh", "max_us"));
	samples_add(&s->keepalive, json_number(json, "keepalive", "max_us"));
	samples_add(&s->stall, json_number(json, NULL, "stall_us"));
	samples_add(&s->late, json_number(json, NULL, "lag_us"));
}

static void free_seen(struct seen *s)
{
	samples_free(&s->fresh);
	samples_free(&s->keepalive);
	samples_free(&s->stall);
	samples_free(&s->late);
}

void bench_load(struct bench *b)
{
	struct seen with = { 0 }, without = { 0 };
	unsigned runs = b->quick ? 2 : 6;
	struct kvd k;
	char data[128];

	bench_dir(data, b->places->slow, "load");
	kvd_start(&k, &b->bin, b->places->fast, data, "load");
	kvd_fill(&k, 10000);
	for (unsigned i = 0; i < runs; i++) {
		one_run(b, &k, &with, 2 * i, 1);
		one_run(b, &k, &without, 2 * i + 1, 0);
	}
	table_section(
		"constant arrival rate: 50 keep-alive connections with 1000 requests/s, 500 fresh "
		"connections/s,"
		" %u runs of %d s with an\nupgrade in the middle and as many without, in turn; "
		"latency from when"
		" a request was due; data on %s; nothing failed, nothing was lost",
		runs, b->quick ? 3 : 8, fs_name(data));
	bench_row(b, (struct row){ "worst latency, fresh connections", "us", &with.fresh,
				   "without upgrade", &without.fresh, AIM_NONE, 0 });
	bench_row(b, (struct row){ "worst latency, keep-alive", "us", &with.keepalive,
				   "without upgrade", &without.keepalive, AIM_NONE, 0 });
	bench_row(b, (struct row){ "longest stall between two replies", "us", &with.stall,
				   "without upgrade", &without.stall, AIM_NONE, 0 });
	bench_row(b, (struct row){ "kvload itself woke up late by", "us", &with.late,
				   "without upgrade", &without.late, AIM_NONE, 0 });
	kvd_stop(&k);
	free_seen(&with);
	free_seen(&without);
}
