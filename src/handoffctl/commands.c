/* The tables of ctl.h: whatever handoffctl takes is said here, once. */
#include <errno.h>

#include "handoffctl/ctl.h"
#include "proto/timers.h"

const struct ctl_exit_row ctl_exits[] = {
#define X(id, code, what) { code, what },
	CTL_EXITS(X)
#undef X
	{ 0, NULL },
};

const struct ctl_command ctl_commands[CTL_COMMANDS + 1] = {
	[CTL_UPGRADE] = { "upgrade", true,
		"replace the running daemon: its successor takes over, or nothing changes",
		"The configuration is read again, so that a changed option takes effect too. Each\n"
		"phase is a line. Ctrl-C asks for the abort and waits for its outcome; a second\n"
		"Ctrl-C leaves at once, and the handoff goes on. A lost connection is made again,\n"
		"and the outcome asked for. Run by systemd as ExecReload ($MAINPID is set) it\n"
		"gives up instead.",
		"upgrade kvd\0the command of the configuration, as it is on disk now\0"
		"upgrade kvd --binary /opt/kvd-2/bin/kvd --reason 'release 2'\0"
		"another binary, until the next upgrade\0"
		"upgrade kvd --deadline 3s --drain-grace 500ms\0a shorter pause, or no upgrade\0"
		"upgrade kvd --if-changed --sha256 \"$(sha256sum <build/kvd | cut -c-64)\"\0"
		"these bytes or none, and only if they do not run already\0"
		"upgrade kvd --wait 30s\0also while the supervisor is being started again, or hands over\0"
		"--json upgrade kvd | jq -r 'select(.event == \"result\").pause_us'\0"
		"for a script\0",
		ctl_upgrade, .acts = true },
	[CTL_ROLLBACK] = { "rollback", true,
		"an upgrade to the executable that served before this one, from its kept copy",
		"The configuration is read again, as for an upgrade: a rollback does not bring back an\n"
		"older one. What is left becomes the previous one: a second rollback takes the first\n"
		"back. It holds over a reboot, until the next upgrade. While nobody serves who could\n"
		"hand over, it is a start of that executable.",
		"rollback kvd --reason 'error rate'\0\0",
		ctl_rollback, .acts = true },
	[CTL_PLAN] = { "plan", true,
		"start the successor as far as its first message, end it, say what an upgrade would do",
		"The running daemon notices nothing. The binary is hashed; the pause to be expected is\n"
		"that of the last handoffs; limits that would be hit are named.",
		"plan kvd --binary /opt/kvd-2/bin/kvd\0would it start at all?\0"
		"--json plan kvd | jq 'select(.event == \"plan\") | .changed, .limits'\0"
		"for a script\0",
		ctl_plan },
	[CTL_STATUS] = { "status", true,
		"what runs, since when, and how the last handoff ended",
		"Exit status 3: no supervisor runs, or it does not answer within 10 seconds.",
		"status\0of the only service that runs here\0"
		"--json status kvd | jq .pid\0the daemon's pid\0",
		ctl_status },
	[CTL_LIST] = { "list", false,
		"all services of this host, with state, pid, version and last outcome",
		"A supervisor that does not answer within 2 seconds is listed as such.",
		"list\0a table\0"
		"--json list | jq -r '.[].service'\0their names\0",
		ctl_list },
	[CTL_METRICS] = { "metrics", false,
		"numbers of all services of this host, as Prometheus reads them",
		"A supervisor that does not answer within 2 seconds has one row, handoff_up 0.",
		"metrics >/var/lib/node_exporter/handoff.prom\0for the textfile collector\0"
		"metrics --openmetrics\0the newer format\0",
		ctl_metrics, .prints = "what Prometheus reads" },
	[CTL_HISTORY] = { "history", true,
		"the handoffs that are remembered: when, outcome, pause, versions, who and why",
		"The newest is the last line. The supervisor remembers 128, over reboots too.",
		"history kvd -n 5\0the last five\0"
		"history kvd --since 2h\0of the last two hours\0"
		"--json history kvd | jq -r 'select(.outcome != \"committed\").message'\0"
		"what went wrong\0",
		ctl_history },
	[CTL_EXPLAIN] = { "explain", true,
		"what happened in a handoff, cause first, and what to do",
		"ID is that of history, status or a log line, or its beginning, eight characters at\n"
		"least; without it the last handoff is meant. An operand of that form is an ID.",
		"explain kvd\0of the last one\0"
		"explain kvd 4df3c158\0of one that history shows\0"
		"--json explain kvd | jq .failed\0for a script\0",
		ctl_explain, .takes_id = true },
	[CTL_WATCH] = { "watch", true,
		"what happens, as it happens: phases with their durations, crashes, starts",
		"Until the supervisor ends, or you do. Who reads slowly misses events, and costs nobody\n"
		"anything.",
		"watch kvd\0\0"
		"--json watch kvd | jq -r 'select(.phase == \"cold\").at_ms'\0when the daemon died\0",
		ctl_watch },
	[CTL_COMPLETION] = { "completion", true,
		"print what makes a shell complete commands, options and services",
		"NAME is the shell: bash or fish. Where they are not installed:",
		"completion bash >/etc/bash_completion.d/handoffctl\0\0"
		"completion fish >~/.config/fish/completions/handoffctl.fish\0\0",
		ctl_completion, .prints = "what a shell reads" },
	[CTL_ABORT] = { "abort", true,
		"end the handoff that is under way; the running daemon serves on",
		"After the commit it is too late, and the answer says so.",
		"abort kvd --reason 'error rate'\0\0",
		ctl_abort, .acts = true },
	[CTL_RESTART] = { "restart", true,
		"stop the daemon, then start it: with a gap, clients wait in the queue",
		"For a daemon that cannot be upgraded. Its listening sockets stay open. What lies at\n"
		"the path is started, even if another file has served.",
		"restart kvd --reason 'lost its disk'\0\0",
		ctl_restart, .acts = true },
	[CTL_REEXEC] = { "reexec", true,
		"let the supervisor go on as the handoffd that is installed now, with the same pid",
		"After a package upgrade of handoff. The daemon, its clients and the listening sockets\n"
		"notice nothing, and requests that come meanwhile are answered by the new one. The new\n"
		"handoffd is asked first: if it cannot take over, this one goes on, and says why.",
		"reexec kvd\0\0"
		"--json status kvd | jq -r .supervisor_version\0which one it is\0",
		ctl_reexec, .acts = true },
	[CTL_STOP] = { "stop", true,
		"stop the daemon, then the supervisor",
		"A handoff that is under way is settled first. Under systemd use `systemctl stop`.",
		"stop kvd\0\0",
		ctl_stop, .acts = true },
};

