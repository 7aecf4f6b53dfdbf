#include "cmd.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void cmd_ping(struct call *k)
{
	if (k->argc > 2)
		reply_error(k->out, "ERR wrong number of arguments for 'ping' command");
	else if (k->argc == 2)
		reply_bulk(k->out, arg_p(k, 1), arg_n(k, 1));
	else
		reply_text(k->out, "PONG");
}

void cmd_echo(struct call *k)
{
	reply_bulk(k->out, arg_p(k, 1), arg_n(k, 1));
}

void cmd_select(struct call *k)
{
	if (arg_is(k, 1, "0"))
		reply_text(k->out, "OK");
	else
		reply_error(k->out, "ERR DB index is out of range: there is only 0");
}

void cmd_quit(struct call *k)
{
	reply_text(k->out, "OK");
	k->c->closing = 1;
}

/* -- INFO ---------------------------------------------------------------- */

static const char *const role_name[] = {
	[HANDOFF_STANDALONE] = "standalone", [HANDOFF_FIRST] = "first",
	[HANDOFF_SUCCESSOR] = "successor",
};

static void info_server(const struct call *k, struct buf *b)
{
	const struct server *sv = k->sv;

	buf_printf(b, "# Server\r\n"
		   "redis_version:2.8.0\r\n" /* the protocol's level: client libraries look */
		   "kvd_version:%s\r\n"
		   "process_id:%d\r\n"
		   "uptime_in_seconds:%llu\r\n"
		   "epoch:%llu\r\n"
		   "generation:%s\r\n\r\n",
		   kvd_version, (int)getpid(),
		   (unsigned long long)(mono_ms() - sv->started_ms) / 1000,
		   (unsigned long long)k->st->epoch, role_name[sv->role]);
}

static void info_clients(const struct call *k, struct buf *b)
{
	buf_printf(b, "# Clients\r\nconnected_clients:%u\r\nmaxclients:%u\r\n\r\n",
		   k->sv->nconns, k->sv->opt->max_clients);
}

static void info_persistence(const struct call *k, struct buf *b)
{
	const struct store *st = k->st;
	unsigned char fp[32];
	uint64_t revs[MAX_SHARDS], stored = 0, backward = 0;
	unsigned i;

	store_state(st, revs, fp);
	for (i = 0; i < st->shards; i++) {
		stored += st->shard[i].stored;
		backward += st->shard[i].backward;
	}
	buf_printf(b, "# Persistence\r\nloading:0\r\naof_enabled:1\r\nfsync:%s\r\nshards:%u\r\n"
		   "revisions:", st->fsync == FSYNC_ALWAYS ? "always" : "everysec", st->shards);
	for (i = 0; i < st->shards; i++)
		buf_printf(b, "%s%llu", i ? "," : "", (unsigned long long)revs[i]);
	buf_printf(b, "\r\nfingerprint:");
	for (i = 0; i < sizeof(fp); i++)
		buf_printf(b, "%02x", fp[i]);
	buf_printf(b, "\r\nlog_bytes:%llu\r\ncompaction_in_progress:%d\r\nwrite_errors:%d\r\n"
		   "epochs_backward:%llu\r\n\r\n", (unsigned long long)stored,
		   k->sv->compaction.job.running, k->sv->write_errors,
		   (unsigned long long)backward);
}

static void info_stats(const struct call *k, struct buf *b)
{
	buf_printf(b, "# Stats\r\ntotal_connections_received:%llu\r\n"
		   "total_commands_processed:%llu\r\nrejected_connections:%llu\r\n\r\n",
		   (unsigned long long)k->sv->total_conns,
		   (unsigned long long)k->sv->total_commands,
		   (unsigned long long)k->sv->refused_conns);
}

static void info_keyspace(const struct call *k, struct buf *b)
{
	unsigned long long expires = 0;
	unsigned i;

	for (i = 0; i < k->st->shards; i++)
		expires += k->st->shard[i].db.heap_len;
	buf_printf(b, "# Keyspace\r\n");
	if (store_count(k->st))
		buf_printf(b, "db0:keys=%llu,expires=%llu\r\n",
			   (unsigned long long)store_count(k->st), expires);
}

void cmd_info(struct call *k)
{
	static const struct {
		const char *name;
		void (*fn)(const struct call *k, struct buf *b);
	} section[] = {
		{ "server", info_server }, { "clients", info_clients },
		{ "persistence", info_persistence }, { "stats", info_stats },
		{ "keyspace", info_keyspace },
	};
	int all = k->argc < 2 || arg_is(k, 1, "all") || arg_is(k, 1, "default") ||
		  arg_is(k, 1, "everything");
	struct buf b = { 0 };
	size_t i;

	for (i = 0; i < sizeof(section) / sizeof(section[0]); i++)
		if (all || arg_is(k, 1, section[i].name))
			section[i].fn(k, &b);
	reply_bulk(k->out, b.p, b.len);
	buf_free(&b);
}

/* -- CLIENT -------------------------------------------------------------- */

