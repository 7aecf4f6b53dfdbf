#include "proto/daemon.h"

#include <string.h>

const char *const d_state_name[D_STATE_COUNT] = {
#define X(id, name) [D_##id] = name,
	D_STATES(X)
#undef X
};
const char *const d_state_id[D_STATE_COUNT] = {
#define X(id, name) [D_##id] = #id,
	D_STATES(X)
#undef X
};
const char *const d_event_name[D_EVENT_COUNT] = {
#define X(id) [D_E_##id] = #id,
	D_EVENTS(X)
#undef X
};
const char *const d_action_name[D_ACTION_COUNT] = {
#define X(id) [D_A_##id] = #id,
	D_ACTIONS(X)
#undef X
};

#define DO(...) { __VA_ARGS__ }
#define A(x) D_A_##x
#define ROW(rule, st, ev, acts, nx) { rule, D_##st, D_E_##ev, acts, D_##nx },
#define NOTHING DO(A(NONE))
/* until N has read Commit, the end of S is its end, and so is an Abort */
#define N_ENDS(st) \
	ROW("N EOF of S", st, EOF, DO(A(DROP)), EXIT) \
	ROW("N Abort", st, ABORT, DO(A(DROP)), EXIT)
/* whoever is or was the incumbent finds S again, in whatever state */
#define O_FINDS_S(st) \
	ROW("O connects again", st, CONNECTED, DO(A(SEND_HELLO)), st)

