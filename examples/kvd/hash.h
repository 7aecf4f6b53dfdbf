/*
 * The three hashes of the store, each for another job:
 *  - siphash13: the hash table, with a random key, so that a client cannot
 *    choose keys that fall into one bucket;
 *  - crc32c: one in each record, to tell a whole record from a torn one; also
 *    which shard a key belongs to (it lies on disk, so it must never change);
 *  - siphash24_128: the chain. chain[n] = SipHash-2-4-128(key = chain[n-1],
 *    record n): every byte and the order of all records count, one pass at
 *    about 1 GB/s, no state but 16 bytes. It finds damage and mix-ups, not
 *    forgery by someone who may write the files.
 */
#ifndef KVD_HASH_H
#define KVD_HASH_H

#include <stddef.h>
#include <stdint.h>

struct digest {
	uint64_t a, b;
};

uint64_t siphash13(struct digest key, const void *p, size_t n);
uint64_t siphash24(struct digest key, const void *p, size_t n);
struct digest siphash24_128(struct digest key, const void *p, size_t n);
uint32_t crc32c(const void *p, size_t n);

static inline int digest_equal(struct digest x, struct digest y)
{
	return x.a == y.a && x.b == y.b;
}

#endif
