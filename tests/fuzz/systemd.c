/* What a service manager gives: names and numbers in the environment, descriptors. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "handoffd/fdstore.h"
#include "handoffd/listen.h"
#include "handoffd/log.h"
#include "handoffd/sdnotify.h"

static struct conf *conf;
static struct listeners listeners;
static unsigned offered;
static char address[40];     /* abstract, and of this process alone */

static bool take(void *arg, const char *name, int fd)
{
	char err[600] = "";

	(void)arg;
	offered++;
	/* listeners_restore consumes what it is given: the fuzzer's own descriptors are kept from that */
	const int e = listeners_restore(&listeners, conf, name, fd, err, sizeof err);
	HOLDS(!e || *err, "%d, and no reason: %s", e, name);
	return !e;
}

static struct conf *read_conf(void)
{
	struct conf *c;
	char err[1200], text[300];

	snprintf(text, sizeof text, "service fuzz { command = { \"/bin/true\" }\nlisten a { address = \"unix:@%s\" }\n"
	         "listen b { address = \"tcp:127.0.0.1:1\" } }\n", address);
	HOLDS(!conf_read(fuzz_file("systemd.conf", text, strlen(text)), &c, err, sizeof err), "%s", err);
	return c;
}

/* One that is the listener a, so that its name can be found: A.INODE. */
static int listening(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path + 1, address, strlen(address));
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&sa, (socklen_t)(sizeof(sa_family_t) + 1 + strlen(address))))
		listen(fd, 1);
	return fd;
}

static void set(const char *name, struct feed *f)
{
	char text[256];

	if (feed_u8(f) & 1)
		setenv(name, feed_text(f, text, sizeof text), 1);
	else
		unsetenv(name);
}

void fuzz_systemd(const uint8_t *p, size_t n)
{
	struct feed f = { p, n };
	char text[64];
	int fd, at;

	if (!conf) {
		snprintf(address, sizeof address, "handoff-fuzz-systemd-%d", (int)getpid());
		conf = read_conf();
	}
	log_open("fuzz", LOG_L_ERROR);
	for (fd = 3; fcntl(fd, F_GETFD) >= 0; fd++)   /* theirs begin at 3: what is there is not closed */
		;
	world.first_own_fd = fd;
	world.keeps_fds = true;
	at = listening();
	set("NOTIFY_SOCKET", &f);
	set("JOURNAL_STREAM", &f);
	set("LISTEN_FDNAMES", &f);
	set("LISTEN_FDS", &f);
	set("LISTEN_PID", &f);
	snprintf(text, sizeof text, "%d", (int)getpid());
	if (feed_u8(&f) & 1)
		setenv("LISTEN_PID", text, 1);
	offered = 0;
	sdnotify_open();
	fdstore_receive();
	HOLDS(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID"), "a daemon would inherit them");
	fdstore_restore(take, NULL);
	HOLDS(offered <= 256, "%u descriptors, and so many are not open", offered);
	log_open("fuzz", LOG_L_ERROR);
	sdnotify("READY=1", NULL, 0);
	listeners_close(&listeners, false);
	memset(&listeners, 0, sizeof listeners);
	sdnotify_close();
	world.keeps_fds = false;
	close(at);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("JOURNAL_STREAM");
}
