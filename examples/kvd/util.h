/*
 * Small things that every file of kvd needs: memory that never fails (a store
 * that cannot allocate must not go on half-done: it says so and dies, the log
 * has everything that was acknowledged), growing buffers, log lines, clocks.
 */
#ifndef KVD_UTIL_H
#define KVD_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define PRINTF_LIKE(a, b) __attribute__((format(printf, a, b)))

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);

/* Bytes that grow. All zero is an empty one. */
struct buf {
	char *p;
	size_t len, cap;
};

void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes behind len */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_drop(struct buf *b, size_t n);       /* takes n bytes away at the front */
void buf_free(struct buf *b);

/* One line to stderr: "kvd[pid] text". Safe in every thread. */
void log_line(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The line, then exit 1. */
void die(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));

uint64_t wall_ms(void); /* for expiry: the only clock that means something on disk */
uint64_t mono_ms(void); /* for every other decision */
uint64_t mono_us(void);

/* Little-endian numbers at any alignment. */
void put32(void *p, uint32_t v);
void put64(void *p, uint64_t v);
uint32_t get32(const void *p);
uint64_t get64(const void *p);

/* Writes all of it; 0, or a negative errno with *done bytes written. */
int write_all(int fd, const char *p, size_t n, size_t *done);

/* Decimal text to a number: 1 if it is exactly one and within long long. */
int parse_ll(const char *s, size_t n, long long *ret);

/* "64", "64k", "16m", "1g": 1 if it is one and above 0. */
int parse_size(const char *s, uint64_t *ret);

#endif
