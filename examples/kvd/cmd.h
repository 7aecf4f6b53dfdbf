/* cmd: the commands; one table in cmd.c feeds dispatch, arity and COMMAND. */
#ifndef KVD_CMD_H
#define KVD_CMD_H

#include "server.h"

struct call {
	struct conn *c;
	struct server *sv;
	struct store *st;
	struct buf *out;
	const char *buf;         /* where the arguments lie */
	const struct arg *argv;
	uint32_t argc;
	uint64_t now;            /* wall ms */
};

static inline const char *arg_p(const struct call *k, uint32_t i)
{
	return k->buf + k->argv[i].at;
}

static inline uint32_t arg_n(const struct call *k, uint32_t i)
{
	return k->argv[i].len;
}

int arg_is(const struct call *k, uint32_t i, const char *word); /* any case */
int arg_ll(const struct call *k, uint32_t i, long long *ret);   /* 0: error replied */

/* Why a change was refused, as the client is told. */
void reply_refused(struct call *k, int err);

enum command_flag { CMD_WRITE = 1, CMD_READ = 2, CMD_FAST = 4, CMD_ADMIN = 8 };

struct command {
	const char *name;
	int arity;               /* with the name; negative: at least */
	unsigned flags;
	int first, last, step;   /* which arguments are keys */
	void (*fn)(struct call *k);
};

extern const struct command commands[];
extern const unsigned commands_count;

/* cmd_keys.c */
void cmd_get(struct call *k);
void cmd_set(struct call *k);
void cmd_getdel(struct call *k);
void cmd_del(struct call *k);
void cmd_exists(struct call *k);
void cmd_incr(struct call *k);
void cmd_incrby(struct call *k);
void cmd_decr(struct call *k);
void cmd_decrby(struct call *k);
void cmd_mget(struct call *k);
void cmd_mset(struct call *k);
void cmd_expire(struct call *k);
void cmd_pexpire(struct call *k);
void cmd_ttl(struct call *k);
void cmd_pttl(struct call *k);
void cmd_persist(struct call *k);
void cmd_keys(struct call *k);
void cmd_dbsize(struct call *k);

/* cmd_server.c */
void cmd_ping(struct call *k);
void cmd_echo(struct call *k);
void cmd_select(struct call *k);
void cmd_quit(struct call *k);
void cmd_info(struct call *k);
void cmd_client(struct call *k);
void cmd_command(struct call *k);
void cmd_config(struct call *k);
void cmd_bgrewriteaof(struct call *k);

/* Does text match a pattern with * ? [a-z] [^a] and backslash? */
int glob_match(const char *pat, size_t pn, const char *s, size_t sn);

#endif
