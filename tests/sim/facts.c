/* facts: what a machine knew when it took a step, in the bits of facts(), heard_ready() and dfacts()
 * of tests/model/handoff.pml; and for each row, under which of them it may be taken. The machines
 * themselves are asked that, not their guards' names. */
#include <stdio.h>

#include "sim.h"

enum { O_GONE = 1, O_CONNECTED = 2, N_GONE = 4, MAY = 8, PREPARED = 16, SERVED = 32, STANDBY = 64,
       HEALTHY = 128, SAME = 256 /* what Ready says is what O sealed */, SEALED = 512, STOP = 1024, S_ALL = 2047 };
enum { POLLING = 1, COLD = 2, D_ALL = 3 };

unsigned facts_s(const struct s *s)
{
	bool o_gone = !s->o_present || s->o_gone, n_gone = !s->n_present || s->n_gone;

	return (o_gone ? O_GONE : s->o_connected ? O_CONNECTED : 0u) | (n_gone ? N_GONE : 0u) |
	       (s->may ? MAY : 0u) | (s->prepared ? PREPARED : 0u);
}

static void s_knows(struct s *s, unsigned facts)
{
	s->o_present = s->n_present = true;
	s->o_gone = facts & O_GONE;
	s->o_connected = facts & O_CONNECTED;
	s->n_gone = facts & N_GONE;
	s->may = facts & MAY;
	s->prepared = facts & PREPARED;
	s->served = facts & SERVED;
	s->o_standby = facts & STANDBY;
	s->sealed = facts & SEALED;
	s->stop = facts & STOP;
	s->nrevisions = 1;
}

static bool s_takes(const struct s_row *r, unsigned facts)
{
	static const uint32_t timer[TIMER_COUNT];
	static const uint8_t revision[] = { 0, 1 };
	const struct s_row alone[] = { *r, { NULL } };
	struct msg ready = { .type = MSG_ready };
	struct s_out out;
	struct s s;

	s_init(&s, alone, timer);
	s.state = r->state;
	s_knows(&s, facts);
	ready.ready.healthy = facts & HEALTHY;
	ready.ready.revisions = (struct uints){ 1, NULL, { &revision[!(facts & SAME)], 1 } };
	s_step(&s, r->event, r->event == S_E_N_READY ? &ready : NULL, 0, &out);
	return s.rows_taken;
}

/* d_table has no guards: what else decides is whether time is bounded, and whether the flock is tried. */
static bool d_takes(const struct d_row *r, unsigned facts)
{
	struct d d;

	d_init(&d, d_table);
	d.state = r->state;
	d.connected = true;   /* who is not polls, or is not in such a state */
	d.polling = facts & POLLING;
	d.id = hid_of(!(facts & COLD));
	d.fence_ms = 1;
	if (r->event == D_E_TIMEOUT)
		return d_tick(&d, 1) == D_E_TIMEOUT;
	return r->event != D_E_LOCKED || r->state == D_LOCK || d_wants_lock(&d);
}

static void print_set(const bool *in, unsigned n)
{
	for (unsigned i = n; i; i -= 4)
		printf("%x", in[i - 1] << 3 | in[i - 2] << 2 | in[i - 3] << 1 | in[i - 4]);
}

void facts_print_s(const struct s_row *r)
{
	bool in[S_ALL + 1];

	for (unsigned f = 0; f <= S_ALL; f++)
		in[f] = s_takes(r, f);
	print_set(in, S_ALL + 1);
}

void facts_print_d(const struct d_row *r)
{
	bool in[D_ALL + 1];

	for (unsigned f = 0; f <= D_ALL; f++)
		in[f] = d_takes(r, f);
	print_set(in, D_ALL + 1);
}
