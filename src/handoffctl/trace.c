#include "handoffctl/trace.h"

#include <string.h>

#define FLAGS_AT 53
#define SIZE     55   /* of version 00; a later one may have more behind a '-' */

static bool is_hex(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!p[i] || !strchr("0123456789abcdef", p[i]))
			return false;
	return true;
}

static bool is_id(const char *p, size_t n)
{
	bool zero = true;

	for (size_t i = 0; i < n; i++)
		zero &= p[i] == '0';
	return is_hex(p, n) && !zero;
}

static bool is_version(struct span s)
{
	if (!is_hex(s.p, 2) || !memcmp(s.p, "ff", 2))
		return false;
	return s.n == SIZE || (memcmp(s.p, "00", 2) && s.p[SIZE] == '-');
}

bool trace_parent_valid(struct span s)
{
	return s.n >= SIZE && is_version(s) && s.p[TRACE_ID_AT - 1] == '-' && s.p[TRACE_PARENT_AT - 1] == '-' &&
	       s.p[FLAGS_AT - 1] == '-' && is_id(s.p + TRACE_ID_AT, TRACE_ID_SIZE) &&
	       is_id(s.p + TRACE_PARENT_AT, TRACE_PARENT_SIZE) && is_hex(s.p + FLAGS_AT, 2);
}
