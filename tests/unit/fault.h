/*
 * fault: a hook for sys_fault that counts the calls of one run and fails, or shortens, a
 * chosen one. First a dry run (fault_at -1) says how many there are, then each is failed.
 */
#ifndef TESTS_UNIT_FAULT_H
#define TESTS_UNIT_FAULT_H

#include "base/sys.h"

static int fault_at, fault_seen, fault_with;
static enum sys_call fault_call = SYS_C_COUNT;   /* SYS_C_COUNT: any but CLOSE */
static enum sys_call fault_hit;                  /* which call it was */

static inline int fault_hook(enum sys_call call)
{
	if (call == SYS_C_CLOSE || (fault_call != SYS_C_COUNT && call != fault_call))
		return 0;
	if (fault_seen++ != fault_at)
		return 0;
	fault_hit = call;
	return fault_with;
}

/* Fails call number at (from 0) of kind call with e; at -1: none, only counts. */
static inline void fault_set(enum sys_call call, int at, int e)
{
	fault_call = call;
	fault_at = at;
	fault_with = e;
	fault_seen = 0;
	fault_hit = SYS_C_COUNT;
	sys_fault = fault_hook;
}

/* Off again; returns how many calls there were. */
static inline int fault_off(void)
{
	sys_fault = NULL;
	return fault_seen;
}

#endif
