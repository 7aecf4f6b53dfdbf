/* version: of handoffd, and of what it hands over in a re-exec. In a file of its own, so that a test
 * can link another one. */
#ifndef HANDOFF_VERSION_H
#define HANDOFF_VERSION_H

extern const char handoffd_version[];
/* Another one whenever the meaning of a record in carry.h changes: each takes its own alone. */
extern const unsigned carry_version;

#endif
