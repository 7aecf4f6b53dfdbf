/* Lines of the log: one each, never blocking. */
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "handoffd/log.h"
#include "leak.h"
#include "suite.h"

static int saved, end[2];

static void setup(void)
{
	leak_setup();
	saved = fcntl(2, F_DUPFD_CLOEXEC, 10);
	unsetenv("JOURNAL_STREAM");
	log_journal_socket = "/nonexistent";
}

static void teardown(void)
{
	dup2(saved, 2);
	close(saved);
	close(end[0]);
	leak_teardown();
}

static void stderr_is(int fd)
{
	dup2(fd, 2);
	close(fd);
}

static const char *heard(void)
{
	static char text[8192];
	ssize_t n = read(end[0], text, sizeof text - 1);

	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void matches(const char *text, const char *pattern)
{
	regex_t r;

	ck_assert_int_eq(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
	ck_assert_msg(regexec(&r, text, 0, NULL, 0) == 0, "said: %s", text);
	regfree(&r);
}

START_TEST(a_line)
{
	char big[5000];
	const char *text;

	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	stderr_is(end[1]);
	log_open("kvd", LOG_L_INFO);
	log_debug("not this");
	log_warning("number %d: a\nb\033", 5);
	matches(heard(),
		"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z "
		"handoffd\\[kvd\\]: warning: number 5: a\\?b\\?\n$");
	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = '\0';
	log_error("%s", big);
	text = heard();
	ck_assert_uint_le(strlen(text), 4096);
	matches(text, "x\\.\\.\\.\n$");
}
END_TEST

START_TEST(journal)
{
	char stream[64];
	struct stat st;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
	stderr_is(end[1]);
	ck_assert_int_eq(fstat(2, &st), 0);
	snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open("kvd", LOG_L_DEBUG);
	log_debug("x");
	ck_assert_str_eq(heard(), "<7>x\n");
	setenv("JOURNAL_STREAM", "1:1", 1);    /* somebody else's, left in the environment */
	log_open("kvd", LOG_L_INFO);
	log_info("x");
	matches(heard(), "handoffd\\[kvd\\]: info: x\n$");
}
END_TEST

/* stderr is a stream to a journal */
static void below_the_journal(void)
{
	char stream[64];
	struct stat st;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
	stderr_is(end[1]);
	ck_assert_int_eq(fstat(2, &st), 0);
	snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
}

static const struct log_about about = {
	.handoff = "0198f2a4-5b6c-7d8e-9f00-112233445566", .phase = "drain", .correlation_id = "a\"b\n",
	.tenant = "",
};

/* Its own socket takes fields; when that is gone, stderr takes the text. */
START_TEST(journal_with_fields)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/test_log.XXXXXX", got[4096];
	int ear = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/socket", dir);
	ck_assert_int_eq(bind(ear, (struct sockaddr *)&sa, sizeof sa), 0);
	below_the_journal();
	log_journal_socket = sa.sun_path;
	log_open("kvd", LOG_L_INFO);
	log_about(&about);
	log_event(LOG_E_ABORTED, LOG_L_WARNING, "a\nb");
	got[recv(ear, got, sizeof got - 1, MSG_DONTWAIT)] = '\0';
	ck_assert_str_eq(got, "PRIORITY=4\nMESSAGE=a?b\nSYSLOG_IDENTIFIER=handoffd\n"
	                 "MESSAGE_ID=c77b25ad577a4ec4b00ed918d68cd3af\nHANDOFF_SERVICE=kvd\n"
	                 "HANDOFF_ID=0198f2a4-5b6c-7d8e-9f00-112233445566\nHANDOFF_PHASE=drain\n"
	                 "HANDOFF_CORRELATION_ID=a\"b?\n");
	log_about(NULL);
	log_hold(true);   /* what is held is as it was */
	log_info("one");
	log_info("two");
	log_hold(false);
	got[recv(ear, got, sizeof got - 1, MSG_DONTWAIT)] = '\0';
	ck_assert_str_eq(got, "PRIORITY=6\nMESSAGE=one\nSYSLOG_IDENTIFIER=handoffd\nHANDOFF_SERVICE=kvd\n");
	got[recv(ear, got, sizeof got - 1, MSG_DONTWAIT)] = '\0';
	matches(got, "MESSAGE=two\n");
	close(ear);
	log_error("is it there?");
	ck_assert_str_eq(heard(), "<3>is it there?\n");
	log_open("kvd", LOG_L_INFO);
	log_journal_socket = "/nonexistent";
	log_open("kvd", LOG_L_INFO);
	unlink(sa.sun_path);
	rmdir(dir);
}
END_TEST

START_TEST(json)
{
	char big[5000];
	const char *text;

	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	stderr_is(end[1]);
	log_open("kvd", LOG_L_INFO);
	log_as_json();
	log_info("say \"hello\\\"\n\xff");
	matches(heard(), "^\\{\"time\": \"20[^\"]*Z\", \"level\": \"info\", \"service\": \"kvd\", \"event\": null, "
	        "\"handoff\": null, \"phase\": null, \"trace_parent\": null, \"correlation_id\": null, "
	        "\"tenant\": null, \"message\": \"say \\\\\"hello\\\\\\\\\\\\\"\\?+\"\\}\n$");
	log_about(&about);
	log_event(LOG_E_COMMITTED, LOG_L_INFO, "x");
	matches(heard(), "\"event\": \"committed\", \"handoff\": \"0198[^\"]*66\", \"phase\": \"drain\", "
	        "\"trace_parent\": null, \"correlation_id\": \"a\\\\\"b\\?\", \"tenant\": null, "
	        "\"message\": \"x\"");
	memset(big, '"', sizeof big);
	big[sizeof big - 1] = '\0';
	log_error("%s", big);
	text = heard();
	ck_assert_uint_le(strlen(text), 4096);
	matches(text, "\\.\\.\\.\"\\}\n$");
	log_about(NULL);
}
END_TEST

static void fill_up(void)
{
	log_open("kvd", LOG_L_INFO);
	for (int i = 0; i < 100000;
	     i++) /* far more than either takes; the fixture's time limit waits */
		log_info("a line that nobody reads");
	matches(heard(), "a line that nobody reads\n");
}

START_TEST(a_full_pipe_does_not_block)
{
	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	stderr_is(end[1]);
	fill_up();
	ck_assert_int_eq(fcntl(2, F_GETFL) & O_NONBLOCK, 0);
}
END_TEST

START_TEST(a_full_socket_does_not_block)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
	stderr_is(end[1]);
	fill_up();
}
END_TEST