const struct d_row d_table[] = {
/* ---- N: writes nothing into the data directory until it has read Commit */
ROW("START warm-up done", START, APP_BEGIN, DO(A(SEND_HELLO)), WBEGIN)
N_ENDS(START)
ROW("WBEGIN Begin(rev)", WBEGIN, BEGIN_SEALED, DO(A(TRY_LOCK)), LOCK)
ROW("WBEGIN Begin(nothing sealed)", WBEGIN, BEGIN_NOTHING, DO(A(TRY_LOCK)), LOCK_DEAD)
ROW("WBEGIN T_nbegin", WBEGIN, TIMEOUT, DO(A(DROP)), EXIT)
N_ENDS(WBEGIN)
ROW("WBEGIN Begin(rev)", LOCK, LOCKED, DO(A(TELL_BEGIN)), OPEN)
ROW("WBEGIN Begin(rev)", LOCK, LOCK_HELD, DO(A(DROP)), EXIT)
ROW("WBEGIN Begin(rev)", LOCK, LOCK_FAILED, DO(A(DROP)), EXIT)
/* no EOF and no Abort in LOCK: the answer of flock comes before all else */
ROW("WBEGIN Begin(nothing sealed)", LOCK_DEAD, LOCKED, DO(A(TELL_BEGIN)), OPEN)
ROW("WBEGIN Begin(nothing sealed)", LOCK_DEAD, LOCK_FAILED, DO(A(DROP)), EXIT)
ROW("WBEGIN T_ncommit", LOCK_DEAD, TIMEOUT, DO(A(DROP)), EXIT)
N_ENDS(LOCK_DEAD)
ROW("OPEN", OPEN, APP_READY, DO(A(SEND_READY)), READY)
N_ENDS(OPEN)
ROW("READY Commit", READY, COMMIT, DO(A(UNTIE), A(SEND_STATUS), A(TELL_DECIDED)), SERVE)
ROW("READY T_ncommit", READY, TIMEOUT, DO(A(DROP)), EXIT)
N_ENDS(READY)

/* ---- O: serving */
ROW("SERVE Prepare", SERVE, PREPARE, DO(A(TELL_DRAIN)), DRAINING)
ROW("SERVE SealRequest", SERVE, SEAL_REQUEST, DO(A(SEND_REFUSED)), SERVE)
ROW("SERVE Resume", SERVE, RESUME, DO(A(SEND_STATUS)), SERVE)
ROW("SERVE Commit", SERVE, COMMIT, DO(A(SEND_STATUS)), SERVE)
ROW("SERVE Commit(final)", SERVE, FINAL, DO(A(TELL_FINAL)), SERVE)
ROW("SERVE EOF of S", SERVE, EOF, DO(A(TELL_LOST), A(RECONNECT)), SERVE)
O_FINDS_S(SERVE)

/* ---- drain */
ROW("SERVE Prepare", DRAINING, APP_DRAINED, DO(A(SEND_DRAINED)), DRAINED)
ROW("DRAINED Resume", DRAINING, RESUME, DO(A(TELL_RESUME)), UNDRAIN)
ROW("DRAINED EOF", DRAINING, EOF, DO(A(TELL_RESUME), A(RECONNECT)), UNDRAIN)
ROW("DRAINED T_odrained", DRAINING, TIMEOUT, DO(A(TELL_RESUME)), UNDRAIN)
ROW("DRAINED SealRequest", DRAINED, SEAL_REQUEST, DO(A(TELL_SEAL)), SEALING)
ROW("DRAINED Resume", DRAINED, RESUME, DO(A(TELL_RESUME)), UNDRAIN)
ROW("DRAINED EOF", DRAINED, EOF, DO(A(TELL_RESUME), A(RECONNECT)), UNDRAIN)
ROW("DRAINED T_odrained", DRAINED, TIMEOUT, DO(A(TELL_RESUME)), UNDRAIN)
ROW("DRAINED Resume", UNDRAIN, APP_RESUMED, DO(A(SEND_STATUS)), SERVE)
ROW("SERVE SealRequest", UNDRAIN, SEAL_REQUEST, DO(A(SEND_REFUSED)), UNDRAIN)
ROW("DRAINED EOF", UNDRAIN, EOF, DO(A(RECONNECT)), UNDRAIN)
O_FINDS_S(UNDRAIN)

/* ---- seal: the writer is closed and flushed, then the flock goes, then SealComplete */
ROW("DRAINED SealRequest", SEALING, APP_SEALED, DO(A(UNLOCK), A(SEND_SEALED)), SEALED)
ROW("DRAINED SealRequest failed", SEALING, APP_SEAL_FAILED, DO(A(SEND_SEAL_FAILED)), SERVE)
ROW("SEALING Resume", SEALING, RESUME, NOTHING, UNSEAL)
ROW("SEALING EOF", SEALING, EOF, DO(A(RECONNECT)), UNSEAL)
ROW("SEALING T_osealed", SEALING, TIMEOUT, NOTHING, UNSEAL)
/* the flock was never given up: nobody wrote, but the writer is closed */
ROW("SEALING Resume", UNSEAL, APP_SEALED, DO(A(TELL_REOPEN)), REOPEN)
ROW("SEALING Resume", UNSEAL, APP_SEAL_FAILED, DO(A(SEND_STATUS)), SERVE)
ROW("SEALING EOF", UNSEAL, EOF, DO(A(RECONNECT)), UNSEAL)
O_FINDS_S(UNSEAL)

/* ---- sealed: never exits on a guess */
ROW("SEALED Commit", SEALED, COMMIT, DO(A(TELL_COMMIT)), EXIT)
ROW("SEALED Resume", SEALED, RESUME, DO(A(TRY_LOCK)), RELOCK)
ROW("SEALED EOF", SEALED, EOF, DO(A(POLL), A(RECONNECT)), SEALED)
ROW("SEALED T_osealed", SEALED, TIMEOUT, DO(A(POLL)), SEALED)
ROW("SEALED flock got", SEALED, LOCKED, DO(A(TELL_REOPEN)), REOPEN)
O_FINDS_S(SEALED)
ROW("RELOCK", RELOCK, LOCKED, DO(A(TELL_REOPEN)), REOPEN)
ROW("RELOCK", RELOCK, EOF, DO(A(RECONNECT)), RELOCK)
O_FINDS_S(RELOCK)
ROW("REOPEN", REOPEN, APP_RESUMED, DO(A(SEND_STATUS)), SERVE)
ROW("REOPEN", REOPEN, EOF, DO(A(RECONNECT)), REOPEN)
O_FINDS_S(REOPEN)
{ NULL }
};
#undef A
#undef ROW

/* ------------------------------------------------------------------ time --- */

static bool fenced(const struct d *d)
{
	if (!d->connected || !d->fence_ms)
		return false;
	switch (d->state) {
	case D_WBEGIN: case D_LOCK_DEAD: case D_READY:
		return !hid_none(&d->id);   /* in a cold start nobody else can serve */
	case D_DRAINING: case D_DRAINED: case D_SEALING:
		return true;
	case D_SEALED:
		return !d->polling;
	default:
		return false;
	}
}

static bool bounded(const struct d *d)
{
	return fenced(d) && d->deadline != UINT64_MAX;
}

uint64_t d_next(const struct d *d)
{
	uint64_t at = UINT64_MAX;

	if (bounded(d))
		at = d->deadline;
	if (fenced(d) && d->heard + d->fence_ms < at)
		at = d->heard + d->fence_ms;
	return at;
}

enum d_event d_tick(const struct d *d, uint64_t now)
{
	return now >= d_next(d) ? D_E_TIMEOUT : D_E_NONE;
}

