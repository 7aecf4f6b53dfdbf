/*
 * log: lines that tell the story. To stderr, as text or as JSON; below the journal to its own
 * socket with fields (systemd.journal-fields(7)), or, where that cannot be reached, to stderr
 * with the priority as a prefix.
 */
#ifndef HANDOFF_LOG_H
#define HANDOFF_LOG_H

#include <stdbool.h>

#include "handoffd/bucket.h"

/* What scripts and pagers look for: id, name in JSON, MESSAGE_ID in the journal. Never change one. */
#define LOG_EVENTS(X) \
	X(NONE,       "",           "") \
	X(BEGUN,      "begun",      "6005c11f7e914df9b607569e73dbf728") \
	X(COMMITTED,  "committed",  "cb2627c7acc1424bb9873e435dabdff8") \
	X(ABORTED,    "aborted",    "c77b25ad577a4ec4b00ed918d68cd3af") \
	X(ROLLED_BACK, "rolled-back", "aab65852046740d9a49e4ff207e63938") \
	X(SERVES,     "serves",     "14886974fcf04226a919747695913233") \
	X(DIED,       "died",       "44dda010a2a042fc8c0dcd641289846e") \
	X(NOT_SERVED, "not-served", "7c6dc7ba644244afa3200b9210dc98ca")

enum log_event {
#define X(ID, name, id) LOG_E_##ID,
	LOG_EVENTS(X)
#undef X
};

/* What lines are about, where that is known; texts are NULL or "" if not. */
struct log_about { const char *handoff, *phase, *trace_parent, *correlation_id, *tenant; };

enum log_level { LOG_L_ERROR = 3, LOG_L_WARNING = 4, LOG_L_INFO = 6, LOG_L_DEBUG = 7 };

/* "<6>" prefixes when $JOURNAL_STREAM names stderr's device and inode (systemd.exec(5));
 * else "2026-11-21T08:45:01.123Z handoffd[kvd]: info: text". A write that fails or would
 * block (a full pipe) is dropped: logging never stops the supervisor. */
void log_open(const char *service, enum log_level max);
/* Where the journal takes entries with fields; another one in tests. */
extern const char *log_journal_socket;
/* After log_open: lines are objects; below the journal, too, since that is asked for. */
void log_as_json(void);
/* Lines from here on are about this, borrowed until the next call; NULL: about nothing. */
void log_about(const struct log_about *about);
/* Stderr is a stream to the journal, as log_open found it. */
bool log_to_journal(void);

/*
 * From here on lines are held until log_flush, which the loop calls when a turn is over and
 * what it had to send is sent: a write costs microseconds, and clients wait in some turns. Who
 * tells an operator something calls it before.
 * Errors and warnings are never held, nor what came before them; with hold false all is
 * written at once again.
 */
void log_hold(bool hold);
void log_flush(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, for somebody who looks for that event. */
void log_event(enum log_event event, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define log_error(...)   log_line(LOG_L_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_L_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_L_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_L_DEBUG, __VA_ARGS__)

/*
 * Lines of one kind that somebody else can cause as often as he likes: so many at once, then one
 * in each interval. The next one says how many were left out.
 */
struct log_limit {
	struct bucket lines;
	unsigned burst, interval_ms, left_out;
};
void log_limited(struct log_limit *l, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