#define BIT(id) (1u << CTL_##id)
#define EVERY   (BIT(COMMANDS) - 1)
#define PRINTS  (BIT(METRICS) | BIT(COMPLETION))
#define ATTEMPT (BIT(UPGRADE) | BIT(ROLLBACK))
#define AT(field) offsetof(struct ctl, field)

const struct ctl_option ctl_options[] = {
	{ "json", 0, NULL, EVERY & ~PRINTS, CTL_FLAG, AT(json), 0, "objects, one a line, for scripts" },
	{ "socket", 'S', "SOCKET", EVERY & ~(BIT(LIST) | PRINTS), CTL_PATH, AT(socket), 0,
	  "the supervisor's control.sock, in place of NAME" },
	{ "help", 'h', NULL, EVERY, CTL_FLAG, AT(help), 0,
	  "this text; after a command, that command's" },
	{ "version", 'V', NULL, EVERY, CTL_FLAG, AT(version), 0, "the version" },
	{ "binary", 0, "PATH", BIT(UPGRADE) | BIT(PLAN), CTL_FILE, AT(binary), 4095,
	  "run this file in place of the command's" },
	{ "deadline", 0, "DURATION", ATTEMPT, CTL_DURATION, AT(deadline), TIMER_DEADLINE,
	  "the longest pause that you accept, beyond it: aborted" },
	{ "drain-grace", 0, "DURATION", ATTEMPT, CTL_DURATION, AT(drain), TIMER_DRAIN,
	  "how long the running daemon may finish what is in flight" },
	{ "max-stall", 0, "DURATION", BIT(UPGRADE) | BIT(PLAN), CTL_DURATION, AT(max_stall), TIMER_DEADLINE,
	  "refuse if the last ones took longer; exit status 7 if this one did" },
	{ "wait", 0, "DURATION", ATTEMPT | BIT(PLAN) | BIT(STATUS), CTL_DURATION, AT(wait), TIMER_DEADLINE,
	  "so long at most for a supervisor that would begin an upgrade" },
	{ "sha256", 0, "HEX", BIT(UPGRADE), CTL_SHA256, AT(sha256), 0,
	  "run only an executable with this sum, from a copy; else refuse" },
	{ "if-changed", 0, NULL, BIT(UPGRADE), CTL_FLAG, AT(if_changed), 0,
	  "nothing to do if the files are those of the running daemon" },
	{ "reason", 0, "TEXT", ATTEMPT | BIT(ABORT) | BIT(RESTART) | BIT(REEXEC) | BIT(STOP),
	  CTL_TEXT, AT(reason), 1024, "why, for the logs" },
	{ "trace-parent", 0, "TEXT", ATTEMPT, CTL_TRACE, AT(trace_parent), 256,
	  "a W3C traceparent that the handoff belongs to" },
	{ "correlation-id", 0, "ID", ATTEMPT, CTL_TEXT, AT(correlation_id), 256,
	  "an id of yours, for the logs" },
	{ "openmetrics", 0, NULL, BIT(METRICS), CTL_FLAG, AT(openmetrics), 0,
	  "OpenMetrics in place of Prometheus's own text" },
	{ "count", 'n', "NUMBER", BIT(HISTORY), CTL_NUMBER, AT(count), 1000000,
	  "so many at most, the newest" },
	{ "since", 0, "TIME", BIT(HISTORY), CTL_TIME, AT(since_ms), 0,
	  "only those asked for since then: 2h, 7d, 2026-11-21, '2026-11-21 08:45'" },
	{ "tenant", 0, "TEXT", ATTEMPT, CTL_TEXT, AT(tenant), 256, "a tenant, for the logs" },
	{ NULL },
};
