#include "server.h"
#include "verify.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* As many descriptors as clients are allowed, if the system lets us. */
static void raise_limit(unsigned clients)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur >= clients + 64)
		return;
	rl.rlim_cur = rl.rlim_max < clients + 64 ? rl.rlim_max : clients + 64;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur < clients + 64)
		log_line("only %llu descriptors are allowed: fewer clients than --max-clients",
			 (unsigned long long)rl.rlim_cur);
}

static int serve(struct server *sv)
{
	int code;

	log_line("kvd %s serves: epoch %llu, %llu keys", kvd_version,
		 (unsigned long long)sv->store.epoch,
		 (unsigned long long)store_count(&sv->store));
	server_serve(sv);
	code = server_run(sv);
	/* before the lock is released: nothing of this process's is written after it */
	if (sv->store.writing && store_seal(&sv->store) < 0) {
		log_line("at the end: %s", sv->store.error);
		code = 1;
	}
	return code;
}

int main(int argc, char **argv)
{
	static struct server sv;
	struct options opt;
	int r;

	options_parse(&opt, argc, argv);
	if (opt.verify)
		return verify(opt.data_dir);
	signal(SIGPIPE, SIG_IGN);
	raise_limit(opt.max_clients);
	server_init(&sv, &opt);
	if (store_open(&sv.store, opt.data_dir, opt.shards) < 0) {
		log_line("%s", sv.store.error);
		return 1;
	}
	sv.store.fsync = opt.fsync_always ? FSYNC_ALWAYS : FSYNC_EVERYSEC;
	sv.store.segment_size = opt.segment_size;
	r = life_start(&sv);
	if (!r)
		r = serve(&sv);
	else
		r = r < 0 ? 1 : 0;
	server_free(&sv);
	life_end(&sv);
	return r;
}
