/*
 * Records on disk: torn, damaged, from somebody else. Half of the inputs are the file as it is;
 * the others are payloads below good checksums, since nobody finds those by chance.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/lockfile.h"
#include "base/slots.h"
#include "base/sys.h"
#include "fuzz.h"
#include "handoffd/log.h"
#include "handoffd/store.h"
#include "proto/slot.h"

static uint64_t put_slot(struct feed *f, uint8_t *at, size_t room)
{
	uint8_t payload[256];
	const uint64_t sequence = feed_uint(f);
	const size_t n = feed_bytes(f, payload, sizeof payload);

	if (n + SLOT_HEADER <= room)
		slot_encode(sequence, payload, n, at);
	return sequence;
}

/* Two slots of that size, in out. */
static size_t make_file(struct feed *f, uint8_t *out, size_t slot)
{
	memset(out, 0, 2 * slot);
	put_slot(f, out, slot);
	if (feed_u8(f) & 1)
		put_slot(f, out + slot, slot);
	if (feed_u8(f) & 1)   /* torn */
		out[feed_uint(f) % (2 * slot)] ^= feed_u8(f);
	return 2 * slot;
}

static void write_file(const char *dir, const char *name, const void *p, size_t n)
{
	char path[300];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	close(fd);
}

/* What is written is what is read from then on, and the one before survives beside it. */
static void journal(const char *dir)
{
	struct store s;
	struct journal j = { 0 }, again = { 0 };
	struct current c = { 0 }, kept = { 0 };
	char err[1200] = "";
	int e = store_open(&s, dir, dir, -1, &j, &c, err, sizeof err);

	HOLDS(!e || (e == -EBADMSG && *err), "%d: %s", e, err);
	j.served = !j.served;
	j.id.b[3] ^= 0x55;
	e = store_journal(&s, &j);
	HOLDS(!e, "%d: a journal that was read cannot be written", e);
	c.now.named = true;
	c.now.copy ^= 1;
	snprintf(c.now.path, sizeof c.now.path, "/new/binary");
	HOLDS(!store_current(&s, &c), "the current binary cannot be written");
	store_close(&s);
	e = store_open(&s, dir, dir, -1, &again, &kept, err, sizeof err);
	HOLDS(!e, "%d: %s", e, err);
	HOLDS(again.served == j.served && hid_equal(&again.id, &j.id) && again.phase == j.phase &&
	      again.incumbent.pid == j.incumbent.pid && !strcmp(again.binary, j.binary) &&
	      !strcmp(again.message, j.message), "an older journal was believed");
	HOLDS(!strcmp(kept.now.path, "/new/binary") && kept.now.copy == c.now.copy && kept.now.named &&
	      !strcmp(kept.before.path, c.before.path) && kept.before.copy == c.before.copy,
	      "current is %s", kept.now.path);
	store_close(&s);
}

static void lock(const char *path)
{
	const int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct lockfile l;
	struct lock_owner last = { 0 }, now;
	int e = lockfile_read(dir, &last);

	HOLDS(!e || e == -ENODATA || e == -EBADMSG, "%d", e);
	lockfile_init(&l, dir);
	e = lockfile_try(&l, "build", 5);
	HOLDS(!e && !l.record_error, "%d: %s, record %d", e, l.error, l.record_error);
	HOLDS(l.epoch > 0, "an owner without an epoch");
	HOLDS(l.epoch > last.epoch, "epoch %llu follows %llu", (unsigned long long)l.epoch,
	      (unsigned long long)last.epoch);
	HOLDS(!lockfile_read(dir, &now) && now.epoch == l.epoch && now.pid == (uint64_t)getpid(),
	      "the record names epoch %llu, pid %llu", (unsigned long long)now.epoch, (unsigned long long)now.pid);
	lockfile_release(&l);
	close(dir);
}

void fuzz_record(const uint8_t *p, size_t n)
{
	static uint8_t file[2 * SLOTS_PAYLOAD_MAX];
	struct feed f = { p, n };
	const uint8_t how = feed_u8(&f);
	const bool is_lock = how & 1;
	const size_t slot = is_lock ? 512 : SLOTS_PAYLOAD_MAX;
	char dir[200];

	snprintf(dir, sizeof dir, "%s/record", fuzz_dir());
	mkdir(dir, 0700);
	log_open("fuzz", LOG_L_ERROR);
	if (how & 2) {
		n = f.n < sizeof file ? f.n : sizeof file;
		if (n)
			memcpy(file, f.p, n);
	} else {
		n = make_file(&f, file, slot);
	}
	if (is_lock) {
		write_file(dir, LOCKFILE_NAME, file, n);
		lock(dir);
		return;
	}
	write_file(dir, "journal", file, how & 4 ? 0 : n);
	write_file(dir, "current", file, how & 8 ? n : 0);
	journal(dir);
}
