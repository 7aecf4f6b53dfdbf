/* The one file that is compiled anew for each version: see examples/local.mk. */
#include "options.h"

#ifndef KVD_VERSION
#define KVD_VERSION "1.0"
#endif

const char kvd_version[] = KVD_VERSION;
