#include "verify.h"

#include "store.h"

#include <inttypes.h>
#include <stdio.h>

static int print_shard(const struct store *st, struct shard *s)
{
	int tail = shard_check_tail(s);

	printf("shard %u: revision %" PRIu64 " keys %zu segment %" PRIu64 " offset %" PRIu64
	       " torn %" PRIu64 " epoch %" PRIu64 " backward %" PRIu64 "\n",
	       s->index, s->rev, s->db.count, s->seg, s->off, s->left, s->epoch, s->backward);
	if (tail < 0)
		fprintf(stderr, "kvd: %s: %s\n", st->path, s->error);
	if (s->backward)
		fprintf(stderr, "kvd: %s: shard %u: %" PRIu64 " records have a lower epoch than "
			"one before: two processes have written\n", st->path, s->index,
			s->backward);
	return tail < 0 || s->backward;
}

static void print_totals(const struct store *st)
{
	unsigned char fp[32];
	uint64_t revs[MAX_SHARDS];
	unsigned i;

	store_state(st, revs, fp);
	printf("revisions");
	for (i = 0; i < st->shards; i++)
		printf(" %" PRIu64, revs[i]);
	printf("\nfingerprint ");
	for (i = 0; i < sizeof(fp); i++)
		printf("%02x", fp[i]);
	printf("\nkeys %" PRIu64 "\n", store_count(st));
}

int verify(const char *data_dir)
{
	struct store st;
	unsigned i;
	int bad = 0;

	if (store_open(&st, data_dir, 1) < 0 || store_load(&st) < 0) {
		fprintf(stderr, "kvd: %s\n", st.error);
		bad = 1;
	}
	for (i = 0; bad != 1 && st.fresh == 0 && i < st.shards; i++)
		bad |= print_shard(&st, &st.shard[i]) ? 2 : 0;
	if (bad != 1 && st.fresh)
		puts("empty: nothing was written here yet");
	else if (bad != 1)
		print_totals(&st);
	store_close(&st);
	puts(bad ? "NOT GOOD" : "good");
	return bad ? 1 : 0;
}
