#include "proto/slot.h"

#include <errno.h>
#include <string.h>

static void put(uint8_t *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, int bytes)
{
	uint64_t v = 0;

	for (int i = bytes; i--;)
		v = v << 8 | p[i];
	return v;
}

/* Four bits at a time: what each of them leaves behind of the polynomial, 0xedb88320. */
static const uint32_t crc32_of_four[16] = {
	0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
	0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

uint32_t crc32_of(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint32_t crc = 0xffffffff;

	while (n--) {
		crc ^= *p++;
		crc = crc >> 4 ^ crc32_of_four[crc & 15];
		crc = crc >> 4 ^ crc32_of_four[crc & 15];
	}
	return ~crc;
}

size_t slot_encode(uint64_t sequence, const void *payload, size_t n, uint8_t *out)
{
	memcpy(out, "HNDF", 4);
	put(out + 8, sequence, 8);
	put(out + 16, n, 4);
	memmove(out + SLOT_HEADER, payload, n);
	put(out + 4, crc32_of(out + 8, SLOT_HEADER - 8 + n), 4);
	return SLOT_HEADER + n;
}

int slot_decode(const uint8_t *in, size_t size, uint64_t *ret_sequence)
{
	uint64_t n;

	if (size < SLOT_HEADER || memcmp(in, "HNDF", 4))
		return -EBADMSG;
	n = get(in + 16, 4);
	if (n > size - SLOT_HEADER || get(in + 4, 4) != crc32_of(in + 8, SLOT_HEADER - 8 + n))
		return -EBADMSG;
	*ret_sequence = get(in + 8, 8);
	return (int)n;
}
