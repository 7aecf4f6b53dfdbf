/*
 * conf_kept: the text of the configuration that is in use, in the runtime directory, for a
 * supervisor that is started again beside a living daemon and finds the file broken.
 */
#ifndef HANDOFF_CONF_KEPT_H
#define HANDOFF_CONF_KEPT_H

#include "handoffd/conf.h"

/*
 * Keeps c's text in dir, if it is another than the one of last (a checksum, 0 at first), and
 * lets go of it. What was kept before is replaced as a whole. 0, or -errno: then nothing is
 * kept. Does not wait for the disk: a crash of the host leaves no daemon.
 */
int conf_keep(struct conf *c, const char *dir, uint32_t *last);
/* Nothing is kept any more: the service has been stopped. */
void conf_keep_nothing(const char *dir);

/*
 * Reads what is kept for the file path, in the directory of systemd or below that of all
 * services; only a file and a directory that are this user's and that nobody else may write.
 * As conf_read, with path for the file's name; -ENOENT: no supervisor of that file has died.
 */
int conf_read_kept(const char *path, struct conf **ret, char *err, size_t err_size);

#endif
