#include "handoffd/results.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_USUAL 128

static bool make_room(struct kept_result *k, size_t n)
{
	char *p = n > k->room ? realloc(k->message, n) : k->message;

	if (!p)
		return false;
	k->message = p;
	if (n > k->room)
		k->room = n;
	return true;
}

/* There is room for a usual message from the beginning, so that what is remembered is no block
 * more, and lies where it lay. */
void results_open(struct results *v)
{
	for (unsigned i = 0; i < RESULTS_MAX; i++)
		make_room(&v->kept[i], MESSAGE_USUAL);   /* if not, then later */
}

void results_close(struct results *v)
{
	for (unsigned i = 0; i < RESULTS_MAX; i++)
		free(v->kept[i].message);
}

void results_keep(struct results *v, const struct result *r)
{
	struct kept_result *k = &v->kept[v->n++ % RESULTS_MAX];

	k->r = *r;
	if (make_room(k, strlen(r->message) + 1))
		k->r.message = strcpy(k->message, r->message);
	else
		k->r.message = "(there was no memory to remember its message)";
}

const struct result *results_find(const struct results *v, const struct hid *id)
{
	for (unsigned i = 0; i < RESULTS_MAX && i < v->n; i++)
		if (hid_equal(&v->kept[i].r.id, id))
			return &v->kept[i].r;
	return NULL;
}
