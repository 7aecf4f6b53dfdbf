#include "handoffd/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/sdnotify.h"

#define FIRST 3          /* sd_listen_fds(3): they begin here, without a gap */
#define PATIENCE_MS 1000

static struct { int n; char *names; } received;
static bool used;

/* ---- what comes ---- */

static int number(const char *text)
{
	char *end;
	long v;

	if (!text || *text < '0' || *text > '9')
		return -1;
	errno = 0;
	v = strtol(text, &end, 10);
	return errno || *end || v > INT32_MAX ? -1 : (int)v;
}

void fdstore_receive(void)
{
	const int count = number(getenv("LISTEN_PID")) == getpid() ?
				  number(getenv("LISTEN_FDS")) : 0;
	const char *names = getenv("LISTEN_FDNAMES");

	/* the count is believed as far as descriptors are open: later ones will be this process's */
	while (received.n < count && sys_fcntl(FIRST + received.n, F_SETFD, FD_CLOEXEC) >= 0)
		received.n++;
	received.names = names && received.n ? strdup(names) : NULL;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

/* Nothing is waited for but a full queue of the manager's: it reads as fast as it can, unless it
 * hangs, which is waited for only once. */
static int tell(const char *state, const int *fd)
{
	static bool hangs;
	int r, waited = 0;

	while ((r = sdnotify(state, fd, fd ? 1 : 0)) == -EAGAIN && !hangs && waited < PATIENCE_MS) {
		sys_poll(NULL, 0, 5);
		waited += 5;
	}
	hangs = r == -EAGAIN;
	return r;
}

static int forget(const char *name)
{
	char state[320];
	const int n = snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);

	if (!*name || strchr(name, '\n') || n >= (int)sizeof state)
		return 0;   /* no name of the manager's */
	return tell(state, NULL);
}

void fdstore_restore(bool (*take)(void *arg, const char *name, int fd), void *arg)
{
	char *next = received.names;

	for (int i = 0; i < received.n; i++) {
		const char *name = next ? strsep(&next, ":") : "";

		if (take(arg, name, FIRST + i))
			used = true;
		else
			forget(name);
	}
	free(received.names);
	received.names = NULL;
	received.n = 0;
}

/* ---- names ---- */

static int name_of(const char *listener, int fd, char ret[FDSTORE_NAME])
{
	struct stat st;
	const int r = sys_fstat(fd, &st);

	if (r >= 0)
		snprintf(ret, FDSTORE_NAME, "%s.%ju", listener, (uintmax_t)st.st_ino);
	return r;
}

bool fdstore_listener(const char *name, int fd, char ret[FDSTORE_NAME])
{
	const char *dot = strrchr(name, '.');
	char again[FDSTORE_NAME];

	if (!dot || dot - name > CONF_MAX_NAME)
		return false;
	memcpy(ret, name, dot - name);
	ret[dot - name] = '\0';
	return name_of(ret, fd, again) >= 0 && !strcmp(name, again);
}

/* ---- what goes ---- */

void fdstore_put(const char *listener, int fd)
{
	char name[FDSTORE_NAME], state[FDSTORE_NAME + 40];
	int r;

	if (!sdnotify_on())
		return;
	r = name_of(listener, fd, name);
	/* without FDPOLL=0 systemd would drop one whose other end is gone; none has one, but it
	 * need not look either */
	snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	if (r >= 0)
		r = tell(state, &fd);
	if (r > 0)
		used = true;
	else if (r < 0)
		log_warning("listener %s could not be given to the service manager's descriptor store: %s; "
			    "if this supervisor and the daemon die together, its clients are refused",
			    listener, strerror(-r));
}

void fdstore_remove(const char *listener, int fd)
{
	char name[FDSTORE_NAME];
	int r;

	if (!sdnotify_on())
		return;
	r = name_of(listener, fd, name);
	if (r >= 0)
		r = forget(name);
	if (r < 0)
		log_warning("listener %s stays in the service manager's descriptor store: %s; until the "
			    "service is stopped its clients wait in vain", listener, strerror(-r));
}

bool fdstore_used(void)
{
	return used;
}
