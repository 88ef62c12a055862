/* openapi.h - openapi.yaml of the repository's root, as it was when this binary was built. Any thread. */
#ifndef FEEDMILL_OPENAPI_H
#define FEEDMILL_OPENAPI_H

#include <stddef.h>

extern const char openapi_yaml[]; /* not NUL-terminated */
size_t openapi_yaml_len(void);    /* bytes */

#endif
