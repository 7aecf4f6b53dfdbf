/*
 * N and O with whatever S may send and whatever else may happen. The driver holds the flock, or
 * does not, as the machine's actions say, and compares.
 */
#include <string.h>

#include "fuzz.h"
#include "proto/daemon.h"

struct run {
	struct d d;
	struct feed feed;
	uint64_t now;
	bool has_lock, asked;   /* asked: TRY_LOCK wants its answer before all else */
	bool committed, ended, told_begin;
};

static bool serving(enum d_state s)
{
	return s == D_SERVE || s == D_DRAINING || s == D_DRAINED || s == D_UNDRAIN || s == D_SEALING ||
	       s == D_UNSEAL || s == D_REOPEN;
}

static void look(struct run *r, enum d_action a, enum d_event e)
{
	switch (a) {
	case D_A_TRY_LOCK:
		HOLDS(!r->has_lock, "tries the flock that it has");
		r->asked = true;
		break;
	case D_A_UNLOCK:
		HOLDS(r->has_lock, "gives up a flock that it has not");
		r->has_lock = false;
		break;
	case D_A_DROP:
		HOLDS(!r->committed, "ends although it is the one that serves");
		r->has_lock = false;
		r->ended = true;
		break;
	case D_A_SEND_SEALED: HOLDS(!r->has_lock, "says that it is sealed, and has the flock"); break;
	case D_A_SEND_READY: HOLDS(r->has_lock, "says that it is ready without the flock"); break;
	case D_A_SEND_STATUS: HOLDS(r->has_lock, "says that it serves without the flock"); break;
	case D_A_TELL_BEGIN: HOLDS(r->has_lock, "opens without the flock"); break;
	case D_A_TELL_REOPEN: HOLDS(r->has_lock, "reopens without the flock"); break;
	case D_A_TELL_DECIDED:
		HOLDS(e == D_E_COMMIT && r->has_lock, "serves without Commit");
		r->committed = true;
		break;
	case D_A_TELL_COMMIT:
		HOLDS(e == D_E_COMMIT && !r->has_lock, "exits on a guess");
		r->ended = true;
		break;
	default: break;
	}
}

/* S, a timer, the flock or the application ends each state. */
static void bounded(const struct run *r)
{
	const enum d_state s = r->d.state;

	if (r->ended || r->asked || s == D_START || s == D_OPEN || s == D_SERVE || r->d.connected)
		return;
	HOLDS(d_wants_lock(&r->d) || d_next(&r->d) != UINT64_MAX || s == D_DRAINING || s == D_UNDRAIN ||
	      s == D_SEALING || s == D_UNSEAL || s == D_REOPEN, "nothing ends %s", d_state_id[s]);
}

static void step(struct run *r, enum d_event e)
{
	const enum d_state before = r->d.state;
	struct d_out out;

	if (e == D_E_LOCKED)
		r->has_lock = true;
	d_step(&r->d, e, r->now, &out);
	HOLDS(out.n < D_OUT_MAX, "actions were left out");
	for (unsigned i = 0; i < out.n; i++)
		look(r, out.action[i], e);
	HOLDS((r->d.state == D_EXIT) == r->ended, "%s, and %s", d_state_id[r->d.state], r->ended ? "ended" : "not ended");
	if (serving(r->d.state))
		HOLDS(r->has_lock, "%s without the flock", d_state_id[r->d.state]);
	if (r->d.state == D_SEALED || r->d.state == D_RELOCK)
		HOLDS(!r->has_lock, "%s with the flock", d_state_id[r->d.state]);
	if (e == D_E_EOF && before < D_SERVE && before != D_LOCK)
		HOLDS(r->ended, "N goes on in %s when S has died", d_state_id[before]);
	bounded(r);
}

/* The times of a real S are in order; a lying one's are any. */
static void timers(struct run *r, struct msg *m)
{
	const bool odd = feed_u8(&r->feed) & 1;

	m->hello_ack.deadline_ms = odd ? feed_uint(&r->feed) & UINT32_MAX : 10000;
	m->hello_ack.commit_ms = odd ? feed_uint(&r->feed) & UINT32_MAX : 5000;
	m->hello_ack.heartbeat_ms = odd ? feed_uint(&r->feed) & UINT32_MAX : 1000;
	m->hello_ack.fence_ms = odd ? feed_uint(&r->feed) & UINT32_MAX : 4000;
}

static void message(struct run *r, uint8_t which)
{
	static const enum msg_type types[] = {
		MSG_hello_ack, MSG_prepare, MSG_seal_request, MSG_begin, MSG_commit, MSG_abort, MSG_resume,
		MSG_heartbeat, MSG_commit, MSG_status,
	};
	struct msg m = { .type = types[which % 10] };
	const struct hid id = { { which / 10 % 3 } };
	const bool flag = which / 30 & 1;

	switch (m.type) {
	case MSG_hello_ack: MSG_SET(&m, hello_ack, id, id); timers(r, &m); break;
	case MSG_prepare: m.prepare.id = id; m.prepare.deadline_ms = feed_uint(&r->feed) & UINT32_MAX; break;
	case MSG_seal_request: m.seal_request.id = id; break;
	case MSG_begin: MSG_SET(&m, begin, id, id); m.begin.sealed = flag; break;
	case MSG_commit: MSG_SET(&m, commit, id, id); m.commit.final = flag; break;
	case MSG_abort: MSG_SET(&m, abort, id, id); break;
	case MSG_resume: m.resume.id = id; break;
	default: break;
	}
	const enum d_event e = d_event_of(&r->d, &m, r->now);
	if (e != D_E_NONE)
		step(r, e);
}

static void application(struct run *r, uint8_t which)
{
	static const enum d_event events[] = {
		D_E_APP_BEGIN, D_E_APP_READY, D_E_APP_DRAINED, D_E_APP_SEALED, D_E_APP_SEAL_FAILED,
		D_E_APP_RESUMED,
	};
	const enum d_event e = events[which % 6];

	if (e != D_E_APP_BEGIN || r->d.state == D_START)   /* the library asks that much */
		step(r, e);
}

static void other(struct run *r, uint8_t which)
{
	switch (which & 3) {
	case 0: if (r->d.connected) step(r, D_E_EOF); break;
	case 1: if (!r->d.connected && r->d.state >= D_SERVE) step(r, D_E_CONNECTED); break;
	case 2: if (d_wants_lock(&r->d)) step(r, which & 4 ? D_E_LOCKED : D_E_LOCK_HELD); break;
	default:
		r->now = which & 4 || d_next(&r->d) == UINT64_MAX || d_next(&r->d) < r->now ? r->now + which : d_next(&r->d);
		if (d_tick(&r->d, r->now) != D_E_NONE)
			step(r, D_E_TIMEOUT);
	}
}

void fuzz_daemon(const uint8_t *p, size_t n)
{
	static struct run r;

	memset(&r, 0, sizeof r);
	r.feed = (struct feed){ p, n };
	r.now = 1000;
	d_init(&r.d, d_table);
	r.d.connected = true;
	while (r.feed.n && !r.ended) {
		const uint8_t what = feed_u8(&r.feed), which = feed_u8(&r.feed);

		if (r.asked) {
			r.asked = false;
			step(&r, what % 4 == 0 ? D_E_LOCK_HELD : what % 4 == 1 ? D_E_LOCK_FAILED : D_E_LOCKED);
		} else if (what % 3 == 0) {
			if (r.d.connected)
				message(&r, which);
		} else if (what % 3 == 1) {
			application(&r, which);
		} else {
			other(&r, which);
		}
	}
}
