/*
 * stat: samples and what is said of them. Medians and quartiles: the machine is shared, and
 * a mean would tell of its other users.
 */
#ifndef BENCH_STAT_H
#define BENCH_STAT_H

struct samples {
	double *v;
	unsigned n, cap;
	int sorted;
};

void samples_add(struct samples *s, double v);   /* exits when there is no memory */
/* The q-quantile, 0 to 1, between the two nearest; 0 without samples. */
double samples_quantile(struct samples *s, double q);
static inline double samples_median(struct samples *s) { return samples_quantile(s, 0.5); }
void samples_free(struct samples *s);

/* a / b, 0 if b is 0. */
double ratio(double a, double b);

#endif
