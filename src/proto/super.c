#include "proto/super.h"

#include <string.h>

const struct s_state_desc s_state_desc[S_STATE_COUNT] = {
#define X(id, name, timer, since) [S_##id] = { #id, name, timer, SINCE_##since },
	S_STATES(X)
#undef X
};
const char *const s_event_name[S_EVENT_COUNT] = {
#define X(id) [S_E_##id] = #id,
	S_EVENTS(X)
#undef X
};
const char *const s_guard_name[S_GUARD_COUNT] = {
#define X(id) [S_G_##id] = #id,
	S_GUARDS(X)
#undef X
};
const char *const s_action_name[S_ACTION_COUNT] = {
#define X(id) [S_A_##id] = #id,
	S_ACTIONS(X)
#undef X
};
const char *const outcome_name[OUTCOME_COUNT] = {
	[OUTCOME_NONE] = "none", [OUTCOME_COMMITTED] = "committed",
	[OUTCOME_ABORTED] = "aborted", [OUTCOME_ROLLED_BACK] = "rolled back",
};

#define DO(...) { __VA_ARGS__ }
#define A(x) S_A_##x
#define ROW(rule, st, ev, gd, acts, nx, why) { rule, S_##st, S_E_##ev, S_G_##gd, acts, S_##nx, why },
#define NOTHING DO(A(NONE))

/*
 * The law. In the order of the rules; a rule whose journal write or system call can
 * fail has a state for the answer.
 */
