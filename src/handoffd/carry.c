#include "handoffd/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/version.h"

/* ---- what goes ---- */

int carry_begin(struct carry *c)
{
	*c = (struct carry){ .fd = sys_memfd("handoffd") };
	return c->fd < 0 ? c->fd : 0;
}

void carry_put(struct carry *c, const struct msg *m)
{
	const size_t size = FRAME_HEADER + msg_desc(m->type)->limit;
	uint8_t *buf = c->error ? NULL : malloc(size);
	int n;

	if (c->error)
		return;
	n = buf ? msg_encode(m, PROTO_VERSION_HELLO, buf, size) : -ENOMEM;
	c->error = n < 0 ? n : sys_write_all(c->fd, buf, (size_t)n);
	free(buf);
}

struct piece_of { struct carry *to; int channel; };

static int put_piece(void *arg, const struct chan_piece *p)
{
	const struct piece_of *of = arg;
	uint64_t fds[FRAME_MAX_FDS];
	struct msg m = { .type = MSG_carry_bytes,
	                 .carry_bytes = { .channel = (uint64_t)of->channel, .out = p->out, .bytes = p->bytes } };

	for (unsigned i = 0; i < p->nfds; i++)
		fds[i] = (uint64_t)p->fds[i];
	if (p->nfds)
		MSG_SET(&m, carry_bytes, fds, ((struct uints){ .n = p->nfds, .v = fds }));
	carry_put(of->to, &m);
	return of->to->error;
}

void carry_put_chan(struct carry *c, const struct chan *ch)
{
	const int e = chan_save(ch, CARRY_PIECE, put_piece, &(struct piece_of){ c, ch->fd });

	if (!c->error)
		c->error = e;
}

int carry_end(struct carry *c)
{
	if (!c->error)
		c->error = sys_fcntl(c->fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	return c->error;
}

/* ---- what comes ---- */

static int read_all(int fd, struct carried *c)
{
	struct stat st;
	int e = sys_fstat(fd, &st);
	ssize_t r = 1;

	if (e)
		return e;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return -EBADMSG;
	if (!(c->bytes = malloc((size_t)st.st_size)))
		return -ENOMEM;
	while (c->n < (size_t)st.st_size &&
	       (r = sys_pread(fd, c->bytes + c->n, (size_t)st.st_size - c->n, (off_t)c->n)) > 0)
		c->n += (size_t)r;
	return r < 0 ? (int)r : 0;
}

/* The record at *at, which moves on behind it. 1; 0: there is no more; -EBADMSG. */
static int next(const struct carried *c, size_t *at, struct msg *ret, char *err, size_t err_size)
{
	uint16_t version;
	int n;

	if (*at == c->n)
		return 0;
	n = c->n - *at < FRAME_HEADER ? -EBADMSG : frame_get_header(c->bytes + *at, &version);
	if (n < 0 || (size_t)n > c->n - *at - FRAME_HEADER) {
		snprintf(err, err_size, "a record is torn");
		return -EBADMSG;
	}
	*at += FRAME_HEADER + (size_t)n;
	n = msg_decode(c->bytes + *at - n, (size_t)n, ret, err, err_size);
	return n ? n : 1;
}

static int check(struct carried *c, char *err, size_t err_size)
{
	struct msg m;
	size_t at = 0;
	int r = next(c, &at, &c->head, err, err_size);

	if (r == 1 && c->head.type != MSG_carry)
		r = -EBADMSG;
	if (r == 1 && c->head.carry.version != carry_version) {
		snprintf(err, err_size, "what handoffd %.*s hands over is of version %llu, handoffd %s takes version %u",
		         (int)c->head.carry.software.n, c->head.carry.software.p,
		         (unsigned long long)c->head.carry.version, handoffd_version, carry_version);
		return -EPROTONOSUPPORT;
	}
	if (r == 1)
		r = next(c, &at, &c->peer, err, err_size);
	if (r == 0 || (r == 1 && c->peer.type != MSG_carry_peer))
		return -EBADMSG;
	while (r == 1)
		r = next(c, &at, &m, err, err_size);
	return r;
}

int carry_read(int fd, struct carried *ret, char *err, size_t err_size)
{
	char why[200] = "";
	int e;

	*ret = (struct carried){ 0 };
	e = read_all(fd, ret);
	if (!e)
		e = ret->n ? check(ret, why, sizeof why) : -EBADMSG;
	if (!e)
		return 0;
	if (e == -EPROTONOSUPPORT)
		snprintf(err, err_size, "%s", why);
	else
		snprintf(err, err_size, "what an earlier handoffd hands over cannot be read: %s",
		         *why ? why : strerror(-e));
	carry_free(ret);
	return e;
}

void carry_free(struct carried *c)
{
	free(c->bytes);
	*c = (struct carried){ 0 };
}

int carry_each(const struct carried *c, enum msg_type type, int (*take)(void *arg, const struct msg *m), void *arg)
{
	char err[200];
	struct msg m;
	size_t at = 0;
	int e = 0;

	while (!e && next(c, &at, &m, err, sizeof err) == 1)
		if (m.type == type)
			e = take(arg, &m);
	return e;
}

static unsigned fds_of(const struct msg_carry_bytes *m, int out[FRAME_MAX_FDS])
{
	uint64_t fds[FRAME_MAX_FDS];
	const unsigned n = uints_copy(&m->fds, fds, FRAME_MAX_FDS);

	for (unsigned i = 0; i < n; i++)
		out[i] = (int)fds[i];
	return n;
}

int carry_restore(struct chan *ch, const struct msg_carry_bytes *m)
{
	int fds[FRAME_MAX_FDS];

	return chan_restore(ch, &(struct chan_piece){ m->out, m->bytes, fds, fds_of(m, fds) });
}

/* ---- descriptors ---- */

static int mark(int fd, bool keep)
{
	return sys_fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC) < 0 ? -EBADF : 0;
}

static int mark_all(const struct msg_carry_bytes *m, bool keep)
{
	int fds[FRAME_MAX_FDS], e = 0;
	unsigned n = fds_of(m, fds);

	while (n--)
		e |= mark(fds[n], keep);
	return e;
}

int carry_keep(const struct carried *c, bool keep)
{
	const struct msg_carry *h = &c->head.carry;
	const struct msg_carry_peer *p = &c->peer.carry_peer;
	const uint64_t first[] = { h->lock, h->control, h->daemon, p->pidfd, p->channel };
	char err[200];
	struct msg m;
	size_t at = 0;
	int e = 0;

	for (unsigned i = 0; i < sizeof first / sizeof *first; i++)
		e |= mark((int)first[i], keep);
	while (next(c, &at, &m, err, sizeof err) == 1)
		switch (m.type) {
		case MSG_carry_listener: e |= mark((int)m.carry_listener.fd, keep); break;
		case MSG_carry_exe: e |= mark((int)m.carry_exe.fd, keep); break;
		case MSG_carry_caller: e |= mark((int)m.carry_caller.fd, keep); break;
		case MSG_carry_bytes: e |= mark_all(&m.carry_bytes, keep); break;
		default: break;
		}
	return e;
}
