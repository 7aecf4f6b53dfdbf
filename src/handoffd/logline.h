/*
 * logline: one entry of the log in each of its forms. Pure: bytes only. All return how many
 * bytes they wrote, at most size; a message that is too long is cut and ends in "...".
 */
#ifndef HANDOFF_LOGLINE_H
#define HANDOFF_LOGLINE_H

#include <stddef.h>
#include <stdint.h>

#include "handoffd/log.h"

struct log_entry {
	enum log_level level;
	enum log_event event;
	const char *service;
	const struct log_about *about;   /* NULL: nothing */
	uint64_t wall_ms;
	char *message;                   /* is made one line of UTF-8 */
};

/* "2026-11-21T08:45:01.123Z handoffd[kvd]: info: text\n"; below the journal "<6>text\n". */
size_t logline_text(const struct log_entry *e, bool journal, char *out, size_t size);
/* An object and "\n"; every key is always there. */
size_t logline_json(const struct log_entry *e, char *out, size_t size);
/* "PRIORITY=6\nMESSAGE=text\n...": fields of the journal's native protocol. */
size_t logline_fields(const struct log_entry *e, char *out, size_t size);

#endif
