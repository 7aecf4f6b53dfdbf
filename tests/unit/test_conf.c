/* Every mistake of a configuration, and the one line that is said about it. */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoffd/check.h"
#include "handoffd/conf.h"
#include "handoffd/conf_kept.h"
#include "handoffd/transient.h"
#include "fault.h"
#include "leak.h"
#include "suite.h"

static char dir[64], file[96];
static char err[1024];

static void setup(void)
{
	strcpy(dir, "/tmp/test_conf.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/x.conf", dir);
	setenv("SET", "value", 1);
	unsetenv("UNSET");
	leak_setup();
}

static void teardown(void)
{
	leak_teardown();
	unlink(file);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void put(const char *text, size_t n)
{
	FILE *f = fopen(file, "we");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
}

static struct conf *read_good(const char *text)
{
	struct conf *c = NULL;

	put(text, strlen(text));
	ck_assert_msg(conf_read(file, &c, err, sizeof err) == 0, "%s", err);
	return c;
}

/* A whole file, and what must be said about it behind "FILE:". */
struct mistake { const char *text, *said; };

/* an option alone in a service that is good otherwise; it stands on line 3 */
#define SERVICE(option) "service kvd {\ncommand = /bin/true\n" option "\n}\n"
#define LISTEN(option)  SERVICE("listen a { address = unix:@a\n" option "}")

static const struct mistake syntax[] = {
	{ "", "1: there is no service; write service NAME { command = ... }" },
	{ "# nothing\n", "1: there is no service; write service NAME { command = ... }" },
	{ "service kvd {\ncommand = /bin/true\n", "1: service kvd { is never closed; add its }" },
	{ "service kvd {\ncommand = x\nlisten a {\naddress = unix:@a",
	  "3: listen a { is never closed; add its }" },
	{ SERVICE("listen a {\naddress = unix:@a\nuser = x }"),
	  "5: 'user' does not belong in listen a; add the } that is missing since line 3, or move "
	  "it out" },
	{ SERVICE("listen a {\nlisten b { address = unix:@a } }"),
	  "4: 'listen' does not belong in listen a; add the } that is missing since line 3, or "
	  "move it out" },
	{ SERVICE("}"), "4: this } closes nothing; remove it, or add the { that it belongs to" },
	{ SERVICE("/* x\n y"), "3: this comment is never closed; add */ at its end" },
	{ SERVICE("/* x\n*/ user = \"x"),
	  "4: this text is not closed; add \" at its end, on the same line" },
	{ SERVICE("user = 'x\n'"),
	  "3: this text is not closed; add ' at its end, on the same line" },
	{ SERVICE("user = \"x\\"),
	  "3: this text is not closed; add \" at its end, on the same line" },
	{ SERVICE("output = \"/a${UNSET}\""),
	  "3: variable UNSET is not set; set it for handoffd, or write ${UNSET:-DEFAULT}" },
	{ SERVICE("user = ${UNSET}"),
	  "3: variable UNSET is not set; set it for handoffd, or write ${UNSET:-DEFAULT}" },
	{ SERVICE("output = \"/a${SET\""),
	  "3: ${ without } on the same line; write ${NAME}, or \\${ for a plain ${" },
	{ SERVICE("output = /a${SET}"),
	  "3: a value that is more than one plain word needs quotes; write \"...\" around it" },
	{ SERVICE("output = ${SET}/a"),
	  "3: a value that is more than one plain word needs quotes; write \"...\" around it" },
	{ SERVICE("user = a\"b\""),
	  "3: a value that is more than one plain word needs quotes; write \"...\" around it" },
	{ SERVICE("umask = 0*2"), "3: unexpected '*'; put a value that holds it in quotes" },
	{ SERVICE("user = (x)"), "3: unexpected '('; put a value that holds it in quotes" },
	{ SERVICE("user = \001"), "3: unexpected control character; remove it" },
	{ SERVICE("command += x"),
	  "3: += is not supported; write the whole list in one = { ... }" },
	{ SERVICE("user ="), "4: unexpected '}'; write user = VALUE" },
	{ SERVICE("user = = x"), "3: unexpected '='; write user = VALUE" },
	{ SERVICE("user"),
	  "4: unexpected '}'; write user = VALUE, or user NAME { ... } for a section" },
	{ SERVICE("user root\nnice = 1"),
	  "3: 'user' has neither = nor {; write user = VALUE, or user NAME { ... } for a section" },
	{ SERVICE("= x"), "3: unexpected '='; write NAME = VALUE; a list is { \"a\", \"b\" }" },
	{ SERVICE("groups = { a b }"), "3: unexpected 'b'; write groups = { \"a\", \"b\" }, with "
				       "commas between and } at the end" },
	{ SERVICE("groups = { a,, b }"), "3: unexpected ','; write groups = { \"a\", \"b\" }, with "
					 "commas between and } at the end" },
	{ "service kvd {\ncommand = /bin/true\ngroups = { a,\nb\n",
	  "5: the file ends too early; write groups = { \"a\", \"b\" }, with commas between and } "
	  "at the end" },
	{ SERVICE("groups = { a\n nice = 1"), "4: unexpected 'nice'; write groups = { \"a\", \"b\" "
					      "}, with commas between and } at the end" },
	{ SERVICE("user = \"\\777\""), "3: invalid octal number '\\777'; see handoff.conf(5)" },
	{ SERVICE("user = \"\\99\""), "3: bad escape sequence '\\99'; see handoff.conf(5)" },
};

static const struct mistake structure[] = {
	{ "command = /bin/true\n",
	  "1: 'command' stands outside of the service; write service NAME { command = ... }" },
	{ "\nlisten a { address = unix:@a }\n",
	  "2: there is no section 'listen'; a file has one service NAME { ... }" },
	{ "service {\ncommand = /bin/true }\n",
	  "1: this service has no name; write service NAME { ... }" },
	{ SERVICE("") SERVICE(""),
	  "5: a second service, after the one on line 1; give each a file of its own" },
	{ "service \"a b\" {\ncommand = /bin/true }\n",
	  "1: service a b: not a name; use letters, digits, _ . @ -, at most 64, a letter, digit "
	  "or _ first" },
	{ "service .a {\ncommand = /bin/true }\n",
	  "1: service .a: not a name; use letters, digits, _ . @ -, at most 64, a letter, digit or "
	  "_ first" },
	{ "service kvd { }\n",
	  "1: service kvd has no command; add command = { \"/path/of/daemon\" }" },
	{ SERVICE("comand = x"), "3: there is no option 'comand'; did you mean command?" },
	{ SERVICE("data_dir = /x"), "3: there is no option 'data_dir'; did you mean data-dir?" },
	{ SERVICE("zzzzzzzz = x"),
	  "3: there is no option 'zzzzzzzz'; see handoff.conf(5) for all of them" },
	{ SERVICE("backlog = 5"),
	  "3: 'backlog' is an option of a listener; write listen NAME { backlog = ... }" },
	{ SERVICE("limits { nofile = 5 }"),
	  "3: there is no section 'limits'; a service has only listen NAME { ... }" },
	{ SERVICE("user { x = 5 }"), "3: 'user' is an option, not a section; write user = VALUE" },
	{ SERVICE("deadline x { }"),
	  "3: 'deadline' is an option, not a section; write deadline = VALUE" },
	{ SERVICE("user = { a, b }"), "3: 'user' takes one value, not a list; write user = VALUE" },
	{ SERVICE("nice = 1\nnice = 1"),
	  "4: 'nice' is there twice, first on line 3; keep one of them" },
	{ SERVICE("command = /bin/false"),
	  "3: 'command' is there twice, first on line 2; keep one of them" },
	{ SERVICE("listen = x"), "3: 'listen' is a section; write listen NAME { address = ... }" },
	{ SERVICE("listen { address = unix:@a }"),
	  "3: this listener has no name; write listen NAME { address = ... }" },
	{ SERVICE("listen -a { address = unix:@a }"),
	  "3: listen -a: not a name; use letters, digits, _ . @ -, at most 64, a letter, digit or "
	  "_ first" },
	{ SERVICE("listen a { address = unix:@a }\nlisten a { address = unix:@b }"),
	  "4: a second listener 'a', after the one on line 3; give it another name" },
	{ SERVICE("listen a { }"),
	  "3: listen a has no address; add address = \"tcp:127.0.0.1:PORT\", say" },
	{ LISTEN("adress = unix:@a"),
	  "4: there is no option 'adress' in a listener; did you mean address?" },
	{ LISTEN("zzzzzzzz = 1"),
	  "4: there is no option 'zzzzzzzz' in a listener; it has address, backlog, mode, "
	  "reuseaddr and v6only" },
	{ LISTEN("address = unix:@b"),
	  "4: 'address' is there twice, first on line 3; keep one of them" },
	{ LISTEN("mode = 0600"), "4: mode is for unix:/PATH only; remove it from listen a" },
	{ LISTEN("reuseaddr = true"),
	  "4: reuseaddr is for tcp:HOST:PORT only; remove it from listen a" },
	{ LISTEN("v6only = true"),
	  "4: v6only is for tcp:[HOST]:PORT only; remove it from listen a" },
};

#define P50 "/1234567890123456789012345678901234567890123456789"
static const struct mistake values[] = {
	{ "service kvd {\ncommand = { }\n}\n",
	  "2: command is empty; write command = { \"/path/of/daemon\", \"argument\" }" },
	{ "service kvd {\ncommand = \"\"\n}\n",
	  "2: command is empty; write command = { \"/path/of/daemon\", \"argument\" }" },
	{ "service kvd {\ncommand = ./kvd\n}\n", "2: command = ./kvd is a relative path; write it "
						 "from / on, or a name that is found in PATH" },
	{ SERVICE("data-dir = var/lib"),
	  "3: data-dir = var/lib is a relative path; write it from / on" },
	{ SERVICE("working-dir = ."), "3: working-dir = . is a relative path; write it from / on" },
	{ SERVICE("output = log"), "3: output = log is a relative path; write it from / on" },
	{ SERVICE("data-dir = \"\""), "3: data-dir is empty; give it a value, or leave it out" },
	{ SERVICE("user = \"\""), "3: user is empty; give it a value, or leave it out" },
	{ SERVICE("ignore-sigpipe = 13"),
	  "3: ignore-sigpipe = 13 is neither true nor false; write one of these" },
	{ SERVICE("clear-environment = maybe"),
	  "3: clear-environment = maybe is neither true nor false; write one of these" },
	{ SERVICE("nice = high"),
	  "3: nice = high is not a whole number; write one from -20 to 19" },
	{ SERVICE("nice = 1.5"), "3: nice = 1.5 is not a whole number; write one from -20 to 19" },
	{ SERVICE("nice = 0x10"),
	  "3: nice = 0x10 is not a whole number; write one from -20 to 19" },
	{ SERVICE("nice = \"\""), "3: nice =  is not a whole number; write one from -20 to 19" },
	{ SERVICE("connection-state = 70000"),
	  "3: connection-state = 70000 is out of range; write a number from 0 to 65536" },
	{ SERVICE("nice = 20"), "3: nice = 20 is out of range; write a number from -20 to 19" },
	{ SERVICE("oom-score-adj = -1001"),
	  "3: oom-score-adj = -1001 is out of range; write a number from -1000 to 1000" },
	{ SERVICE("oom-score-adj = 99999999999999999999"),
	  "3: oom-score-adj = 99999999999999999999 is not a whole number; write one from -1000 to "
	  "1000" },
	{ SERVICE("umask = 8"), "3: umask = 8 is not an octal mode; write one from 0000 to 0777" },
	{ SERVICE("umask = 1000"),
	  "3: umask = 1000 is not an octal mode; write one from 0000 to 0777" },
	{ SERVICE("limit-nofile = many"),
	  "3: limit-nofile = many is not a limit; write a number, unlimited, or SOFT:HARD" },
	{ SERVICE("limit-nofile = 5:"),
	  "3: limit-nofile = 5: is not a limit; write a number, unlimited, or SOFT:HARD" },
	{ SERVICE("limit-core = -1"),
	  "3: limit-core = -1 is not a limit; write a number, unlimited, or SOFT:HARD" },
	{ SERVICE("limit-nofile = 6:5"),
	  "3: limit-nofile = 6:5 has a soft limit above the hard one; "
	  "write SOFT:HARD with SOFT <= HARD" },
	{ SERVICE("environment = { \"A=1\", B }"),
	  "3: environment: 'B' has no name or no =; write NAME=VALUE" },
	{ SERVICE("environment = \"=1\""),
	  "3: environment: '=1' has no name or no =; write NAME=VALUE" },
	{ SERVICE("environment = \"HANDOFF_FD=1\""),
	  "3: environment: HANDOFF_FD is set by handoffd itself; use another name" },
	{ SERVICE("user = \"no such\""), "3: user = no such: no such user; create it with adduser "
					 "--system, or name one that exists" },
	{ SERVICE("user = 4294967000"),
	  "3: user = 4294967000: no such user; a number without an account needs group = as well" },
	{ SERVICE("group = nosuch"),
	  "3: group = nosuch: no such group; create it with addgroup, or name one that exists" },
	{ SERVICE("groups = { root, nosuch }"),
	  "3: groups = nosuch: no such group; create it with addgroup, or name one that exists" },
	{ SERVICE("operators = nosuch"), "3: operators = nosuch: no such group; create it with "
					 "addgroup, or name one that exists" },
	{ LISTEN("backlog = 0"),
	  "4: backlog = 0 is out of range; write a number from 1 to 2147483647" },
	{ LISTEN("backlog = x"),
	  "4: backlog = x is not a whole number; write one from 1 to 2147483647" },
	{ SERVICE("listen a { address = unix:/x\nmode = rw }"),
	  "4: mode = rw is not an octal mode; write one from 0000 to 0777" },
	{ SERVICE("listen a { address = 6380 }"),
	  "3: address = 6380 has no known kind; write tcp:HOST:PORT, unix:/PATH or unix:@NAME" },
	{ SERVICE("listen a { address = tcp:6380 }"),
	  "3: address = tcp:6380 is not a tcp address; write "
	  "tcp:HOST:PORT, such as tcp:127.0.0.1:6380 or tcp:[::]:6380" },
	{ SERVICE("listen a { address = tcp:localhost:80 }"),
	  "3: address = tcp:localhost:80: the host is not an IP "
	  "address; write one as in tcp:127.0.0.1:80, tcp:0.0.0.0:80 or tcp:[::]:80" },
	{ SERVICE("listen a { address = tcp:::1:80 }"),
	  "3: address = tcp:::1:80: the host is not an IP "
	  "address; write one as in tcp:127.0.0.1:80, tcp:0.0.0.0:80 or tcp:[::]:80" },
	{ SERVICE("listen a { address = tcp:127.0.0.1:0 }"),
	  "3: address = tcp:127.0.0.1:0: the port is not a number "
	  "from 1 to 65535; write tcp:HOST:PORT, such as tcp:127.0.0.1:6380" },
	{ SERVICE("listen a { address = tcp:127.0.0.1:65536 }"),
	  "3: address = tcp:127.0.0.1:65536: the port is not "
	  "a number from 1 to 65535; write tcp:HOST:PORT, such as tcp:127.0.0.1:6380" },
	{ SERVICE("listen a { address = unix:run/x }"),
	  "3: address = unix:run/x is not a unix address; write "
	  "unix:/PATH, or unix:@NAME for an abstract one" },
	{ SERVICE("listen a { address = unix:@ }"),
	  "3: address = unix:@ is not a unix address; write "
	  "unix:/PATH, or unix:@NAME for an abstract one" },
	{ SERVICE("listen a { address = unix:" P50 P50 "/123456"
		  "8 }"),
	  "3: address = unix:" P50 P50 "/1234568: a path "
	  "of 108 bytes is too long; a unix socket takes at most 107" },
};

static const struct mistake timers[] = {
	{ SERVICE("deadline = 10"),
	  "3: deadline = 10 is not a duration; write a whole number and its unit, such as "
	  "500ms, 2s, 5min, 1h, at most 24h" },
	{ SERVICE("deadline = 1.5s"),
	  "3: deadline = 1.5s is not a duration; write a whole number and its unit, such "
	  "as 500ms, 2s, 5min, 1h, at most 24h" },
	{ SERVICE("deadline = 10s;"),
	  "3: deadline = 10s; is not a duration; write a whole number and its unit, such "
	  "as 500ms, 2s, 5min, 1h, at most 24h" },
	{ SERVICE("deadline = 25h"),
	  "3: deadline = 25h is not a duration; write a whole number and its unit, such "
	  "as 500ms, 2s, 5min, 1h, at most 24h" },
	{ SERVICE("start-timeout = 1ms"),
	  "3: start-timeout must be at least 10ms and at most 24h" },
	{ SERVICE("heartbeat = 0"), "3: heartbeat must be at least 5ms and at most 24h" },
	{ SERVICE("deadline = 1s"), "3: drain-grace (2s) must not exceed deadline (1s)" },
	{ SERVICE("deadline = 5s\ndrain-grace = 6s"),
	  "4: drain-grace (6s) must not exceed deadline (5s)" },
	{ SERVICE("heartbeat = 3s"), "3: self-fence (4s) must be at least twice heartbeat (3s)" },
	{ SERVICE("heartbeat = 1s\nself-fence = 1s"),
	  "4: self-fence (1s) must be at least twice heartbeat (1s)" },
	{ SERVICE("self-fence = 5s"), "3: presumed-dead (5s) must be longer than self-fence (5s)" },
	{ SERVICE("presumed-dead = 4s"),
	  "3: presumed-dead (4s) must be longer than self-fence (4s)" },
};

static void check_all(const struct mistake *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const size_t prefix = strlen(file) + 1;
		struct conf *c = (struct conf *)-1;

		put(m[i].text, strlen(m[i].text));
		ck_assert_msg(conf_read(file, &c, err, sizeof err) == -EINVAL,
			      "row %zu was taken:\n%s", i, m[i].text);
		ck_assert_msg(c == (struct conf *)-1, "row %zu gave a result", i);
		ck_assert_msg(!strncmp(err, file, prefix - 1) && !strcmp(err + prefix, m[i].said),
			      "row %zu:\n%ssaid   %s\nwanted %s:%s", i, m[i].text, err, file,
			      m[i].said);
		ck_assert_msg(!strchr(err, '\n'), "more than a line: %s", err);
	}
}
#define CHECK_ALL(table) check_all(table, sizeof table / sizeof *table)

