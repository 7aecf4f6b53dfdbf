#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "base/sys.h"
#include "handoffctl/ctl.h"

/* Wanted before the first error can be found, so the parser does not tell it. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

/*
 * The exit code: who only asked has got nothing. A reader that has left wants no more, which is no
 * error (`handoffctl history | head -1`).
 */
static int printed(const struct ctl *c, int code, int lost)
{
	const bool acted = c->command && c->command->acts && !c->help && !c->version;

	if (!lost || lost == EPIPE)
		return code;
	fprintf(stderr, "handoffctl: not all could be printed: %s%s\n", strerror(lost),
	        acted ? "; the exit status tells the outcome" : "");
	return acted || code ? code : CTL_NOT_COMMITTED;
}

int main(int argc, char **argv)
{
	struct ctl c = { 0 };
	int code;

	sys_fill_standard();
	/* `handoffctl upgrade | head -1` must not end an upgrade's client */
	signal(SIGPIPE, SIG_IGN);
	out_init(&c.out, wants_json(argc, argv));
	if (argc < 2) {
		ctl_usage();
		return CTL_USAGE;
	}
	code = ctl_parse(&c, argc, argv);
	if (code == 0 && c.version)
		puts("handoffctl " PACKAGE_VERSION);
	else if (code == 0 && c.help)
		ctl_help(c.command);
	else if (code == 0)
		code = c.command->run(&c);
	code = printed(&c, code, out_end(&c.out));
	free(c.binary_path);
	return code;
}
