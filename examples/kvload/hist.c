#include "hist.h"

static unsigned bucket_of(uint64_t us)
{
	unsigned power, index;

	if (us < HIST_STEPS)
		return us;
	power = 63 - __builtin_clzll(us) - HIST_STEP_BITS;
	index = (power + 1) * HIST_STEPS + ((us >> power) - HIST_STEPS);
	return index < HIST_STEPS * (HIST_POWERS + 1) ? index : HIST_STEPS * (HIST_POWERS + 1) - 1;
}

static uint64_t bucket_end(unsigned index)
{
	unsigned power;

	if (index < HIST_STEPS)
		return index;
	power = index / HIST_STEPS - 1;
	return ((uint64_t)(index % HIST_STEPS + HIST_STEPS + 1) << power) - 1;
}

void hist_add(struct hist *h, uint64_t us)
{
	h->count++;
	h->bucket[bucket_of(us)]++;
	if (us > h->max)
		h->max = us;
}

uint64_t hist_quantile(const struct hist *h, double share)
{
	uint64_t below = 0, want = (uint64_t)(share * h->count + 0.999999);
	unsigned i;

	if (want == 0)
		want = 1;
	for (i = 0; i < HIST_STEPS * (HIST_POWERS + 1); i++) {
		below += h->bucket[i];
		if (below >= want)
			return bucket_end(i) < h->max ? bucket_end(i) : h->max;
	}
	return h->max;
}
