/* Sockets of a kvd that runs without a supervisor. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

static int listen_on(int family, const struct sockaddr *sa, socklen_t n)
{
	const int one = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	if (family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, sa, n) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* A socket file that nobody listens on any more: left by a kill -9. */
static int is_stale(const struct sockaddr_un *un, socklen_t n)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), stale;
	struct stat st;

	if (fd < 0)
		return 0;
	stale = connect(fd, (const struct sockaddr *)un, n) < 0 && errno == ECONNREFUSED &&
		lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
	close(fd);
	return stale;
}

static int bind_unix(struct server *sv, const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, strlen(path));
	fd = listen_on(AF_UNIX, (struct sockaddr *)&un, sizeof(un));
	if (fd == -EADDRINUSE && is_stale(&un, sizeof(un)) && unlink(path) == 0)
		fd = listen_on(AF_UNIX, (struct sockaddr *)&un, sizeof(un));
	return fd < 0 ? fd : net_listen(sv, fd, xstrdup(path));
}

static int bind_tcp(struct server *sv, const char *address)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV };
	const char *port = strrchr(address, ':');
	struct addrinfo *ai;
	char host[64];
	int fd, n = (int)(port - address);

	if (n > 1 && address[0] == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", n, address);
	if (!strcmp(host, "localhost"))
		strcpy(host, "127.0.0.1");
	if (getaddrinfo(host, port + 1, &hints, &ai) != 0)
		return -EDESTADDRREQ;
	fd = listen_on(ai->ai_family, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	return fd < 0 ? fd : net_listen(sv, fd, NULL);
}

int net_bind(struct server *sv, const char *address)
{
	if (!strncmp(address, "unix:", 5))
		return bind_unix(sv, address + 5);
	return bind_tcp(sv, address);
}
