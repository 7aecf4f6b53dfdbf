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

static bool takes_argument(const struct ctl_option *o)
{
	return o->argument;
}

static const char *const shells[] = { "bash", "fish", NULL };

/* What completes NAME; it is made when it is asked for. */
static const char services[] = "handoffctl list 2>/dev/null | sed '1d; s/ .*//'";

static bool takes_shell(const struct ctl_command *k)
{
	return k == &ctl_commands[CTL_COMPLETION];
}

static void print_shells(void)
{
	for (const char *const *s = shells; *s; s++)
		printf("%s%s", s == shells ? "" : " ", *s);
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
		putchar(' ');
		if (takes_shell(k))
			print_shells();
		else if (k->takes_name)
			putchar('@');
		printf("' ;;\n");
	}
	printf("\t*) word='--json --help --version");
	for (const struct ctl_command *k = ctl_commands; k->name; k++)
		printf(" %s", k->name);
	printf("' ;;\n\tesac\n"
	       "\tcase $word in\n"
	       "\t*@) word=\"${word%%@} $(%s)\" ;;\n"
	       "\tesac\n"
	       "\tCOMPREPLY=($(compgen -W \"$word\" -- \"$cur\"))\n}\n"
	       "complete -F _handoffctl handoffctl\n", services);
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

/* Is one of these the command? Without words: is there none yet? fish's own tests for that take the value
 * of an option for a command. */
static void fish_function(void)
{
	printf("function __handoffctl_is\n"
	       "    set -l words (commandline -opc)\n"
	       "    set -e words[1]\n"
	       "    while set -q words[1]\n"
	       "        switch $words[1]\n"
	       "            case ");
	names(takes_argument, " ");
	printf("\n                set -e words[1]\n"
	       "            case '-*'\n"
	       "            case '*'\n"
	       "                contains -- $words[1] $argv\n"
	       "                return\n"
	       "        end\n"
	       "        set -e words[1]\n"
	       "    end\n"
	       "    test (count $argv) = 0\n"
	       "end\n");
}

static void fish(void)
{
	printf("# fish completion of handoffctl; made by `handoffctl completion fish`\n");
	fish_function();
	printf("complete -c handoffctl -f\n");
	for (const struct ctl_command *k = ctl_commands; k->name; k++) {
		printf("complete -c handoffctl -n __handoffctl_is -a %s -d ", k->name);
		fish_text(k->what);
		putchar('\n');
		if (!k->takes_name)
			continue;
		printf("complete -c handoffctl -n '__handoffctl_is %s' -a \"", k->name);
		if (takes_shell(k))
			print_shells();
		else
			printf("(%s)", services);
		printf("\"\n");
	}
	for (const struct ctl_option *o = ctl_options; o->name; o++) {
		printf("complete -c handoffctl -n '__handoffctl_is; or __handoffctl_is");
		for (const struct ctl_command *k = ctl_commands; k->name; k++)
			if (has(o, k))
				printf(" %s", k->name);
		printf("' -l %s", o->name);
		if (o->letter)
			printf(" -s %c", o->letter);
		if (o->argument)
			printf(takes_file(o) ? " -r -F" : " -x");
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
