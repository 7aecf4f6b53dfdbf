/* explain: one handoff in sentences, cause first. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "handoffctl/ask.h"
#include "handoffctl/ctl.h"
#include "handoffctl/json.h"
#include "handoffctl/place.h"
#include "handoffctl/records.h"

#define NAME "handoffctl"
#define STATUS_MS 2000
#define LOG_MAX 2000   /* bytes of the daemons' lines */

/* What to do; the first row that fits. NULL fits everything. "@" is where the service is named. */
static const struct advice {
	const char *outcome, *role, *phase, *timer, *words;
} advices[] = {
	{ "committed", NULL, NULL, NULL, "Nothing." },
	{ "under way", NULL, NULL, NULL,
	  "Wait for its end, or end it: '" NAME " abort@'." },
	{ "unknown", NULL, NULL, NULL,
	  "'" NAME " status@' says what serves now. Upgrade again if it is the old one." },
	{ NULL, "operator", NULL, NULL, "Nothing is wrong: upgrade again when you are ready." },
	{ NULL, "supervisor", "adopt", NULL,
	  "The supervisor ended in the middle and took the handoff back: look into its log for why it "
	  "ended, then upgrade again." },
	{ NULL, "supervisor", NULL, NULL,
	  "Mend what the cause names (a full disk, a missing file, a limit), then upgrade again." },
	{ NULL, "successor", "warm", "start-timeout",
	  "Its start took too long. Look into its log for what it waits for; if it only needs more time, "
	  "raise start-timeout: nobody waits for a start." },
	{ NULL, NULL, NULL, "start-timeout", "Raise start-timeout, or look into the log for what it waits for." },
	{ NULL, "incumbent", "drain", "drain-grace",
	  "Requests in flight took longer than drain-grace. Upgrade when it is calmer, or give it more: "
	  "--drain-grace, --deadline." },
	{ NULL, "incumbent", NULL, "deadline",
	  "Closing the data took longer than the pause that you accept. Give it more with --deadline, or "
	  "upgrade when there is less to write." },
	{ NULL, "successor", NULL, "deadline",
	  "Opening the data took longer than the pause that you accept. Give it more with --deadline; a "
	  "daemon that reads its data in the warm-up needs less." },
	{ NULL, NULL, NULL, "commit-timeout",
	  "It was told to serve and did not say that it does. Look into its log; try it with "
	  "'" NAME " plan@' and on a copy of the data." },
	{ NULL, NULL, NULL, "presumed-dead",
	  "It was silent: it hung, was stopped, or the machine is overloaded. Look at the load, and into "
	  "its log, then upgrade again." },
	{ NULL, "successor", "warm", NULL,
	  "Look into its log for why it ended, mend that, and try with '" NAME " plan@', which starts it "
	  "without a handoff." },
	{ NULL, "successor", "ready", NULL,
	  "It could not serve with these data. Look into its log; do not try again before you know why." },
	{ NULL, "successor", NULL, NULL,
	  "Look into its log for why it ended, and mend that before you upgrade again." },
	{ NULL, "incumbent", NULL, NULL,
	  "Look into the log of the daemon that serves for why it could not hand over. If it never can, "
	  "'" NAME " restart@' replaces it with a gap in which clients wait." },
	{ NULL, NULL, NULL, NULL, "Look into the logs, then upgrade again." },
};

static bool fits(const char *wanted, const char *is)
{
	return !wanted || !strcmp(wanted, is);
}

/* An incumbent that was late said nothing for a while, or had to be killed: it was not busy. */
static bool hung(const json_t *r, const json_t *failed)
{
	const json_t *step;
	size_t i;

	if (strcmp(record_text(failed, "role"), "incumbent") || !*record_text(failed, "timer"))
		return false;
	json_array_foreach(json_object_get(r, "steps"), i, step)
		if (!strcmp(record_text(step, "who"), "incumbent") &&
		    (!strncmp(record_text(step, "what"), "silent", 6) || strstr(record_text(step, "what"), "was killed")))
			return true;
	return false;
}

static const char *advice(const json_t *r)
{
	const json_t *f = json_object_get(r, "failed");
	const char *timer = hung(r, f) ? "presumed-dead" : record_text(f, "timer");
	const struct advice *a = advices;

	if (record_uint(r, "code") == 5)
		return "NOBODY served when it ended: '" NAME " status@' says whether that is so still, and what "
		       "hinders a start; '" NAME " restart@' reads the configuration again and tries at once, '"
		       NAME " rollback@' starts the previous executable.";
	while (!fits(a->outcome, record_text(r, "outcome")) || !fits(a->role, record_text(f, "role")) ||
	       !fits(a->phase, record_text(f, "phase")) || !fits(a->timer, timer))
		a++;
	return a->words;
}

/* ---- parts of it ---- */

static void text(const char *s)
{
	out_text(stdout, SPAN(s));
}