START_TEST(mistakes_of_syntax) { CHECK_ALL(syntax); } END_TEST
START_TEST(mistakes_of_structure) { CHECK_ALL(structure); } END_TEST
START_TEST(mistakes_of_values) { CHECK_ALL(values); } END_TEST
START_TEST(mistakes_of_timers) { CHECK_ALL(timers); } END_TEST

START_TEST(not_a_text)
{
	static const char nul[] = "service kvd {\n\0}\n";
	struct conf *c = NULL;
	char said[256], *big = malloc(2 << 20);

	put(nul, sizeof nul - 1);
	ck_assert_int_eq(conf_read(file, &c, err, sizeof err), -EINVAL);
	snprintf(said, sizeof said, "%s:2: a NUL byte; the file must be plain text", file);
	ck_assert_str_eq(err, said);
	memset(big, ' ', 2 << 20);
	put(big, 2 << 20);
	free(big);
	ck_assert_int_eq(conf_read(file, &c, err, sizeof err), -EINVAL);
	snprintf(said, sizeof said,
		 "%s:1: the file is larger than 1048576 bytes; is it a configuration?", file);
	ck_assert_str_eq(err, said);
	ck_assert_int_eq(conf_read(dir, &c, err, sizeof err), -EISDIR);
	ck_assert_int_eq(conf_read("/nonexistent/x", &c, err, sizeof err), -ENOENT);
	ck_assert_str_eq(
		err, "/nonexistent/x: cannot open the configuration: No such file or directory");
}
END_TEST

