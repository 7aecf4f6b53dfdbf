/*
 * fuzz: bytes that anybody may have sent or written, given to the code as it is. One program
 * with many targets: with clang and libFuzzer it finds inputs, with any compiler it replays them.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fuzz_target {
	const char *name;
	void (*run)(const uint8_t *p, size_t n);
};

void fuzz_msg(const uint8_t *p, size_t n);       /* a message, and a frame's header */
void fuzz_cbor(const uint8_t *p, size_t n);      /* one item */
void fuzz_super(const uint8_t *p, size_t n);     /* events for S */
void fuzz_daemon(const uint8_t *p, size_t n);    /* events and messages for N and O */
void fuzz_conf(const uint8_t *p, size_t n);      /* a configuration file */
void fuzz_record(const uint8_t *p, size_t n);    /* the journal, the current binary, the lock */
void fuzz_library(const uint8_t *p, size_t n);   /* HANDOFF_*, and a supervisor that lies */
void fuzz_handoffd(const uint8_t *p, size_t n);  /* all of handoffd: daemons, operators, time */
void fuzz_ctl(const uint8_t *p, size_t n);       /* what handoffctl is answered */
void fuzz_exporter(const uint8_t *p, size_t n);  /* a State and a record, as others read them */
void fuzz_systemd(const uint8_t *p, size_t n);   /* LISTEN_FDS, NOTIFY_SOCKET, JOURNAL_STREAM */
void fuzz_proc(const uint8_t *p, size_t n);      /* files of /proc */

/* What is left of an input; behind its end come zeros. */
struct feed { const uint8_t *p; size_t n; };
uint8_t feed_u8(struct feed *f);
uint64_t feed_uint(struct feed *f);              /* a number of any width, often a limit */
/* At most max bytes: a length (one byte), then so many; fewer where the input ends. */
size_t feed_bytes(struct feed *f, uint8_t *out, size_t max);
/* The same as a string without NUL in it. */
char *feed_text(struct feed *f, char *out, size_t size);

/* A message made up from a seed, of that type or, type 0, of any; valid until the next one. */
struct msg;
void feed_message(struct feed *f, unsigned type, bool fullest, struct msg *ret);

/* Says what does not hold, and ends: libFuzzer keeps the input. */
#define HOLDS(expr, ...) do { if (!(expr)) fuzz_failed(__FILE__, __LINE__, #expr, __VA_ARGS__); } while (0)
void fuzz_failed(const char *file, int line, const char *expr, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 4, 5)));

/* A directory of this process's own, in memory; removed at the end. */
const char *fuzz_dir(void);
/* Writes a file there; returns its path, static. */
const char *fuzz_file(const char *name, const void *p, size_t n);
/* Removes a directory with all that is in it, or a file. */
void fuzz_remove(const char *path);
/* How many descriptors are open. */
unsigned fuzz_count_fds(void);

/* ---- world.c: calls of the operating system that are answered here ---- */

extern struct world {
	uint64_t now_us;           /* a clock of its own; 0: the real one */
	const char *proc;          /* stands for every file below /proc; NULL: the real ones */
	bool keeps_fds;            /* nothing is closed that is below: */
	int first_own_fd;
	int (*connect)(void);      /* a descriptor that is connected, or -errno; NULL: the real one */
	pid_t visitor;             /* who is at the other end of a new connection; 0: the truth */
	uid_t visitor_uid;
	bool daemons;              /* spawn_daemon() makes one of these: */
	bool no_disk;              /* the next write to a file fails */
} world;

/* A process that is not there: the other ends of its channel and of its life. */
struct fake {
	pid_t pid;                 /* 0: none */
	int channel, life;
	bool told_to_end;
};
#define FAKES 4
#define FAKE_PID 0x70000000    /* no kernel gives these */
extern struct fake fakes[FAKES];
void fake_dies(struct fake *f);
struct fake *fake_of(pid_t pid);
unsigned fakes_alive(void);

#endif