const struct s_row s_table[] = {
/* ---- idle */
ROW("IDLE incumbent dead", IDLE, NOW, O_GONE, NOTHING, COLD, NULL)
ROW("stop", IDLE, NOW, STOP, DO(A(TERM_O)), STOPPING, NULL)
ROW("IDLE start", IDLE, START, STARTABLE, DO(A(BEGIN_ATTEMPT), A(SPAWN)), SPAWNING, NULL)
ROW("IDLE registers again", IDLE, O_SERVING, ALWAYS, DO(A(FINAL)), IDLE, NULL)
/* the journal was lost, and with it the attempt in which O stands by */
ROW("IDLE registers again", IDLE, O_STANDBY, ALWAYS, DO(A(RESUME_O)), IDLE, NULL)
ROW("IDLE registers again", IDLE, O_STATUS, STANDBY, DO(A(FINAL)), IDLE, NULL)
ROW("restart asked for", IDLE, RESTART, O_ALIVE, DO(A(TERM_O)), RESTARTING, NULL)
ROW("re-exec asked for", IDLE, REEXEC, STARTABLE, DO(A(REEXEC)), IDLE, NULL)

ROW("IDLE start", SPAWNING, SPAWNED, ALWAYS, DO(A(JOURNAL_STARTED)), NAMING, NULL)
ROW("IDLE start", SPAWNING, SPAWN_FAILED, ALWAYS, NOTHING, ABORT, "the successor could not be started")
ROW("IDLE start", NAMING, JOURNALED, ALWAYS, DO(A(RELEASE)), WARM, NULL)
ROW("IDLE start", NAMING, JOURNAL_FAILED, ALWAYS, DO(A(KILL_N)), ABORT, "the journal could not be written")

/* ---- warm-up: O serves undisturbed. O dead: stay, N has not said Hello */
/* its Final may have gone into the channel that it had lost: a registration as serving is answered
 * by one, now, or when the attempt has ended and O serves again */
ROW("WARM registers again", WARM, O_SERVING, ALWAYS, DO(A(FINAL)), WARM, NULL)
ROW("WARM Hello, O dead", WARM, N_HELLO, O_GONE, DO(A(BEGIN_NOTHING)), READY, NULL)
ROW("WARM Hello, O away", WARM, N_HELLO, O_AWAY, NOTHING, AWAIT_O, NULL)
ROW("WARM Hello, O alive", WARM, N_HELLO, ALWAYS, DO(A(PREPARE)), DRAIN, NULL)
ROW("WARM N dead", WARM, N_GONE, ALWAYS, NOTHING, ABORT, "the successor ended before it was ready")
ROW("WARM T_warm", WARM, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor did not finish its start within start-timeout")
ROW("WARM asked", WARM, ABORT, ALWAYS, DO(A(KILL_N)), ABORT, "an operator asked for it")
ROW("stop", WARM, STOP, ALWAYS, DO(A(KILL_N)), ABORT, "the supervisor is being stopped")

/* O's channel is at its end: its death is not verified yet, or it registers again. A
 * Prepare that nobody reads would end in killing an O that serves */
ROW("WARM Hello, O dead", AWAIT_O, NOW, O_GONE, DO(A(BEGIN_NOTHING)), READY, NULL)
ROW("WARM Hello, O alive", AWAIT_O, O_SERVING, ALWAYS, DO(A(FINAL), A(PREPARE)), DRAIN, NULL)
ROW("WARM Hello, O away", AWAIT_O, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent is not registered")
ROW("WARM N dead", AWAIT_O, N_GONE, ALWAYS, NOTHING, ABORT, "the successor ended before the incumbent registered again")
ROW("WARM asked", AWAIT_O, ABORT, ALWAYS, DO(A(KILL_N)), ABORT, "an operator asked for it")
ROW("stop", AWAIT_O, STOP, ALWAYS, DO(A(KILL_N)), ABORT, "the supervisor is being stopped")

/* ---- drain */
ROW("DRAIN Drained", DRAIN, O_DRAINED, ALWAYS, DO(A(SEAL_REQUEST)), SEAL, NULL)
ROW("DRAIN O dead", DRAIN, NOW, O_GONE, DO(A(BEGIN_NOTHING)), READY, NULL)
ROW("DRAIN N dead", DRAIN, N_GONE, ALWAYS, NOTHING, ABORT, "the successor died during drain")
ROW("DRAIN Status of O", DRAIN, O_BROKEN, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent's channel had to be closed")
ROW("DRAIN Status of O", DRAIN, O_STATUS, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent gave up draining and serves again")
ROW("DRAIN Status of O", DRAIN, O_SERVING, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel and serves again")
ROW("DRAIN Status of O", DRAIN, O_STANDBY, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel")
ROW("DRAIN T_drain", DRAIN, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent did not drain within drain-grace")
ROW("DRAIN T_drain", DRAIN, O_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent was silent for presumed-dead during drain")
ROW("DRAIN T_drain", DRAIN, N_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor was silent for presumed-dead during drain")
ROW("DRAIN asked", DRAIN, ABORT, ALWAYS, DO(A(KILL_N)), ABORT, "an operator asked for it")
ROW("stop", DRAIN, STOP, ALWAYS, DO(A(KILL_N)), ABORT, "the supervisor is being stopped")

/* ---- seal */
ROW("SEAL SealComplete", SEAL, O_SEALED, ALWAYS, DO(A(BEGIN_SEALED)), READY, NULL)
ROW("SEAL SealFailed", SEAL, O_SEAL_FAILED, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent could not seal")
ROW("SEAL SealFailed", SEAL, O_GIVE_FAILED, ALWAYS, DO(A(KILL_N)), ABORT, "the successor did not take the connections")
ROW("SEAL O dead", SEAL, NOW, O_GONE, DO(A(BEGIN_NOTHING)), READY, NULL)
ROW("SEAL N dead", SEAL, N_GONE, ALWAYS, NOTHING, ABORT, "the successor died during seal")
ROW("SEAL Status of O", SEAL, O_BROKEN, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent's channel had to be closed")
ROW("SEAL Status of O", SEAL, O_STATUS, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent gave up sealing and serves again")
ROW("SEAL Status of O", SEAL, O_SERVING, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel and serves again")
ROW("SEAL Status of O", SEAL, O_STANDBY, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel")
ROW("SEAL T_seal", SEAL, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent did not seal within deadline")
ROW("SEAL T_seal", SEAL, O_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent was silent for presumed-dead during seal")
ROW("SEAL T_seal", SEAL, N_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor was silent for presumed-dead during seal")
ROW("SEAL asked", SEAL, ABORT, ALWAYS, DO(A(KILL_N)), ABORT, "an operator asked for it")
ROW("stop", SEAL, STOP, ALWAYS, DO(A(KILL_N)), ABORT, "the supervisor is being stopped")

/* ---- ready: O's death does not matter from here on. Ready is believed only when
 * what lies in O's socket has been read: a Status there means that O serves again */
ROW("READY Ready, healthy, rev == sealed rev", READY, N_READY, READY_OK, DO(A(READ_O)), CHECK, NULL)
ROW("READY other Ready", READY, N_READY, ALWAYS, DO(A(KILL_N)), ABORT, "the successor opened another state than was sealed, or is unhealthy")
ROW("READY N dead", READY, N_GONE, ALWAYS, NOTHING, ABORT, "the successor died while it opened the state")
ROW("READY Status of O", READY, O_BROKEN, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent's channel had to be closed")
ROW("READY Status of O", READY, O_STATUS, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent serves again")
ROW("READY Status of O", READY, O_SERVING, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel and serves again")
ROW("READY T_ready", READY, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor was not ready within deadline")
ROW("READY T_ready", READY, N_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor was silent for presumed-dead while it opened the state")
ROW("READY asked", READY, ABORT, ALWAYS, DO(A(KILL_N)), ABORT, "an operator asked for it")
ROW("stop", READY, STOP, ALWAYS, DO(A(KILL_N)), ABORT, "the supervisor is being stopped")
ROW("READY Status of O", CHECK, O_BROKEN, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent's channel had to be closed")
ROW("READY Status of O", CHECK, O_STATUS, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent serves again")
ROW("READY Status of O", CHECK, O_SERVING, ALWAYS, DO(A(KILL_N)), ABORT, "the incumbent lost its channel and serves again")
ROW("READY Ready, healthy, rev == sealed rev", CHECK, O_READ, ALWAYS, DO(A(JOURNAL_COMMITTED)), DECIDING, NULL)
ROW("READY Ready, healthy, rev == sealed rev", DECIDING, JOURNALED, ALWAYS, DO(A(COMMIT_N)), TAKE, NULL)
ROW("READY Ready, healthy, rev == sealed rev", DECIDING, JOURNAL_FAILED, ALWAYS, DO(A(KILL_N)), ABORT, "the journal could not be written")

/* ---- committed */
ROW("TAKE Status of N", TAKE, N_STATUS, ALWAYS, DO(A(MAY)), PROBATION, NULL)
ROW("TAKE Status of N", TAKE, N_SERVING, ALWAYS, DO(A(MAY)), PROBATION, NULL)
/* what it sends now is not heard: it may serve, whether it registers again or not */
ROW("TAKE Status of N", TAKE, N_LOST, ALWAYS, DO(A(MAY)), TAKE, NULL)
ROW("TAKE N dead", TAKE, N_GONE, ALWAYS, NOTHING, ABORT, "the successor died when it was to serve")
ROW("TAKE T_take", TAKE, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor did not serve within commit-timeout")
ROW("TAKE T_take", TAKE, N_SILENT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor was silent for presumed-dead when it was to serve")
ROW("PROBATION T_prob", PROBATION, NOW, NO_PROBATION, NOTHING, TELL_O, NULL)
ROW("PROBATION T_prob", PROBATION, TIMEOUT, ALWAYS, NOTHING, TELL_O, NULL)
/* N serves: a stop waits for no more proof of it */
ROW("stop", PROBATION, NOW, STOP, NOTHING, TELL_O, NULL)
ROW("PROBATION N dead", PROBATION, N_GONE, ALWAYS, NOTHING, ABORT, "the successor died in its probation")
ROW("TELL_O N dead", TELL_O, NOW, N_GONE, NOTHING, ABORT, "the successor died before the incumbent was told to exit")
ROW("TELL_O O dead", TELL_O, NOW, O_GONE, DO(A(PROMOTE), A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT), A(FINAL)), IDLE, NULL)
ROW("TELL_O O connected", TELL_O, NOW, O_CONNECTED, DO(A(COMMIT_O)), OEXIT, NULL)
ROW("TELL_O T_reg", TELL_O, TIMEOUT, ALWAYS, DO(A(KILL_O)), TELL_O, NULL)
ROW("OEXIT O dead", OEXIT, NOW, O_GONE, DO(A(PROMOTE), A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT), A(FINAL)), IDLE, NULL)
ROW("OEXIT Status of O", OEXIT, O_STATUS, ALWAYS, DO(A(KILL_N)), ABORT, "the successor died and the incumbent serves again")
ROW("OEXIT Status of O", OEXIT, O_SERVING, ALWAYS, DO(A(KILL_N)), ABORT, "the successor died and the incumbent serves again")
ROW("OEXIT O registers again", OEXIT, O_STANDBY, ALWAYS, DO(A(COMMIT_O)), OEXIT, NULL)
ROW("OEXIT T_oexit", OEXIT, TIMEOUT, ALWAYS, DO(A(KILL_O)), OEXIT, NULL)

/* ---- abort, roll back: first N's death, verified, and what it had sent */
ROW("ABORT Status in N's socket", ABORT, N_STATUS, ALWAYS, DO(A(MAY)), ABORT, NULL)
ROW("ABORT registers again", ABORT, O_SERVING, UNTOUCHED, DO(A(FINAL)), ABORT, NULL)
ROW("ABORT N dead", ABORT, NOW, N_GONE, NOTHING, BACK, NULL)
ROW("ABORT O untouched", BACK, NOW, UNTOUCHED, DO(A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT)), IDLE, NULL)
ROW("ABORT O dead", BACK, NOW, O_GONE, DO(A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT)), COLD, NULL)
ROW("ABORT O connected", BACK, NOW, O_CONNECTED, DO(A(RESUME_O)), RESUMING, NULL)
ROW("ABORT T_reg", BACK, TIMEOUT, ALWAYS, DO(A(KILL_O)), BACK, NULL)
ROW("RESUMING Status of O", RESUMING, O_STATUS, ALWAYS, DO(A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT), A(FINAL)), IDLE, NULL)
ROW("RESUMING Status of O", RESUMING, O_SERVING, ALWAYS, DO(A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT), A(FINAL)), IDLE, NULL)
ROW("RESUMING O registers again", RESUMING, O_STANDBY, ALWAYS, DO(A(RESUME_O)), RESUMING, NULL)
ROW("RESUMING O dead", RESUMING, NOW, O_GONE, DO(A(OUTCOME), A(JOURNAL_OUTCOME), A(REPORT)), COLD, NULL)
ROW("RESUMING T_resume", RESUMING, TIMEOUT, ALWAYS, DO(A(KILL_O)), RESUMING, NULL)

/* ---- cold start: the same messages, nobody to seal */
/* who has the flock and comes to register would go on without any supervisor */
ROW("stop", COLD, NOW, STOP, DO(A(READ_O)), COLD_STOP, NULL)
ROW("stop", COLD_STOP, O_READ, ALWAYS, DO(A(END)), STOPPED, NULL)
ROW("COLD listeners", COLD, TIMEOUT, ALWAYS, DO(A(LISTEN)), COLD, NULL)
ROW("COLD listeners", COLD, LISTENING, ALWAYS, DO(A(SPAWN_COLD)), COLD_SPAWN, NULL)
ROW("COLD bind", COLD, NOT_LISTENING, ALWAYS, DO(A(COLD_FAILED)), COLD, "the listening sockets could not be bound")
/* its journal was lost, and the flock could not be asked, or it had none then. What is being started
 * beside it gets no flock */
ROW("COLD found", COLD, O_FOUND, ALWAYS, DO(A(JOURNAL_FOUND)), R_IDLE, NULL)
ROW("COLD found", COLD_STOP, O_FOUND, ALWAYS, DO(A(JOURNAL_FOUND)), R_IDLE, NULL)
ROW("COLD found", COLD_WARM, O_FOUND, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "a daemon that was not known has the lock")
ROW("COLD found", COLD_READY, O_FOUND, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "a daemon that was not known has the lock")
ROW("COLD spawn", COLD_SPAWN, SPAWNED, ALWAYS, DO(A(JOURNAL_COLD)), COLD_NAME, NULL)
ROW("COLD spawn", COLD_SPAWN, SPAWN_FAILED, ALWAYS, DO(A(COLD_FAILED)), COLD, "the daemon could not be started")
ROW("COLD pid", COLD_NAME, JOURNALED, ALWAYS, DO(A(RELEASE)), COLD_WARM, NULL)
ROW("COLD pid", COLD_NAME, JOURNAL_FAILED, ALWAYS, DO(A(KILL_N)), COLD_WARM, "the journal could not be written")
ROW("COLD Hello", COLD_WARM, N_HELLO, ALWAYS, DO(A(BEGIN_NOTHING)), COLD_READY, NULL)
ROW("COLD Ready", COLD_READY, N_READY, READY_OK, DO(A(COMMIT_N)), COLD_TAKE, NULL)
ROW("COLD Ready", COLD_READY, N_READY, ALWAYS, DO(A(KILL_N)), COLD_READY, "the daemon says that it is unhealthy")
ROW("COLD Status", COLD_TAKE, N_STATUS, ALWAYS, DO(A(PROMOTE), A(JOURNAL_SERVES), A(FINAL)), IDLE, NULL)
ROW("COLD Status", COLD_TAKE, N_SERVING, ALWAYS, DO(A(PROMOTE), A(JOURNAL_SERVES), A(FINAL)), IDLE, NULL)
ROW("COLD child dead", COLD_WARM, N_GONE, ALWAYS, DO(A(COLD_FAILED)), COLD, "the daemon ended before it was ready")
ROW("COLD child dead", COLD_READY, N_GONE, ALWAYS, DO(A(COLD_FAILED)), COLD, "the daemon ended while it opened its state")
ROW("COLD child dead", COLD_ENDING, N_GONE, ALWAYS, DO(A(COLD_FAILED)), COLD, NULL)
ROW("COLD child dead", COLD_TAKE, N_GONE, ALWAYS, DO(A(COLD_FAILED)), COLD, "the daemon ended when it was to serve")
ROW("COLD child hangs", COLD_WARM, TIMEOUT, ALWAYS, DO(A(KILL_N)), COLD_WARM, "the daemon did not finish its start within start-timeout")
ROW("COLD child hangs", COLD_READY, TIMEOUT, ALWAYS, DO(A(KILL_N)), COLD_READY, "the daemon did not open its state within start-timeout")
ROW("COLD child hangs", COLD_TAKE, TIMEOUT, ALWAYS, DO(A(KILL_N)), COLD_TAKE, "the daemon did not serve within start-timeout")
ROW("stop", COLD_WARM, STOP, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "the supervisor is being stopped")
ROW("stop", COLD_READY, STOP, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "the supervisor is being stopped")
ROW("restart asked for", COLD_WARM, RESTART, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "another start was asked for")
ROW("restart asked for", COLD_READY, RESTART, ALWAYS, DO(A(KILL_N)), COLD_ENDING, "another start was asked for")
/* it may serve, and its Status may be on the way: it is ended as whoever serves is */
ROW("stop", COLD_TAKE, STOP, ALWAYS, DO(A(PROMOTE), A(TERM_O)), STOPPING, NULL)
ROW("restart asked for", COLD_TAKE, RESTART, ALWAYS, DO(A(PROMOTE), A(TERM_O)), RESTARTING, NULL)

/* ---- restart of S (STARTED goes to ABORT by s_boot) */
ROW("restart IDLE dead", R_IDLE, NOW, O_GONE, NOTHING, COLD, NULL)
ROW("stop", R_IDLE, NOW, STOP, DO(A(TERM_O)), STOPPING, NULL)
ROW("restart IDLE registers", R_IDLE, O_SERVING, ALWAYS, DO(A(JOURNAL_SERVES), A(FINAL)), IDLE, NULL)
ROW("restart IDLE registers", R_IDLE, O_STATUS, ALWAYS, DO(A(JOURNAL_SERVES), A(FINAL)), IDLE, NULL)
ROW("restart IDLE registers", R_IDLE, O_STANDBY, ALWAYS, DO(A(RESUME_O)), R_IDLE, NULL)
ROW("restart IDLE silent, it has served", R_IDLE, TIMEOUT, SERVED, NOTHING, IDLE, NULL)
ROW("restart IDLE silent, cold start never ended", R_IDLE, TIMEOUT, ALWAYS, DO(A(KILL_O)), R_IDLE, NULL)
ROW("restart COMMITTED N registers", R_COMMITTED, N_SERVING, ALWAYS, NOTHING, PROBATION, NULL)
ROW("restart COMMITTED N dead", R_COMMITTED, NOW, N_GONE, NOTHING, ABORT, "the successor died while the supervisor was away")
ROW("restart COMMITTED N silent", R_COMMITTED, TIMEOUT, ALWAYS, DO(A(KILL_N)), ABORT, "the successor did not register within presumed-dead")

/* ---- stop, restart of the daemon */
ROW("stop", STOPPING, NOW, O_GONE, DO(A(END)), STOPPED, NULL)
ROW("stop", STOPPING, TIMEOUT, ALWAYS, DO(A(KILL_O)), STOPPING, NULL)
ROW("restart asked for", RESTARTING, NOW, O_GONE, NOTHING, COLD, NULL)
ROW("restart asked for", RESTARTING, TIMEOUT, ALWAYS, DO(A(KILL_O)), RESTARTING, NULL)
{ NULL }
};
#undef A
#undef ROW

/* ---------------------------------------------------------------- guards --- */

static bool state_agrees(const struct s *s, const struct msg *m)
{
	uint64_t rev[MAX_SHARDS];
	unsigned n;

	if (!s->sealed)
		return true;
	n = uints_copy(&m->ready.revisions, rev, MAX_SHARDS);
	return n == s->nrevisions && !memcmp(rev, s->revisions, n * sizeof *rev) &&
	       !memcmp(&s->fingerprint, &m->ready.fingerprint, sizeof s->fingerprint);
}

static bool holds(const struct s *s, enum s_guard g, const struct msg *m)
{
	bool o_gone = !s->o_present || s->o_gone;

	switch (g) {
	case S_G_ALWAYS: return true;
	case S_G_O_CONNECTED: return !o_gone && s->o_connected;
	case S_G_O_GONE: return o_gone;
	case S_G_O_ALIVE: return !o_gone;
	case S_G_O_AWAY: return !o_gone && !s->o_connected;
	case S_G_N_GONE: return !s->n_present || s->n_gone;
	case S_G_READY_OK: return m && m->ready.healthy && state_agrees(s, m);
	case S_G_NO_PROBATION: return s->timer[TIMER_PROBATION] == 0;
	case S_G_UNTOUCHED: return !o_gone && !s->prepared;
	case S_G_SERVED: return s->served;
	case S_G_STOP: return s->stop;
	case S_G_STANDBY: return s->o_standby;
	case S_G_STARTABLE: return !o_gone && s->o_connected && !s->o_standby && !s->stop;
	case S_GUARD_COUNT: break;
	}
	return false;
}

/* ------------------------------------------------------------------ time --- */

static uint64_t backoff(const struct s *s)
{
	uint64_t ms = 100;

	if (s->cold_tries == 0)
		return 0;
	for (unsigned i = 1; i < s->cold_tries && ms < COLD_MAX_MS; i++)
		ms *= 2;
	return ms < COLD_MAX_MS ? ms : COLD_MAX_MS;
}

static uint64_t deadline_of(const struct s *s)
{
	const struct s_state_desc *d = &s_state_desc[s->state];

	if (d->since == SINCE_BACKOFF)
		return s->entered + backoff(s);
	if (d->timer == TIMER_COUNT)
		return UINT64_MAX;
	if (d->since == SINCE_PREPARE)
		return s->prepared_at + s->timer[d->timer] + S_SLACK_MS;
	return s->entered + s->timer[d->timer];
}

static void enter(struct s *s, enum s_state next, uint64_t now)
{
	bool asked = s->state == S_RESTARTING;

	s->state = next;
	s->entered = now;
	if (next == S_DRAIN || (next == S_READY && !s->prepared))
		s->prepared_at = s->heard_o = s->heard_n = now;
	if (next == S_DRAIN)
		s->prepared = true;
	if (next == S_TAKE)
		s->heard_n = now;
	if (next == S_COLD && s->served_since) {   /* one life ends: it counts once */
		if (asked || now - s->served_since >= COLD_STABLE_MS)
			s->cold_tries = 0;
		else
			s->cold_tries++;
		s->served_since = 0;
	}
	s->deadline = deadline_of(s);
}

static bool silent_n(const struct s *s)
{
	return s->state == S_DRAIN || s->state == S_SEAL || s->state == S_READY || s->state == S_TAKE;
}

static bool silent_o(const struct s *s)
{
	return s->state == S_DRAIN || s->state == S_SEAL;
}

uint64_t s_next(const struct s *s)
{
	uint64_t at = s->deadline, dead = s->timer[TIMER_DEAD];

	if (silent_n(s) && s->heard_n + dead < at)
		at = s->heard_n + dead;
	if (silent_o(s) && s->heard_o + dead < at)
		at = s->heard_o + dead;
	return at;
}

enum s_event s_tick(const struct s *s, uint64_t now)
{
	uint64_t dead = s->timer[TIMER_DEAD];

	if (now >= s->deadline)
		return S_E_TIMEOUT;
	if (silent_n(s) && now >= s->heard_n + dead)
		return S_E_N_SILENT;
	if (silent_o(s) && now >= s->heard_o + dead)
		return S_E_O_SILENT;
	return S_NOW;
}

/* ----------------------------------------------------------------- steps --- */

/* What an event says about the world, whatever the state. */
static void note(struct s *s, enum s_event e, const struct msg *m)
{
	switch (e) {
	case S_E_SPAWNED: s->n_present = true; s->n_gone = false; break;
	case S_E_N_GONE: s->n_gone = true; break;
	case S_E_O_GONE: s->o_gone = true; s->o_connected = false; break;
	case S_E_O_LOST:
	case S_E_O_BROKEN: s->o_connected = false; break;
	case S_E_O_SERVING:
	case S_E_O_STANDBY:
		s->o_connected = true;
		s->o_standby = e == S_E_O_STANDBY;
		break;
	case S_E_STOP: s->stop = true; break;
	case S_E_O_SEALED:
		if (s->state != S_SEAL || !m)
			break;
		s->sealed = true;
		s->nrevisions = uints_copy(&m->seal_complete.revisions, s->revisions, MAX_SHARDS);
		s->fingerprint = m->seal_complete.fingerprint;
		s->epoch = MSG_HAS(m, seal_complete, epoch) ? m->seal_complete.epoch : 0;
		break;
	default: break;
	}
}

static enum s_outcome outcome_of(const struct s *s)
{
	bool o_gone = !s->o_present || s->o_gone;

	if (s->state == S_TELL_O || s->state == S_OEXIT)
		return OUTCOME_COMMITTED;
	if (o_gone)   /* both dead: whose data is it? */
		return s->may ? OUTCOME_COMMITTED : OUTCOME_ABORTED;
	return s->may ? OUTCOME_ROLLED_BACK : OUTCOME_ABORTED;
}

/* The part of an action that is the machine's own memory. */
static void effect(struct s *s, enum s_action a, uint64_t now)
{
	switch (a) {
	case S_A_BEGIN_ATTEMPT:
		s->may = s->sealed = s->prepared = false;
		s->n_present = s->n_gone = false;
		s->outcome = OUTCOME_NONE;
		s->why = NULL;
		break;
	case S_A_MAY: s->may = true; break;
	case S_A_FINAL: s->o_standby = false; break;
	case S_A_PROMOTE:
		s->o_present = s->n_present;
		s->o_gone = s->n_gone;
		s->o_connected = !s->n_gone;
		s->o_standby = false;
		s->n_present = s->n_gone = false;
		s->served = true;
		s->served_since = now;
		break;
	case S_A_OUTCOME: s->outcome = outcome_of(s); break;
	case S_A_JOURNAL_OUTCOME:
		s->n_present = s->n_gone = false;
		s->may = s->sealed = s->prepared = false;
		break;
	case S_A_SPAWN_COLD:
		s->id = (struct hid){ { 0 } };
		s->may = s->sealed = s->prepared = s->served = false;
		s->o_present = false;
		s->why = NULL;
		break;
	case S_A_COLD_FAILED:
		s->n_present = s->n_gone = false;
		s->cold_tries++;
		break;
	case S_A_JOURNAL_SERVES: s->served = true; break;
	case S_A_JOURNAL_FOUND:
		s->o_present = s->served = true;
		s->o_gone = s->o_connected = s->o_standby = false;
		s->cold_tries = 0;
		break;
	case S_A_LISTEN:
		s->cold_tries += s->cold_tries == 0;
		s->why = NULL;
		break;
	default: break;
	}
}

static bool take_row(struct s *s, enum s_event e, const struct msg *m, uint64_t now, struct s_out *out)
{
	for (const struct s_row *r = s->table; r->rule; r++) {
		if (r->state != s->state || r->event != e || !holds(s, r->guard, m))
			continue;
		if (s->trace)
			s->trace(s->trace_arg, r);
		s->rows_taken++;
		if (r->why && !s->why)   /* the first reason is the cause of the others */
			s->why = r->why;
		for (unsigned i = 0; i < sizeof r->action / sizeof *r->action; i++) {
			if (r->action[i] == S_A_NONE || out->n == S_OUT_MAX)
				continue;
			effect(s, r->action[i], now);
			out->action[out->n++] = r->action[i];
		}
		/* a message that changes nothing gives no more time: who registers again and again
		 * does not hold up the handoff */
		if (r->next != s->state || e == S_E_TIMEOUT || s->state == S_COLD)
			enter(s, r->next, now);
		return true;
	}
	return false;
}

void s_step(struct s *s, enum s_event e, const struct msg *m, uint64_t now, struct s_out *out)
{
	out->n = 0;
	note(s, e, m);
	if (e != S_NOW)
		take_row(s, e, m, now, out);
	while (take_row(s, S_NOW, NULL, now, out))
		;
}

void s_init(struct s *s, const struct s_row *table, const uint32_t timer[TIMER_COUNT])
{
	memset(s, 0, sizeof *s);
	s->table = table;
	memcpy(s->timer, timer, sizeof s->timer);
	s->deadline = UINT64_MAX;
}

void s_boot(struct s *s, const struct s_boot *b, uint64_t now, struct s_out *out)
{
	static const enum s_state first[] = {
		[BOOT_IDLE] = S_R_IDLE, [BOOT_STARTED] = S_ABORT, [BOOT_COMMITTED] = S_R_COMMITTED,
	};

	s->o_present = b->has_incumbent;
	s->n_present = b->has_successor;
	s->served = b->served;
	s->id = b->id;
	s->may = b->phase == BOOT_COMMITTED;
	s->prepared = b->phase != BOOT_IDLE;   /* for all that this life knows */
	if (b->phase == BOOT_STARTED)
		s->why = "the supervisor was restarted in the middle of it";
	enter(s, first[b->phase], now);
	out->n = 0;
	if (b->phase == BOOT_STARTED && b->has_successor)
		out->action[out->n++] = S_A_KILL_N;
	while (take_row(s, S_NOW, NULL, now, out))
		;
}

void s_go_on(struct s *s, uint64_t served_since, unsigned cold_tries)
{
	s->o_present = s->o_connected = s->served = true;
	s->served_since = served_since;
	s->cold_tries = cold_tries;
}

enum s_event s_event_of(struct s *s, bool from_n, const struct msg *m, uint64_t now)
{
	struct hid id = msg_id(m);

	if (from_n)
		s->heard_n = now;
	else
		s->heard_o = now;
	if (m->type == MSG_heartbeat || !hid_equal(&id, &s->id))
		return S_NOW;   /* an earlier handoff's: dropped */
	switch (m->type) {
	case MSG_ready: return from_n ? S_E_N_READY : S_NOW;
	case MSG_status:
		if (!m->status.serving || from_n)
			return m->status.serving ? S_E_N_STATUS : S_NOW;
		/* where it was to seal it says why it has not */
		return s->state == S_SEAL && MSG_HAS(m, status, by_successor) && m->status.by_successor
		       ? S_E_O_GIVE_FAILED : S_E_O_STATUS;
	case MSG_drained: return from_n ? S_NOW : S_E_O_DRAINED;
	case MSG_seal_complete: return from_n ? S_NOW : S_E_O_SEALED;
	case MSG_seal_failed:
		if (from_n)
			return S_NOW;
		return MSG_HAS(m, seal_failed, by_successor) && m->seal_failed.by_successor ? S_E_O_GIVE_FAILED
		                                                                         : S_E_O_SEAL_FAILED;
	default: return S_NOW;
	}
}

enum s_event s_event_of_hello(struct s *s, bool from_n, const struct msg *m, bool serving, uint64_t now)
{
	if (from_n) {
		s->heard_n = now;
		return serving ? S_E_N_SERVING : S_NOW;
	}
	s->heard_o = now;
	/* an attempt that the journal does not know: it is ended under its own id */
	if (!serving && MSG_HAS(m, hello, id) && (s->state == S_IDLE || s->state == S_R_IDLE))
		s->id = m->hello.id;
	return serving ? S_E_O_SERVING : S_E_O_STANDBY;
}

void s_hurry(struct s *s, uint64_t now)
{
	s->cold_tries = 0;
	if (s->state == S_COLD)
		s->deadline = now;
}

bool s_in_handoff(const struct s *s)
{
	return (s->state >= S_SPAWNING && s->state <= S_RESUMING) || s->state == S_R_COMMITTED;
}

bool s_beats_o(const struct s *s)
{
	return s->prepared && s->state >= S_DRAIN && s->state <= S_RESUMING;
}

bool s_beats_n(const struct s *s)
{
	return s->state >= S_WARM && s->state <= S_TAKE;
}
