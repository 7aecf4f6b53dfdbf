/*
 * conf_options: the one table of the configuration's options. It feeds the
 * parser, the defaults, `handoffd --check` and the check of the manual.
 */
#ifndef HANDOFF_CONF_OPTIONS_H
#define HANDOFF_CONF_OPTIONS_H

#include <stddef.h>

enum conf_kind {
	CONF_STRING,    /* char *: any text, not empty */
	CONF_PATH,      /* char *: an absolute path */
	CONF_LIST,      /* char **: texts, NULL at the end; one text counts as a list of one */
	CONF_NUMBER,    /* int, from min to max */
	CONF_OCTAL,     /* mode_t, from 0 to max */
	CONF_BOOL,      /* bool */
	CONF_DURATION,  /* uint32_t: ms */
	CONF_LIMIT,     /* a row of struct conf's rlimits; min is the RLIMIT_ */
	CONF_ADDRESS,   /* struct conf_listen's address, sa, sa_len */
	CONF_KIND_COUNT
};
extern const char *const conf_kind_name[CONF_KIND_COUNT];

struct conf_option {
	const char *name;
	enum conf_kind kind;
	const char *def;     /* as one would write it; NULL: none, or a duration's */
	const char *what;
	size_t offset;       /* in struct conf, or in struct conf_listen */
	int min, max;
};

/* Of a service, and of a listener in it. A row without name is the end. */
extern const struct conf_option conf_options[];
extern const struct conf_option conf_listen_options[];

#define CONF_OPTION_MAX 64   /* more than either table has */

/* The row's index, or -1. */
int conf_option_find(const struct conf_option *table, const char *name);

/* The default as one would write it, durations too; NULL: none. */
const char *conf_option_default(const struct conf_option *o, char buf[16]);

/* The name of the table nearest to name, for "did you mean"; NULL: none is near. */
const char *conf_option_nearest(const struct conf_option *table, const char *name);

#endif
