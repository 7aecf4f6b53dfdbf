#include "base/chan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/sys.h"
#include "proto/move.h"

#define KERNEL_MAX_FDS 253   /* SCM_MAX_FD: what comes is closed by name, not by the kernel */

struct chan_node {
	struct chan_node *next;
	size_t n, done;
	unsigned nfds;
	int fds[FRAME_MAX_FDS];
	uint8_t bytes[];
};

/* The kernel looks at SO_OOBINLINE when it reads. Without it a look steps over the byte of MSG_OOB,
 * which the next read drops, with its descriptors. */
static void take_in_line(int fd)
{
	const int on = 1;

	sys_setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
}

void chan_init(struct chan *c, int fd)
{
	if (fd >= 0)
		take_in_line(fd);
	memset(c, 0, sizeof *c);
	c->fd = fd;
	c->version = PROTO_VERSION_HELLO;
	c->out_tail = &c->out;
	c->item_max = CHAN_ITEM_MAX;
}

void chan_limit(struct chan *c, size_t item_max)
{
	c->item_max = item_max;
	c->no_fds = true;
}

static void close_fds(int *fds, unsigned *n)
{
	while (*n)
		sys_close(fds[--*n]);
}

static void node_free(struct chan_node *n)
{
	close_fds(n->fds, &n->nfds);
	free(n);
}

void chan_close(struct chan *c)
{
	while (c->out) {
		struct chan_node *n = c->out;
		c->out = n->next;
		node_free(n);
	}
	c->out_tail = &c->out;
	c->out_bytes = 0;
	close_fds(c->fds, &c->nfds);
	free(c->body);
	c->body = NULL;
	c->body_cap = c->body_got = c->header_got = 0;
	/* read to its end: nothing is left in it, and nothing can come */
	if (c->fd >= 0 && c->at_end)
		sys_close_own(c->fd);
	else if (c->fd >= 0)
		sys_close(c->fd);
	c->fd = -1;
}

void chan_abandon(const struct chan *c)
{
	for (const struct chan_node *n = c->out; n; n = n->next)
		for (unsigned i = 0; i < n->nfds; i++)
			sys_close(n->fds[i]);
	for (unsigned i = 0; i < c->nfds; i++)
		sys_close(c->fds[i]);
	if (c->fd >= 0)
		sys_close(c->fd);
}

/* --------------------------------------------------------------- reading --- */

static int bad(struct chan *c, const char *what)
{
	snprintf(c->error, sizeof c->error, "%s", what);
	return -EBADMSG;
}

/* The descriptors of one recvmsg; there is room for as many as can come. */
static int keep_fds(struct chan *c, struct msghdr *m)
{
	int e = 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned n = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
			if (c->nfds < FRAME_MAX_FDS)
				c->fds[c->nfds++] = fd;
			else
				e = bad(c, "more than 64 descriptors with a frame"), sys_close(fd);
		}
	}
	/* MSG_CTRUNC: the kernel has closed what did not fit; or the descriptor table is
	 * full, and nobody says which of them are missing */
	if (!e && m->msg_flags & MSG_CTRUNC)
		e = bad(c, "descriptors were lost on the way (too many, or the limit on open files)");
	return e;
}

/* How many bytes may be read where no descriptor may come: what a recvmsg(2) without msg_control
 * drops is closed there and then, and one that lingers (SO_LINGER) would hold up the reader. To
 * look drops copies, and the sender's, still queued, is never the last. */
static ssize_t look(struct chan *c, struct iovec *iov)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 1 };
	const ssize_t n = sys_recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_PEEK);

	return m.msg_flags & MSG_CTRUNC ? bad(c, "descriptors, where no message has any") : n;
}

/* Fills up to *got == want. 1 full, 0 not yet, -errno. */
static int fill(struct chan *c, uint8_t *p, size_t *got, size_t want)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * KERNEL_MAX_FDS)];
		struct cmsghdr align;
	} control;

	while (*got < want) {
		struct iovec iov = { p + *got, want - *got };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
		                    .msg_control = c->no_fds ? NULL : &control,
		                    .msg_controllen = c->no_fds ? 0 : sizeof control };
		ssize_t n = c->no_fds ? look(c, &iov) : (ssize_t)iov.iov_len;
		if (n > 0) {
			iov.iov_len = (size_t)n;
			n = sys_recvmsg(c->fd, &m, MSG_DONTWAIT);
		}
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		int e = keep_fds(c, &m);
		if (e)
			return e;
		if (n == 0) {
			c->at_end = !c->no_fds;   /* a look is not believed */
			return -ENODATA;
		}
		*got += (size_t)n;
	}
	return 1;
}

