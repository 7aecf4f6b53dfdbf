/*
 * trace: the traceparent of the W3C's Trace Context: a version, the trace's id, the id of the
 * parent's span and flags, as hexadecimal digits.
 */
#ifndef HANDOFF_CTL_TRACE_H
#define HANDOFF_CTL_TRACE_H

#include <stdbool.h>

#include "proto/msg.h"

enum { TRACE_ID_AT = 3, TRACE_ID_SIZE = 32, TRACE_PARENT_AT = 36, TRACE_PARENT_SIZE = 16 };

/* It is one, of version 00 or of a later one, of which only the beginning is known. */
bool trace_parent_valid(struct span s);

#endif
