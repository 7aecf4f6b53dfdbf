/* Who has the lock on the data while a daemon waits for it: that may be for ever, without a word. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/lockfile.h"
#include "base/proc.h"
#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

/* The daemon that takes the lock now; NULL: none does, or for no longer than a handoff's pause. */
static const struct peer *who_takes_it(const struct service *s)
{
	return s->s.state == S_COLD_READY ? s->n : s->s.state == S_RESUMING ? s->o : NULL;
}

pid_t lockwait_holder(const struct service *s)
{
	int dir = sys_open(service_lock_dir(s), O_RDONLY | O_DIRECTORY, 0);
	const pid_t pid = dir < 0 ? 0 : lockfile_glance(dir);

	sys_closep(&dir);
	return pid;
}

static void note(struct service *s, const struct peer *waits, pid_t pid)
{
	struct lockwait *l = &s->lockwait;
	struct proc_stat st;

	/* the kernel names who took it, also when only a child has the descriptor still */
	if (proc_stat(pid, &st))
		snprintf(st.name, sizeof st.name, "ended, a child not");
	snprintf(l->text, sizeof l->text, "pid %d (%s) has the lock on %.500s, and pid %d waits for it", (int)pid,
	         st.name, service_lock_dir(s), (int)waits->pid);
	utf8_mend(l->text);
	if (pid != l->told)
		log_warning("%s", l->text);
	l->told = pid;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;
	const struct peer *waits = who_takes_it(s);
	const pid_t pid = waits ? lockwait_holder(s) : 0;

	(void)fd;
	(void)what;
	s->lockwait.text[0] = '\0';
	if (pid > 0 && pid != waits->pid)
		note(s, waits, pid);
	service_settle(s);
}

int lockwait_open(struct service *s)
{
	s->lockwait.timer = event_new(s->base, -1, 0, on_timer, s);
	return s->lockwait.timer ? 0 : -ENOMEM;
}

void lockwait_settle(struct service *s)
{
	const struct timeval second = { 1, 0 };
	struct lockwait *l = &s->lockwait;

	if (s->s.state == S_IDLE)
		l->told = 0;
	if (!who_takes_it(s)) {
		l->text[0] = '\0';
		event_del(l->timer);
	} else if (!event_pending(l->timer, EV_TIMEOUT, NULL)) {
		event_add(l->timer, &second);
	}
}

void lockwait_close(struct service *s)
{
	if (s->lockwait.timer)
		event_free(s->lockwait.timer);
	s->lockwait.timer = NULL;
}
