#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "handoffctl/ctl.h"

/* Wanted before the first error can be found, so the parser does not tell it. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	struct ctl c = { 0 };
	int code;

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
	out_end(&c.out);
	free(c.binary_path);
	return code;
}
