/*
 * conf: the configuration of one service, read by libconfuse. Plain data: what
 * is here was checked, and names no descriptor.
 */
#ifndef HANDOFF_CONF_H
#define HANDOFF_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "handoffd/conf_options.h"
#include "proto/timers.h"

#define CONF_MAX_LISTENERS 4096
#define CONF_MAX_NAME      64   /* of a service and of a listener */

struct conf_listen {
	char *name;
	char *address;             /* as written: tcp:HOST:PORT, unix:/PATH, unix:@NAME */
	struct sockaddr_storage sa;
	socklen_t sa_len;
	int backlog;               /* 1 to INT_MAX; default 4096 */
	mode_t mode;               /* unix paths; default 0666 & ~umask is NOT used: 0660 */
	bool reuseaddr;            /* default true */
	bool v6only;               /* tcp:[::]: default false = dual stack */
	int line;                  /* where it stands, for messages */
};

struct conf_rlimit { const char *option; int resource; struct rlimit limit; };

#define CONF_FILE_MAX (1024 * 1024)   /* bytes */

struct conf {
	char *file;                /* the configuration's path */
	char *text;                /* as it was read; NULL: conf_keep() has it (conf_kept.h) */
	uint32_t sum;              /* of that text: whether it is another */
	char *name;                /* service kvd { ... } */
	char **command;            /* argv, NULL at the end */
	char *data_dir;            /* NULL: none */
	char *working_dir;         /* NULL: "/" */
	char **environment;        /* "K=V", NULL at the end; may be NULL */
	bool clear_environment;
	char *user, *group;        /* NULL: handoffd's own */
	char **groups;             /* supplementary; NULL: those of user; empty: none */
	char *operators;           /* group that may upgrade; NULL: root and own uid only */
	char *output;              /* file for stdout and stderr, opened as user; NULL: see output.h */
	bool ignore_sigpipe;       /* default true */
	mode_t umask;              /* default 022 */
	int nice;                  /* added to the inherited value; default 0 */
	int oom_score_adj; bool has_oom;
	struct conf_rlimit *rlimits; unsigned nrlimits;
	int connection_state;      /* MiB of state that live connections may carry; default 256 */
	uint32_t timer[TIMER_COUNT];
	struct conf_listen *listen; unsigned nlisten;
	/* resolved by ids.c's short-lived child, (uid_t)-1 when no user is given; gid is
	 * the user's where no group is given, (gid_t)-1 where neither is */
	uid_t uid; gid_t gid;
	gid_t *gids; unsigned ngids;   /* supplementary; NULL: leave handoffd's own */
	gid_t operators_gid;           /* (gid_t)-1: none */
	int line;                      /* of the service section */
	int option_line[CONF_OPTION_MAX];  /* as conf_options is ordered; 0: a default */
};

/*
 * Reads and checks path. On success *ret (free with conf_free) and 0. On
 * failure -EINVAL (or -ENOENT, -EACCES, ... when it cannot be opened, -ENOMEM) and
 * one line in err: "FILE:LINE: what is wrong; what would be right".
 * Blocks on the file and, when it names users or groups, on the child that
 * resolves them (5 s at most).
 */
int conf_read(const char *path, struct conf **ret, char *err, size_t err_size);
/* The same of a text, which it takes over, with path for its file's name. */
int conf_parse(const char *path, char *text, struct conf **ret, char *err, size_t err_size);
struct conf *conf_free(struct conf *c);   /* takes NULL, returns NULL */

/*
 * Reads a listener's address ("tcp:127.0.0.1:80", "tcp:[::]:80", "unix:/run/x",
 * "unix:@x") into sa. 0, or -EINVAL with a sentence in why. Never resolves names.
 */
int conf_address(const char *text, struct sockaddr_storage *sa, socklen_t *sa_len,
		 char *why, size_t why_size);

/* Where an option stands in c->file; where it does not, the line of its section. */
int conf_line(const struct conf *c, const char *option);

/* NAME's rule: [A-Za-z0-9_][A-Za-z0-9_.@-]*, at most CONF_MAX_NAME. */
bool conf_name_ok(const char *name);

/*
 * What can only be checked against the machine (`--check`, before each start and
 * upgrade): data-dir is a directory, not a symlink, not on NFS, writable by the
 * daemon's user; working-dir exists; paths of unix listeners have a directory.
 * One line in err, as above; 0 or -errno.
 */
int conf_check_machine(const struct conf *c, char *err, size_t err_size);
/* The same: the command exists and is executable. Its kept copy may do without (keep.h). */
int conf_check_command(const struct conf *c, char *err, size_t err_size);
/* The same, and it is the caller's. */
struct exe;
int conf_open_command(const struct conf *c, struct exe *ret, char *err, size_t err_size);

/*
 * $HANDOFF_RUNTIME_DIR/NAME, else $RUNTIME_DIRECTORY (systemd's, as it is, the
 * first of a colon list), else /run/handoff/NAME, or $XDG_RUNTIME_DIR/handoff/NAME
 * without root. The same for state: HANDOFF_STATE_DIR, STATE_DIRECTORY,
 * /var/lib/handoff/NAME, $XDG_STATE_HOME/handoff/NAME or ~/.local/state/handoff/NAME.
 * Also linked into handoffctl (there without systemd's variables: use_systemd false).
 * 0, or -ENAMETOOLONG / -ENOENT (nothing to go by) with a sentence in err.
 */
int dirs_runtime(const char *name, bool use_systemd, char *ret, size_t size,
		 char *err, size_t err_size);
int dirs_state(const char *name, bool use_systemd, char *ret, size_t size,
	       char *err, size_t err_size);

/*
 * Makes a directory (and the missing ones above it, 0755) with that mode, or checks the one
 * that is there: a directory, not a symlink, owned by this user. 0, or -errno and a sentence.
 */
int dirs_make(const char *path, mode_t mode, char *err, size_t err_size);
/* The same for one that the daemon's user owns ((uid_t)-1: this one); the directory
 * above it must be this user's alone. */
int dirs_make_owned(const char *path, mode_t mode, uid_t uid, gid_t gid, char *err, size_t err_size);

#endif