static int start_body(struct chan *c)
{
	uint16_t version;
	int n = frame_get_header(c->header, &version);

	if (n < 0)
		return bad(c, "a frame length that no frame can have (not this protocol?)");
	if (version < PROTO_VERSION_MIN || version > PROTO_VERSION_MAX) {
		snprintf(c->error, sizeof c->error, "protocol version %u in a frame, known are %u to %u",
		         version, PROTO_VERSION_MIN, PROTO_VERSION_MAX);
		return -EBADMSG;
	}
	if ((size_t)n > c->item_max)
		return bad(c, "a frame longer than any message may be");
	if ((size_t)n > c->body_cap) {
		uint8_t *p = realloc(c->body, (size_t)n);
		if (!p)
			return -ENOMEM;
		c->body = p;
		c->body_cap = (size_t)n;
	}
	c->body_size = (size_t)n;
	return 0;
}

/* How many descriptors a frame announces. */
static unsigned announced(const struct msg *m)
{
	switch (m->type) {
	case MSG_sockets: return m->sockets.names.n;
	case MSG_hello_ack: return MSG_HAS(m, hello_ack, transfer);
	case MSG_prepare: return MSG_HAS(m, prepare, transfer);
	case MSG_batch: return move_fds(m);
	default: return 0;
	}
}

static int check_fds(struct chan *c, const struct msg *m)
{
	unsigned want = announced(m);

	if (c->nfds == want)
		return 0;
	snprintf(c->error, sizeof c->error, "%s: %u descriptors came, %u were announced",
	         msg_name(m->type), c->nfds, want);
	return -EBADMSG;
}

static int torn(struct chan *c)
{
	c->torn = true;
	return bad(c, "the stream ends inside a frame");
}

static void start_frame(struct chan *c)
{
	close_fds(c->fds, &c->nfds);   /* what the caller did not take */
	c->header_got = c->body_got = c->body_size = 0;
	c->handed_out = false;
}

int chan_recv(struct chan *c, struct msg *ret)
{
	int e;

	if (c->fd < 0)
		return -ENODATA;
	if (c->handed_out)
		start_frame(c);
	if (c->header_got < FRAME_HEADER) {
		e = fill(c, c->header, &c->header_got, FRAME_HEADER);
		if (e == -ENODATA && c->header_got)
			return torn(c);
		if (e <= 0)
			return e;
	}
	if (c->body_size == 0 && (e = start_body(c)))   /* again, if there was no memory for it */
		return e;
	e = fill(c, c->body, &c->body_got, c->body_size);
	if (e == -ENODATA)
		return torn(c);
	if (e <= 0)
		return e;
	if ((e = msg_decode(c->body, c->body_size, ret, c->error, sizeof c->error)))
		return e;
	if (ret->type >= MSG_journal)
		return bad(c, "a record of the disk, not a message");
	if ((e = check_fds(c, ret)))
		return e;
	c->handed_out = true;
	return 1;
}

unsigned chan_take_fds(struct chan *c, int fds[FRAME_MAX_FDS])
{
	unsigned n = c->nfds;

	memcpy(fds, c->fds, n * sizeof *fds);
	c->nfds = 0;
	return n;
}

/* --------------------------------------------------------------- writing --- */

/* -EAGAIN, too, when the kernel has no memory for it: it may have some in a moment, and nobody
 * else would send the frame again. (A stream that is writable all the while is tried all the
 * while; whoever is so short of memory has other worries.) */
static ssize_t send_some(int to, const uint8_t *p, size_t n, const int *fds, unsigned nfds)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * FRAME_MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		memset(&control, 0, sizeof control);
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * nfds);
	}
	const ssize_t sent = sys_sendmsg(to, &m, MSG_DONTWAIT);
	return sent == -ENOBUFS || sent == -ENOMEM ? -EAGAIN : sent;
}

/* The rest of a frame, from byte done on, to the queue, with copies of fds. */
static int enqueue(struct chan *c, const uint8_t *p, size_t n, const int *fds, unsigned nfds)
{
	struct chan_node *node;

	if (c->out_bytes + n > CHAN_OUT_MAX)
		return -ENOBUFS;
	if (!(node = malloc(sizeof *node + n)))
		return -ENOMEM;
	node->next = NULL;
	node->n = n;
	node->done = node->nfds = 0;
	memcpy(node->bytes, p, n);
	for (unsigned i = 0; i < nfds; i++) {
		int fd = sys_dup(fds[i], 3);
		if (fd < 0) {
			node_free(node);
			return fd;
		}
		node->fds[node->nfds++] = fd;
	}
	*c->out_tail = node;
	c->out_tail = &node->next;
	c->out_bytes += n;
	return 0;
}