START_TEST(a_short_buffer_is_no_trouble)
{
	struct conf *c = NULL;
	char small[8];

	put("x", 1);
	ck_assert_int_eq(conf_read(file, &c, small, sizeof small), -EINVAL);
	ck_assert_uint_lt(strlen(small), sizeof small);
}
END_TEST

/* Any text at all is answered: each prefix of a good file, and each with a byte spoiled. */
START_TEST(every_prefix_is_answered)
{
	static const char text[] =
		"# c\nservice kvd { command = {\"/bin/true\", '${x}'} /* */ deadline = 10s\n"
		"listen a { address = \"unix:@${SET}\" } }";
	char copy[sizeof text];

	for (size_t n = 0; n < sizeof text - 1; n++) {
		struct conf *c = NULL;

		put(text, n);
		ck_assert_int_eq(conf_read(file, &c, err, sizeof err), -EINVAL);
		ck_assert_int_eq(strncmp(err, file, strlen(file)), 0);
	}
	for (size_t n = 0; n < sizeof text - 1; n++)
		for (const char *with = "{}=\",'$/*#\\\001"; *with; with++) {
			struct conf *c = NULL;
			int r;

			memcpy(copy, text, sizeof text);
			copy[n] = *with;
			put(copy, sizeof text - 1);
			r = conf_read(file, &c, err, sizeof err);
			ck_assert_int_eq(r == 0, c != NULL);
			ck_assert(r == 0 || !strncmp(err, file, strlen(file)));
			conf_free(c);
		}
}
END_TEST

