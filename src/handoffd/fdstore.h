/*
 * fdstore: the listening sockets outlive handoffd, and the daemon, in the service manager's
 * descriptor store (FileDescriptorStoreMax= in systemd.service(5)). Without a manager all of
 * it does nothing. (What is remembered on disk is another thing: store.h.)
 *
 * A stored socket is called "NAME.INODE" there: the listener's name, and the inode that fstat
 * says, so that one can be removed where an upgrade has two of a name, the old address's and
 * the new one's. The channel of a daemon is not stored: its end is how a daemon learns that its
 * supervisor has died, and all that it does then hangs on that.
 */
#ifndef HANDOFF_FDSTORE_H
#define HANDOFF_FDSTORE_H

#include <stdbool.h>

#include "handoffd/conf.h"

#define FDSTORE_NAME (CONF_MAX_NAME + 24)

/*
 * Before anything else is opened: takes note of the descriptors that this process was started
 * with ($LISTEN_PID, $LISTEN_FDS, $LISTEN_FDNAMES), makes them close-on-exec, and removes the
 * variables.
 */
void fdstore_receive(void);

/*
 * Hands each of them to take, which consumes fd; in any order, with whatever is among them.
 * Those for which it returns false are removed from the store.
 */
void fdstore_restore(bool (*take)(void *arg, const char *name, int fd), void *arg);

/* The listener that fd was stored for, by its name in the store; false: it was not stored so. */
bool fdstore_listener(const char *name, int fd, char ret[FDSTORE_NAME]);

/* Stores a copy of fd; one that is there already stays. What cannot be stored is said in the
 * log, and comes back from the daemon alone. Waits a second at most for a manager that hangs. */
void fdstore_put(const char *listener, int fd);
/* Removes it, while fd is still open. */
void fdstore_remove(const char *listener, int fd);

/* Something is stored: a next supervisor may go on with the same sockets. */
bool fdstore_used(void);

#endif
