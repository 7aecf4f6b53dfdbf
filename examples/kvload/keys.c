#include "keys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNREADABLE UINT64_MAX

struct keys *keys_new(const char *prefix, unsigned count, size_t value_size)
{
	struct keys *k = calloc(1, sizeof(*k));

	if (k == NULL)
		return NULL;
	k->key = calloc(count, sizeof(*k->key));
	if (k->key == NULL) {
		free(k);
		return NULL;
	}
	snprintf(k->prefix, sizeof(k->prefix), "%s", prefix);
	k->count = count;
	k->value_size = value_size;
	return k;
}

struct keys *keys_free(struct keys *k)
{
	if (k != NULL)
		free(k->key);
	free(k);
	return NULL;
}

size_t keys_name(const struct keys *k, unsigned i, char *buf)
{
	return snprintf(buf, KEYS_MAX_NAME, "%s:%u", k->prefix, i);
}

void keys_value(const struct keys *k, unsigned i, uint64_t seq, char *buf)
{
	char head[KEYS_MIN_VALUE];
	size_t n = snprintf(head, sizeof(head), "k%u s%" PRIu64 " ", i, seq);
	uint64_t x = (seq << 20 | i) + 1;

	memcpy(buf, head, n);
	/* The rest depends on key and number too: a torn or mixed value shows. */
	for (; n < k->value_size; n++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[n] = 'a' + (x >> 32) % 26;
	}
}

uint64_t keys_begin(struct keys *k, unsigned i)
{
	struct key *key = &k->key[i];

	key->next = key->counter ? key->acked + 1 : key->next + 1;
	return key->next;
}

void keys_acked(struct keys *k, unsigned i, uint64_t seq, uint64_t now_us)
{
	k->key[i].acked = seq;
	k->key[i].acked_us = now_us;
	k->key[i].bad = false;
}

void keys_unknown(struct keys *k, unsigned i, uint64_t seq, bool late)
{
	k->key[i].unknown = seq;
	k->key[i].late = late;
}

static uint64_t read_number(const char *s, size_t len)
{
	uint64_t n = 0;
	size_t i;

	if (len == 0 || len > 18)
		return UNREADABLE;
	for (i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return UNREADABLE;
		n = n * 10 + (s[i] - '0');
	}
	return n;
}

/* Which write does a value show? 0: none was applied yet. */
static uint64_t shown(const struct keys *k, unsigned i, const struct resp *reply)
{
	char head[32];
	const char *number, *end;
	size_t n;
	uint64_t seq;
	char *same;

	if (reply->type == RESP_NIL)
		return 0;
	if (reply->type != RESP_BULK)
		return UNREADABLE;
	if (k->key[i].counter)
		return read_number(reply->text, reply->len);
	n = snprintf(head, sizeof(head), "k%u s", i);
	if (reply->len != k->value_size || memcmp(reply->text, head, n) != 0)
		return UNREADABLE;
	number = reply->text + n;
	end = memchr(number, ' ', reply->len - n);
	seq = end != NULL ? read_number(number, end - number) : UNREADABLE;
	same = seq != UNREADABLE ? malloc(k->value_size) : NULL;
	if (same == NULL)
		return UNREADABLE;
	keys_value(k, i, seq, same);
	if (memcmp(same, reply->text, k->value_size) != 0)
		seq = UNREADABLE;
	free(same);
	return seq;
}

/* Not what was acknowledged: says so, and goes on from what the server has. */
static enum verdict disagree(struct keys *k, unsigned i, uint64_t seq, uint64_t now_us,
                             char *why, size_t why_size)
{
	struct key *key = &k->key[i];
	uint64_t ago = now_us > key->acked_us ? now_us - key->acked_us : 0;
	enum verdict verdict = seq < key->acked ? KEY_LOST : KEY_WRONG;

	if (seq == UNREADABLE) {
		if (key->bad)
			return KEY_GOOD; /* counted already */
		key->bad = true;
		snprintf(why, why_size, "key %s:%u: a value that nobody wrote", k->prefix, i);
		return KEY_WRONG;
	}
	snprintf(why, why_size, "key %s:%u: write %" PRIu64 " was acknowledged %" PRIu64
	         " us ago, now it shows write %" PRIu64, k->prefix, i, key->acked, ago, seq);
	key->acked = seq;
	key->next = key->next > seq ? key->next : seq;
	key->unknown = 0;
	key->late = false;
	return verdict;
}