START_TEST(defaults)
{
	struct conf *c = read_good(SERVICE("listen a { address = tcp:[::]:80 }"));
	char buf[16];

	ck_assert_str_eq(c->name, "kvd");
	ck_assert_str_eq(c->command[0], "/bin/true");
	ck_assert_ptr_null(c->command[1]);
	ck_assert_str_eq(c->working_dir, "/");
	ck_assert_ptr_null(c->data_dir);
	ck_assert_ptr_null(c->user);
	ck_assert_uint_eq(c->uid, (uid_t)-1);
	ck_assert_uint_eq(c->gid, (gid_t)-1);
	ck_assert_uint_eq(c->operators_gid, (gid_t)-1);
	ck_assert_ptr_null(c->gids);
	ck_assert_uint_eq(c->umask, 022);
	ck_assert(c->ignore_sigpipe);
	ck_assert(!c->has_oom && !c->clear_environment && c->nice == 0);
	ck_assert_int_eq(c->connection_state, 256);
	ck_assert_uint_eq(c->nlisten, 1);
	ck_assert_int_eq(c->listen[0].backlog, 4096);
	ck_assert_uint_eq(c->listen[0].mode, 0660);
	ck_assert(c->listen[0].reuseaddr && !c->listen[0].v6only);
	ck_assert_int_eq(c->listen[0].line, 3);
	ck_assert_int_eq(conf_line(c, "command"), 2);
	ck_assert_int_eq(conf_line(c, "deadline"), 1);
	for (int i = 0; i < TIMER_COUNT; i++) {
		const int o = conf_option_find(conf_options, timer_desc[i].name);
		uint32_t ms = ~0u;

		ck_assert_uint_eq(c->timer[i], timer_desc[i].def);
		ck_assert_int_ge(o, 0);
		ck_assert_int_eq(timers_parse(conf_option_default(&conf_options[o], buf), &ms), 0);
		ck_assert_uint_eq(ms, timer_desc[i].def);
	}
	conf_free(c);
	ck_assert_ptr_null(conf_free(NULL));
}
END_TEST

static const char *source(const char *name, char *buf, size_t n)
{
	snprintf(buf, n, "%s/tests/conf/%s", getenv("srcdir") ? getenv("srcdir") : ".", name);
	return buf;
}