static void describe(const struct conn *c, struct buf *b)
{
	uint64_t now = wall_ms(), idle = now - c->last_wall_ms;

	/* client libraries expect all of these words */
	buf_printf(b, "id=%llu addr=%s fd=%d name=%s age=%llu idle=%llu flags=N db=0 sub=0 psub=0 "
		   "multi=-1 qbuf=%zu qbuf-free=%zu argv-mem=0 obl=%zu oll=0 omem=0 tot-mem=%zu "
		   "events=r cmds=%llu\n",
		   (unsigned long long)c->id, c->peer, c->fd, c->name,
		   (unsigned long long)(mono_ms() - c->since_ms) / 1000,
		   c->last_wall_ms && now > c->last_wall_ms ? (unsigned long long)idle / 1000 : 0,
		   c->in.len, c->in.cap - c->in.len, c->out.len - c->out_at,
		   sizeof(*c) + c->in.cap + c->out.cap, (unsigned long long)c->commands);
}

static void client_setname(struct call *k)
{
	uint32_t i, n = arg_n(k, 2);

	for (i = 0; i < n; i++)
		if (arg_p(k, 2)[i] <= ' ' || arg_p(k, 2)[i] > '~')
			break;
	if (i < n || n >= sizeof(k->c->name)) {
		reply_error(k->out, "ERR a client's name has at most %zu bytes and no blanks, "
			    "newlines or special characters", sizeof(k->c->name) - 1);
		return;
	}
	memcpy(k->c->name, arg_p(k, 2), n);
	k->c->name[n] = '\0';
	reply_text(k->out, "OK");
}

static void client_list(struct call *k, int all)
{
	const struct conn *c;
	struct buf b = { 0 };

	if (!all)
		describe(k->c, &b);
	for (c = all ? k->sv->conns : NULL; c; c = c->next)
		describe(c, &b);
	reply_bulk(k->out, b.p, b.len);
	buf_free(&b);
}

void cmd_client(struct call *k)
{
	if (arg_is(k, 1, "SETNAME") && k->argc == 3)
		client_setname(k);
	else if (arg_is(k, 1, "GETNAME") && k->argc == 2)
		reply_string(k->out, k->c->name);
	else if (arg_is(k, 1, "ID") && k->argc == 2)
		reply_int(k->out, (long long)k->c->id);
	else if (arg_is(k, 1, "LIST"))
		client_list(k, 1);
	else if (arg_is(k, 1, "INFO") && k->argc == 2)
		client_list(k, 0);
	else if (arg_is(k, 1, "SETINFO") && k->argc == 4)
		reply_text(k->out, "OK");
	else
		reply_error(k->out, "ERR unknown CLIENT subcommand, or wrong number of arguments: "
			    "SETNAME, GETNAME, ID, LIST, INFO, SETINFO are known");
}

/* -- COMMAND and CONFIG -------------------------------------------------- */

static void describe_command(struct buf *b, const struct command *c)
{
	static const struct { unsigned flag; const char *name; } flag[] = {
		{ CMD_WRITE, "write" }, { CMD_READ, "readonly" }, { CMD_FAST, "fast" },
		{ CMD_ADMIN, "admin" },
	};
	size_t i, n = 0;

	reply_array(b, 6);
	reply_string(b, c->name);
	reply_int(b, c->arity);
	for (i = 0; i < 4; i++)
		n += (c->flags & flag[i].flag) != 0;
	reply_array(b, n);
	for (i = 0; i < 4; i++)
		if (c->flags & flag[i].flag)
			reply_text(b, flag[i].name);
	reply_int(b, c->first);
	reply_int(b, c->last);
	reply_int(b, c->step);
}

void cmd_command(struct call *k)
{
	unsigned i;

	if (k->argc == 1) {
		reply_array(k->out, commands_count);
		for (i = 0; i < commands_count; i++)
			describe_command(k->out, &commands[i]);
	} else if (arg_is(k, 1, "COUNT")) {
		reply_int(k->out, commands_count);
	} else if (arg_is(k, 1, "DOCS")) {
		reply_array(k->out, 0); /* redis-cli asks; it needs no more than an answer */
	} else {
		reply_error(k->out, "ERR unknown COMMAND subcommand: COUNT and DOCS are known");
	}
}

void cmd_config(struct call *k)
{
	const struct options *o = k->sv->opt;
	char clients[16];
	const struct { const char *name, *value; } table[] = {
		{ "save", "" },
		{ "appendonly", "yes" },
		{ "appendfsync", o->fsync_always ? "always" : "everysec" },
		{ "dir", o->data_dir },
		{ "databases", "1" },
		{ "maxmemory", "0" },
		{ "maxclients", clients },
		{ "proto-max-bulk-len", "67108864" },
	};
	struct buf found = { 0 };
	size_t i, n = 0;

	if (!arg_is(k, 1, "GET") || k->argc != 3) {
		reply_error(k->out, "ERR only CONFIG GET pattern: the command line sets options");
		return;
	}
	snprintf(clients, sizeof(clients), "%u", o->max_clients);
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (!glob_match(arg_p(k, 2), arg_n(k, 2), table[i].name, strlen(table[i].name)))
			continue;
		reply_string(&found, table[i].name);
		reply_string(&found, table[i].value);
		n += 2;
	}
	reply_array(k->out, n);
	buf_add(k->out, found.p, found.len);
	buf_free(&found);
}

void cmd_bgrewriteaof(struct call *k)
{
	struct timeval now = { 0, 0 };

	if (!k->sv->compact_ok) {
		reply_error(k->out, "ERR not now: a handoff is not final yet");
		return;
	}
	k->sv->compact_next = 0;
	event_add(k->sv->tick, &now);
	reply_text(k->out, "Background append only file rewriting started");
}
