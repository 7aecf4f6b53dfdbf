#include "base/queue.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <string.h>

#include "base/sys.h"

#define LISTENING 10   /* TCP_LISTEN, which is unix sockets' too; netinet/tcp.h has another tcp_info */

/* tcp(7) does not say it: of a listening socket tcpi_unacked is the length of the queue and
 * tcpi_sacked its bound (tcp_get_info). */
static int look_at_tcp(int fd, struct queue *ret)
{
	struct tcp_info info = { 0 };
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t n = sizeof info;
	int e = sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n);

	if (e)
		return e;
	if (info.tcpi_state != LISTENING)
		return -EINVAL;
	*ret = (struct queue){ .waiting = info.tcpi_unacked, .backlog = info.tcpi_sacked };
	n = sizeof mem;
	if (!sys_getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &n) && n >= sizeof mem)
		ret->drops = mem[SK_MEMINFO_DROPS];
	return 0;
}

static int ask(int diag, uint64_t inode)
{
	struct { struct nlmsghdr h; struct unix_diag_req r; } q = {
		.h = { .nlmsg_len = sizeof q, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.r = { .sdiag_family = AF_UNIX, .udiag_states = 1u << LISTENING, .udiag_ino = (uint32_t)inode,
		       .udiag_show = UDIAG_SHOW_RQLEN, .udiag_cookie = { ~0u, ~0u } },
	};
	struct iovec iov = { &q, sizeof q };
	const struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = sys_sendmsg(diag, &m, 0);

	return n < 0 ? (int)n : 0;
}

/* The kernel has answered before sendmsg returned. -ESTALE: that is about another socket, an
 * answer that could not be read when it was asked for. */
static int answer(int diag, uint64_t inode, struct queue *ret)
{
	_Alignas(struct nlmsghdr) char buf[1024];
	struct iovec iov = { buf, sizeof buf };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	ssize_t n = sys_recvmsg(diag, &m, MSG_DONTWAIT);

	if (n < 0)
		return (int)n;
	if ((size_t)n < NLMSG_LENGTH(sizeof(struct unix_diag_msg)) || h->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
	    h->nlmsg_len > (size_t)n)
		return -EINVAL;
	const struct unix_diag_msg *d = NLMSG_DATA(h);
	if (d->udiag_ino != (uint32_t)inode)
		return -ESTALE;
	size_t left = h->nlmsg_len - NLMSG_LENGTH(sizeof(struct unix_diag_msg));
	const struct rtattr *a = (const struct rtattr *)(buf + NLMSG_LENGTH(sizeof(struct unix_diag_msg)));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == UNIX_DIAG_RQLEN && RTA_PAYLOAD(a) >= sizeof(struct unix_diag_rqlen)) {
			struct unix_diag_rqlen q;
			memcpy(&q, RTA_DATA(a), sizeof q);
			*ret = (struct queue){ .waiting = q.udiag_rqueue, .backlog = q.udiag_wqueue };
			return 0;
		}
	return -EINVAL;
}

int queue_look(int fd, int diag, struct queue *ret)
{
	struct stat st;
	int e = look_at_tcp(fd, ret);

	if (e != -EOPNOTSUPP || diag < 0)   /* a unix socket has no such option */
		return e;
	if ((e = sys_fstat(fd, &st)) || (e = ask(diag, st.st_ino)))
		return e;
	while ((e = answer(diag, st.st_ino, ret)) == -ESTALE)
		;
	return e;
}

int queue_open(void)
{
	return sys_socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
}
