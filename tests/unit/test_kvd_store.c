/*
 * kvd's store: a writer in one handle, a reader in another, and the damage that
 * a reader must notice. What a handoff relies on is here without a handoff.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compact.h"
#include "store.h"
#include "suite.h"

#define SHARDS 4

static char dir[64];
static struct store w, r;

static void make_dir(void)
{
	w.dir = r.dir = w.reader_lock = r.reader_lock = -1;
	strcpy(dir, "/tmp/kvd-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
	char command[128];

	store_close(&w);
	store_close(&r);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static void open_writer(struct store *st, uint64_t epoch)
{
	ck_assert_int_eq(store_open(st, dir, SHARDS), 0);
	ck_assert_msg(store_load(st) == 0, "%s", st->error);
	ck_assert_msg(store_prepare(st, epoch, 0) == 0, "%s", st->error);
	ck_assert_msg(store_begin(st) == 0, "%s", st->error);
}

static int put(struct store *st, const char *key, const char *val)
{
	return store_set(st, key, (uint32_t)strlen(key), val, (uint32_t)strlen(val), 0);
}

static struct entry *get(struct store *st, const char *key)
{
	return store_find(st, key, (uint32_t)strlen(key), 1000);
}

static void fill(struct store *st, int from, int to)
{
	char key[32], val[64];
	int i;

	for (i = from; i < to; i++) {
		snprintf(key, sizeof(key), "key:%d", i);
		snprintf(val, sizeof(val), "value of %d, %d times", i, i % 7);
		ck_assert_int_eq(put(st, key, val), 0);
		if (i % 10 == 9)
			ck_assert_int_eq(store_commit(st), 0);
	}
	ck_assert_int_eq(store_commit(st), 0);
}

static int same(struct store *a, struct store *b)
{
	uint64_t ra[MAX_SHARDS], rb[MAX_SHARDS];
	unsigned char fa[32], fb[32];

	store_state(a, ra, fa);
	store_state(b, rb, fb);
	return a->shards == b->shards && !memcmp(ra, rb, a->shards * sizeof(*ra)) &&
	       !memcmp(fa, fb, sizeof(fa));
}

/* The log with the most records, by its path. */
static unsigned busiest(struct store *st, char path[128])
{
	char name[SEGMENT_NAME];
	unsigned i, best = 0;

	for (i = 1; i < st->shards; i++)
		if (st->shard[i].off > st->shard[best].off)
			best = i;
	segment_name(name, best, st->shard[best].seg, SEGMENT_LOG);
	snprintf(path, 128, "%s/%s", dir, name);
	return best;
}

static void flip(const char *path, long at)
{
	int fd = open(path, O_RDWR);
	unsigned char c;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &c, 1, at), 1);
	c ^= 0x10;
	ck_assert_int_eq(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static int64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : (int64_t)st.st_size;
}

/* ------------------------------------------------------------------------- */

START_TEST(hashes)
{
	const struct digest key = { 0x0706050403020100u, 0x0f0e0d0c0b0a0908u };
	unsigned char in[15];
	struct digest d;
	unsigned i;

	for (i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)i;
	/* the vectors of their authors */
	ck_assert(siphash24(key, in, 15) == 0xa129ca6149be45e5u);
	d = siphash24_128(key, in, 0);
	ck_assert(d.a == 0xe6a825ba047f81a3u && d.b == 0x930255c71472f66du);
	ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283u);
	ck_assert_uint_eq(crc32c("", 0), 0);
}
END_TEST

