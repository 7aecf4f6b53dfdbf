#include "cmd.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static struct entry *find(struct call *k, uint32_t i)
{
	return store_find(k->st, arg_p(k, i), arg_n(k, i), k->now);
}

static void reply_value(struct call *k, const struct entry *e)
{
	if (e)
		reply_bulk(k->out, entry_value(e), e->vlen);
	else
		reply_nil(k->out);
}

void cmd_get(struct call *k)
{
	reply_value(k, find(k, 1));
}

/* -- SET ----------------------------------------------------------------- */

/* Now and an expiry, in ms from now: 0 and the error replied if it makes no sense. */
static uint64_t when(struct call *k, long long v, long long unit, const char *name)
{
	if (v > (LLONG_MAX - (long long)k->now) / unit) {
		reply_error(k->out, "ERR invalid expire time in '%s' command", name);
		return 0;
	}
	return k->now + (uint64_t)(v * unit);
}

struct set_options {
	int nx, xx;
	uint64_t expires;
};

static int take_set_option(struct call *k, uint32_t *i, struct set_options *o)
{
	long long v, unit = arg_is(k, *i, "EX") ? 1000 : arg_is(k, *i, "PX") ? 1 : 0;

	if (unit && !o->expires && *i + 1 < k->argc) {
		if (!arg_ll(k, ++*i, &v))
			return 0;
		if (v <= 0) {
			reply_error(k->out, "ERR invalid expire time in 'set' command");
			return 0;
		}
		o->expires = when(k, v, unit, "set");
		return o->expires != 0;
	}
	if (arg_is(k, *i, "NX") && !o->xx)
		return o->nx = 1;
	if (arg_is(k, *i, "XX") && !o->nx)
		return o->xx = 1;
	reply_error(k->out, "ERR syntax error");
	return 0;
}

void cmd_set(struct call *k)
{
	struct set_options o = { 0 };
	struct entry *e;
	uint32_t i;
	int r;

	for (i = 3; i < k->argc; i++)
		if (!take_set_option(k, &i, &o))
			return;
	if (o.nx || o.xx) {
		e = find(k, 1);
		if (o.nx ? e != NULL : e == NULL) {
			reply_nil(k->out);
			return;
		}
	}
	r = store_set(k->st, arg_p(k, 1), arg_n(k, 1), arg_p(k, 2), arg_n(k, 2), o.expires);
	if (r < 0)
		reply_refused(k, r);
	else
		reply_text(k->out, "OK");
}

void cmd_mset(struct call *k)
{
	uint32_t i;
	int r;

	if (k->argc % 2 == 0) {
		reply_error(k->out, "ERR wrong number of arguments for 'mset' command");
		return;
	}
	/* all or nothing: a refusal comes before the first, a failed write undoes all */
	for (i = 1; i < k->argc; i += 2) {
		r = store_set(k->st, arg_p(k, i), arg_n(k, i), arg_p(k, i + 1), arg_n(k, i + 1), 0);
		if (r < 0) {
			reply_refused(k, r);
			return;
		}
	}
	reply_text(k->out, "OK");
}

#define MAX_REPLY (512u << 20)

void cmd_mget(struct call *k)
{
	const struct entry *e;
	uint64_t total = 0;
	uint32_t i;

	for (i = 1; i < k->argc; i++)
		total += (e = find(k, i)) != NULL ? e->vlen : 0;
	if (total > MAX_REPLY) {
		reply_error(k->out, "ERR the reply would be over the limit of %u bytes", MAX_REPLY);
		return;
	}
	reply_array(k->out, k->argc - 1);
	for (i = 1; i < k->argc; i++)
		reply_value(k, find(k, i));
}

/* -- deleting ------------------------------------------------------------ */

void cmd_getdel(struct call *k)
{
	struct entry *e = find(k, 1);
	int r = e ? store_writable(k->st) : 0;

	if (r < 0) {
		reply_refused(k, r);
		return;
	}
	reply_value(k, e);
	if (e)
		store_delete(k->st, e, 0);
}

void cmd_del(struct call *k)
{
	struct entry *e;
	long long n = 0;
	uint32_t i;
	int r;

	for (i = 1; i < k->argc; i++) {
		e = find(k, i);
		r = e ? store_delete(k->st, e, 0) : 0;
		if (r < 0) {
			reply_refused(k, r);
			return;
		}
		n += e != NULL;
	}
	reply_int(k->out, n);
}

void cmd_exists(struct call *k)
{
	long long n = 0;
	uint32_t i;

	for (i = 1; i < k->argc; i++)
		n += find(k, i) != NULL;
	reply_int(k->out, n);
}

/* -- counting ------------------------------------------------------------ */

static void add(struct call *k, long long by)
{
	struct entry *e = find(k, 1);
	long long v = 0;
	char text[24];
	int r, n;

	if (e && !parse_ll(entry_value(e), e->vlen, &v)) {
		reply_error(k->out, "ERR value is not an integer or out of range");
		return;
	}
	if (__builtin_add_overflow(v, by, &v)) {
		reply_error(k->out, "ERR increment or decrement would overflow");
		return;
	}
	n = snprintf(text, sizeof(text), "%lld", v);
	r = store_set(k->st, arg_p(k, 1), arg_n(k, 1), text, (uint32_t)n, e ? e->expires : 0);
	if (r < 0)
		reply_refused(k, r);
	else
		reply_int(k->out, v);
}

