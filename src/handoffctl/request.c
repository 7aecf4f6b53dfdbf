/* upgrade, rollback, plan, abort, restart, reexec, stop: one message each, then follow. */
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

/* What upgrade and rollback have in common. */
#define SET_ATTEMPT(m, name, c) do { \
	if ((c)->deadline.given) \
		MSG_SET(m, name, deadline_ms, (c)->deadline.ms); \
	if ((c)->drain.given) \
		MSG_SET(m, name, drain_ms, (c)->drain.ms); \
	if ((c)->reason) \
		MSG_SET(m, name, reason, SPAN((c)->reason)); \
	if ((c)->trace_parent) \
		MSG_SET(m, name, trace_parent, SPAN((c)->trace_parent)); \
	if ((c)->correlation_id) \
		MSG_SET(m, name, correlation_id, SPAN((c)->correlation_id)); \
	if ((c)->tenant) \
		MSG_SET(m, name, tenant, SPAN((c)->tenant)); \
} while (0)

int ctl_upgrade(struct ctl *c)
{
	const struct hid id = new_id();
	struct msg m = { .type = MSG_op_upgrade, .op_upgrade = { .id = id } };

	if (c->binary_path)
		MSG_SET(&m, op_upgrade, binary, SPAN(c->binary_path));
	if (c->max_stall.given)
		MSG_SET(&m, op_upgrade, max_stall_ms, c->max_stall.ms);
	if (c->sha256.given)
		MSG_SET(&m, op_upgrade, sha256, c->sha256.sum);
	if (c->if_changed)
		MSG_SET(&m, op_upgrade, if_changed, true);
	SET_ATTEMPT(&m, op_upgrade, c);
	return follow(c, &m, &(struct follow_how){ "handoff", &id, .again = true, .abort = true });
}

int ctl_rollback(struct ctl *c)
{
	const struct hid id = new_id();
	struct msg m = { .type = MSG_op_rollback, .op_rollback = { .id = id } };

	SET_ATTEMPT(&m, op_rollback, c);
	return follow(c, &m, &(struct follow_how){ "handoff", &id, .again = true, .abort = true });
}

int ctl_plan(struct ctl *c)
{
	const struct hid id = new_id();
	struct msg m = { .type = MSG_op_plan, .op_plan = { .id = id } };

	if (c->binary_path)
		MSG_SET(&m, op_plan, binary, SPAN(c->binary_path));
	if (c->max_stall.given)
		MSG_SET(&m, op_plan, max_stall_ms, c->max_stall.ms);
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

int ctl_reexec(struct ctl *c)
{
	struct msg m = { .type = MSG_op_reexec };

	if (c->reason)
		MSG_SET(&m, op_reexec, reason, SPAN(c->reason));
	return follow(c, &m, &(struct follow_how){ "re-exec" });
}

int ctl_stop(struct ctl *c)
{
	struct msg m = { .type = MSG_op_stop };

	if (c->reason)
		MSG_SET(&m, op_stop, reason, SPAN(c->reason));
	return follow(c, &m, &(struct follow_how){ "stop" });
}