START_TEST(reader_follows_writer)
{
	int i;

	open_writer(&w, 1);
	fill(&w, 0, 500);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r));
	for (i = 1; i < 20; i++) {
		fill(&w, 500 * i, 500 * i + 100);
		ck_assert_int_eq(store_follow(&r), 100);
		ck_assert(same(&w, &r));
	}
	ck_assert_int_eq(store_follow(&r), 0);
	ck_assert_int_eq(store_delete(&w, get(&w, "key:3"), 0), 0);
	ck_assert_int_eq(store_expire(&w, get(&w, "key:4"), 2000), 0);
	ck_assert_int_eq(store_commit(&w), 0);
	ck_assert_int_eq(store_follow(&r), 2);
	ck_assert(same(&w, &r));
	ck_assert_ptr_null(get(&r, "key:3"));
	ck_assert_uint_eq(get(&r, "key:4")->expires, 2000);
	ck_assert_ptr_null(store_find(&r, "key:4", 5, 2000));
	ck_assert_int_eq(put(&r, "a", "b"), -EROFS); /* a reader writes nothing */
}
END_TEST

START_TEST(reader_follows_through_segments)
{
	open_writer(&w, 1);
	w.segment_size = 2000;
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	w.fsync = FSYNC_ALWAYS;
	fill(&w, 0, 2000);
	ck_assert_uint_gt(w.shard[0].seg, 3);
	ck_assert_int_eq(store_follow(&r), 2000);
	ck_assert(same(&w, &r));
	fill(&w, 2000, 4000);
	ck_assert_int_eq(store_follow(&r), 2000);
	ck_assert(same(&w, &r));
}
END_TEST

/* One handle after the other, as in a handoff: the epochs grow. */
START_TEST(handing_over)
{
	struct store n;
	int i;

	open_writer(&w, 1);
	fill(&w, 0, 100);
	for (i = 0; i < 10; i++) {
		ck_assert_int_eq(store_open(&n, dir, 1), 0);
		ck_assert_int_eq(store_load(&n), 0);
		fill(&w, 100 + i, 200);
		ck_assert_int_eq(store_seal(&w), 0);
		ck_assert_int_ge(store_follow(&n), 1);
		ck_assert(same(&w, &n));
		ck_assert_int_eq(store_prepare(&n, (uint64_t)i + 2, 1), 0);
		ck_assert(!store_dirty(&n)); /* what was sealed needs no second sync */
		ck_assert_int_eq(store_begin(&n), 0);
		store_close(&w);
		w = n;
		fill(&w, 0, 50);
	}
}
END_TEST

START_TEST(reopen_after_abort)
{
	open_writer(&w, 1);
	fill(&w, 0, 100);
	ck_assert_int_eq(store_seal(&w), 0);
	ck_assert_int_eq(put(&w, "x", "y"), -EROFS);
	/* the successor wrote nothing */
	ck_assert_int_eq(store_reopen(&w, 2), 0);
	ck_assert_int_eq(store_begin(&w), 0);
	fill(&w, 100, 200);
	ck_assert_int_eq(store_seal(&w), 0);
	/* this one served for a moment, then died: what it wrote counts */
	open_writer(&r, 3);
	fill(&r, 200, 300);
	store_seal(&r);
	ck_assert_int_eq(store_reopen(&w, 4), 0);
	ck_assert_int_eq(store_begin(&w), 0);
	ck_assert(same(&w, &r));
	ck_assert_ptr_nonnull(get(&w, "key:299"));
	fill(&w, 300, 400);
}
END_TEST

/* Every byte of a log in turn: a reader that read it does not agree with the writer. */
START_TEST(flipped_byte)
{
	char path[128];
	int64_t at, size;

	open_writer(&w, 1);
	fill(&w, 0, 20);
	busiest(&w, path);
	size = size_of(path);
	ck_assert_int_gt(size, SEGMENT_HEAD + 200);
	for (at = 0; at < size; at++) {
		flip(path, at);
		ck_assert_int_eq(store_open(&r, dir, 1), 0);
		ck_assert_msg(store_load(&r) < 0 || store_follow(&r) < 0 || !same(&w, &r),
			      "byte %d of %s was flipped and nobody noticed", (int)at, path);
		store_close(&r);
		flip(path, at);
	}
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r));
}
END_TEST

/* Damage in the middle is not taken for a torn tail: nothing is cut off. */
START_TEST(damage_is_no_torn_tail)
{
	char path[128];
	int64_t size;

	open_writer(&w, 1);
	fill(&w, 0, 100);
	busiest(&w, path);
	size = size_of(path);
	flip(path, SEGMENT_HEAD + 40);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert_int_eq(store_prepare(&r, 2, 0), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(r.error, "is damaged at byte 64"));
	ck_assert_int_eq(size_of(path), size);
}
END_TEST