START_TEST(full)
{
	struct conf *c = NULL;
	const struct sockaddr_in6 *v6;
	char path[512];

	ck_assert_msg(conf_read(source("good/full.conf", path, sizeof path), &c, err, sizeof err) ==
			      0,
		      "%s", err);
	/* it shows all that there is */
	for (int i = 0; conf_options[i].name; i++)
		ck_assert_msg(c->option_line[i], "full.conf lacks %s", conf_options[i].name);
	ck_assert_str_eq(c->name, "full.1");
	ck_assert_str_eq(c->command[2], "default");
	ck_assert_ptr_null(c->command[3]);
	ck_assert_str_eq(c->environment[3], "D=http://host//path");
	ck_assert_uint_eq(c->uid, 0);
	ck_assert_uint_eq(c->gid, 0);
	ck_assert_uint_eq(c->ngids, 2);
	ck_assert_uint_eq(c->gids[1], 1);
	ck_assert_uint_eq(c->operators_gid, 0);
	ck_assert_uint_eq(c->umask, 027);
	ck_assert(!c->ignore_sigpipe);
	ck_assert(c->has_oom && c->oom_score_adj == -100 && c->nice == 5 && c->clear_environment);
	ck_assert_uint_eq(c->nrlimits, 11);
	ck_assert_int_eq(c->connection_state, 16);
	ck_assert_uint_eq(c->timer[TIMER_STOP], 3600000);
	ck_assert_uint_eq(c->timer[TIMER_PROBATION], 0);
	ck_assert_int_eq(conf_line(c, "output"), 16);
	ck_assert_int_eq(conf_line(c, "stop-timeout"), 42);
	ck_assert_uint_eq(c->nlisten, 4);
	ck_assert_int_eq(c->listen[0].line, 43);
	ck_assert(!c->listen[0].reuseaddr && c->listen[0].backlog == 128);
	v6 = (const struct sockaddr_in6 *)&c->listen[1].sa;
	ck_assert(v6->sin6_family == AF_INET6 && v6->sin6_port == htons(6380) &&
		  c->listen[1].v6only);
	ck_assert_uint_eq(c->listen[2].mode, 0600);
	ck_assert_uint_eq(c->listen[2].sa_len,
			  offsetof(struct sockaddr_un, sun_path) + sizeof "/run/full.sock");
	ck_assert_uint_eq(c->listen[3].sa_len, offsetof(struct sockaddr_un, sun_path) + 5);
	for (unsigned i = 0; i < c->nrlimits; i++)
		if (c->rlimits[i].resource == RLIMIT_NOFILE)
			ck_assert(c->rlimits[i].limit.rlim_cur == 1024 &&
				  c->rlimits[i].limit.rlim_max == 4096);
	conf_free(c);
}
END_TEST

/* "# expect: LINE: TEXT" is the first line of each. */
START_TEST(bad_files)
{
	char pattern[512], wanted[512], said[1024];
	glob_t g;

	ck_assert_int_eq(glob(source("bad/*.conf", pattern, sizeof pattern), 0, NULL, &g), 0);
	ck_assert_uint_ge(g.gl_pathc, 7);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		FILE *f = fopen(g.gl_pathv[i], "re");
		struct conf *c = NULL;

		ck_assert_ptr_nonnull(f);
		ck_assert_int_eq(fscanf(f, "# expect: %511[^\n]", wanted), 1);
		fclose(f);
		ck_assert_int_eq(conf_read(g.gl_pathv[i], &c, err, sizeof err), -EINVAL);
		snprintf(said, sizeof said, "%s:%s", g.gl_pathv[i], wanted);
		ck_assert_str_eq(err, said);
	}
	globfree(&g);
}
END_TEST

START_TEST(variables_are_expanded)
{
	struct conf *c = read_good(
		SERVICE("output = \"/a/${SET}/${UNSET:-b}/\\${SET}\"\nuser = ${UNSET:-root}\n"
			"environment = { 'A=${SET}', \"B=${SET}\" }"));

	ck_assert_str_eq(c->output, "/a/value/b/${SET}");
	ck_assert_str_eq(c->user, "root");
	ck_assert_str_eq(c->environment[0], "A=${SET}");
	ck_assert_str_eq(c->environment[1], "B=value");
	ck_assert_uint_eq(c->uid, 0);
	ck_assert_uint_eq(c->gid, 0);
	ck_assert_ptr_nonnull(c->gids);
	conf_free(c);
}
END_TEST

/* A failing call in the resolving child or around it is said, and nothing is left. */
static enum sys_call failing;
static int fail_one(enum sys_call call)
{
	return call == failing ? -EMFILE : 0;
}

static int time_out(enum sys_call call)
{
	return call == SYS_C_POLL ? -ETIMEDOUT : 0;
}

START_TEST(too_many_listeners)
{
	char *text = NULL, said[200];
	struct conf *c = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	fputs("service kvd {\ncommand = /bin/true\n", f);
	for (int i = 0; i <= CONF_MAX_LISTENERS; i++)
		fprintf(f, "listen l%d { address = unix:@%d }\n", i, i);
	fputs("}\n", f);
	fclose(f);
	put(text, n);
	free(text);
	ck_assert_int_lt(conf_read(file, &c, err, sizeof err), 0);
	snprintf(said, sizeof said, "%s:%d: more than %d listeners; a service can have no more", file,
	         3 + CONF_MAX_LISTENERS, CONF_MAX_LISTENERS);
	ck_assert_str_eq(err, said);
}
END_TEST

START_TEST(resolving_without_descriptors)
{
	static const enum sys_call each[] = { SYS_C_PIPE, SYS_C_FORK, SYS_C_POLL, SYS_C_WRITE };
	struct conf *c = NULL;
	char said[200];

	put(SERVICE("user = root"), strlen(SERVICE("user = root")));
	for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
		failing = each[i];
		sys_fault = fail_one;
		ck_assert(transient(conf_read(file, &c, err, sizeof err)));
		sys_fault = NULL;
		snprintf(said, sizeof said, "%s:3: cannot look up users and groups: %s; try again", file,
		         strerror(failing == SYS_C_WRITE ? EPIPE : EMFILE));
		ck_assert_str_eq(err, said);
	}
	sys_fault = time_out;
	ck_assert(transient(conf_read(file, &c, err, sizeof err)));
	sys_fault = NULL;
	ck_assert_ptr_nonnull(strstr(err, ":3: the name service did not answer within 5 s; use numbers for user and "
	                             "groups, or repair it (getent passwd)"));
}
END_TEST

/* In place of libc's: a name service that cannot answer is not one without that name. */
static int no_answer;

struct passwd *getpwnam(const char *name)
{
	static struct passwd p;
	static char buf[4096];
	struct passwd *found = NULL;

	errno = no_answer ? no_answer : getpwnam_r(name, &p, buf, sizeof buf, &found);
	return found;
}

struct group *getgrnam(const char *name)
{
	static struct group g;
	static char buf[4096];
	struct group *found = NULL;

	errno = no_answer ? no_answer : getgrnam_r(name, &g, buf, sizeof buf, &found);
	return found;
}

