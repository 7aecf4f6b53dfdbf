/* handoffctl with a supervisor that answers anything, goes away, or says nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "handoffctl/ctl.h"
#include "proto/msg.h"

static struct feed feed;
static int silent[16];       /* the other ends of connections that stay open */
static unsigned nsilent;

/* One frame: a message made up, whole or cut, or bytes below a good header, or just bytes. */
static size_t answer(uint8_t *out, size_t size)
{
	static const enum msg_type likely[] = { MSG_op_state, MSG_op_result, MSG_op_event, MSG_handoff };
	const uint8_t kind = feed_u8(&feed);
	struct msg m;

	if ((kind & 3) < 2) {
		feed_message(&feed, likely[kind >> 2 & 3], kind & 64, &m);
		const int n = msg_encode(&m, 1, out, size);
		return n < 0 ? 0 : kind & 128 ? (size_t)n * feed_u8(&feed) / 255 : (size_t)n;
	}
	const size_t n = feed_bytes(&feed, out + FRAME_HEADER, size - FRAME_HEADER);
	if ((kind & 3) == 2)
		frame_put_header(out, 1, n);
	else
		memmove(out, out + FRAME_HEADER, n);
	return n + ((kind & 3) == 2 ? FRAME_HEADER : 0);
}

/* The next connection: what it will be told lies in it already. */
static int connected(void)
{
	static uint8_t buf[1 << 17];
	const uint8_t how = feed_u8(&feed);
	int pair[2];

	if (!feed.n || how % 8 == 0)
		return how & 16 ? -EACCES : -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -EMFILE;
	for (unsigned i = 0; i < (how & 3u); i++) {
		const size_t n = answer(buf, sizeof buf);
		if (n && send(pair[1], buf, n, MSG_NOSIGNAL) < 0)
			break;
	}
	if (how % 8 == 7 && nsilent < sizeof silent / sizeof *silent)
		silent[nsilent++] = pair[1];
	else if (how & 8)
		close(pair[1]);   /* and what it is asked meets EPIPE */
	else
		shutdown(pair[1], SHUT_WR), silent[nsilent % 16] = pair[1], nsilent += nsilent < 16;
	return pair[0];
}

void fuzz_ctl(const uint8_t *p, size_t n)
{
	static const char *const commands[] = {
		"status", "upgrade", "plan", "abort", "restart", "stop", "status", "upgrade",
	}, *const records[] = { "history", "explain" };
	struct ctl c = { 0 };
	char *argv[8] = { (char *)"handoffctl" }, path[] = "-S/nowhere", json[] = "--json";
	int argc = 1;

	feed = (struct feed){ p, n };
	const uint8_t how = feed_u8(&feed);
	argv[argc++] = (char *)(how & 64 ? records[how & 1] : commands[how & 7]);
	argv[argc++] = path;
	if (how & 8)
		argv[argc++] = json;
	world.now_us = 1000000000;
	world.connect = connected;
	out_init(&c.out, how & 8);
	c.out.live = how & 16;
	c.out.color = c.out.color_err = how & 32;
	if (!ctl_parse(&c, argc, argv)) {
		const int code = c.command->run(&c);
		HOLDS(code >= 0 && code <= 255, "exit code %d", code);
	}
	out_end(&c.out);
	free(c.binary_path);
	world = (struct world){ 0 };
	for (unsigned i = 0; i < nsilent; i++)
		close(silent[i]);
	nsilent = 0;
	fflush(stdout);
}
