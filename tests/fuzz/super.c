/*
 * S with whatever may happen in whatever order: daemons that say anything at any time, dead or
 * alive, a journal that cannot be written, time that jumps. The driver keeps its side of the
 * contract of super.h (what answers an action comes first; the dead say nothing), and looks at
 * the actions with a memory of its own. In the end nothing more goes wrong, and S has to arrive.
 */
#include <string.h>

#include "fuzz.h"
#include "proto/super.h"

enum life { NOBODY, ALIVE, DEAD };

struct run {
	struct s s;
	struct feed feed;
	uint64_t now;
	enum life o, n;
	enum s_action asked;        /* what is to be answered before all else; S_A_NONE */
	bool killed_o, killed_n;
	bool cold;                  /* N is started with nobody to take over from */
	/* of the attempt under way */
	bool decided, boot_decided, sealed, heard, lost;
	unsigned commits;
};

/* ------------------------------------------------------------ what S does --- */

static bool is_asked(enum s_action a)
{
	switch (a) {
	case S_A_SPAWN: case S_A_JOURNAL_STARTED: case S_A_READ_O:
	case S_A_JOURNAL_COMMITTED: case S_A_LISTEN: case S_A_SPAWN_COLD: case S_A_JOURNAL_COLD:
		return true;
	default:
		return false;
	}
}

static void begin(struct run *r)
{
	r->decided = r->boot_decided = r->sealed = r->heard = r->lost = false;
	r->commits = 0;
	r->killed_n = false;
}

static void reported(struct run *r)
{
	const enum s_outcome o = r->s.outcome;

	HOLDS(o != OUTCOME_NONE, "reported without an outcome");
	if (o == OUTCOME_COMMITTED)
		HOLDS(r->heard || r->boot_decided || r->s.why, "committed, and nobody served");
	if (o == OUTCOME_ABORTED)
		HOLDS(!r->heard && !r->lost && !r->boot_decided, "aborted, and a client may have met N");
	HOLDS(r->n != ALIVE, "reported while N lives and is not the incumbent");
}

static void look(struct run *r, enum s_action a, enum s_event e)
{
	switch (a) {
	case S_A_BEGIN_ATTEMPT:
		HOLDS(r->n != ALIVE, "a second successor");
		begin(r);
		r->cold = false;
		break;
	case S_A_COMMIT_N:
		HOLDS(r->commits == 0, "Commit is sent twice");
		HOLDS(r->cold ? e == S_E_N_READY : r->decided, "Commit without a decision in the journal");
		r->commits++;
		break;
	case S_A_COMMIT_O:
		HOLDS(r->heard || r->boot_decided, "O is told to exit, and N has not said that it serves");
		break;
	case S_A_BEGIN_SEALED: HOLDS(r->sealed, "Begin tells of a seal that there was not"); break;
	case S_A_BEGIN_NOTHING: HOLDS(r->o != ALIVE, "Begin says that O is dead, and it lives"); break;
	case S_A_RESUME_O: HOLDS(r->n != ALIVE, "O is told to serve while N lives"); break;
	case S_A_SPAWN: HOLDS(r->n != ALIVE, "a second successor"); break;
	case S_A_RELEASE: HOLDS(e == S_E_JOURNALED, "N goes through its gate, and no journal names it"); break;
	case S_A_SPAWN_COLD:
		HOLDS(r->o != ALIVE && r->n != ALIVE, "a cold start beside a daemon that lives");
		begin(r);
		r->cold = true;
		r->o = NOBODY;
		break;
	case S_A_KILL_N: r->killed_n = true; break;
	case S_A_KILL_O: case S_A_TERM_O: r->killed_o = true; break;
	case S_A_PROMOTE:
		r->o = r->n;
		r->n = NOBODY;
		r->killed_o = r->killed_n;
		r->killed_n = false;
		break;
	case S_A_REPORT: reported(r); break;
	case S_A_JOURNAL_OUTCOME: case S_A_COLD_FAILED:
		HOLDS(r->n != ALIVE, "N is forgotten, and lives");
		r->n = NOBODY;
		break;
	case S_A_REEXEC: HOLDS(r->o == ALIVE && r->n != ALIVE, "another binary in the middle of something"); break;
	case S_A_END: HOLDS(r->o != ALIVE && r->n != ALIVE, "the end, and a daemon lives"); break;
	default: break;
	}
}

