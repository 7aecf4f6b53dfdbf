/*
 * ctl: what the parts of handoffctl share: the tables of its commands, options and exit
 * codes, and one invocation as it was parsed. The tables feed the parser, --help, the
 * manual's check and the completions.
 */
#ifndef HANDOFF_CTL_H
#define HANDOFF_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handoffctl/out.h"

/* id, code, what it says to a script */
#define CTL_EXITS(X) \
	X(OK,            0, "committed, or done, or nothing to do") \
	X(NOT_COMMITTED, 1, "not committed, or not done; the incumbent serves") \
	X(USAGE,         2, "usage or configuration") \
	X(NO_SUPERVISOR, 3, "no supervisor there, or it does not answer") \
	X(BUSY,          4, "another handoff is under way") \
	X(NOT_SERVED,    5, "not committed and the service is NOT being served: act") \
	X(UNKNOWN,       6, "outcome unknown: the supervisor went away and did not come back") \
	X(STALLED,       7, "committed, but the stall was longer than --max-stall") \
	X(DENIED,        8, "permission denied")

enum ctl_exit {
#define X(id, code, what) CTL_##id = code,
	CTL_EXITS(X)
#undef X
};

struct ctl_exit_row { int code; const char *what; };
extern const struct ctl_exit_row ctl_exits[];       /* .what NULL at the end */

/* The place of a command in its table; its bit says which options it takes. */
enum ctl_command_id { CTL_UPGRADE, CTL_ROLLBACK, CTL_PLAN, CTL_STATUS, CTL_LIST, CTL_METRICS,
	CTL_HISTORY, CTL_EXPLAIN, CTL_WATCH, CTL_COMPLETION, CTL_ABORT, CTL_RESTART, CTL_REEXEC, CTL_STOP,
	CTL_COMMANDS };

struct ctl;

struct ctl_command {
	const char *name;
	bool takes_name;                 /* [NAME] */
	const char *what;                /* one line */
	const char *details;             /* a paragraph of its --help */
	const char *examples;            /* "command\0what it does\0" ... */
	int (*run)(struct ctl *c);       /* returns the exit code */
	const char *prints;              /* another format than text for people, or --json's; NULL: none */
	bool takes_id;                   /* [ID], of a handoff */
	bool acts;                       /* its exit code is true even where nothing can be printed */
};
extern const struct ctl_command ctl_commands[CTL_COMMANDS + 1];   /* .name NULL at the end */

enum ctl_kind { CTL_FLAG, CTL_TEXT, CTL_PATH, CTL_FILE, CTL_DURATION, CTL_NUMBER, CTL_TIME, CTL_SHA256,
	CTL_TRACE };

struct ctl_option {
	const char *name;
	char letter;                     /* 0: none */
	const char *argument;            /* NULL: a flag */
	unsigned commands;               /* bits of enum ctl_command_id */
	enum ctl_kind kind;
	size_t offset;                   /* in struct ctl */
	uint32_t limit;                  /* texts: bytes; durations: enum timer; numbers: the highest */
	const char *what;
};
extern const struct ctl_option ctl_options[];       /* .name NULL at the end */

struct ctl_duration { bool given; uint32_t ms; };
struct ctl_sha256 { bool given; struct fprint sum; };

/* One invocation. Texts borrow from argv. */
struct ctl {
	const struct ctl_command *command;   /* NULL: only --help or --version */
	const char *name;                    /* NULL: the one service that runs */
	bool json, help, version, openmetrics;
	const char *socket, *binary, *reason, *trace_parent, *correlation_id, *tenant;
	struct ctl_duration deadline, drain, max_stall, wait;
	struct ctl_sha256 sha256;
	bool if_changed;
	const char *id;                      /* of a handoff, or its beginning; NULL: the last one */
	unsigned count;                      /* 0: all */
	uint64_t since_ms;                   /* wall time; 0: all */
	char *binary_path;                   /* binary made absolute; owned, free() */
	struct out out;
};

/*
 * Fills *c (zeroed but for c->out) from argv. 0, or the exit code of an error that
 * was reported already.
 */
int ctl_parse(struct ctl *c, int argc, char **argv);

/* On stdout: the general help, or that of one command. */
void ctl_help(const struct ctl_command *command);
/* The first line of a help, for somebody who gave no command: on stderr. */
void ctl_usage(void);

/* The commands. Each returns its exit code, and has said why. */
int ctl_upgrade(struct ctl *c);
int ctl_rollback(struct ctl *c);
int ctl_plan(struct ctl *c);
int ctl_status(struct ctl *c);
int ctl_list(struct ctl *c);
int ctl_history(struct ctl *c);
int ctl_watch(struct ctl *c);
int ctl_completion(struct ctl *c);
int ctl_metrics(struct ctl *c);
int ctl_explain(struct ctl *c);
int ctl_abort(struct ctl *c);
int ctl_restart(struct ctl *c);
int ctl_reexec(struct ctl *c);
int ctl_stop(struct ctl *c);

#endif
