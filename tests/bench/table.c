#include "table.h"

#include <stdarg.h>
#include <stdio.h>

void table_head(void)
{
	printf("%-44s %5s %4s %9s %9s %9s  %-22s %9s %6s  %-9s %s\n", "", "n", "unit", "median",
	       "q1", "q3", "beside it, same run", "median", "ratio", "aim", "");
}

void table_section(const char *fmt, ...)
{
	va_list ap;

	putchar('\n');
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

int table_row(const struct row *r)
{
	double median = samples_median(r->s), with = r->with ? samples_median(r->with) : 0;
	double value = r->aim == AIM_RATIO ? ratio(median, with) : median;
	const char *times = r->aim == AIM_RATIO ? "x" : "";
	int places = r->aim == AIM_RATIO ? 2 : 0, missed = r->aim != AIM_NONE && value > r->limit;

	printf("  %-42s %5u %4s %9.0f %9.0f %9.0f  ", r->what, r->s->n, r->unit, median,
	       samples_quantile(r->s, 0.25), samples_quantile(r->s, 0.75));
	if (r->beside)
		printf("%-22s %9.0f %5.2fx  ", r->beside, with, ratio(median, with));
	else
		printf("%-22s %9s %6s  ", "-", "-", "-");
	if (r->aim == AIM_NONE)
		printf("%-9s\n", "-");
	else if (!missed)
		printf("<= %-4.*f%s  met\n", r->aim == AIM_RATIO ? 1 : 0, r->limit, times);
	else
		printf("<= %-4.*f%s  missed by %.*f%s\n", r->aim == AIM_RATIO ? 1 : 0, r->limit,
		       times, places, value - r->limit, r->aim == AIM_RATIO ? " x" : r->unit);
	fflush(stdout);
	return missed;
}