static bool told(const struct s_out *out, enum s_action a)
{
	for (unsigned i = 0; i < out->n; i++)
		if (out->action[i] == a)
			return true;
	return false;
}

/* Something ends each state: a timer, an answer, or the death of who was killed. */
static void bounded(const struct run *r)
{
	const enum s_state st = r->s.state;

	if (st == S_IDLE || st == S_STOPPED || r->asked != S_A_NONE || s_next(&r->s) != UINT64_MAX)
		return;
	HOLDS((st == S_ABORT || st == S_COLD_ENDING) && (r->killed_n || r->n != ALIVE), "nothing ends %s",
	      s_state_desc[st].id);
}

static void look_at_all(struct run *r, enum s_event e, const struct s_out *out)
{
	HOLDS(out->n < S_OUT_MAX, "actions were left out");
	for (unsigned i = 0; i < out->n; i++) {
		look(r, out->action[i], e);
		if (!is_asked(out->action[i]))
			continue;
		HOLDS(r->asked == S_A_NONE, "two actions at once want an answer");
		r->asked = out->action[i];
	}
	bounded(r);
}

static void step(struct run *r, enum s_event e, const struct msg *m)
{
	const enum s_state before = r->s.state;
	struct s_out out;

	s_step(&r->s, e, m, r->now, &out);
	look_at_all(r, e, &out);
	if (e == S_E_TIMEOUT && r->s.state == before && before != S_COLD)
		HOLDS(told(&out, S_A_KILL_N) || told(&out, S_A_KILL_O), "time changed nothing in %s",
		      s_state_desc[before].id);
}

/* --------------------------------------------------------- what happens to it --- */

static void answer(struct run *r, bool well)
{
	const enum s_action a = r->asked;

	r->asked = S_A_NONE;
	switch (a) {
	case S_A_READ_O: step(r, S_E_O_READ, NULL); break;
	case S_A_LISTEN: step(r, well ? S_E_LISTENING : S_E_NOT_LISTENING, NULL); break;
	case S_A_SPAWN: case S_A_SPAWN_COLD:
		if (well)
			r->n = ALIVE;
		step(r, well ? S_E_SPAWNED : S_E_SPAWN_FAILED, NULL);
		break;
	case S_A_JOURNAL_COMMITTED:
		r->decided = well;
		/* fall through */
	default: step(r, well ? S_E_JOURNALED : S_E_JOURNAL_FAILED, NULL); break;
	}
}

static void with_state(struct run *r, enum s_event e, bool ready, bool healthy)
{
	uint64_t rev[3] = { feed_u8(&r->feed) & 1, 7, 9 };
	uint8_t frame[200];
	struct msg m = { .type = ready ? MSG_ready : MSG_seal_complete }, in;
	struct uints a = { .n = 1 + (feed_u8(&r->feed) & 1), .v = rev };
	char err[200];

	if (ready) {
		m.ready.healthy = healthy;
		m.ready.revisions = a;
		MSG_SET(&m, ready, id, r->s.id);
	} else {
		m.seal_complete.revisions = a;
		m.seal_complete.id = r->s.id;
	}
	const int n = msg_encode(&m, 1, frame, sizeof frame);
	HOLDS(n > 0 && !msg_decode(frame + FRAME_HEADER, (size_t)n - FRAME_HEADER, &in, err, sizeof err), "%d", n);
	if (e == S_E_O_SEALED && r->s.state == S_SEAL)
		r->sealed = true;
	step(r, e, &in);
}

static void of_n(struct run *r, uint8_t which)
{
	static const enum s_event events[] = {
		S_E_N_HELLO, S_E_N_READY, S_E_N_STATUS, S_E_N_SERVING, S_E_N_GONE, S_E_N_LOST, S_E_N_READY,
		S_E_N_SILENT,
	};
	const enum s_event e = events[which & 7];

	if (r->n != ALIVE)
		return;
	if (e == S_E_N_READY) {
		with_state(r, e, true, which & 64 ? false : true);
		return;
	}
	if (e == S_E_N_GONE)
		r->n = DEAD;
	if ((e == S_E_N_STATUS || e == S_E_N_SERVING) && (r->commits || r->boot_decided))
		r->heard = true;
	if (e == S_E_N_LOST && r->s.state == S_TAKE)
		r->lost = true;
	step(r, e, NULL);
}

