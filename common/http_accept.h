/* http_accept.h - what a client takes. Pure; any thread. */
#ifndef FEEDMILL_HTTP_ACCEPT_H
#define FEEDMILL_HTTP_ACCEPT_H

#include <stdbool.h>

/* http_accepts_gzip() reads an Accept-Encoding (RFC 9110, 12.5.3; NULL: none was sent): true when gzip (or
 * x-gzip, or *) is taken with a weight above 0 that is not below the one given for identity. Without the
 * field, and for one that can't be read, the answer is false: plain is never wrong. */
bool http_accepts_gzip(const char *accept_encoding);

#endif