START_TEST(a_name_service_that_cannot_answer)
{
	static const char *const each[] = { SERVICE("user = nobody"), SERVICE("group = nogroup"),
	                                    SERVICE("operators = nogroup") };
	struct conf *c = NULL;

	for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
		put(each[i], strlen(each[i]));
		no_answer = EIO;
		ck_assert_int_eq(conf_read(file, &c, err, sizeof err), -EIO);
		ck_assert_ptr_nonnull(strstr(err, ": cannot look up users and groups: Input/output error; try again"));
		no_answer = ENOENT;
		ck_assert_int_eq(conf_read(file, &c, err, sizeof err), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err, ": no such "));
		no_answer = 0;
		conf_free(read_good(each[i]));
	}
}
END_TEST

/* What the file says is wrong until somebody corrects it; what the machine lacks is not. */
START_TEST(which_errors_pass)
{
	static const struct { int error; const char *hint; } each[] = {
		{ -EMFILE, "; raise LimitNOFILE=" }, { -ENFILE, "; raise fs.file-max" },
		{ -ENOMEM, "; free memory, or raise MemoryMax=" }, { -ENOBUFS, "; free memory, or raise MemoryMax=" },
		{ -EAGAIN, "; try again" }, { -ENOSPC, "; make room there" },
		{ -EDQUOT, "; make room there" }, { -EIO, "; look at the disk" },
		{ -EUCLEAN, "; look at the disk" }, { -EROFS, "; look at the disk, remount it" },
		{ -EHOSTUNREACH, "; look at the file server" }, { -ENETUNREACH, "; look at the file server" },
		{ -ESTALE, "; look at the file server" }, { -ETIMEDOUT, "; look at the file server" },
		{ -EHOSTDOWN, "; look at the file server" }, { -ENOTCONN, "; mount that file system again" },
		{ -EPIPE, "; try again" },
		{ 0, "" }, { -EINVAL, "" }, { -ENOENT, "" }, { -EACCES, "" }, { -EPERM, "" }, { -ENOEXEC, "" },
		{ -EADDRINUSE, "" }, { -4095, "" }, { 1, "" },
	};
	struct conf *c = NULL;
	char said[200];

	put(SERVICE(""), strlen(SERVICE("")));
	for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
		ck_assert_str_eq(transient_hint(each[i].error), each[i].hint);
		ck_assert_int_eq(transient(each[i].error), *each[i].hint != '\0');
		if (each[i].error >= 0)
			continue;
		fault_set(SYS_C_OPEN, 0, each[i].error);
		ck_assert_int_eq(conf_read(file, &c, err, sizeof err), each[i].error);
		fault_off();
		snprintf(said, sizeof said, "%s: cannot open the configuration: %s%s", file,
		         strerror(-each[i].error), each[i].hint);
		ck_assert_str_eq(err, said);
	}
}
END_TEST

START_TEST(names)
{
	char longest[CONF_MAX_NAME + 2];

	memset(longest, 'a', sizeof longest);
	longest[CONF_MAX_NAME + 1] = '\0';
	ck_assert(!conf_name_ok(longest));
	longest[CONF_MAX_NAME] = '\0';
	ck_assert(conf_name_ok(longest));
	ck_assert(conf_name_ok("_a.b@c-d9") && conf_name_ok("9"));
	ck_assert(!conf_name_ok("") && !conf_name_ok(".") && !conf_name_ok("..") &&
		  !conf_name_ok("a/b"));
	ck_assert(!conf_name_ok("-a") && !conf_name_ok("@a") && !conf_name_ok("a b") &&
		  !conf_name_ok("\303\244"));
}
END_TEST

/* ---- the machine ---- */

static void machine(const char *option, int error, const char *said)
{
	char text[1024], wanted[1024];
	struct conf *c;

	snprintf(text, sizeof text, SERVICE("%s"), option);
	c = read_good(text);
	ck_assert_int_eq(conf_check_machine(c, err, sizeof err), error);
	snprintf(wanted, sizeof wanted, "%s:3: %s", file, said);
	if (error)
		ck_assert_str_eq(err, wanted);
	conf_free(c);
}

START_TEST(data_dirs)
{
	char option[256], said[512], link[128], plain[128];

	snprintf(option, sizeof option, "data-dir = \"%s\"", dir);
	machine(option, 0, "");
	snprintf(said, sizeof said,
		 "data-dir %s lies on NFS, where a lock does not keep two writers apart; "
		 "use a local file system",
		 dir);
	sys_fs_type_override = 0x6969;
	machine(option, -EOPNOTSUPP, said);
	sys_fs_type_override = 0;
	machine("data-dir = /nonexistent", -ENOENT,
		"data-dir /nonexistent does not exist; create it: "
		"install -d -m 0700 -o USER /nonexistent");
	snprintf(link, sizeof link, "%s/link", dir);
	ck_assert_int_eq(symlink(dir, link), 0);
	snprintf(option, sizeof option, "data-dir = \"%s\"", link);
	snprintf(said, sizeof said,
		 "data-dir %s is a symbolic link; write the directory that it leads to, "
		 "so that it cannot change under a lock",
		 link);
	machine(option, -ELOOP, said);
	unlink(link);
	snprintf(plain, sizeof plain, "%s/x.conf", dir);
	snprintf(option, sizeof option, "data-dir = \"%s\"", plain);
	snprintf(said, sizeof said, "data-dir %s is not a directory; name one", plain);
	machine(option, -ENOTDIR, said);
}
END_TEST

/* Nothing is known of the place, so nothing is said to be wrong with it. */
START_TEST(places_that_do_not_answer)
{
	fault_set(SYS_C_STAT, 0, -EIO);
	machine("data-dir = /tmp", -EIO, "data-dir /tmp: cannot be looked at: Input/output error; look at the disk");
	fault_set(SYS_C_STAT, 0, -EIO);
	machine("working-dir = /tmp", -EIO, "working-dir /tmp: cannot be looked at: Input/output error; look at the disk");
	fault_set(SYS_C_STAT, 2, -EIO);   /* behind those of working-dir */
	machine("listen a { address = unix:/tmp/x }", -EIO,
	        "listen a: cannot be looked at: Input/output error; look at the disk");
	fault_off();
}
END_TEST

/* The same for somebody who is not root. */
static void machine_of_nobody(const char *option, int error, const char *said)
{
	const pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (geteuid() == 0 && (chmod(dir, 0777) || setgid(65534) || setuid(65534)))
			_exit(99);
		unlink(file);
		machine(option, error, said);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "%s: %#x", option, (unsigned)status);
}

static int no_groups(enum sys_call call)
{
	return call == SYS_C_SETGROUPS ? -ENOMEM : 0;
}

