/* The table of the targets, and what they share. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sys.h"

static const struct fuzz_target targets[] = {
	{ "msg", fuzz_msg }, { "cbor", fuzz_cbor }, { "super", fuzz_super }, { "daemon", fuzz_daemon },
	{ "conf", fuzz_conf }, { "record", fuzz_record }, { "library", fuzz_library },
	{ "handoffd", fuzz_handoffd }, { "ctl", fuzz_ctl }, { "systemd", fuzz_systemd },
	{ "proc", fuzz_proc }, { "exporter", fuzz_exporter },
};

static const struct fuzz_target *target;
static int report = STDERR_FILENO;
static char dir[64];

uint8_t feed_u8(struct feed *f)
{
	if (!f->n)
		return 0;
	f->n--;
	return *f->p++;
}

uint64_t feed_uint(struct feed *f)
{
	static const uint64_t limits[] = { UINT64_MAX, INT64_MAX, UINT32_MAX, INT32_MAX, 65535, 24, 1, 0 };
	const uint8_t kind = feed_u8(f);
	uint64_t v = 0;

	if (kind < 0xf0)
		return kind;
	if (kind >= 0xf8)
		return limits[kind & 7];
	for (unsigned i = 0; i <= (kind & 7u); i++)
		v = v << 8 | feed_u8(f);
	return v;
}

size_t feed_bytes(struct feed *f, uint8_t *out, size_t max)
{
	size_t n = feed_u8(f);

	n = n < max ? n : max;
	n = n < f->n ? n : f->n;
	if (n)
		memcpy(out, f->p, n);
	f->p += n;
	f->n -= n;
	return n;
}

char *feed_text(struct feed *f, char *out, size_t size)
{
	out[feed_bytes(f, (uint8_t *)out, size - 1)] = '\0';
	return out;
}

void fuzz_failed(const char *file, int line, const char *expr, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	dprintf(report, "%s:%d: %s: does not hold: %s: %s\n", file, line, target->name, expr, text);
	abort();
}

/* ----------------------------------------------------------------- files --- */

void fuzz_remove(const char *path)
{
	char below[600];
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(below, sizeof below, "%s/%s", path, e->d_name);
		if (unlink(below))
			fuzz_remove(below);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

static void clean(void)
{
	if (*dir)
		fuzz_remove(dir);
}

const char *fuzz_dir(void)
{
	if (!*dir) {
		snprintf(dir, sizeof dir, "%s/handoff-fuzz.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
		if (!mkdtemp(dir))
			abort();
		atexit(clean);
	}
	return dir;
}

const char *fuzz_file(const char *name, const void *p, size_t n)
{
	static char path[200];
	int fd;

	snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	close(fd);
	return path;
}

unsigned fuzz_count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ------------------------------------------------------------- the program --- */

/* Nothing is started, and no disk is waited for. */
static int refuse(enum sys_call call)
{
	switch (call) {
	case SYS_C_FORK:
	case SYS_C_EXEC:
		return -EAGAIN;
	case SYS_C_PWRITE:
	case SYS_C_FDATASYNC:
		if (!world.no_disk)
			return 0;
		world.no_disk = false;
		return -ENOSPC;
	default:
		return 0;
	}
}

static void choose(const char *name)
{
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
		if (!strcmp(targets[i].name, name))
			target = &targets[i];
	if (!target) {
		fprintf(stderr, "no target %s\n", name);
		exit(2);
	}
	report = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	sys_fault = refuse;
	fuzz_dir();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *name = getenv("FUZZ_TARGET");

	(void)argc;
	(void)argv;
	choose(name ? name : "msg");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	target->run(p, n);
	return 0;
}

#ifndef FUZZER
/* Replays files, for a compiler without libFuzzer. The name of the folder is the target's. */

#undef main   /* handoffd's has another name here */

static int replay(const char *path)
{
	static uint8_t text[1 << 20];
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof text, f) : 0;
	uint8_t *p = malloc(n + !n);   /* of its size: a sanitizer sees a byte read too far */

	if (!f || !p) {
		dprintf(report, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	fclose(f);
	if (n)
		memcpy(p, text, n);
	LLVMFuzzerTestOneInput(p, n);
	free(p);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0, null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	LLVMFuzzerInitialize(&argc, &argv);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
	for (int i = 1; i < argc; i++)
		failed |= replay(argv[i]);
	dprintf(report, "100%%: Checks: %d, %s\n", argc - 1, target->name);
	return failed;
}
#endif
