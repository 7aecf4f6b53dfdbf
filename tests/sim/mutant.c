/* mutant: rules broken on purpose. Each must be caught; the ones of run_mutants.sh
 * that a table or a driver can express, and some of our own. */
#include "sim.h"

static struct s_row s_copy[256];
static struct d_row d_copy[160];

static struct s_row *s_find(struct s_row *t, enum s_state st, enum s_event e)
{
	while (t->rule && (t->state != st || t->event != e))
		t++;
	return t->rule ? t : NULL;
}

static struct d_row *d_find(struct d_row *t, enum d_state st, enum d_event e)
{
	while (t->rule && (t->state != st || t->event != e))
		t++;
	return t->rule ? t : NULL;
}

/* Tables end with room for new rows. */
static void s_add(struct s_row *t, struct s_row r)
{
	struct s_row *end = t, *at = t;

	while (end->rule)
		end++;
	while (at < end && at->state != r.state)
		at++;
	memmove(at + 1, at, (size_t)(end - at + 1) * sizeof *at);   /* first in its state */
	*at = r;
}

static void d_add(struct d_row *t, struct d_row r)
{
	while (t->rule)
		t++;
	t[0] = r;
	t[1].rule = NULL;
}

#define S_ROW(st, e, g, nx, ...) \
	(struct s_row){ "mutant", S_##st, S_E_##e, S_G_##g, { __VA_ARGS__ }, S_##nx, NULL }
#define D_ROW(st, e, nx, ...) (struct d_row){ "mutant", D_##st, D_E_##e, { __VA_ARGS__ }, D_##nx }

static void reexec_in_take(struct s_row *t)
{
	s_add(t, S_ROW(TAKE, REEXEC, ALWAYS, IDLE, S_A_REEXEC));
}

static void serve_before_commit(struct d_row *t)
{
	*d_find(t, D_OPEN, D_E_APP_READY) =
		D_ROW(OPEN, APP_READY, READY, D_A_SEND_READY, D_A_TELL_DECIDED);
}

static void seal_before_unlock(struct d_row *t)
{
	*d_find(t, D_SEALING, D_E_APP_SEALED) =
		D_ROW(SEALING, APP_SEALED, SEALED, D_A_SEND_SEALED, D_A_UNLOCK);
}

static void seal_keeps_lock(struct d_row *t)
{
	*d_find(t, D_SEALING, D_E_APP_SEALED) = D_ROW(SEALING, APP_SEALED, SEALED, D_A_SEND_SEALED);
}

static void abort_unverified(struct s_row *t)
{
	s_find(t, S_ABORT, S_NOW)->guard = S_G_ALWAYS;
}

/* The mutants guard-*: tests/model/compare.py has to notice them, too. */
static void set_guard(struct s_row *t, enum s_state st, enum s_event e, enum s_guard was, enum s_guard is)
{
	for (; t->rule; t++)
		if (t->state == st && t->event == e && t->guard == was)
			t->guard = is;
}

static void guard_untouched(struct s_row *t)
{
	set_guard(t, S_BACK, S_NOW, S_G_UNTOUCHED, S_G_O_ALIVE);
}

static void guard_away(struct s_row *t)
{
	set_guard(t, S_WARM, S_E_N_HELLO, S_G_O_AWAY, S_G_O_GONE);
}

static void guard_served(struct s_row *t)
{
	set_guard(t, S_R_IDLE, S_E_TIMEOUT, S_G_SERVED, S_G_O_CONNECTED);
}

static void ready_unread(struct s_row *t)
{
	*s_find(t, S_READY, S_E_N_READY) =
		S_ROW(READY, N_READY, READY_OK, DECIDING, S_A_JOURNAL_COMMITTED);
}

static void exit_while_serving(struct d_row *t)
{
	*d_find(t, D_SERVE, D_E_COMMIT) = D_ROW(SERVE, COMMIT, EXIT, D_A_TELL_COMMIT);
}

static void no_status_first(struct d_row *t)
{
	*d_find(t, D_READY, D_E_COMMIT) =
		D_ROW(READY, COMMIT, SERVE, D_A_UNTIE, D_A_TELL_DECIDED, D_A_SEND_STATUS);
}

static void commit_both(struct s_row *t)
{
	*s_find(t, S_DECIDING, S_E_JOURNALED) =
		S_ROW(DECIDING, JOURNALED, ALWAYS, OEXIT, S_A_COMMIT_N, S_A_COMMIT_O);
}

static void journal_blind(struct s_row *t)
{
	s_add(t, S_ROW(R_COMMITTED, NOW, ALWAYS, TELL_O, S_A_NONE));
}

static void journal_late(struct s_row *t)
{
	*s_find(t, S_CHECK, S_E_O_READ) = S_ROW(CHECK, O_READ, ALWAYS, TAKE, S_A_COMMIT_N);
	*s_find(t, S_TAKE, S_E_N_STATUS) =
		S_ROW(TAKE, N_STATUS, ALWAYS, PROBATION, S_A_MAY, S_A_JOURNAL_COMMITTED);
}

static void no_started(struct s_row *t)
{
	*s_find(t, S_SPAWNING, S_E_SPAWNED) = S_ROW(SPAWNING, SPAWNED, ALWAYS, WARM, S_A_RELEASE);
}

static void gate_unnamed(struct s_row *t)
{
	*s_find(t, S_SPAWNING, S_E_SPAWNED) =
		S_ROW(SPAWNING, SPAWNED, ALWAYS, NAMING, S_A_RELEASE, S_A_JOURNAL_STARTED);
	*s_find(t, S_NAMING, S_E_JOURNALED) = S_ROW(NAMING, JOURNALED, ALWAYS, WARM, S_A_NONE);
}

static void mute_fork(struct s_row *t)
{
	*s_find(t, S_SPAWNING, S_E_SPAWN_FAILED) = S_ROW(SPAWNING, SPAWN_FAILED, ALWAYS, IDLE, S_A_NONE);
}

static void no_ack(struct s_row *t)
{
	for (struct s_row *r = t; r->rule; r++)
		if (r->state == S_BACK && r->guard == S_G_O_CONNECTED)
			*r = S_ROW(BACK, NOW, O_CONNECTED, IDLE, S_A_RESUME_O, S_A_OUTCOME, S_A_JOURNAL_OUTCOME,
			           S_A_REPORT);
}

static void lock_once(struct d_row *t)
{
	d_add(t, D_ROW(LOCK_DEAD, LOCK_HELD, EXIT, D_A_DROP));
}

static void cold_no_pid(struct s_row *t)
{
	*s_find(t, S_COLD_SPAWN, S_E_SPAWNED) =
		S_ROW(COLD_SPAWN, SPAWNED, ALWAYS, COLD_WARM, S_A_RELEASE);
}

static void cold_timeout(struct s_row *t)
{
	*s_find(t, S_R_IDLE, S_E_TIMEOUT) = S_ROW(R_IDLE, TIMEOUT, SERVED, COLD, S_A_NONE);
}

static void stop_unread(struct s_row *t)
{
	*s_find(t, S_COLD, S_NOW) = S_ROW(COLD, NOW, STOP, STOPPED, S_A_END);
}

static void o_exits(struct d_row *t)
{
	*d_find(t, D_SEALED, D_E_TIMEOUT) = D_ROW(SEALED, TIMEOUT, EXIT, D_A_DROP);
	*d_find(t, D_SEALED, D_E_EOF) = D_ROW(SEALED, EOF, EXIT, D_A_DROP);
}

static void o_waits(struct d_row *t)
{
	*d_find(t, D_SEALED, D_E_TIMEOUT) = D_ROW(SEALED, TIMEOUT, SEALED, D_A_NONE);
	*d_find(t, D_SEALED, D_E_EOF) = D_ROW(SEALED, EOF, SEALED, D_A_RECONNECT);
}

static void n_stays(struct d_row *t)
{
	for (; t->rule; t++)
		if (t->state <= D_READY && t->event == D_E_EOF)
			*t = (struct d_row){ "mutant", t->state, D_E_EOF, { D_A_NONE }, t->state };
}

static void o_dead_aborts(struct s_row *t)
{
	for (; t->rule; t++)
		if ((t->state == S_DRAIN || t->state == S_SEAL) && t->event == S_NOW)
			*t = (struct s_row){ "mutant",       t->state, S_NOW,   S_G_O_GONE,
				                 { S_A_KILL_N }, S_ABORT,  "mutant" };
}

static void go_no_hello(struct s_row *t)
{
	s_add(t, S_ROW(WARM, NOW, O_GONE, READY, S_A_BEGIN_NOTHING));
}

static void go_timer(struct s_row *t)
{
	*s_find(t, S_SEAL, S_E_O_SILENT) = S_ROW(SEAL, O_SILENT, ALWAYS, READY, S_A_BEGIN_NOTHING);
	*s_find(t, S_DRAIN, S_E_TIMEOUT) = S_ROW(DRAIN, TIMEOUT, ALWAYS, READY, S_A_BEGIN_NOTHING);
}

static void no_kill(struct s_row *t)
{
	for (; t->rule; t++)
		if (t->state == S_OEXIT && t->event == S_E_TIMEOUT)
			t->action[0] = S_A_NONE;
}

static void resume_alone(struct d_row *t)
{
	*d_find(t, D_REOPEN, D_E_APP_RESUMED) = D_ROW(REOPEN, APP_RESUMED, SERVE, D_A_NONE);
}

static void relock_blind(struct d_row *t)
{
	*d_find(t, D_SEALED, D_E_RESUME) = D_ROW(SEALED, RESUME, REOPEN, D_A_TELL_REOPEN);
}

static void final_early(struct s_row *t)
{
	*s_find(t, S_DECIDING, S_E_JOURNALED) =
		S_ROW(DECIDING, JOURNALED, ALWAYS, TAKE, S_A_PROMOTE, S_A_FINAL);
}

static void commit_unready(struct s_row *t)
{
	*s_find(t, S_SEAL, S_E_O_SEALED) =
		S_ROW(SEAL, O_SEALED, ALWAYS, CHECK, S_A_BEGIN_SEALED, S_A_READ_O);
}

const struct mutant mutants[] = {
	{ "serve-before-commit", "N serves at Ready", .d = serve_before_commit },
	{ "seal-before-unlock", "SealComplete before the flock is given up", .d = seal_before_unlock },
	{ "seal-keeps-lock", "a sealed O keeps the flock", .d = seal_keeps_lock },
	{ "abort-without-verified-death", "goes back to O while N may live", .s = abort_unverified },
	{ "guard-untouched", "an O that was sent Prepare is left alone", .s = guard_untouched },
	{ "guard-away", "Prepare to an O that is not connected", .s = guard_away },
	{ "guard-served", "an O that has served and is silent is killed", .s = guard_served },
	{ "epoch-unasked", "N opens what another may have changed since the seal; stale open", .flags = M_EPOCH },
	/* the lock's epoch backs these up, in an N that asks it */
	{ "ready-unread", "Ready believed, O's socket unread; stale open", .s = ready_unread, .flags = M_OLD_N },
	{ "accept-queue-unread", "O's new channel is not read before Ready is believed",
	  .flags = M_QUEUE | M_OLD_N },
	{ "exit-on-commit-while-serving", "O obeys Commit also when it has resumed",
	  .d = exit_while_serving },
	{ "no-status-before-serve", "N serves before it says so", .d = no_status_first },
	{ "commit-both", "Commit to O without N's Status", .s = commit_both },
	{ "commit-without-ready", "Commit without N's Ready", .s = commit_unready },
	{ "journal-blind", "a restarted S believes 'committed'", .s = journal_blind },
	{ "journal-late", "'committed' journaled after N serves", .s = journal_late },
	{ "no-started-record", "no STARTED in the journal", .s = no_started },
	{ "gate-before-record", "N goes through its gate before its pid is in the journal", .s = gate_unnamed },
	{ "mute-fork", "a successor that could not be forked is not reported", .s = mute_fork },
	{ "aborted-without-ack", "'aborted' without O's Status", .s = no_ack },
	{ "lock-once", "N tries the flock of the dead once", .d = lock_once },
	{ "begin-at-eof", "goes on at EOF of O; N tries the flock once", .d = lock_once,
	  .flags = M_AT_EOF },
	{ "begin-unread", "goes on at O's death, its socket unread; stale open", .flags = M_UNREAD_O | M_OLD_N },
	{ "begin-before-hello", "Begin before N's Hello", .s = go_no_hello },
	{ "begin-at-silence", "Begin when O is silent, not dead", .s = go_timer },
	{ "o-dead-aborts", "O's death ends the handoff", .s = o_dead_aborts },
	{ "old-revision", "compares with a revision that it has not", .flags = M_OLDREV },
	{ "flock-unasked", "the flock's owner is a stranger if no journal names it", .flags = M_STRANGER },
	{ "cold-pid-unjournaled", "cold start: pid not journaled, and the flock unasked", .s = cold_no_pid,
	  .flags = M_STRANGER },
	{ "stop-unread", "a stop does not look who waits to register", .s = stop_unread },
	{ "cold-at-timeout", "cold start when nobody registers", .s = cold_timeout },
	{ "o-exits-on-guess", "a sealed O exits when S is silent", .d = o_exits },
	{ "o-waits-for-ever", "a sealed O never acts on its own", .d = o_waits },
	{ "n-outlives-s", "N stays at EOF of S before Commit", .d = n_stays },
	{ "never-kills-o", "an O that does not exit is left alone", .s = no_kill },
	{ "resume-unsaid", "O serves again and does not say so", .d = resume_alone },
	{ "resume-without-lock", "O reopens without the flock", .d = relock_blind },
	{ "final-for-commit", "N is told final instead of Commit", .s = final_early },
	{ "ids-ignored", "answers of any handoff are taken", .flags = M_IDS },
	{ "resume-from-memory", "O trusts its memory on resume", .flags = M_MEMORY },
	{ "no-revision-check", "revisions not compared; stale open", .flags = M_NO_REV },
	{ "both-dead-new-binary", "both dead: the new binary starts cold", .flags = M_BOTH_NEW },
	{ "dead-n-unread", "the dead N's socket is left unread", .flags = M_UNREAD_N },
	{ "new-format-early", "N upgrades the format before final", .flags = M_NEWFMT },
	{ "reexec-in-take", "S goes on as another binary in the middle of a handoff", .s = reexec_in_take },
	{ "warm-cache-trusted", "N trusts its warm cache", .flags = M_WARM_TRUST },
	{ NULL }
};

const struct mutant *mutant_find(const char *name)
{
	for (const struct mutant *m = mutants; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

static void copy_tables(void)
{
	unsigned n = 0;

	do
		s_copy[n] = s_table[n];
	while (s_table[n++].rule && n < sizeof s_copy / sizeof *s_copy - 4);
	n = 0;
	do
		d_copy[n] = d_table[n];
	while (d_table[n++].rule && n < sizeof d_copy / sizeof *d_copy - 4);
	sim_s_table = s_copy;
	sim_d_table = d_copy;
	sim_flags = 0;
}

void mutant_become(const struct mutant *m)
{
	copy_tables();
	if (!m)
		return;
	if (m->s)
		m->s(s_copy);
	if (m->d)
		m->d(d_copy);
	sim_flags = m->flags;
}

void mutant_without_s_row(unsigned i)
{
	copy_tables();
	do
		s_copy[i] = s_copy[i + 1];
	while (s_copy[i++].rule);
}

void mutant_without_d_row(unsigned i)
{
	copy_tables();
	do
		d_copy[i] = d_copy[i + 1];
	while (d_copy[i++].rule);
}

bool mutant_without(const char *rule)
{
	struct s_row *s = s_copy;
	struct d_row *d = d_copy;
	bool found = false;

	copy_tables();
	for (const struct s_row *r = s_table; r->rule; r++)
		if (strcmp(r->rule, rule))
			*s++ = *r;
		else
			found = true;
	for (const struct d_row *r = d_table; r->rule; r++)
		if (strcmp(r->rule, rule))
			*d++ = *r;
		else
			found = true;
	s->rule = d->rule = NULL;
	return found;
}
