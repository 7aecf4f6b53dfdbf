#include "cmd.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* In alphabetical order: it is searched by halves. */
const struct command commands[] = {
	{ "bgrewriteaof", 1, CMD_ADMIN, 0, 0, 0, cmd_bgrewriteaof },
	{ "client", -2, CMD_ADMIN, 0, 0, 0, cmd_client },
	{ "command", -1, CMD_READ, 0, 0, 0, cmd_command },
	{ "config", -2, CMD_ADMIN, 0, 0, 0, cmd_config },
	{ "dbsize", 1, CMD_READ | CMD_FAST, 0, 0, 0, cmd_dbsize },
	{ "decr", 2, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_decr },
	{ "decrby", 3, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_decrby },
	{ "del", -2, CMD_WRITE, 1, -1, 1, cmd_del },
	{ "echo", 2, CMD_FAST, 0, 0, 0, cmd_echo },
	{ "exists", -2, CMD_READ | CMD_FAST, 1, -1, 1, cmd_exists },
	{ "expire", 3, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_expire },
	{ "get", 2, CMD_READ | CMD_FAST, 1, 1, 1, cmd_get },
	{ "getdel", 2, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_getdel },
	{ "incr", 2, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_incr },
	{ "incrby", 3, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_incrby },
	{ "info", -1, CMD_READ, 0, 0, 0, cmd_info },
	{ "keys", 2, CMD_READ, 0, 0, 0, cmd_keys },
	{ "mget", -2, CMD_READ | CMD_FAST, 1, -1, 1, cmd_mget },
	{ "mset", -3, CMD_WRITE, 1, -1, 2, cmd_mset },
	{ "persist", 2, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_persist },
	{ "pexpire", 3, CMD_WRITE | CMD_FAST, 1, 1, 1, cmd_pexpire },
	{ "ping", -1, CMD_FAST, 0, 0, 0, cmd_ping },
	{ "pttl", 2, CMD_READ | CMD_FAST, 1, 1, 1, cmd_pttl },
	{ "quit", -1, CMD_FAST, 0, 0, 0, cmd_quit },
	{ "select", 2, CMD_FAST, 0, 0, 0, cmd_select },
	{ "set", -3, CMD_WRITE, 1, 1, 1, cmd_set },
	{ "ttl", 2, CMD_READ | CMD_FAST, 1, 1, 1, cmd_ttl },
};
const unsigned commands_count = sizeof(commands) / sizeof(commands[0]);

/* The table's names are in lower case. */
static int compare(const char *p, uint32_t n, const char *name)
{
	uint32_t i;
	int a;

	for (i = 0; i < n; i++) {
		a = p[i] >= 'A' && p[i] <= 'Z' ? p[i] + 32 : p[i];
		if (a != name[i] || !a)
			return a - name[i];
	}
	return name[n] ? -1 : 0;
}

static const struct command *find(const char *p, uint32_t n)
{
	unsigned low = 0, high = commands_count, mid;
	int r;

	while (low < high) {
		mid = (low + high) / 2;
		r = compare(p, n, commands[mid].name);
		if (!r)
			return &commands[mid];
		if (r < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

int arg_is(const struct call *k, uint32_t i, const char *word)
{
	return strlen(word) == arg_n(k, i) && !strncasecmp(word, arg_p(k, i), arg_n(k, i));
}

int arg_ll(const struct call *k, uint32_t i, long long *ret)
{
	if (parse_ll(arg_p(k, i), arg_n(k, i), ret))
		return 1;
	reply_error(k->out, "ERR value is not an integer or out of range");
	return 0;
}

void reply_refused(struct call *k, int err)
{
	if (err == -ENOSPC || err == -EDQUOT)
		reply_error(k->out, "MISCONF the write was not done: the disk is full");
	else
		reply_error(k->out, "MISCONF the write was not done: %s", strerror(-err));
}

void cmd_run(struct conn *c)
{
	struct call k = { c, c->sv, &c->sv->store, &c->out, c->in.p, c->resp.argv, c->resp.argc,
			  wall_ms() };
	const struct command *cmd = find(arg_p(&k, 0), arg_n(&k, 0));
	int shown = arg_n(&k, 0) < 64 ? (int)arg_n(&k, 0) : 64;

	c->commands++;
	c->last_wall_ms = k.now;
	c->sv->total_commands++;
	if (!cmd)
		reply_error(k.out, "ERR unknown command '%.*s'", shown, arg_p(&k, 0));
	else if (cmd->arity >= 0 ? (int)k.argc != cmd->arity : (int)k.argc < -cmd->arity)
		reply_error(k.out, "ERR wrong number of arguments for '%s' command", cmd->name);
	else
		cmd->fn(&k);
}
