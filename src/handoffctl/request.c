/* upgrade, plan, abort, restart, stop: one message each, then follow. */
#include <stdlib.h>
#include <uuid/uuid.h>

#include "handoffctl/ctl.h"
#include "handoffctl/follow.h"

static struct hid new_id(void)
{
	struct hid id;

	uuid_generate_random(id.b);
	return id;
}

int ctl_upgrade(struct ctl *c)
{
	const struct hid id = new_id();
	struct msg m = { .type = MSG_op_upgrade, .op_upgrade = { .id = id } };

	if (c->binary_path)
		MSG_SET(&m, op_upgrade, binary, SPAN(c->binary_path));
	if (c->deadline.given)
		MSG_SET(&m, op_upgrade, deadline_ms, c->deadline.ms);
	if (c->drain.given)
		MSG_SET(&m, op_upgrade, drain_ms, c->drain.ms);
	if (c->reason)
		MSG_SET(&m, op_upgrade, reason, SPAN(c->reason));
	if (c->trace_parent)
		MSG_SET(&m, op_upgrade, trace_parent, SPAN(c->trace_parent));
	if (c->correlation_id)
		MSG_SET(&m, op_upgrade, correlation_id, SPAN(c->correlation_id));
	if (c->tenant)
		MSG_SET(&m, op_upgrade, tenant, SPAN(c->tenant));
	return follow(c, &m, &(struct follow_how){ "handoff", &id, .again = true, .abort = true });
}

int ctl_plan(struct ctl *c)
{
	const struct hid id = new_id();
	struct msg m = { .type = MSG_op_plan, .op_plan = { .id = id } };

	if (c->binary_path)
		MSG_SET(&m, op_plan, binary, SPAN(c->binary_path));
	return follow(c, &m, &(struct follow_how){ "plan", &id, .abort = true });
}

int ctl_abort(struct ctl *c)
{
	struct msg m = { .type = MSG_op_abort };

	if (c->reason)
		MSG_SET(&m, op_abort, reason, SPAN(c->reason));
	return follow(c, &m, &(struct follow_how){ "abort" });
}

int ctl_restart(struct ctl *c)
{
	struct msg m = { .type = MSG_op_restart };

	if (c->reason)
		MSG_SET(&m, op_restart, reason, SPAN(c->reason));
	return follow(c, &m, &(struct follow_how){ "restart" });
}

int ctl_stop(struct ctl *c)
{
	struct msg m = { .type = MSG_op_stop };

	if (c->reason)
		MSG_SET(&m, op_stop, reason, SPAN(c->reason));
	return follow(c, &m, &(struct follow_how){ "stop" });
}
