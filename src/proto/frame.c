#include "proto/frame.h"

#include <errno.h>

void frame_put_header(uint8_t out[FRAME_HEADER], uint16_t version, size_t n)
{
	uint32_t len = (uint32_t)(n + FRAME_HEADER - FRAME_LEN_SIZE);

	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(len >> (8 * i));
	out[4] = (uint8_t)version;
	out[5] = (uint8_t)(version >> 8);
}

int frame_get_header(const uint8_t in[FRAME_HEADER], uint16_t *ret_version)
{
	uint32_t len = 0;

	for (int i = 0; i < 4; i++)
		len |= (uint32_t)in[i] << (8 * i);
	if (len < FRAME_MIN_LEN || len > FRAME_MAX_LEN)
		return -EMSGSIZE;
	*ret_version = (uint16_t)(in[4] | in[5] << 8);
	return (int)(len - (FRAME_HEADER - FRAME_LEN_SIZE));
}

int version_negotiate(uint64_t a_min, uint64_t a_max, uint64_t b_min, uint64_t b_max)
{
	uint64_t high = a_max < b_max ? a_max : b_max;
	uint64_t low = a_min > b_min ? a_min : b_min;

	if (low > high || high > UINT16_MAX)
		return -EPROTONOSUPPORT;
	return (int)high;
}
