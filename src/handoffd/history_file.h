/* What handoffctl knows of the file `history` in the state directory, when no supervisor runs
 * that could be asked: a ring (base/ring.h) of Handoff messages. */
#ifndef HANDOFF_HISTORY_FILE_H
#define HANDOFF_HISTORY_FILE_H

#define HISTORY_SLOTS     128u
#define HISTORY_SLOT_SIZE 16384u
#define HISTORY_UNDER_WAY "under way"   /* the outcome of one that has begun */

#endif
