/*
 * Live connections: what one carries to the successor, and back when the attempt ends. The
 * state is everything that this process knows of a connection and the kernel does not.
 */
#include "server.h"

#include <errno.h>
#include <string.h>

/*
 *  0  u32  form, 1; a successor that does not know it leaves the connection where it is
 *  4  u32  1: it ends when its replies are out
 *  8  u64  id   16 u64 since   24 u64 commands   32 u64 last command   40 u64 bytes of input
 * 48  u64  bytes of replies    56 u32 bytes of name    60 u32 bytes of peer
 * 64       input: requests not applied, a part of one too; replies not sent; name; peer
 */
#define FORM 1
#define HEAD 64

static void encode(const struct conn *c, struct buf *b)
{
	const size_t done = resp_done(&c->resp), in = c->in.len - done, out = c->out.len - c->out_at;
	const size_t name = strlen(c->name), peer = strlen(c->peer);

	b->len = 0;
	buf_reserve(b, HEAD + in + out + name + peer);
	put32(b->p, FORM);
	put32(b->p + 4, (uint32_t)c->closing);
	put64(b->p + 8, c->id);
	put64(b->p + 16, c->since_ms);
	put64(b->p + 24, c->commands);
	put64(b->p + 32, c->last_wall_ms);
	put64(b->p + 40, in);
	put64(b->p + 48, out);
	put32(b->p + 56, (uint32_t)name);
	put32(b->p + 60, (uint32_t)peer);
	b->len = HEAD;
	buf_add(b, c->in.p ? c->in.p + done : "", in);
	buf_add(b, c->out.p ? c->out.p + c->out_at : "", out);
	buf_add(b, c->name, name);
	buf_add(b, c->peer, peer);
}

/* 0, or -EBADMSG: another form, or torn; nothing was changed then but c. */
static int decode(struct conn *c, const char *p, size_t n)
{
	uint64_t in, out, name, peer, room = n - HEAD;

	if (n < HEAD || get32(p) != FORM)
		return -EBADMSG;
	in = get64(p + 40);
	out = get64(p + 48);
	name = get32(p + 56);
	peer = get32(p + 60);
	if (in > room || out > room - in || name > room - in - out || peer != room - in - out - name ||
	    name >= sizeof(c->name) || peer >= sizeof(c->peer))
		return -EBADMSG;
	c->closing = get32(p + 4) != 0;
	c->id = get64(p + 8);
	c->since_ms = get64(p + 16);
	c->commands = get64(p + 24);
	c->last_wall_ms = get64(p + 32);
	p += HEAD;
	buf_add(&c->in, p, in);
	buf_add(&c->out, p + in, out);
	memcpy(c->name, p + in + out, name);
	memcpy(c->peer, p + in + out + name, peer);
	return 0;
}

/* -- the incumbent ------------------------------------------------------- */

/* Gives them all, and waits until the successor has answered. */
static int give_all(struct server *sv)
{
	struct conn *c, *next;
	struct buf b = { 0 };
	unsigned half = sv->nconns / 2, n = 0;
	int r = 0;

	for (c = sv->conns; c && r != -EPIPE && r != -ECANCELED; c = next) {
		next = c->next;
		net_disarm(c);
		encode(c, &b);
		r = handoff_give(sv->h, &(struct handoff_connection){
			.size = sizeof(struct handoff_connection), .fd = c->fd, .name = "resp",
			.state = b.p, .state_size = b.len });
		if (r >= 0) {
			c->ticket = (unsigned)r;
			net_relink(c, &sv->given);
		}
		if (n++ == half)
			fault_at(&sv->opt->faults, FAULT_GIVE);
	}
	buf_free(&b);
	return r == -EPIPE || r == -ECANCELED ? r : handoff_give_end(sv->h);
}

void move_back(struct server *sv)
{
	struct conn *c, *next;

	for (c = sv->given; c; c = next) {
		next = c->next;
		if (handoff_gone(sv->h, c->ticket))
			net_close(c);
		else
			net_relink(c, &sv->conns);
	}
}

int move_give(struct server *sv)
{
	struct conn *c, *next;
	uint64_t began = mono_us();
	int r;

	net_end_turn(sv); /* the rest of a reply may just have gone out */
	r = sv->can_give ? give_all(sv) : 0;
	fault_at(&sv->opt->faults, FAULT_GIVEN);
	if (r < 0)
		return r;
	for (c = sv->given; c; c = next) {
		next = c->next;
		if (!handoff_gone(sv->h, c->ticket))
			net_relink(c, &sv->conns); /* the successor did not want it */
	}
	if (sv->given)
		log_line("connections given away in %llu us", (unsigned long long)(mono_us() - began));
	net_finish(sv);
	return 0;
}

/* -- the successor ------------------------------------------------------- */

static int take(struct server *sv, const struct handoff_connection *in)
{
	struct conn *c;

	if (sv->nconns >= sv->opt->max_clients)
		return -EMFILE;
	c = net_adopt(sv, in->fd);
	if (decode(c, in->state, in->state_size) < 0) {
		c->fd = -1; /* the library's again */
		net_close(c);
		return -EBADMSG;
	}
	c->taken = 1;
	/* a request may lie here whole, which nothing will announce; running it finds out */
	c->stalled = c->in.len > 0;
	if (sv->next_id < c->id)
		sv->next_id = c->id;
	return 0;
}

unsigned move_take(struct server *sv)
{
	struct handoff_connection in = { .size = sizeof(in) };
	unsigned n = 0;

	while (handoff_receive(sv->h, &in) > 0) {
		if (sv->taken++ == 0)
			sv->take_lie = fault_at(&sv->opt->faults, FAULT_RECEIVE);
		if ((sv->take_lie == LIE_REJECT && sv->taken % 2) || take(sv, &in) < 0)
			handoff_reject(sv->h, in.fd);
		n++;
	}
	return n;
}
