/*
 * frame: u32 length (little-endian, of what follows), u16 protocol version
 * (little-endian), one CBOR item. Pure: bytes in, bytes out.
 */
#ifndef HANDOFF_PROTO_FRAME_H
#define HANDOFF_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_LEN_SIZE  4u           /* the length field */
#define FRAME_HEADER    6u           /* length and version */
#define FRAME_MIN_LEN   3u           /* version and the smallest item, an empty array's byte */
#define FRAME_MAX_LEN   (1u << 20)   /* what the length may say; each message has a shorter limit */
#define FRAME_MAX_FDS   64u          /* descriptors with one frame */

#define PROTO_VERSION_MIN 1u
#define PROTO_VERSION_MAX 1u
#define PROTO_VERSION_HELLO 1u       /* in the field before a version is agreed, for ever */

/* Writes a header for an item of n bytes. */
void frame_put_header(uint8_t out[FRAME_HEADER], uint16_t version, size_t n);

/* Reads one. Returns the item's size, or -EMSGSIZE: a length no frame can have. */
int frame_get_header(const uint8_t in[FRAME_HEADER], uint16_t *ret_version);

/*
 * The highest version that both ranges hold, or -EPROTONOSUPPORT. A range that is
 * upside down is nobody's.
 */
int version_negotiate(uint64_t a_min, uint64_t a_max, uint64_t b_min, uint64_t b_max);

#endif
