/*
 * place: where supervisors are. A service is a directory with a control.sock in the
 * runtime directory; NAME may be left out where exactly one has somebody behind it, and by a
 * command that acts where no other is known: dead ones included, and stopped ones, of which a
 * directory is left there or among the states.
 */
#ifndef HANDOFF_CTL_PLACE_H
#define HANDOFF_CTL_PLACE_H

#include <stdbool.h>
#include <stddef.h>

#include "handoffctl/ctl.h"

struct place {
	char *name;
	char *socket;              /* the path of its control.sock */
	int error;                 /* of a first connection: 0, or why there was none */
};

struct places { struct place *v; size_t n; };

/*
 * All that have a control.sock, by name. Does not wait: a supervisor that is too busy to
 * take the connection counts as there. 0, or the exit code of an error that was reported.
 * Free with places_free in any case.
 */
int places_scan(struct ctl *c, struct places *ret);
void places_free(struct places *p);

/*
 * The control.sock that c means: its -S, its NAME's, or that of the only service there.
 * 0, *ret_socket and *ret_name (both to be freed; the name of -S is its path), or the
 * exit code of an error that was reported. With --wait it waits until the service would begin an
 * upgrade, or the time is over: who asks then is told why not.
 */
int place_find(struct ctl *c, char **ret_socket, char **ret_name);

/* Says why a question to that supervisor got no answer (-errno; detail for -EBADMSG);
 * returns the exit code that belongs to it. */
int place_error(struct ctl *c, const char *name, const char *socket, int e, const char *detail);

#endif
