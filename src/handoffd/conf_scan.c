#include "handoffd/conf_scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scanner {
	const char *file;
	char *p;                   /* what comes next */
	int line;
	struct conf_scan *out;
	char *err;
	size_t err_size;
};

enum token_type { T_END, T_WORD, T_OPEN = '{', T_CLOSE = '}', T_EQUAL = '=', T_COMMA = ',' };

struct token {
	enum token_type type;
	const char *at;            /* a word: its text, without the quotes */
	int n, line;
};

static int __attribute__((format(printf, 3, 4)))
fail(struct scanner *s, int line, const char *fmt, ...)
{
	const int n = snprintf(s->err, s->err_size, "%s:%d: ", s->file, line);
	va_list ap;

	va_start(ap, fmt);
	if ((size_t)n < s->err_size)
		vsnprintf(s->err + n, s->err_size - n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int out_of_memory(struct scanner *s)
{
	fail(s, s->line, "out of memory");
	return -ENOMEM;
}

/* ---- tokens ---- */

static void blank(struct scanner *s, char *end)
{
	for (; s->p < end; s->p++)
		if (*s->p == '\n')
			s->line++;
		else
			*s->p = ' ';
}

/* Blanks and comments. A // or slash-star within a word (http://...) is no comment. */
static int skip(struct scanner *s)
{
	for (;;) {
		char *p = s->p;

		if (*p == '\n') {
			s->line++;
			s->p++;
		} else if (*p == ' ' || *p == '\t' || *p == '\r') {
			s->p++;
		} else if (*p == '#' || (p[0] == '/' && p[1] == '/')) {
			blank(s, p + strcspn(p, "\n"));
		} else if (p[0] == '/' && p[1] == '*') {
			char *end = strstr(p + 2, "*/");

			if (!end)
				return fail(s, s->line,
					    "this comment is never closed; add */ at its end");
			blank(s, end + 2);
		} else {
			return 0;
		}
	}
}

/* At "${": checks the variable. libconfuse will put its value in. *ret: behind the }. */
static int variable(struct scanner *s, char *p, char **ret)
{
	char *const name = p + 2, *const close = name + strcspn(name, "}\n\"");
	char *const end = strstr(name, ":-");
	char saved;
	bool set;

	if (*close != '}')
		return fail(s, s->line,
			    "${ without } on the same line; write ${NAME}, or \\${ for a plain ${");
	*ret = close + 1;
	if (end && end < close)
		return 0;          /* ${NAME:-default} */
	saved = *close;
	*close = '\0';
	set = getenv(name) != NULL;
	*close = saved;
	if (!set)
		return fail(s, s->line, "variable %.*s is not set; set it for handoffd, or "
			    "write ${%.*s:-DEFAULT}", (int)(close - name), name,
			    (int)(close - name), name);
	return 0;
}

static int string(struct scanner *s, struct token *t)
{
	const char quote = *s->p++;

	t->at = s->p;
	while (*s->p != quote) {
		int r;

		if (*s->p == '\0' || *s->p == '\n')
			return fail(s, s->line,
				    "this text is not closed; add %c at its end, on the same line",
				    quote);
		if (s->p[0] == '\\' && s->p[1] != '\0' && s->p[1] != '\n')
			s->p += 2;
		else if (quote != '"' || s->p[0] != '$' || s->p[1] != '{')
			s->p++;
		else if ((r = variable(s, s->p, &s->p)) < 0)
			return r;
	}
	t->n = s->p - t->at;
	s->p++;
	return 0;
}

/* What libconfuse takes as an unquoted word; it drops other characters silently. */
static bool in_word(char c)
{
	return (unsigned char)c > ' ' && c != 127 && !strchr("#\"'={}()+,*", c);
}

static int word(struct scanner *s, struct token *t)
{
	int r = 0;

	t->at = s->p;
	if (s->p[0] == '$' && s->p[1] == '{')
		r = variable(s, s->p, &s->p);
	else
		while (in_word(*s->p))
			s->p++;
	t->n = s->p - t->at;
	if (r < 0)
		return r;
	if (in_word(*s->p) || *s->p == '"' || *s->p == '\'' || (s->p[0] == '{' && s->p[-1] == '$'))
		return fail(s, s->line,
			    "a value that is more than one plain word needs quotes; write \"...\" "
			    "around it");
	return 0;
}

static int next(struct scanner *s, struct token *t)
{
	int r = skip(s);

	if (r < 0)
		return r;
	*t = (struct token){ .type = T_END, .at = s->p, .line = s->line };
	switch (*s->p) {
	case '\0':
		return 0;
	case '{': case '}': case '=': case ',':
		t->type = (enum token_type)*s->p++;
		t->n = 1;
		return 0;
	case '"': case '\'':
		t->type = T_WORD;
		return string(s, t);
	}
	if (s->p[0] == '+' && s->p[1] == '=')
		return fail(s, s->line,
			    "+= is not supported; write the whole list in one = { ... }");
	if (!in_word(*s->p) && (unsigned char)*s->p < ' ')
		return fail(s, s->line, "unexpected control character; remove it");
	if (!in_word(*s->p))
		return fail(s, s->line, "unexpected '%c'; put a value that holds it in quotes",
			    *s->p);
	t->type = T_WORD;
	return word(s, t);
}

/* ---- grammar ---- */

static int mark(struct scanner *s, const struct token *name, const struct token *title,
		int parent, struct conf_mark **ret)
{
	struct conf_scan *o = s->out;
	struct conf_mark *m;

	if ((o->n & (o->n - 1)) == 0) {    /* a power of two: full */
		m = realloc(o->v, (o->n ? 2 * o->n : 1) * sizeof *m);
		if (!m)
			return out_of_memory(s);
		o->v = m;
	}
	m = &o->v[o->n];
	*m = (struct conf_mark){ .line = name->line, .parent = parent };
	m->name = strndup(name->at, name->n);
	m->title = title ? strndup(title->at, title->n) : NULL;
	o->n++;
	*ret = m;
	return m->name && (m->title || !title) ? 0 : out_of_memory(s);
}

static int unexpected(struct scanner *s, const struct token *t, const char *right)
{
	if (t->type == T_END)
		return fail(s, t->line, "the file ends too early; %s", right);
	return fail(s, t->line, "unexpected '%.*s'; %s", t->n, t->at, right);
}

/* Behind the { of a list; a comma may stand behind the last value. */
static int list(struct scanner *s, const char *name)
{
	char right[128];
	struct token t;
	int r;

	snprintf(right, sizeof right,
		 "write %.32s = { \"a\", \"b\" }, with commas between and } at the end", name);
	for (bool value = false;; value = !value) {
		if ((r = next(s, &t)) < 0)
			return r;
		if (t.type == T_CLOSE)
			return 0;
		if (t.type != (value ? T_COMMA : T_WORD))
			return unexpected(s, &t, right);
	}
}

static int assignment(struct scanner *s, const struct token *name, int parent)
{
	struct conf_mark *m;
	char right[128];
	struct token t;
	int r = mark(s, name, NULL, parent, &m);

	if (r < 0 || (r = next(s, &t)) < 0)
		return r;
	if (t.type == T_OPEN) {
		m->list = true;
		return list(s, m->name);
	}
	if (t.type == T_WORD)
		return 0;
	snprintf(right, sizeof right, "write %.32s = VALUE", m->name);
	return unexpected(s, &t, right);
}

static int section(struct scanner *s, const struct token *name, const struct token *title)
{
	struct conf_mark *m;
	int r = mark(s, name, title, s->out->open, &m);

	if (r < 0)
		return r;
	m->section = true;
	s->out->open = s->out->n - 1;
	return 0;
}

/* name was read: "= VALUE", "{" or "TITLE {" must follow. */
static int statement(struct scanner *s, const struct token *name)
{
	struct token t, brace;
	char right[256];
	int r = next(s, &t);

	if (r < 0)
		return r;
	if (t.type == T_EQUAL)
		return assignment(s, name, s->out->open);
	if (t.type == T_OPEN)
		return section(s, name, NULL);
	snprintf(right, sizeof right, "write %.*s = VALUE, or %.*s NAME { ... } for a section",
		 name->n < 32 ? name->n : 32, name->at, name->n < 32 ? name->n : 32, name->at);
	if (t.type != T_WORD)
		return unexpected(s, &t, right);
	if ((r = next(s, &brace)) < 0)
		return r;
	if (brace.type == T_OPEN)
		return section(s, name, &t);
	return fail(s, name->line, "'%.*s' has neither = nor {; %s", name->n < 64 ? name->n : 64,
		    name->at, right);
}

int conf_scan(const char *file, char *text, struct conf_scan *ret, char *err, size_t err_size)
{
	struct conf_scan out = { .open = -1 };
	struct scanner s = {
		.file = file, .p = text, .line = 1, .out = &out, .err = err, .err_size = err_size
	};
	struct token t;
	int r;

	while ((r = next(&s, &t)) == 0 && t.type != T_END) {
		if (t.type == T_WORD)
			r = statement(&s, &t);
		else if (t.type == T_CLOSE && out.open >= 0)
			out.open = out.v[out.open].parent;
		else if (t.type == T_CLOSE)
			r = fail(&s, t.line,
				 "this } closes nothing; remove it, or add the { that it belongs "
				 "to");
		else
			r = unexpected(&s, &t, "write NAME = VALUE; a list is { \"a\", \"b\" }");
		if (r < 0)
			break;
	}
	if (r < 0)
		conf_scan_free(&out);
	else
		*ret = out;
	return r;
}

void conf_scan_free(struct conf_scan *s)
{
	for (int i = 0; i < s->n; i++) {
		free(s->v[i].name);
		free(s->v[i].title);
	}
	free(s->v);
	*s = (struct conf_scan){ .open = -1 };
}