void cmd_incr(struct call *k)
{
	add(k, 1);
}

void cmd_decr(struct call *k)
{
	add(k, -1);
}

void cmd_incrby(struct call *k)
{
	long long by;

	if (arg_ll(k, 2, &by))
		add(k, by);
}

void cmd_decrby(struct call *k)
{
	long long by;

	if (!arg_ll(k, 2, &by))
		return;
	if (by == LLONG_MIN)
		reply_error(k->out, "ERR decrement would overflow");
	else
		add(k, -by);
}

/* -- expiry -------------------------------------------------------------- */

static void expire(struct call *k, long long unit, const char *name)
{
	struct entry *e = find(k, 1);
	uint64_t at = 1;
	long long v;
	int r;

	if (!arg_ll(k, 2, &v))
		return;
	if (v > 0 && !(at = when(k, v, unit, name)))
		return;
	if (!e) {
		reply_int(k->out, 0);
		return;
	}
	r = v > 0 ? store_expire(k->st, e, at) : store_delete(k->st, e, 0);
	if (r < 0)
		reply_refused(k, r);
	else
		reply_int(k->out, 1);
}

void cmd_expire(struct call *k)
{
	expire(k, 1000, "expire");
}

void cmd_pexpire(struct call *k)
{
	expire(k, 1, "pexpire");
}

static void ttl(struct call *k, uint64_t unit)
{
	struct entry *e = find(k, 1);

	if (!e)
		reply_int(k->out, -2);
	else if (!e->expires)
		reply_int(k->out, -1);
	else
		reply_int(k->out, (long long)((e->expires - k->now + unit / 2) / unit));
}

void cmd_ttl(struct call *k)
{
	ttl(k, 1000);
}

void cmd_pttl(struct call *k)
{
	ttl(k, 1);
}

void cmd_persist(struct call *k)
{
	struct entry *e = find(k, 1);
	int r;

	if (!e || !e->expires) {
		reply_int(k->out, 0);
		return;
	}
	r = store_expire(k->st, e, 0);
	if (r < 0)
		reply_refused(k, r);
	else
		reply_int(k->out, 1);
}

/* -- all of them --------------------------------------------------------- */

/* [...] at pat: 1 if c is in it; *used: bytes of the class. */
static int in_class(const char *pat, size_t pn, char c, size_t *used)
{
	size_t i = 1, not = pn > 1 && pat[1] == '^';
	int found = 0;

	for (i += not; i < pn && pat[i] != ']'; i++) {
		if (pat[i] == '\\' && i + 1 < pn)
			i++;
		if (i + 2 < pn && pat[i + 1] == '-' && pat[i + 2] != ']') {
			found |= (unsigned char)pat[i] <= (unsigned char)c &&
				 (unsigned char)c <= (unsigned char)pat[i + 2];
			i += 2;
		} else {
			found |= pat[i] == c;
		}
	}
	*used = i < pn ? i + 1 : pn;
	return found != (int)not;
}

/* One step of the pattern that is not a star: bytes of it, 0: does not match. */
static size_t match_one(const char *pat, size_t pn, char c)
{
	size_t used = 1;

	if (pat[0] == '?')
		return 1;
	if (pat[0] == '[')
		return in_class(pat, pn, c, &used) ? used : 0;
	if (pat[0] == '\\' && pn > 1)
		return pat[1] == c ? 2 : 0;
	return pat[0] == c ? 1 : 0;
}

int glob_match(const char *pat, size_t pn, const char *s, size_t sn)
{
	size_t p = 0, i = 0, star = pn + 1, mark = 0, used;

	/* the last star alone is tried again: no pattern costs more than pn x sn */
	while (i < sn) {
		if (p < pn && pat[p] == '*') {
			star = p++;
			mark = i;
		} else if (p < pn && (used = match_one(pat + p, pn - p, s[i])) != 0) {
			p += used;
			i++;
		} else if (star <= pn) {
			p = star + 1;
			i = ++mark;
		} else {
			return 0;
		}
	}
	while (p < pn && pat[p] == '*')
		p++;
	return p == pn;
}

struct key_walk {
	struct call *k;
	struct buf found;
	size_t n;
};

static int visit_key(void *arg, const struct entry *e)
{
	struct key_walk *w = arg;

	if ((e->expires && e->expires <= w->k->now) ||
	    !glob_match(arg_p(w->k, 1), arg_n(w->k, 1), e->data, e->klen))
		return 0;
	reply_bulk(&w->found, e->data, e->klen);
	w->n++;
	return 0;
}

void cmd_keys(struct call *k)
{
	struct key_walk w = { .k = k };
	unsigned i;

	for (i = 0; i < k->st->shards; i++)
		db_each(&k->st->shard[i].db, visit_key, &w);
	reply_array(k->out, w.n);
	buf_add(k->out, w.found.p, w.found.len);
	buf_free(&w.found);
}

void cmd_dbsize(struct call *k)
{
	reply_int(k->out, (long long)store_count(k->st));
}
