/*
 * What lies in the files: segments, each a head and then records. All numbers
 * are little-endian.
 *
 * record:  u32 crc      CRC-32C of everything behind it, xor the segment's salt
 *          u32 length   of everything behind it
 *          u64 epoch    of the writer (the lock's epoch): it only grows
 *          u64 expires  wall ms, 0: never
 *          u32 key length, u8 type, 3 zero bytes
 *          key, value
 *
 * head:    "kvdlog1\n", u32 shard, u32 kind, u64 id, u64 revision and 16 bytes
 *          chain before its first record, u64 epoch of who made it, u32 0, u32 crc
 *
 * The salt is the low half of chain.a in the head, and the first chain of a
 * store is random: so a client cannot store a value that looks like a record.
 */
#ifndef KVD_RECORD_H
#define KVD_RECORD_H

#include "hash.h"
#include "util.h"

#include <sys/types.h>

enum record_type {
	RECORD_SET = 1,  /* key, value, expires */
	RECORD_DEL,      /* key */
	RECORD_EXPIRE,   /* key, expires; 0: persist */
	RECORD_EXPIRED   /* key: its time had come */
};

#define RECORD_HEAD    32
#define MAX_VALUE      (64u << 20) /* bytes of a key or a value */
#define MAX_RECORD     (RECORD_HEAD + 2 * MAX_VALUE)

struct record {
	int type;
	uint64_t epoch, expires;
	const char *key, *val;
	uint32_t klen, vlen;
};

void record_encode(struct buf *to, const struct record *r, uint32_t salt);

/* Bytes taken; 0: not all of it is here; -EBADMSG: this is no record. */
ssize_t record_decode(const char *p, size_t n, uint32_t salt, struct record *ret);

/* Is a whole, valid record anywhere in these bytes? Tells damage (yes) from a
 * torn tail (no). */
int record_anywhere(const char *p, size_t n, uint32_t salt);

#define SEGMENT_HEAD 64
enum segment_kind { SEGMENT_LOG, SEGMENT_SNAPSHOT };

struct segment_head {
	uint32_t shard, kind;
	uint64_t id, rev, epoch;
	struct digest chain;
};

void segment_head_encode(char to[SEGMENT_HEAD], const struct segment_head *h);
int segment_head_decode(const char from[SEGMENT_HEAD], struct segment_head *ret); /* 0, -EBADMSG */

/* "shard-3-000012.log" or ".snap"; in a buffer of the caller. */
#define SEGMENT_NAME 48
void segment_name(char to[SEGMENT_NAME], unsigned shard, uint64_t id, int kind);

#endif