START_TEST(of_somebody)
{
	machine_of_nobody("user = root", -EPERM, "user = root: only root may start daemons as somebody else; run "
	                  "handoffd as root, or leave user out");
	machine_of_nobody("group = root", -EPERM, "group = root: only root may start daemons with another group; "
	                  "run handoffd as root, or leave group out");
	machine_of_nobody("groups = { root }", -EPERM, "groups: only root may set them; run handoffd as root, or "
	                  "leave groups out");
	if (geteuid() != 0)
		return;
	sys_fault = no_groups;
	machine("user = nobody", -ENOMEM, "cannot look at the machine as nobody: Cannot allocate memory; "
	        "free memory, or raise MemoryMax=");
	sys_fault = NULL;
}
END_TEST

START_TEST(places)
{
	char option[256], said[512];

	machine("working-dir = /nonexistent", -ENOENT,
		"working-dir /nonexistent: No such file or directory; "
		"create it, and let handoffd's user enter it");
	machine("listen a { address = unix:/nonexistent/x }", -ENOENT,
		"listen a: directory /nonexistent: "
		"No such file or directory; create it, and let handoffd's user enter it");
	if (geteuid() != 0)
		return;
	/* the directory of the test is root's, 0700 */
	snprintf(option, sizeof option, "data-dir = \"%s\" user = nobody", dir);
	snprintf(said, sizeof said, "data-dir %s: nobody may not write it (Permission denied); chown or chmod it", dir);
	machine(option, -EACCES, said);
	snprintf(option, sizeof option, "data-dir = \"%s/below\" user = nobody", dir);
	snprintf(said, sizeof said, "data-dir %s/below: Permission denied; let nobody reach it", dir);
	machine(option, -EACCES, said);
	ck_assert_int_eq(chmod(dir, 0755), 0);
	snprintf(option, sizeof option, "listen a { address = unix:%s/x } user = nobody", dir);
	snprintf(said, sizeof said, "listen a: directory %s: nobody may not make a socket in it (Permission denied); "
	         "chown or chmod it", dir);
	machine(option, -EACCES, said);
	ck_assert_int_eq(access(dir, W_OK), 0);
}
END_TEST

START_TEST(print)
{
	struct conf *c = NULL;
	char path[512], *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	ck_assert_int_eq(
		conf_read(source("good/full.conf", path, sizeof path), &c, err, sizeof err), 0);
	ck_assert_int_eq(check_print(c, f), 0);
	fclose(f);
	ck_assert_ptr_nonnull(strstr(text, "full.conf is in order: service full.1\n"));
	ck_assert_ptr_nonnull(strstr(text, "\ncommand          /bin/sleep 1 default\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nuser             0 (uid 0)\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nlimit-nofile     1024:4096\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nlimit-stack      8388608:unlimited\n"));
	ck_assert_ptr_nonnull(strstr(
		text, "\nlisten           v4: tcp:127.0.0.1:6380, backlog 128, no reuseaddr\n"));
	ck_assert_ptr_nonnull(strstr(
		text, "\nlisten           path: unix:/run/full.sock, backlog 4096, mode 0600\n"));
	ck_assert_ptr_nonnull(strstr(text, "\ndeadline         5s       the longest pause that you accept"));
	free(text);
	f = fopen("/dev/full", "we");
	ck_assert_int_eq(check_print(c, f), -EIO);
	fclose(f);
	conf_free(c);
}
END_TEST

static const char *kept_command(const char *path)
{
	static char command[100];
	struct conf *c;

	if (conf_read_kept(path, &c, err, sizeof err))
		return "none";
	ck_assert_str_eq(c->file, path);
	snprintf(command, sizeof command, "%s", c->command[0]);
	conf_free(c);
	return command;
}

/* It names a command: it is not read where others could have written it. */
static void kept_of_others(const char kvd[100])
{
	char config[120], lock[120], moved[120];

	snprintf(config, sizeof config, "%s/config", kvd);
	snprintf(lock, sizeof lock, "%s/lock", kvd);
	snprintf(moved, sizeof moved, "%s/lock/config", kvd);
	for (int i = 0; i < 2; i++) {
		const char *path = i ? config : kvd;

		ck_assert_int_eq(chmod(path, 0720), 0);
		ck_assert_str_eq(kept_command(file), "none");
		ck_assert_int_eq(chmod(path, 0702), 0);
		ck_assert_str_eq(kept_command(file), "none");
		ck_assert_int_eq(chmod(path, 0700), 0);
		ck_assert_str_eq(kept_command(file), "/bin/two");
	}
	/* below systemd's there is nobody else's */
	unsetenv("HANDOFF_RUNTIME_DIR");
	setenv("RUNTIME_DIRECTORY", kvd, 1);
	ck_assert_str_eq(kept_command(file), "/bin/two");
	ck_assert_int_eq(mkdir(lock, 0700), 0);
	ck_assert_int_eq(rename(config, moved), 0);
	ck_assert_str_eq(kept_command(file), "none");
	ck_assert_int_eq(symlink("lock/config", config), 0);
	ck_assert_str_eq(kept_command(file), "none");
	ck_assert_int_eq(rename(moved, config), 0);
	ck_assert_int_eq(rmdir(lock), 0);
	unsetenv("RUNTIME_DIRECTORY");
	setenv("HANDOFF_RUNTIME_DIR", dir, 1);
}

/* In front of libc's: a directory whose entries cannot be read is not an empty one. */
static int no_entries;

struct dirent *readdir(DIR *d)
{
	struct dirent *(*real)(DIR *) = (struct dirent *(*)(DIR *))dlsym(RTLD_NEXT, "readdir");

	if (!no_entries)
		return real(d);
	errno = no_entries;
	return NULL;
}