static void heading(const struct out *o, const char *words)
{
	putchar('\n');
	out_color(stdout, o->color, OUT_DIM);
	fputs(words, stdout);
	out_color(stdout, o->color, OUT_PLAIN);
	putchar('\n');
}

static void say_daemon(const char *who, const json_t *d)
{
	printf("  %-10s ", who);
	if (record_uint(d, "pid"))
		printf("pid %" PRIu64, record_uint(d, "pid"));
	else
		printf("no pid is known");
	if (*record_text(d, "version")) {
		printf(", version ");
		text(record_text(d, "version"));
	}
	if (*record_text(d, "build"))
		printf(", build %.16s", record_text(d, "build"));
	if (*record_text(d, "binary")) {
		printf(", ");
		text(record_text(d, "binary"));
	}
	putchar('\n');
}

static void say_who_asked(const json_t *r)
{
	const time_t t = (time_t)(record_uint(r, "asked_ms") / 1000);
	static const char *const context[][2] = {
		{ "reason", "reason" }, { "correlation_id", "correlation id" }, { "tenant", "tenant" },
		{ "trace_parent", "trace parent" },
	};
	char when[40] = "at an unknown time";
	struct tm tm;

	if (t && localtime_r(&t, &tm))
		strftime(when, sizeof when, "on %Y-%m-%d at %H:%M:%S", &tm);
	printf("It was asked for %s by uid %" PRIu64, when, record_uint(r, "uid"));
	for (size_t i = 0; i < sizeof context / sizeof *context; i++)
		if (*record_text(r, context[i][0])) {
			printf(", %s: ", context[i][1]);
			text(record_text(r, context[i][0]));
		}
	puts(".");
}

static void say_failure(const json_t *f)
{
	printf("Cause: ");
	text(record_text(f, "cause"));
	printf(".\n");
	printf("At fault was the %s, in the phase %s", record_text(f, "role"), record_text(f, "phase"));
	if (*record_text(f, "timer"))
		printf("; the time limit %s was over", record_text(f, "timer"));
	puts(".");
}

/* Of another attempt they are where they were, or have ended with the successor. */
static void say_connections(const json_t *r)
{
	const uint64_t moved = record_uint(r, "connections_moved"), stayed = record_uint(r, "connections_stayed");

	if (record_uint(r, "connections_left"))
		printf("%" PRIu64 " connections were open when the incumbent had drained.\n",
		       record_uint(r, "connections_left"));
	if (strcmp(record_text(r, "outcome"), "committed") || !(moved + stayed))
		return;
	if (!moved) {
		printf("No connection moved to the successor; %" PRIu64 " ended with the incumbent.\n", stayed);
		return;
	}
	printf("%" PRIu64 " connections moved to the successor", moved);
	if (stayed)
		printf("; %" PRIu64 " could not, and ended with the incumbent", stayed);
	puts(".");
}

static void say_disruption(const json_t *r)
{
	const json_t *queues = json_object_get(r, "queues"), *q;
	char buf[32];
	size_t i;

	if (record_uint(r, "stall_us"))
		printf("Nobody accepted for %s; clients waited in the queue.\n",
		       out_duration(record_uint(r, "stall_us"), buf));
	else if (json_is_integer(json_object_get(r, "stall_us")))
		puts("No client had to wait.");
	say_connections(r);
	json_array_foreach(queues, i, q) {
		printf("In the queue of ");
		text(record_text(q, "listener"));
		printf(" %" PRIu64 " of %" PRIu64 " waited, %" PRIu64 " were dropped.\n", record_uint(q, "deepest"),
		       record_uint(q, "backlog"), record_uint(q, "drops"));
	}
}

static void say_steps(const struct out *o, const json_t *r)
{
	const json_t *steps = json_object_get(r, "steps"), *step;
	char buf[32];
	size_t i;

	if (!json_array_size(steps))
		return;
	heading(o, "What happened, since the request:");
	json_array_foreach(steps, i, step) {
		const bool phase = !strcmp(record_text(step, "who"), "phase");

		printf("%12s  %s", out_duration(record_uint(step, "us"), buf), phase ? "" : "    ");
		text(phase ? "" : record_text(step, "who"));
		printf("%s", phase ? "" : ": ");
		text(record_text(step, "what"));
		putchar('\n');
	}
}

static void say_log(const struct out *o, const char *log)
{
	if (!*log)
		return;
	heading(o, "The last lines that the daemons wrote:");
	for (const char *line = log; *line; ) {
		const size_t n = strcspn(line, "\n");

		printf("  ");
		out_text(stdout, (struct span){ line, n });
		putchar('\n');
		line += n + (line[n] == '\n');
	}
}

static void say_advice(const struct ctl *c, const char *words, const char *name)
{
	printf("  ");
	for (; *words; words++)
		if (*words == '@')
			printf(" %s%s", c->socket ? "-S " : "", name);
		else
			putchar(*words);
	putchar('\n');
}