enum verdict keys_check(struct keys *k, unsigned i, const struct resp *reply, uint64_t now_us,
                        char *why, size_t why_size)
{
	struct key *key = &k->key[i];
	uint64_t seq = shown(k, i, reply);

	if (key->unknown != 0 && seq == key->unknown) {
		keys_acked(k, i, seq, now_us);
		key->unknown = 0;
		key->late = false;
		return KEY_APPLIED;
	}
	if (seq != key->acked)
		return disagree(k, i, seq, now_us, why, why_size);
	if (key->unknown == 0 || key->late)
		return KEY_GOOD;
	key->unknown = 0;
	return KEY_NOT_APPLIED;
}

enum verdict keys_check_incr(struct keys *k, unsigned i, uint64_t seq, const struct resp *reply,
                             uint64_t now_us, char *why, size_t why_size)
{
	uint64_t now_has;

	now_has = reply->type == RESP_INTEGER && reply->integer > 0 ? (uint64_t)reply->integer
	                                                            : UNREADABLE;
	if (now_has == seq) {
		keys_acked(k, i, seq, now_us);
		return KEY_GOOD;
	}
	/* One less than it says is what the server had before this INCR. */
	if (now_has == UNREADABLE)
		return disagree(k, i, UNREADABLE, now_us, why, why_size);
	if (disagree(k, i, now_has - 1, now_us, why, why_size) == KEY_LOST) {
		keys_acked(k, i, now_has, now_us);
		return KEY_LOST;
	}
	keys_acked(k, i, now_has, now_us);
	return KEY_WRONG;
}

unsigned keys_open(const struct keys *k)
{
	unsigned i, n = 0;

	for (i = 0; i < k->count; i++)
		n += k->key[i].unknown != 0;
	return n;
}

int keys_save(const struct keys *k, const char *path)
{
	char part[4096];
	const struct key *key;
	FILE *f;
	int failed;

	if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	f = fopen(part, "we");
	if (f == NULL)
		return -errno;
	fprintf(f, "kvload-state 1 %s %u %zu\n", k->prefix, k->count, k->value_size);
	for (key = k->key; key < k->key + k->count; key++)
		fprintf(f, "%c %" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n", key->counter ? 'c' : 's',
		        key->acked, key->next, key->unknown, key->late);
	failed = ferror(f);
	if (fclose(f) != 0 || failed || rename(part, path) < 0) {
		failed = errno != 0 ? -errno : -EIO;
		unlink(part);
		return failed;
	}
	return 0;
}

static int load_keys(FILE *f, struct keys *k)
{
	struct key *key;
	char kind;
	int late;

	for (key = k->key; key < k->key + k->count; key++) {
		if (fscanf(f, " %c %" SCNu64 " %" SCNu64 " %" SCNu64 " %d", &kind, &key->acked,
		           &key->next, &key->unknown, &late) != 5 || (kind != 'c' && kind != 's'))
			return -EPROTO;
		key->counter = kind == 'c';
		key->late = late != 0;
	}
	return 0;
}

int keys_load(const char *path, struct keys **ret)
{
	struct keys *k = NULL;
	char prefix[64];
	unsigned count;
	size_t value_size;
	FILE *f = fopen(path, "re");
	int r = -EPROTO;

	if (f == NULL)
		return -errno;
	if (fscanf(f, "kvload-state 1 %63s %u %zu", prefix, &count, &value_size) == 3 &&
	    count > 0 && value_size >= KEYS_MIN_VALUE && value_size <= KEYS_MAX_VALUE) {
		k = keys_new(prefix, count, value_size);
		r = k == NULL ? -ENOMEM : load_keys(f, k);
	}
	fclose(f);
	if (r < 0)
		keys_free(k);
	else
		*ret = k;
	return r;
}