/* A daemon may live, and what it runs with be kept: this is not the answer that there is none. */
static void kept_and_out_of_reach(void)
{
	struct conf *none = NULL;
	int calls, failed = 0;

	fault_set(SYS_C_OPEN, -1, 0);
	ck_assert_str_eq(kept_command(file), "/bin/two");
	calls = fault_off();
	ck_assert_int_ge(calls, 4);
	for (int at = 0; at < calls; at++) {
		struct conf *c = NULL;
		int e;

		fault_set(SYS_C_OPEN, at, -EMFILE);
		e = conf_read_kept(file, &c, err, sizeof err);
		fault_off();
		conf_free(c);
		ck_assert(e == -EMFILE || !e);   /* found all the same, behind another service's */
		failed += e != 0;
		ck_assert(!e || strstr(err, "what is kept in ") == err);
		ck_assert(!e || strstr(err, " cannot be read: Too many open files; raise LimitNOFILE="));
	}
	ck_assert_int_ge(failed, 3);
	no_entries = EIO;
	ck_assert_int_eq(conf_read_kept(file, &none, err, sizeof err), -EIO);
	no_entries = 0;
	ck_assert_ptr_nonnull(strstr(err, " cannot be read: Input/output error; look at the disk"));
}

/* What is kept is whole at any time, and another file's is not taken for it. */
START_TEST(kept)
{
	struct conf *c = read_good("service kvd {\n command = /bin/one\n}\n");
	uint32_t sum = 0, same;
	char kvd[100], other[100];
	int calls;

	setenv("HANDOFF_RUNTIME_DIR", dir, 1);
	snprintf(kvd, sizeof kvd, "%s/kvd", dir);
	snprintf(other, sizeof other, "%s/other.conf", dir);
	ck_assert_str_eq(kept_command(file), "none");
	ck_assert_int_eq(mkdir(kvd, 0700), 0);
	ck_assert_str_eq(kept_command(file), "none");
	ck_assert_int_eq(conf_keep(c, kvd, &sum), 0);
	ck_assert_ptr_null(c->text);
	conf_free(c);
	ck_assert_str_eq(kept_command(file), "/bin/one");
	ck_assert_str_eq(kept_command(other), "none");
	same = sum;
	c = read_good("service kvd {\n command = /bin/two\n}\n");
	fault_set(SYS_C_COUNT, -1, 0);
	ck_assert_int_eq(conf_keep(c, kvd, &sum), 0);
	calls = fault_off();
	ck_assert_int_ge(calls, 4);
	ck_assert_uint_ne(sum, same);
	conf_free(c);
	for (int at = 0; at < calls; at++) {
		c = read_good("service kvd {\n command = /bin/three\n}\n");
		fault_set(SYS_C_COUNT, at, -ENOSPC);
		ck_assert_int_eq(conf_keep(c, kvd, &sum), -ENOSPC);
		fault_off();
		conf_free(c);
		ck_assert_str_eq(kept_command(file), "none");   /* two is not in use any more */
		c = read_good("service kvd {\n command = /bin/two\n}\n");
		ck_assert_int_eq(conf_keep(c, kvd, &sum), 0);
		conf_free(c);
		ck_assert_str_eq(kept_command(file), "/bin/two");
	}
	kept_of_others(kvd);
	kept_and_out_of_reach();
	conf_keep_nothing(kvd);
	ck_assert_str_eq(kept_command(file), "none");
	ck_assert_int_eq(rmdir(kvd), 0);
	unsetenv("HANDOFF_RUNTIME_DIR");
}
END_TEST

START_TEST(directories)
{
	char path[64], said[200];

	setenv("HANDOFF_RUNTIME_DIR", "/r", 1);
	setenv("RUNTIME_DIRECTORY", "/s:/t", 1);
	ck_assert_int_eq(dirs_runtime("kvd", true, path, sizeof path, err, sizeof err), 0);
	ck_assert_str_eq(path, "/r/kvd");
	unsetenv("HANDOFF_RUNTIME_DIR");
	ck_assert_int_eq(dirs_runtime("kvd", true, path, sizeof path, err, sizeof err), 0);
	ck_assert_str_eq(path, "/s");
	setenv("XDG_RUNTIME_DIR", "/x", 1);
	setenv("XDG_STATE_HOME", "", 1);
	setenv("HOME", "/home/u", 1);
	unsetenv("HANDOFF_STATE_DIR");
	ck_assert_int_eq(dirs_runtime("kvd", false, path, sizeof path, err, sizeof err), 0);
	ck_assert_str_eq(path, geteuid() == 0 ? "/run/handoff/kvd" : "/x/handoff/kvd");
	ck_assert_int_eq(dirs_state("kvd", false, path, sizeof path, err, sizeof err), 0);
	ck_assert_str_eq(path, geteuid() == 0 ? "/var/lib/handoff/kvd"
					      : "/home/u/.local/state/handoff/kvd");
	ck_assert_int_eq(dirs_state("kvd", false, path, 10, err, sizeof err), -ENAMETOOLONG);
	snprintf(said, sizeof said, "the path below %s is longer than 9 bytes; use a shorter one",
	         geteuid() == 0 ? "/var/lib/handoff" : "/home/u/.local/state/handoff");
	ck_assert_str_eq(err, said);
	if (geteuid() != 0) {
		unsetenv("XDG_RUNTIME_DIR");
		ck_assert_int_eq(dirs_runtime("kvd", false, path, sizeof path, err, sizeof err),
				 -ENOENT);
		ck_assert_str_eq(
			err,
			"no runtime directory: neither HANDOFF_RUNTIME_DIR nor XDG_RUNTIME_DIR is "
			"set; set one of them");
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("conf");
	TCase *t = tcase_create("conf");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, mistakes_of_syntax);
	tcase_add_test(t, mistakes_of_structure);
	tcase_add_test(t, mistakes_of_values);
	tcase_add_test(t, mistakes_of_timers);
	tcase_add_test(t, not_a_text);
	tcase_add_test(t, a_short_buffer_is_no_trouble);
	tcase_add_test(t, every_prefix_is_answered);
	tcase_add_test(t, defaults);
	tcase_add_test(t, full);
	tcase_add_test(t, bad_files);
	tcase_add_test(t, variables_are_expanded);
	tcase_add_test(t, too_many_listeners);
	tcase_add_test(t, resolving_without_descriptors);
	tcase_add_test(t, a_name_service_that_cannot_answer);
	tcase_add_test(t, which_errors_pass);
	tcase_add_test(t, names);
	tcase_add_test(t, data_dirs);
	tcase_add_test(t, places_that_do_not_answer);
	tcase_add_test(t, of_somebody);
	tcase_add_test(t, places);
	tcase_add_test(t, print);
	tcase_add_test(t, directories);
	tcase_add_test(t, kept);
	suite_add_tcase(s, t);
	return suite_run(s);
}
