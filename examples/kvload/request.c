#include "request.h"

#include <stdio.h>
#include <string.h>

#define TRIES        8
#define READ_PERCENT 40
#define SAY_AT_MOST  20

uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545F4914F6CDD1DULL;
}

static unsigned random_below(uint64_t *state, unsigned n)
{
	return (random_next(state) >> 32) % n;
}

void complain(const struct stats *s, const char *what, const char *detail)
{
	static unsigned said;

	if (said++ < SAY_AT_MOST)
		fprintf(stderr, "kvload: %.3f s: %s: %s\n", (now_us() - s->start_us) / 1e6, what,
		        detail);
	else if (said == SAY_AT_MOST + 1)
		fprintf(stderr, "kvload: more of it is counted, not said\n");
}

struct request request_read(struct keys *k, unsigned key, uint64_t due_us)
{
	k->key[key].busy = true;
	return (struct request){ .op = OP_GET, .key = key, .due_us = due_us };
}

struct request request_pick(struct keys *k, const struct share *share, uint64_t *rng,
                            uint64_t due_us)
{
	struct request r = { .op = OP_PING, .due_us = due_us };
	unsigned try, i = 0;

	for (try = 0; share->count > 0 && try < TRIES; try++) {
		i = share->first + random_below(rng, share->count) * share->step;
		if (!k->key[i].busy)
			break;
	}
	if (share->count == 0 || try == TRIES)
		return r;
	r = request_read(k, i, due_us);
	if (k->key[i].unknown != 0 || random_below(rng, 100) < READ_PERCENT)
		return r;
	r.op = k->key[i].counter ? OP_INCR : OP_SET;
	r.seq = keys_begin(k, i);
	return r;
}

size_t request_encode(const struct keys *k, const struct request *r, char *buf)
{
	static const char *const name[] = {
		[OP_PING] = "PING", [OP_GET] = "GET", [OP_SET] = "SET", [OP_INCR] = "INCR",
	};
	char key[KEYS_MAX_NAME];
	size_t n = resp_header(buf, r->op == OP_PING ? 1 : r->op == OP_SET ? 3 : 2);

	n += resp_arg(buf + n, name[r->op], strlen(name[r->op]));
	if (r->op != OP_PING)
		n += resp_arg(buf + n, key, keys_name(k, r->key, key));
	if (r->op == OP_SET) {
		n += sprintf(buf + n, "$%zu\r\n", k->value_size);
		keys_value(k, r->key, r->seq, buf + n);
		n += k->value_size;
		n += sprintf(buf + n, "\r\n");
	}
	return n;
}

static void count_verdict(struct stats *s, enum verdict v, const char *why)
{
	s->unknown_applied += v == KEY_APPLIED;
	s->unknown_not_applied += v == KEY_NOT_APPLIED;
	s->lost_writes += v == KEY_LOST;
	s->wrong_values += v == KEY_WRONG;
	if (v == KEY_LOST || v == KEY_WRONG)
		complain(s, v == KEY_LOST ? "LOST" : "wrong", why);
}

static bool expected_type(enum op op, enum resp_type type)
{
	switch (op) {
	case OP_GET:
		return type == RESP_BULK || type == RESP_NIL;
	case OP_INCR:
		return type == RESP_INTEGER;
	default:
		return type == RESP_SIMPLE;
	}
}

bool request_reply(struct keys *k, struct request *r, const struct resp *reply, struct stats *s,
                   struct kind_stats *kind)
{
	struct request was = *r;
	uint64_t now = now_us();
	char why[200];

	if (!expected_type(r->op, reply->type)) {
		snprintf(why, sizeof(why), "%.*s", reply->type == RESP_ERROR ? (int)reply->len : 0,
		         reply->text);
		complain(s, "error reply", why);
		request_lost(k, r, true, false, kind);
		kind->error_reply++;
		return false;
	}
	r->op = OP_NONE;
	if (was.op != OP_PING)
		k->key[was.key].busy = false;
	if (was.op == OP_GET) {
		s->checked_reads++;
		count_verdict(s, keys_check(k, was.key, reply, now, why, sizeof(why)), why);
	} else if (was.op == OP_INCR) {
		s->acked_writes++;
		count_verdict(s, keys_check_incr(k, was.key, was.seq, reply, now, why,
		                                 sizeof(why)), why);
	} else if (was.op == OP_SET) {
		s->acked_writes++;
		keys_acked(k, was.key, was.seq, now);
	}
	stats_reply(s, kind, was.due_us, now);
	return true;
}

void request_lost(struct keys *k, struct request *r, bool sent, bool late,
                  struct kind_stats *kind)
{
	bool write = r->op == OP_SET || r->op == OP_INCR;

	if (r->op != OP_PING)
		k->key[r->key].busy = false;
	if (write && sent) {
		keys_unknown(k, r->key, r->seq, late);
		kind->unknown_writes++;
	} else if (sent) {
		kind->unanswered_reads++;
	}
	r->op = OP_NONE;
}