/* N gives up later than S does, and O earlier: a silent N holds the flock that O
 * needs, an O that serves again is an abort and nothing worse. */
static void set_deadline(struct d *d, enum d_state from, uint64_t now)
{
	switch (d->state) {
	case D_WBEGIN:
	case D_LOCK_DEAD:
		d->deadline = now + d->deadline_ms + d->fence_ms;
		break;
	case D_READY:
		d->deadline = now + d->deadline_ms + d->commit_ms + d->fence_ms;
		break;
	case D_DRAINING:
		if (from == D_SERVE)
			d->deadline = now + d->deadline_ms;
		break;
	default:
		break;
	}
}

/* ----------------------------------------------------------------- steps --- */

static bool take_row(struct d *d, enum d_event e, uint64_t now, struct d_out *out)
{
	for (const struct d_row *r = d->table; r->rule; r++) {
		if (r->state != d->state || r->event != e)
			continue;
		if (d->trace)
			d->trace(d->trace_arg, r);
		d->rows_taken++;
		for (unsigned i = 0; i < sizeof r->action / sizeof *r->action; i++) {
			if (r->action[i] == D_A_POLL)
				d->polling = true;
			if (r->action[i] != D_A_NONE && out->n < D_OUT_MAX)
				out->action[out->n++] = r->action[i];
		}
		enum d_state from = d->state;
		d->state = r->next;
		if (from != D_SEALED && d->state == D_SEALED)
			d->polling = !d->connected;
		set_deadline(d, from, now);
		return true;
	}
	return false;
}

void d_step(struct d *d, enum d_event e, uint64_t now, struct d_out *out)
{
	out->n = 0;
	if (e == D_E_EOF)
		d->connected = false;
	if (e == D_E_CONNECTED || e == D_E_APP_BEGIN) {
		d->connected = true;
		d->heard = now;
	}
	if (e != D_E_NONE)
		take_row(d, e, now, out);
}

void d_init(struct d *d, const struct d_row *table)
{
	memset(d, 0, sizeof *d);
	d->table = table;
	d->deadline = UINT64_MAX;
}

enum d_event d_event_of(struct d *d, const struct msg *m, uint64_t now)
{
	struct hid id = msg_id(m);

	d->heard = now;
	switch (m->type) {
	case MSG_hello_ack:
		d->deadline_ms = (uint32_t)m->hello_ack.deadline_ms;
		d->commit_ms = (uint32_t)m->hello_ack.commit_ms;
		d->heartbeat_ms = (uint32_t)m->hello_ack.heartbeat_ms;
		d->fence_ms = (uint32_t)m->hello_ack.fence_ms;
		if (d_is_successor(d)) {
			d->id = id;
			d->deadline = now + d->deadline_ms + d->fence_ms;
		}
		return D_E_NONE;
	case MSG_prepare:
		if (d->state != D_SERVE)
			return D_E_NONE;
		d->id = id;
		d->deadline_ms = (uint32_t)m->prepare.deadline_ms;
		return D_E_PREPARE;
	case MSG_abort:
		return d_is_successor(d) ? D_E_ABORT : D_E_NONE;
	case MSG_commit:
		if (m->commit.final)
			return D_E_FINAL;
		break;
	case MSG_begin:
	case MSG_seal_request:
	case MSG_resume:
		break;
	default:
		return D_E_NONE;
	}
	/* who serves takes part in nothing: it answers under the id it is asked with */
	if (d->state == D_SERVE)
		d->id = id;
	if (!hid_equal(&id, &d->id))
		return D_E_NONE;
	switch (m->type) {
	case MSG_begin: return m->begin.sealed ? D_E_BEGIN_SEALED : D_E_BEGIN_NOTHING;
	case MSG_commit: return D_E_COMMIT;
	case MSG_seal_request: return D_E_SEAL_REQUEST;
	case MSG_resume: return D_E_RESUME;
	default: return D_E_NONE;
	}
}

bool d_wants_lock(const struct d *d)
{
	return d->state == D_LOCK_DEAD || d->state == D_RELOCK || (d->state == D_SEALED && d->polling);
}

bool d_beats(const struct d *d)
{
	return d->connected && d->heartbeat_ms &&
	       ((d->state >= D_WBEGIN && d->state <= D_READY) || (d->state >= D_DRAINING && d->state <= D_REOPEN));
}

bool d_phase_serves(uint64_t phase)
{
	return phase == D_SERVE;
}

bool d_is_successor(const struct d *d)
{
	return d->state <= D_READY;
}
