/* plan: what a plan has found out, with what earlier handoffs and this machine say about it. */
#ifndef HANDOFF_CTL_PLAN_H
#define HANDOFF_CTL_PLAN_H

#include "handoffctl/ctl.h"

/* Shows an op_planned that came from socket, which is asked for the history, too. */
void plan_show(struct ctl *c, const char *socket, const struct msg *m);

#endif