/* Every length that a crash may leave: the whole records before it are there. */
START_TEST(torn_tail)
{
	char path[128];
	unsigned shard;
	int64_t size, cut;
	uint64_t rev;

	open_writer(&w, 1);
	fill(&w, 0, 20);
	shard = busiest(&w, path);
	rev = w.shard[shard].rev;
	size = size_of(path);
	store_close(&w);
	for (cut = 1; cut < 40; cut++) {
		ck_assert_int_eq(truncate(path, size - cut), 0);
		ck_assert_int_eq(store_open(&r, dir, 1), 0);
		ck_assert_int_eq(store_load(&r), 0);
		ck_assert_uint_eq(r.shard[shard].rev, rev - 1);
		ck_assert_uint_gt(r.shard[shard].left, 0);
		ck_assert_int_eq(store_prepare(&r, 2, 0), 0);
		ck_assert_int_eq(size_of(path), size - cut); /* nothing is cut before begin */
		store_close(&r);
	}
	open_writer(&w, 2);
	ck_assert_int_eq(size_of(path), (int64_t)w.shard[shard].off);
	fill(&w, 20, 40);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r));
}
END_TEST

/* A client cannot make a torn tail look like damage: its bytes lack the salt. */
START_TEST(record_in_a_value)
{
	struct buf forged = { 0 };
	const struct record rec = { RECORD_SET, 1, 0, "k", "v", 1, 1 };
	char path[128];
	unsigned shard;

	open_writer(&w, 1);
	record_encode(&forged, &rec, 0);
	buf_add(&forged, "rest", 4);
	ck_assert_int_eq(store_set(&w, "a", 1, forged.p, (uint32_t)forged.len, 0), 0);
	ck_assert_int_eq(store_commit(&w), 0);
	shard = busiest(&w, path);
	store_close(&w);
	ck_assert_int_eq(truncate(path, size_of(path) - 2), 0);
	open_writer(&w, 2);
	ck_assert_uint_eq(w.shard[shard].rev, 0);
	buf_free(&forged);
}
END_TEST

START_TEST(full_disk)
{
	struct rlimit rl, old;
	char *big = malloc(100000);
	char path[128];
	int64_t size;

	open_writer(&w, 1);
	fill(&w, 0, 100);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	/* a file may not grow beyond: write(2) is cut short, then fails, as on a full disk */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	rl = old;
	rl.rlim_cur = 50000;
	setrlimit(RLIMIT_FSIZE, &rl);
	memset(big, 'x', 100000);
	busiest(&w, path);
	size = size_of(path);
	ck_assert_int_eq(put(&w, "key:1", "new"), 0);
	ck_assert_int_eq(put(&w, "fresh", "new"), 0);
	ck_assert_int_eq(store_delete(&w, get(&w, "key:2"), 0), 0);
	ck_assert_int_eq(store_expire(&w, get(&w, "key:3"), 5000), 0);
	ck_assert_int_eq(store_set(&w, "key:4", 5, big, 100000, 0), 0);
	ck_assert_int_eq(store_commit(&w), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	/* all of the turn is undone, in memory and in the files */
	ck_assert_int_eq(size_of(path), size);
	ck_assert_int_eq(memcmp(entry_value(get(&w, "key:1")), "value of 1", 10), 0);
	ck_assert_ptr_null(get(&w, "fresh"));
	ck_assert_ptr_nonnull(get(&w, "key:2"));
	ck_assert_uint_eq(get(&w, "key:3")->expires, 0);
	ck_assert_uint_lt(get(&w, "key:4")->vlen, 100);
	ck_assert(same(&w, &r));
	fill(&w, 100, 200);
	ck_assert_int_eq(store_follow(&r), 100);
	ck_assert(same(&w, &r));
	free(big);
}
END_TEST

START_TEST(epoch_fence)
{
	struct store old;

	open_writer(&old, 5);
	fill(&old, 0, 50);
	open_writer(&w, 6);
	fill(&w, 50, 100);
	/* woken from a long sleep, it believes that it is the writer */
	fill(&w, 100, 101);
	ck_assert_int_eq(put(&old, "key:100", "stale"), 0);
	ck_assert_int_eq(store_commit(&old), -ESTALE);
	ck_assert_ptr_nonnull(strstr(old.error, "another process writes here"));
	store_close(&old);
	/* and it cannot become the writer again with its old epoch */
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r));
	ck_assert_int_eq(store_prepare(&r, 5, 0), -ESTALE);
	ck_assert_ptr_nonnull(strstr(r.error, "epoch 6"));
	ck_assert_int_eq(store_prepare(&r, 7, 0), 0);
}
END_TEST

