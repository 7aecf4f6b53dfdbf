/*
 * listen: the listening sockets. The supervisor owns them; they never close
 * between two daemons, since the last close resets what waits in the queue.
 */
#ifndef HANDOFF_LISTEN_H
#define HANDOFF_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>

#include "handoffd/conf.h"

struct listener {
	char *name;
	int fd;                 /* listening, O_NONBLOCK (see listeners_nonblock), CLOEXEC */
	char *address;          /* as the configuration had it */
	int backlog;            /* as told to listen(2); 0: not known (adopted) */
	char *path;             /* unix path that this supervisor bound (NULL: other kind) */
	dev_t dev; ino_t ino;   /* of that path when it was bound: unlink only this inode */
	uid_t uid; gid_t gid;   /* whom the path belongs to: it is unlinked with their rights */
};

/* Keyed by name and address: while a handoff changes an address, both are here. */
struct listeners { struct listener *v; unsigned n; };

/*
 * Binds and listens whatever of c is not in hand yet; a changed backlog is applied. A listener
 * that has another name in c, and its former address, is the same socket under both. What
 * c does not name stays, until it is known who serves: see listeners_prune. Unix paths are bound
 * under the owner's uid for files (c->uid) with the mode set before bind (fchmod on the
 * socket before bind(2) sets the inode's mode, less the umask; Linux) and no chown by
 * path; a stale path (connect refused) is unlinked only if nobody listens there.
 * Abstract names, tcp v4, v6, dual stack; SO_REUSEADDR as configured.
 * 0, or -errno (-EADDRINUSE, ...) with one line in err: "listener resp
 * (tcp:127.0.0.1:6380): address in use: ..., what to do". What was bound stays.
 */
int listeners_open(struct listeners *l, const struct conf *c, char *err, size_t err_size);

/*
 * Whether listeners_open would succeed: whatever of c is not in hand yet is bound, and closed again
 * at once. Nothing else changes: no backlog, no path of anybody's; a stale one stays.
 */
int listeners_try(const struct listeners *l, const struct conf *c, char *err, size_t err_size);

/*
 * Takes fd (consumed in every case) as the listener name, if it is one: checks
 * SO_DOMAIN, SO_TYPE, SO_ACCEPTCONN and the address against c; the path of a unix
 * listener is its own again if the kernel says that its inode is the one at that path.
 * What was bound or taken is in the descriptor store (fdstore.h) until it is pruned.
 * One whose address has another name in c goes by that name.
 * 0; -EEXIST it is in hand already (fd closed, fine); -ENOENT no such listener is configured; -ENOTSOCK, -EINVAL not what was announced; -ENOMEM, -ENOBUFS, ...: that is not
 * known. A sentence in err.
 */
int listeners_adopt(struct listeners *l, const struct conf *c, const char *name, int fd,
		    char *err, size_t err_size);

/*
 * The same for one that comes from the descriptor store, under its name there; the path of a
 * unix listener must still be there, since nobody else is left who would make it.
 */
int listeners_restore(struct listeners *l, const struct conf *c, const char *stored, int fd,
		      char *err, size_t err_size);

/*
 * Closes and unlinks those that c does not name with that address. After a handoff: c is
 * the configuration of who serves now (the new one if committed, else the old one).
 */
void listeners_prune(struct listeners *l, const struct conf *c);

/* The one of cl's name and address, or NULL. */
struct listener *listeners_find(const struct listeners *l, const struct conf_listen *cl);

/*
 * O_NONBLOCK again, where a daemon has cleared it: the flag is that of the open file, which all
 * who have the socket share. Before a successor gets them, and when one has come to nothing.
 */
void listeners_nonblock(const struct listeners *l);

bool listeners_complete(const struct listeners *l, const struct conf *c);

/* Closes all and frees; with remove, unlinks the unix paths whose inode is the one bound. */
void listeners_close(struct listeners *l, bool remove);

/* Warns through the return value: the smallest of backlog and net.core.somaxconn for
 * listener i is below its backlog: that cap; else 0. */
int listeners_capped(const struct conf *c, unsigned i);

#endif
