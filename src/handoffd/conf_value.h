/* conf_value: the texts of the configuration turned into values. */
#ifndef HANDOFF_CONF_VALUE_H
#define HANDOFF_CONF_VALUE_H

#include "handoffd/conf.h"

/*
 * Puts the n texts of v into the field of base (a struct conf, or a struct conf_listen
 * for conf_listen_options) that o names; a scalar takes v[0]. What the field held is
 * freed. 0, or -EINVAL (-ENOMEM) with a sentence in why: "NAME = TEXT is ...; write ...".
 */
int conf_value_set(void *base, const struct conf_option *o, char *const *v, unsigned n,
		   char *why, size_t why_size);

/* Frees a list and its texts; takes NULL. */
void conf_list_free(char **list);

#endif
