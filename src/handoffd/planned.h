/*
 * planned: what a plan finds out, for who asked: facts, from which handoffctl makes sentences.
 * It lives from the beginning of the plan to its report.
 */
#ifndef HANDOFF_PLANNED_H
#define HANDOFF_PLANNED_H

#include "handoffd/sums.h"

struct service;
struct peer;
struct planned;

/* s->attempt is a plan that begins, with s->new_conf and s->new_exe. Without memory nothing is
 * told but the result. */
void planned_begin(struct service *s);
/* Its successor, p, is as far as Hello. */
void planned_hello(struct service *s, const struct peer *p);
/* The message about it, which borrows from it. False: there is none. */
bool planned_tell(const struct service *s, struct msg *m);
void planned_end(struct service *s);

#endif
