/* completion: what a shell can complete, made from the tables of commands and options. */
#include <stdio.h>
#include <string.h>

#include "handoffctl/ctl.h"

static bool has(const struct ctl_option *o, const struct ctl_command *k)
{
	return o->commands & 1u << (k - ctl_commands);
}

static void words_of(const struct ctl_command *k)
{
	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (has(o, k))
			printf(" --%s", o->name);
}

static void names(bool (*wanted)(const struct ctl_option *o), const char *separator)
{
	const char *s = "";

	for (const struct ctl_option *o = ctl_options; o->name; o++)
		if (wanted(o)) {
			printf("%s--%s", s, o->name);
			s = separator;
			if (o->letter)
				printf("%s-%c", s, o->letter);
		}
}

static bool takes_file(const struct ctl_option *o)
{
	return o->kind == CTL_PATH || o->kind == CTL_FILE;
}

static bool takes_text(const struct ctl_option *o)
{
	return o->argument && !takes_file(o);
}

static void bash(void)
{
	printf("# bash completion of handoffctl; made by `handoffctl completion bash`\n"
	       "_handoffctl()\n{\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word\n"
	       "\tCOMPREPLY=()\n"
	       "\tcase $prev in\n\t");
	names(takes_file, " | ");
	printf(")\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n\t\treturn ;;\n\t");
	names(takes_text, " | ");
	printf(")\n\t\treturn ;;\n\tesac\n"
	       "\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	       "\t\tcase $word in\n\t\t");
	for (const struct ctl_command *k = ctl_commands; k->name; k++)
		printf("%s%s", k == ctl_commands ? "" : " | ", k->name);
	printf(")\n\t\t\tcommand=$word\n\t\t\tbreak ;;\n\t\tesac\n\tdone\n"
	       "\tcase $command in\n");
	for (const struct ctl_command *k = ctl_commands; k->name; k++) {
		printf("\t%s) word='", k->name);
		words_of(k);
		printf(" %s' ;;\n", k->takes_name ? "@" : "");
	}
	printf("\t*) word='--json --help --version");
	for (const struct ctl_command *k = ctl_commands; k->name; k++)
		printf(" %s", k->name);
	printf("' ;;\n\tesac\n"
	       "\tcase $word in\n"
	       "\t*@) word=\"${word%%@} $(handoffctl list 2>/dev/null | sed '1d; s/ .*//')\" ;;\n"
	       "\tesac\n"
	       "\tCOMPREPLY=($(compgen -W \"$word\" -- \"$cur\"))\n}\n"
	       "complete -F _handoffctl handoffctl\n");
}

static void fish_text(const char *s)
{
	putchar('\'');
	for (; *s; s++) {
		if (*s == '\'' || *s == '\\')
			putchar('\\');
		putchar(*s);
	}
	putchar('\'');
}

static void fish(void)
{
	printf("# fish completion of handoffctl; made by `handoffctl completion fish`\n"
	       "complete -c handoffctl -f\n");
	for (const struct ctl_command *k = ctl_commands; k->name; k++) {
		printf("complete -c handoffctl -n __fish_use_subcommand -a %s -d ", k->name);
		fish_text(k->what);
		putchar('\n');
		if (k->takes_name)
			printf("complete -c handoffctl -n '__fish_seen_subcommand_from %s' "
			       "-a \"(handoffctl list 2>/dev/null | sed '1d; s/ .*//')\"\n", k->name);
	}
	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		printf("complete -c handoffctl -n '__fish_seen_subcommand_from");
		for (const struct ctl_command *k = ctl_commands; k->name; k++)
			if (has(o, k))
				printf(" %s", k->name);
		printf("' -l %s", o->name);
		if (o->letter)
			printf(" -s %c", o->letter);
		if (o->argument)
			printf(" -r%s", takes_file(o) ? " -F" : "");
		printf(" -d ");
		fish_text(o->what);
		putchar('\n');
	}
}

int ctl_completion(struct ctl *c)
{
	if (!c->name || (strcmp(c->name, "bash") && strcmp(c->name, "fish")))
		return out_error(&c->out, CTL_USAGE, "for which shell? handoffctl completion bash, or fish");
	if (!strcmp(c->name, "bash"))
		bash();
	else
		fish();
	return CTL_OK;
}
