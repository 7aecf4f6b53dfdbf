/*
 * slot: records that survive a torn write. A file holds two slots of a fixed size,
 * written alternately in place; the valid one with the higher sequence counts. Pure:
 * bytes only. The journal, the current binary and the lock's owner are such records,
 * their payload a message of msg.def.
 *
 * layout: "HNDF", u32 crc32 of all that follows, u64 sequence, u32 payload length,
 * payload (little-endian)
 */
#ifndef HANDOFF_PROTO_SLOT_H
#define HANDOFF_PROTO_SLOT_H

#include <stddef.h>
#include <stdint.h>

#define SLOT_HEADER 20u

/* Writes header and payload to out (SLOT_HEADER + n bytes), where the payload may lie already;
 * returns that size. */
size_t slot_encode(uint64_t sequence, const void *payload, size_t n, uint8_t *out);
/* Returns the payload's length (it lies at in + SLOT_HEADER), or -EBADMSG. */
int slot_decode(const uint8_t *in, size_t size, uint64_t *ret_sequence);

uint32_t crc32_of(const void *p, size_t n);   /* CRC-32, ISO 3309 */

#endif
