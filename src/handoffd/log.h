/* log: lines that tell the story, to stderr; priority as "<N>" prefix below the journal. */
#ifndef HANDOFF_LOG_H
#define HANDOFF_LOG_H

#include <stdbool.h>

#include "handoffd/bucket.h"

enum log_level { LOG_L_ERROR = 3, LOG_L_WARNING = 4, LOG_L_INFO = 6, LOG_L_DEBUG = 7 };

/* "<6>" prefixes when $JOURNAL_STREAM names stderr's device and inode (systemd.exec(5));
 * else "2026-11-21T08:45:01.123Z handoffd[kvd]: info: text". A write that fails or would
 * block (a full pipe) is dropped: logging never stops the supervisor. */
void log_open(const char *service, enum log_level max);
/* Stderr is a stream to the journal, as log_open found it. */
bool log_to_journal(void);

/*
 * From here on lines are held until log_flush, which the loop calls when a turn is over and
 * what it had to send is sent: a write costs microseconds, and clients wait in some turns.
 * Errors and warnings are never held, nor what came before them; with hold false all is
 * written at once again.
 */
void log_hold(bool hold);
void log_flush(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
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
