#include "hash.h"

#include "util.h"

#include <pthread.h>

struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s, unsigned rounds)
{
	for (; rounds; rounds--) {
		s->v0 += s->v1;
		s->v1 = rotl(s->v1, 13) ^ s->v0;
		s->v0 = rotl(s->v0, 32);
		s->v2 += s->v3;
		s->v3 = rotl(s->v3, 16) ^ s->v2;
		s->v0 += s->v3;
		s->v3 = rotl(s->v3, 21) ^ s->v0;
		s->v2 += s->v1;
		s->v1 = rotl(s->v1, 17) ^ s->v2;
		s->v2 = rotl(s->v2, 32);
	}
}

static inline void sip_start(struct sip *s, struct digest key)
{
	s->v0 = key.a ^ 0x736f6d6570736575u;
	s->v1 = key.b ^ 0x646f72616e646f6du;
	s->v2 = key.a ^ 0x6c7967656e657261u;
	s->v3 = key.b ^ 0x7465646279746573u;
}

static inline void sip_eat(struct sip *s, const unsigned char *p, size_t n, unsigned rounds)
{
	uint64_t w, last = (uint64_t)n << 56;
	size_t i;

	for (; n >= 8; p += 8, n -= 8) {
		w = get64(p);
		s->v3 ^= w;
		sip_round(s, rounds);
		s->v0 ^= w;
	}
	for (i = 0; i < n; i++)
		last |= (uint64_t)p[i] << (8 * i);
	s->v3 ^= last;
	sip_round(s, rounds);
	s->v0 ^= last;
}

static inline uint64_t sip_end(struct sip *s, unsigned rounds)
{
	sip_round(s, rounds);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

uint64_t siphash13(struct digest key, const void *p, size_t n)
{
	struct sip s;

	sip_start(&s, key);
	sip_eat(&s, p, n, 1);
	s.v2 ^= 0xff;
	return sip_end(&s, 3);
}

uint64_t siphash24(struct digest key, const void *p, size_t n)
{
	struct sip s;

	sip_start(&s, key);
	sip_eat(&s, p, n, 2);
	s.v2 ^= 0xff;
	return sip_end(&s, 4);
}

struct digest siphash24_128(struct digest key, const void *p, size_t n)
{
	struct digest d;
	struct sip s;

	sip_start(&s, key);
	s.v1 ^= 0xee;
	sip_eat(&s, p, n, 2);
	s.v2 ^= 0xee;
	d.a = sip_end(&s, 4);
	s.v1 ^= 0xdd;
	d.b = sip_end(&s, 4);
	return d;
}

static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_init(void)
{
	uint32_t c;
	unsigned i, k;

	for (i = 0; i < 256; i++) {
		for (c = i, k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
		crc_table[0][i] = c;
	}
	for (i = 0; i < 256; i++)
		for (k = 1; k < 8; k++)
			crc_table[k][i] = crc_table[k - 1][i] >> 8 ^
				crc_table[0][crc_table[k - 1][i] & 0xff];
}

uint32_t crc32c(const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t c = ~0u;
	uint64_t w;

	pthread_once(&crc_once, crc_init);
	for (; n >= 8; p += 8, n -= 8) {
		w = get64(p) ^ c;
		c = crc_table[7][w & 0xff] ^ crc_table[6][w >> 8 & 0xff] ^
			crc_table[5][w >> 16 & 0xff] ^ crc_table[4][w >> 24 & 0xff] ^
			crc_table[3][w >> 32 & 0xff] ^ crc_table[2][w >> 40 & 0xff] ^
			crc_table[1][w >> 48 & 0xff] ^ crc_table[0][w >> 56];
	}
	while (n--)
		c = c >> 8 ^ crc_table[0][(c ^ *p++) & 0xff];
	return ~c;
}
