#include "handoffd/version.h"

#include "config.h"

#ifndef HANDOFFD_VERSION
#define HANDOFFD_VERSION PACKAGE_VERSION
#endif
#ifndef CARRY_VERSION
#define CARRY_VERSION 1
#endif

const char handoffd_version[] = HANDOFFD_VERSION;
const unsigned carry_version = CARRY_VERSION;
