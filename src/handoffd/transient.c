#include "handoffd/transient.h"

#include <errno.h>
#include <stddef.h>

static const char *const hint[] = {
	[EMFILE] = "; raise LimitNOFILE=",
	[ENFILE] = "; raise fs.file-max",
	[ENOMEM] = "; free memory, or raise MemoryMax=",
	[ENOBUFS] = "; free memory, or raise MemoryMax=",
	[EAGAIN] = "; try again",                         /* of fork(2) spawn.c says more */
	[ENOSPC] = "; make room there",
	[EDQUOT] = "; make room there",
	[EIO] = "; look at the disk",
	[EUCLEAN] = "; look at the disk",
	[EROFS] = "; look at the disk, remount it",       /* errors=remount-ro, ext4(5) */
	[ESTALE] = "; look at the file server",
	[ETIMEDOUT] = "; look at the file server",
	[EHOSTDOWN] = "; look at the file server",
	[EHOSTUNREACH] = "; look at the file server",
	[ENETUNREACH] = "; look at the file server",
	[ENOTCONN] = "; mount that file system again",   /* FUSE: who served it has died */
	[EPIPE] = "; try again",                          /* a child that was to find out has died */
};

const char *transient_hint(int error)
{
	const size_t i = error < 0 ? -(size_t)error : 0;

	return i < sizeof hint / sizeof *hint && hint[i] ? hint[i] : "";
}

bool transient(int error)
{
	return *transient_hint(error);
}
