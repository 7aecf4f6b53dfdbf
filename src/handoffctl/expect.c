#include "handoffctl/expect.h"

#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void expect_pause(uint64_t *pause_us, unsigned n, struct expected *ret)
{
	*ret = (struct expected){ .handoffs = n };
	if (!n)
		return;
	qsort(pause_us, n, sizeof *pause_us, by_size);
	/* of an even number the larger one: it is waited for that long, too */
	ret->median_us = pause_us[n / 2];
	ret->max_us = pause_us[n - 1];
}

/* A moment tells nothing: two that come together would make a flood. */
uint64_t expect_rate(uint64_t waiting, uint64_t stall_us)
{
	if (waiting < 2 || !stall_us || waiting > UINT64_MAX / 1000000)
		return 0;
	return waiting * 1000000 / stall_us;
}

uint64_t expect_full_ms(uint64_t places, uint64_t rate)
{
	if (!rate || places > UINT64_MAX / 1000)
		return UINT64_MAX;
	return places * 1000 / rate;
}
