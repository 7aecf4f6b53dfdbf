#include <stdio.h>
#include <string.h>

#include "handoffctl/ctl.h"

static void option_lines(unsigned commands)
{
	char left[40];

	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		if ((o->commands & commands) != commands)
			continue;
		snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "",
		         o->argument ? o->argument : "");
		if (o->letter)
			printf("    -%c, %-21s %s\n", o->letter, left, o->what);
		else
			printf("    %-25s %s\n", left, o->what);
	}
}

static void examples(const char *list)
{
	for (const char *p = list; *p; ) {
		const char *what = p + strlen(p) + 1;

		if (*what)
			printf("    # %s\n", what);
		printf("    handoffctl %s\n", p);
		p = what + strlen(what) + 1;
	}
}

static void exit_lines(void)
{
	printf("\nExit status:\n");
	for (const struct ctl_exit_row *e = ctl_exits; e->what; e++)
		printf("    %d  %s\n", e->code, e->what);
}

static void one(const struct ctl_command *c)
{
	const unsigned bit = 1u << (c - ctl_commands);

	printf("usage: handoffctl %s%s%s [OPTION]...\n\n%s.\n\n%s\n\nOptions:\n", c->name,
	       c->takes_name ? " [NAME]" : "", c->takes_id ? " [ID]" : "", c->what, c->details);
	option_lines(bit);
	printf("\nExamples:\n");
	examples(c->examples);
	exit_lines();
}

void ctl_usage(void)
{
	fprintf(stderr, "usage: handoffctl [--json] COMMAND [NAME] [OPTION]...\n"
	        "Try `handoffctl --help`.\n");
}

void ctl_help(const struct ctl_command *command)
{
	static const enum ctl_command_id shown[] = { CTL_STATUS, CTL_PLAN, CTL_UPGRADE, CTL_EXPLAIN, CTL_ROLLBACK };

	if (command) {
		one(command);
		return;
	}
	printf("usage: handoffctl [--json] COMMAND [NAME] [OPTION]...\n\n"
	       "Replaces the binary of a running daemon without a lost request, and says how\n"
	       "it is. NAME is the service; it may be left out where one service runs.\n\n"
	       "Commands:\n");
	for (const struct ctl_command *c = ctl_commands; c->name; c++)
		printf("    %-10s %s\n", c->name, c->what);
	printf("\nOptions of every command that takes the NAME of a service:\n");
	option_lines(((1u << CTL_COMMANDS) - 1) & ~(1u << CTL_LIST) & ~(1u << CTL_METRICS) & ~(1u << CTL_COMPLETION));
	printf("\nA command's own options, with examples: handoffctl COMMAND --help\n\nExamples:\n");
	for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
		printf("    handoffctl %s\n", ctl_commands[shown[i]].examples);   /* the first one */
	exit_lines();
}