static void of_o(struct run *r, uint8_t which)
{
	static const enum s_event events[] = {
		S_E_O_DRAINED, S_E_O_SEALED, S_E_O_SEAL_FAILED, S_E_O_STATUS, S_E_O_SERVING, S_E_O_STANDBY,
		S_E_O_LOST, S_E_O_BROKEN, S_E_O_GONE, S_E_O_SILENT, S_E_O_GIVE_FAILED,
	};
	const enum s_event e = events[which % 11];

	if (r->o != ALIVE)
		return;
	if (e == S_E_O_SEALED) {
		with_state(r, e, false, true);
		return;
	}
	if (e == S_E_O_GONE)
		r->o = DEAD;
	step(r, e, NULL);
}

static void time_passes(struct run *r, uint64_t at)
{
	enum s_event e;

	if (at == UINT64_MAX || at < r->now)
		return;
	r->now = at;
	if ((e = s_tick(&r->s, r->now)) != S_NOW)
		step(r, e, NULL);
}

static void of_others(struct run *r, uint8_t which)
{
	switch (which & 7) {
	case 0:
	case 1:
		if (r->s.state == S_IDLE)
			r->s.id.b[0]++;
		step(r, S_E_START, NULL);
		break;
	case 2: step(r, S_E_ABORT, NULL); break;
	case 3: step(r, S_E_RESTART, NULL); break;
	case 4: time_passes(r, r->now + 1 + which / 8u); break;
	case 5: s_hurry(&r->s, r->now); break;
	case 6: if (which >= 246) step(r, which == 254 ? S_E_STOP : S_E_REEXEC, NULL); break;
	default: time_passes(r, s_next(&r->s)); break;
	}
}

/* ------------------------------------------------------------------ the run --- */

static void boot(struct run *r)
{
	uint32_t timer[TIMER_COUNT];
	const uint8_t how = feed_u8(&r->feed);
	struct s_boot b = { .phase = how % 3, .has_incumbent = how & 4, .served = how & 8,
	                    .has_successor = (how & 16) && how % 3 != BOOT_IDLE };
	struct s_out out;

	timers_default(timer);
	timer[TIMER_PROBATION] = how & 32 ? 50 : 0;
	s_init(&r->s, s_table, timer);
	r->o = b.has_incumbent ? ALIVE : NOBODY;
	r->n = b.has_successor ? ALIVE : NOBODY;
	r->boot_decided = b.phase == BOOT_COMMITTED;
	s_boot(&r->s, &b, r->now, &out);
	look_at_all(r, S_NOW, &out);
}

/* The world does what it should from here on: S reaches rest, and somebody serves or it was stopped. */
static void arrive(struct run *r)
{
	r->feed.n = 0;
	for (int i = 0; i < 500; i++) {
		if (r->asked != S_A_NONE)
			answer(r, true);
		else if (r->s.state == S_STOPPED || (r->s.state == S_IDLE && !r->s.stop && r->o == ALIVE && !r->killed_o))
			return;
		else if (r->killed_n && r->n == ALIVE)
			of_n(r, 4);
		else if (r->killed_o && r->o == ALIVE)
			of_o(r, 8);
		else if (r->s.state == S_COLD_WARM)
			of_n(r, 0);
		else if (r->s.state == S_COLD_READY)
			of_n(r, 1);
		else if (r->s.state == S_COLD_TAKE)
			of_n(r, 2);
		else
			time_passes(r, s_next(&r->s));
		if (r->o != ALIVE)
			r->killed_o = false;
	}
	HOLDS(false, "it hangs in %s", s_state_desc[r->s.state].id);
}

void fuzz_super(const uint8_t *p, size_t n)
{
	static struct run r;

	memset(&r, 0, sizeof r);
	r.feed = (struct feed){ p, n };
	r.now = 1000;
	boot(&r);
	while (r.feed.n) {
		const uint8_t what = feed_u8(&r.feed), which = feed_u8(&r.feed);

		if (r.asked == S_A_READ_O && what & 1)
			of_o(&r, which);       /* what lies in its socket comes before O_READ */
		else if (r.asked != S_A_NONE)
			answer(&r, what & 7);  /* fails once in eight times */
		else if (what % 3 == 0)
			of_n(&r, which);
		else if (what % 3 == 1)
			of_o(&r, which);
		else
			of_others(&r, which);
		if (r.s.state == S_STOPPED)
			return;
	}
	arrive(&r);
}