static int compact_now(struct store *st, unsigned shard)
{
	struct compaction c;
	int wake = eventfd(0, EFD_CLOEXEC), result;

	compact_init(&c);
	compact_open(&c);
	result = compact_start(&c, st, shard, wake);
	if (!result) {
		ck_assert_int_eq(compact_reap(&c, st, 1), 1);
		result = c.result;
	}
	close(wake);
	return result;
}

START_TEST(compaction)
{
	uint64_t before;
	char path[128];
	unsigned i, n;

	open_writer(&w, 1);
	for (n = 0; n < 5; n++) {
		fill(&w, 0, 400);
		ck_assert_int_eq(store_expire(&w, get(&w, "key:7"), 99999), 0);
		ck_assert_int_eq(store_delete(&w, get(&w, "key:8"), 0), 0);
		ck_assert_int_eq(store_commit(&w), 0);
		before = w.shard[1].stored;
		for (i = 0; i < SHARDS; i++)
			ck_assert_int_eq(compact_now(&w, i), 0);
		if (n)
			ck_assert_uint_lt(w.shard[1].stored, before);
		ck_assert_int_eq(store_open(&r, dir, 1), 0);
		ck_assert_msg(store_load(&r) == 0, "%s", r.error);
		ck_assert(same(&w, &r)); /* revision and chain go on, they do not begin anew */
		ck_assert_uint_eq(store_count(&r), 399);
		ck_assert_uint_eq(get(&r, "key:7")->expires, 99999);
		ck_assert_uint_eq(r.shard[1].stored, w.shard[1].stored);
		store_close(&r);
	}
	/* one byte of a snapshot */
	snprintf(path, sizeof(path), "%s/shard-1-%06d.snap", dir, (int)w.m.shard[1].first);
	flip(path, size_of(path) / 2);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), -EBADMSG);
}
END_TEST

START_TEST(reader_keeps_compaction_away)
{
	struct compaction c;
	int wake = eventfd(0, EFD_CLOEXEC);

	open_writer(&w, 1);
	fill(&w, 0, 400);
	compact_init(&c);
	compact_open(&c);
	/* begun before the reader came: it may not publish */
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	pthread_mutex_lock(&c.gate);
	ck_assert_int_eq(compact_start(&c, &w, 0, wake), 0);
	ck_assert_int_eq(store_load(&r), 0);
	pthread_mutex_unlock(&c.gate);
	ck_assert_int_eq(compact_reap(&c, &w, 1), 1);
	ck_assert_int_eq(c.result, -EWOULDBLOCK);
	fill(&w, 400, 500);
	ck_assert_int_ge(store_follow(&r), 100);
	ck_assert(same(&w, &r));
	/* nor begin, while it reads */
	ck_assert_int_eq(compact_start(&c, &w, 0, wake), -EWOULDBLOCK);
	store_close(&r);
	ck_assert_int_eq(compact_start(&c, &w, 0, wake), 0);
	compact_close(&c); /* a drain: nothing is published any more */
	ck_assert_int_eq(compact_reap(&c, &w, 1), 1);
	ck_assert(c.result == -ECANCELED || c.result == 0);
	close(wake);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r));
}
END_TEST

