#ifndef KVD_VERIFY_H
#define KVD_VERIFY_H

/* kvd --verify: reads a data directory, prints what it holds. 0 good, 1 not. */
int verify(const char *data_dir);

#endif