START_TEST(a_reader_that_is_gone)
{
	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	stderr_is(end[1]);
	log_open("kvd", LOG_L_INFO);
	close(end[0]);
	end[0] = -1;
	errno = 77;
	log_info("x");                         /* no SIGPIPE either: poll says that it is gone */
	ck_assert_int_eq(errno, 77);
}
END_TEST

/* A bucket's clock is an argument: no time passes here. */
START_TEST(so_many_at_once)
{
	struct bucket b = { 0 };
	unsigned taken = 0;

	end[0] = -1;
	for (; !bucket_wait(&b, 1000, 20, 100); taken++)
		bucket_take(&b, 1000, 100);
	ck_assert_uint_eq(taken, 20);
	ck_assert_uint_eq(bucket_wait(&b, 1000, 20, 100), 100);
	ck_assert_uint_eq(bucket_wait(&b, 1099, 20, 100), 1);
	ck_assert_uint_eq(bucket_wait(&b, 1100, 20, 100), 0);
	bucket_take(&b, 1100, 100);
	ck_assert_uint_eq(bucket_wait(&b, 1100, 20, 100), 100);
	/* full again, and never fuller */
	for (taken = 0; !bucket_wait(&b, 100000, 20, 100); taken++)
		bucket_take(&b, 100000, 100);
	ck_assert_uint_eq(taken, 20);
}
END_TEST

START_TEST(lines_that_others_cause)
{
	struct log_limit l = { .burst = 3, .interval_ms = 3600000 };

	ck_assert_int_eq(pipe2(end, O_CLOEXEC), 0);
	stderr_is(end[1]);
	log_open("kvd", LOG_L_INFO);
	for (int i = 0; i < 10; i++)
		log_limited(&l, LOG_L_WARNING, "line %d", i);
	matches(heard(), "line 0\n[^\n]*line 1\n[^\n]*warning: line 2\n$");
	l.interval_ms = 0;             /* as if an hour had passed */
	l.lines.full_ms = 0;
	log_limited(&l, LOG_L_INFO, "line %d", 10);
	matches(heard(), "info: 7 more lines like the next one were left out\n.*info: line 10\n$");
	log_limited(&l, LOG_L_INFO, "line %d", 11);
	matches(heard(), "^[^\n]*info: line 11\n$");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("log");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_line);
	tcase_add_test(t, journal);
	tcase_add_test(t, journal_with_fields);
	tcase_add_test(t, json);
	tcase_add_test(t, a_full_pipe_does_not_block);
	tcase_add_test(t, a_full_socket_does_not_block);
	tcase_add_test(t, a_reader_that_is_gone);
	tcase_add_test(t, so_many_at_once);
	tcase_add_test(t, lines_that_others_cause);
	suite_add_tcase(s, t);
	return suite_run(s);
}
