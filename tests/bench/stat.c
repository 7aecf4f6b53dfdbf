#include "stat.h"

#include <stdio.h>
#include <stdlib.h>

void samples_add(struct samples *s, double v)
{
	if (s->n == s->cap) {
		unsigned cap = s->cap ? 2 * s->cap : 64;
		double *p = realloc(s->v, cap * sizeof *p);
		if (!p) {
			fprintf(stderr, "bench: no memory\n");
			exit(1);
		}
		s->v = p;
		s->cap = cap;
	}
	s->v[s->n++] = v;
	s->sorted = 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double samples_quantile(struct samples *s, double q)
{
	if (!s->n)
		return 0;
	if (!s->sorted)
		qsort(s->v, s->n, sizeof *s->v, compare);
	s->sorted = 1;
	double at = q * (s->n - 1);
	unsigned i = (unsigned)at, next = i + 1 < s->n ? i + 1 : i;

	return s->v[i] + (at - i) * (s->v[next] - s->v[i]);
}

void samples_free(struct samples *s)
{
	free(s->v);
	*s = (struct samples){ 0 };
}

double ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}
