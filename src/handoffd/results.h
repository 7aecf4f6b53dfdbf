/*
 * results: how the last attempts ended, for who asks again by id.
 */
#ifndef HANDOFF_RESULTS_H
#define HANDOFF_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handoffd/history.h"
#include "proto/super.h"

#define RESULTS_MAX        16
#define RESULT_MESSAGE_MAX 2000

struct result {
	struct hid id;
	int code;               /* handoffctl(1), EXIT STATUS */
	enum s_outcome outcome;
	char outcome_text[64];
	const char *message;    /* borrowed */
	struct times times;
	bool counted;           /* connections: */
	uint64_t moved, stayed;
};

struct results {
	struct kept_result {
		struct result r;
		char *message;
		size_t room;
	} kept[RESULTS_MAX];    /* a ring */
	unsigned n;
};

void results_open(struct results *v);
void results_close(struct results *v);
/* Copies it, its message too: in place of the oldest. */
void results_keep(struct results *v, const struct result *r);
/* NULL: none of that id. Borrowed, until the next is kept. */
const struct result *results_find(const struct results *v, const struct hid *id);

#endif