static void explain(const struct ctl *c, const json_t *r, const char *name)
{
	const struct out *o = &c->out;
	const json_t *f = json_object_get(r, "failed");
	const char *outcome = record_text(r, "outcome");
	const bool good = !strcmp(outcome, "committed");

	if (json_is_object(f))
		say_failure(f);
	printf("The %s %s %s ", strcmp(record_text(r, "kind"), "rollback") ? "handoff" : "rollback",
	       record_text(r, "handoff"), !strcmp(outcome, "unknown") ? "ended as" :
	       !strcmp(outcome, "under way") ? "is" : "was");
	out_color(stdout, o->color, good ? OUT_GOOD : OUT_BAD);
	text(outcome);
	out_color(stdout, o->color, OUT_PLAIN);
	if (*record_text(r, "message")) {
		printf(": ");
		text(record_text(r, "message"));
	}
	puts(".");
	say_disruption(r);
	say_who_asked(r);
	say_daemon("incumbent", json_object_get(r, "from"));
	say_daemon("successor", json_object_get(r, "to"));
	say_steps(o, r);
	say_log(o, record_text(r, "log"));
	heading(o, "What to do:");
	say_advice(c, advice(r), name);
}

/* ---- the journal, where the daemons' lines went there ---- */

/* The last lines that f has, as far as they fit. */
static size_t read_last(FILE *f, char out[LOG_MAX])
{
	enum { KEPT = LOG_MAX + 1 };   /* one more: whether a line ends there */
	char buf[2 * KEPT];
	const char *from = buf, *end;
	size_t n = 0, got;

	while ((got = fread(buf + n, 1, sizeof buf - n, f)) > 0)
		if ((n += got) > KEPT) {
			memmove(buf, buf + n - KEPT, KEPT);
			n = KEPT;
		}
	if (n == KEPT) {
		end = memchr(buf, '\n', n);
		from = end ? end + 1 : buf + n;
	}
	n -= (size_t)(from - buf);
	memcpy(out, from, n);
	return n;
}

/* By the pid of the process that failed; only numbers and fixed words get to the shell. */
static json_t *journal_lines(const json_t *r)
{
	const json_t *f = json_object_get(r, "failed");
	const bool incumbent = !strcmp(record_text(f, "role"), "incumbent");
	const uint64_t pid = record_uint(json_object_get(r, incumbent ? "from" : "to"), "pid");
	const uint64_t since = record_uint(r, "asked_ms") / 1000;
	const uint64_t until = since + record_uint(r, "total_us") / 1000000 + 2;
	char command[300], log[LOG_MAX];
	size_t n;
	FILE *p;

	if (!pid || !since)
		return json_null();
	snprintf(command, sizeof command, "journalctl --no-pager -q -o cat -n 10 _PID=%" PRIu64
	         " --since=@%" PRIu64 " --until=@%" PRIu64 " 2>/dev/null </dev/null", pid, since, until);
	if (!(p = popen(command, "r")))
		return json_null();
	n = read_last(p, log);
	pclose(p);
	return n ? json_text((struct span){ log, n }) : json_null();
}

/* A handoff that went well is not what hinders a start now. */
static void note_not_served(struct ctl *c, const char *socket, const char *name)
{
	const struct msg question = { .type = MSG_op_status };
	struct ask a = ASK_INIT(socket);

	ask_all(&a, 1, &question, STATUS_MS, -1);
	if (!a.result && a.msg.type == MSG_op_state && MSG_HAS(&a.msg, op_state, serves) && !a.msg.op_state.serves)
		out_note(&c->out, "%s is NOT served now%s%.*s; see '" NAME " status %s%s', and its log", name,
		         a.msg.op_state.warning.n ? ": " : "", (int)a.msg.op_state.warning.n, a.msg.op_state.warning.p,
		         c->socket ? "-S " : "", name);
	ask_end(&a);
}

int ctl_explain(struct ctl *c)
{
	const struct records_wanted w = { .count = 1, .id = c->id };
	json_t *records, *r;
	char *socket, *name;
	int code = place_find(c, &socket, &name);

	if (code)
		return code;
	if ((code = records_fetch(c, &w, &records)))
		goto out;
	if (!c->json)
		note_not_served(c, socket, name);
	r = json_array_get(records, 0);
	if (!r && c->id)
		code = out_error(&c->out, CTL_NOT_COMMITTED, "no handoff %s is remembered; '" NAME " history %s%s' shows "
		                 "those that are", c->id, c->socket ? "-S " : "", name);
	else if (!r)
		code = out_error(&c->out, CTL_NOT_COMMITTED, "no handoff is remembered yet");
	else if (json_is_object(json_object_get(r, "failed")) && !json_is_string(json_object_get(r, "log")))
		json_object_set_new(r, "log", journal_lines(r));
	if (r && c->json)
		out_json(&c->out, json_incref(r));
	else if (r)
		explain(c, r, name);
	json_decref(records);
out:
	free(socket);
	free(name);
	return code;
}