int chan_send(struct chan *c, const struct msg *m, const int *fds, unsigned nfds)
{
	uint8_t small[2048], *buf = small;
	const struct msg_desc *d = msg_desc(m->type);
	size_t size = sizeof small;
	ssize_t sent = 0;
	int n, e = 0;

	if (c->fd < 0)
		return -EPIPE;
	if (!d || nfds > FRAME_MAX_FDS)
		return -EMSGSIZE;
	n = msg_encode(m, c->version, buf, size);
	if (n == -EMSGSIZE && d->limit + FRAME_HEADER > size) {
		size = d->limit + FRAME_HEADER;
		if (!(buf = malloc(size)))
			return -ENOMEM;
		n = msg_encode(m, c->version, buf, size);
	}
	if (n < 0)
		e = n;
	else if (!c->out) {
		sent = send_some(c->fd, buf, (size_t)n, fds, nfds);
		if (sent == -EAGAIN)
			sent = 0;
		else if (sent < 0)
			e = (int)sent;
	}
	/* the descriptors left with the first byte */
	if (!e && sent < n)
		e = enqueue(c, buf + sent, (size_t)(n - sent), fds, sent ? 0 : nfds);
	if (e && sent > 0)
		chan_end(c);
	if (buf != small)
		free(buf);
	return e;
}

void chan_end(struct chan *c)
{
	if (c->fd >= 0)
		sys_shutdown(c->fd);
}

int chan_offer(struct chan *c, const struct msg *m)
{
	uint8_t buf[64];
	ssize_t n = c->fd < 0 ? -EPIPE : c->out ? -EAGAIN : msg_encode(m, c->version, buf, sizeof buf);

	/* the kernel takes so small a frame as a whole or not at all */
	if (n > 0)
		n = send_some(c->fd, buf, (size_t)n, NULL, 0);
	return n >= 0 || n == -EAGAIN ? 0 : (int)n;
}

int chan_flush(struct chan *c)
{
	struct chan_node *n;

	while ((n = c->out)) {
		ssize_t sent = send_some(c->fd, n->bytes + n->done, n->n - n->done, n->fds, n->nfds);
		if (sent == -EAGAIN)
			return 1;
		if (sent < 0)
			return (int)sent;
		close_fds(n->fds, &n->nfds);
		n->done += (size_t)sent;
		if (n->done < n->n)
			continue;
		c->out_bytes -= n->n;
		if (!(c->out = n->next))
			c->out_tail = &c->out;
		node_free(n);
	}
	return 0;
}

/* ----------------------------------------------------- from life to life --- */

/* Descriptors go with the first byte, as over a socket. */
static int add_pieces(const uint8_t *p, size_t n, size_t max, struct chan_piece piece,
                      int (*add)(void *arg, const struct chan_piece *p), void *arg)
{
	int e = 0;

	for (size_t at = 0; !e && at < n; at += max) {
		piece.bytes = (struct span){ (const char *)p + at, n - at < max ? n - at : max };
		e = add(arg, &piece);
		piece.nfds = 0;
	}
	return e;
}

int chan_save(const struct chan *c, size_t max, int (*add)(void *arg, const struct chan_piece *p), void *arg)
{
	int e = 0;

	if (chan_midframe(c))
		e = add_pieces(c->header, c->header_got, max,
		               (struct chan_piece){ .fds = c->fds, .nfds = c->nfds }, add, arg);
	if (!e && chan_midframe(c))
		e = add_pieces(c->body, c->body_got, max, (struct chan_piece){ .out = false }, add, arg);
	for (const struct chan_node *n = c->out; !e && n; n = n->next)
		e = add_pieces(n->bytes + n->done, n->n - n->done, max,
		               (struct chan_piece){ .out = true, .fds = n->fds, .nfds = n->nfds }, add, arg);
	return e;
}

static int restore_in(struct chan *c, const uint8_t *p, size_t n)
{
	int e;

	for (; n && c->header_got < FRAME_HEADER; n--)
		c->header[c->header_got++] = *p++;
	if (!n)
		return 0;
	if (c->body_size == 0 && (e = start_body(c)))
		return e;
	if (n > c->body_size - c->body_got)
		return bad(c, "more than a frame");
	memcpy(c->body + c->body_got, p, n);
	c->body_got += n;
	return 0;
}

int chan_restore(struct chan *c, const struct chan_piece *piece)
{
	const uint8_t *p = (const uint8_t *)piece->bytes.p;
	int e = 0;

	if (piece->out)
		e = enqueue(c, p, piece->bytes.n, piece->fds, piece->nfds);
	for (unsigned i = 0; i < piece->nfds; i++)
		if (piece->out || c->nfds == FRAME_MAX_FDS)
			sys_close(piece->fds[i]);
		else
			c->fds[c->nfds++] = piece->fds[i];
	return piece->out ? e : restore_in(c, p, piece->bytes.n);
}