START_TEST(lost_manifest)
{
	char path[128];

	open_writer(&w, 1);
	fill(&w, 0, 10);
	snprintf(path, sizeof(path), "%s/MANIFEST", dir);
	flip(path, 30);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), -EBADMSG);
	store_close(&r);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), -EBADMSG); /* no empty store */
	ck_assert_ptr_nonnull(strstr(r.error, "no MANIFEST"));
}
END_TEST

START_TEST(expiry)
{
	open_writer(&w, 1);
	ck_assert_int_eq(store_set(&w, "a", 1, "1", 1, 500), 0);
	ck_assert_int_eq(store_set(&w, "b", 1, "2", 1, 300), 0);
	ck_assert_int_eq(store_set(&w, "c", 1, "3", 1, 0), 0);
	ck_assert_int_eq(store_commit(&w), 0);
	ck_assert_uint_eq(store_next_expiry(&w), 300);
	ck_assert_int_eq(store_expire_due(&w, 299, 10), 0);
	ck_assert_int_eq(store_expire_due(&w, 300, 10), 1);
	ck_assert_int_eq(store_commit(&w), 0);
	ck_assert_uint_eq(store_next_expiry(&w), 500);
	ck_assert_int_eq(store_open(&r, dir, 1), 0);
	ck_assert_int_eq(store_load(&r), 0);
	ck_assert(same(&w, &r)); /* a logged record: the reader needs no clock */
	ck_assert_uint_eq(store_count(&r), 2);
}
END_TEST

static int sum_entry(void *arg, const struct entry *e)
{
	*(uint64_t *)arg += e->klen + e->vlen;
	return 0;
}

/* The table against a model, with growth and expiry in between. */
START_TEST(table)
{
	static unsigned char there[5000];
	struct db db = { 0 };
	struct entry *e;
	char key[16];
	uint64_t sum = 0, count = 0;
	unsigned i, k;

	srand(7);
	memset(there, 0, sizeof(there));
	for (i = 0; i < 100000; i++) {
		k = (unsigned)rand() % 5000;
		snprintf(key, sizeof(key), "%u", k);
		e = db_find(&db, key, (uint32_t)strlen(key));
		ck_assert_int_eq(e != NULL, there[k]);
		if (rand() % 3) {
			free(db_put(&db, entry_new(key, (uint32_t)strlen(key), "v", 1,
						   rand() % 2 ? (uint64_t)rand() : 0)));
			there[k] = 1;
		} else if (e) {
			db_remove(&db, e);
			free(e);
			there[k] = 0;
		}
	}
	for (i = 0; i < 5000; i++)
		count += there[i];
	ck_assert_uint_eq(db.count, count);
	db_each(&db, sum_entry, &sum);
	ck_assert_uint_eq(db.bytes, sum);
	for (sum = 0; (e = db_first_expiry(&db)) != NULL; free(e)) {
		ck_assert_uint_ge(e->expires, sum);
		sum = e->expires;
		db_remove(&db, e);
	}
	db_free(&db);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("kvd_store");
	TCase *t = tcase_create("all"), *p = tcase_create("pure");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, make_dir, remove_dir);
	tcase_add_test(t, reader_follows_writer);
	tcase_add_test(t, reader_follows_through_segments);
	tcase_add_test(t, handing_over);
	tcase_add_test(t, reopen_after_abort);
	tcase_add_test(t, flipped_byte);
	tcase_add_test(t, damage_is_no_torn_tail);
	tcase_add_test(t, torn_tail);
	tcase_add_test(t, record_in_a_value);
	tcase_add_test(t, full_disk);
	tcase_add_test(t, epoch_fence);
	tcase_add_test(t, compaction);
	tcase_add_test(t, reader_keeps_compaction_away);
	tcase_add_test(t, lost_manifest);
	tcase_add_test(t, expiry);
	suite_add_tcase(s, t);
	tcase_set_timeout(p, 120);
	tcase_add_test(p, hashes);
	tcase_add_test(p, table);
	suite_add_tcase(s, p);
	return suite_run(s);
}
