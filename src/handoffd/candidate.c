/* What an upgrade would start, looked at before it begins: is it what was asked for, and is it
 * another than what runs? The copier hashes it; the loop goes on meanwhile. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "handoffd/log.h"
#include "handoffd/service.h"

static void release(struct candidate *c)
{
	exe_close(&c->exe);
	conf_free(c->conf);
	free(c);
}

/* The caller's. */
static struct candidate *take(struct service *s)
{
	struct candidate *c = s->candidate;

	s->candidate = NULL;
	return c;
}

int candidate_look(struct service *s, const struct attempt *a, struct conf *c, struct exe *exe,
                   char *err, size_t size)
{
	struct candidate *n = NULL;

	if (a->pinned && exe->script)
		snprintf(err, size, "%s is a script: its interpreter opens it again by its path, where another may "
		         "lie by then, so that it cannot be pinned; check it with sha256sum(1), or pin a program",
		         exe->path);
	else if (!(n = malloc(sizeof *n)))
		snprintf(err, size, "no memory");
	if (!n) {
		exe_close(exe);
		conf_free(c);
		return 1;
	}
	*n = (struct candidate){ .attempt = *a, .conf = c, .exe = *exe };
	s->candidate = n;
	return 0;
}

static void refuse(struct service *s, const struct candidate *c, int code, const char *why)
{
	char text[2000];

	snprintf(text, sizeof text, "%.1700s%s", why,
	         s->s.state == S_IDLE && !s->s.stop ? "; the daemon was not asked, it serves on" : "");
	utf8_mend(text);
	log_info("%s is refused: %s", c->attempt.plan ? "the plan" : "the upgrade", text);
	ops_refused(s, &c->attempt.id, code, "refused", text);
}

void candidate_drop(struct service *s, const char *why)
{
	struct candidate *c = take(s);
	const char *no;

	if (!c)
		return;
	copier_forget_candidate(s);
	no = why ? why : service_refuses(s);
	if (service_nobody_serves(s))
		ops_refused(s, &c->attempt.id, 5, "refused", no ? no : "the daemon has died");
	else
		refuse(s, c, 1, no ? no : "the daemon was lost for a moment");
	release(c);
}

/* True: it is not what was asked for. */
static bool check_pin(struct service *s, const struct candidate *c, const struct sums *sums, const char *why)
{
	char text[6000], is[65], wanted[65];

	if (!c->attempt.pinned || (sums && sum_same(&sums->exe, &c->attempt.pin)))
		return false;
	fprint_format(&c->attempt.pin, wanted);
	if (sums) {
		fprint_format(&sums->exe, is);
		snprintf(text, sizeof text, "%.1000s has the sha256 %s, and --sha256 asks for %s", c->exe.path, is, wanted);
	} else {
		snprintf(text, sizeof text, "%.1000s could not be copied and checked for --sha256: %s", c->exe.path, why);
	}
	refuse(s, c, 1, text);
	return true;
}

static void compare(const struct service *s, struct attempt *a, const struct sums *sums)
{
	const struct kept *w = &s->keep.c.now;

	if (!sums)
		return;
	a->sums = *sums;
	a->compared = s->exe_served && s->exe.fd >= 0 && sum_known(&w->sum) && sum_known(&sums->rest);
	a->changed = !sum_same(&w->sum, &sums->exe) || !sum_same(&w->rest, &sums->rest);
}

/* True: what it would start runs already. What is not known counts as changed. */
static bool is_unchanged(struct service *s, const struct candidate *c, const struct sums *sums)
{
	char text[2000], sum[65];

	if (!c->attempt.if_changed || !c->attempt.compared || c->attempt.changed)
		return false;
	fprint_format(&sums->exe, sum);
	snprintf(text, sizeof text, "nothing to do: the daemon (pid %d) was started from the same bytes, with the same "
	         "configuration (sha256 %s)", s->o ? (int)s->o->pid : 0, sum);
	log_info("the upgrade is not needed: %s", text);
	ops_refused(s, &c->attempt.id, 0, "unchanged", text);
	return true;
}

/* The copy is what was hashed, and so it is what runs. */
static int take_copy(struct service *s, struct candidate *c, char *err, size_t size)
{
	struct exe copy;
	const int e = keep_pinned(&s->keep, c->exe.path, s->copier.number, &copy);

	if (e) {
		snprintf(err, size, "the copy of %.1000s cannot be opened: %s", c->exe.path, strerror(-e));
		return e;
	}
	copy.id = c->exe.id;
	exe_close(&c->exe);
	c->exe = copy;
	return 0;
}

void candidate_looked(struct service *s, const struct sums *sums, const char *why)
{
	struct candidate *c = take(s);
	const char *no = service_refuses(s);
	char err[1200];
	int code;

	if (!c)
		return;
	s->keep.litter |= c->attempt.pinned;   /* a copy that `current` does not name, or a part of one */
	compare(s, &c->attempt, sums);
	if (check_pin(s, c, sums, why) || is_unchanged(s, c, sums)) {
		release(c);
		return;
	}
	if (no)
		snprintf(err, sizeof err, "%s", no);
	if (no || (c->attempt.pinned && take_copy(s, c, err, sizeof err))) {
		refuse(s, c, 1, err);
		release(c);
		return;
	}
	s->keep.litter = false;   /* its own is in use, and it has removed what lay there */
	/* takes both over */
	code = service_begin(s, &c->attempt, c->conf, &c->exe, err, sizeof err);
	if (code) {
		s->keep.litter |= c->attempt.pinned;
		refuse(s, c, code, err);
	}
	free(c);
}
