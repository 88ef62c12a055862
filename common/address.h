/* address.h - "host:port" as options name it: where to listen, where the ranker is. Pure; any thread.
 */
#ifndef FEEDMILL_ADDRESS_H
#define FEEDMILL_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

struct address {
    char host[64]; /* an IP address: "127.0.0.1", "::1" */
    uint16_t port; /* 0: any free one, for listeners */
};

/* address_parse() reads "127.0.0.1:8080", "[::1]:8080" or "localhost:8080" (which is 127.0.0.1). Other names
 * are not resolved. ERR_INVALID. */
int address_parse(const char *s, struct address *out, struct err *e) MUST_USE;

/* address_is_loopback() says whether only this machine can reach it. */
bool address_is_loopback(const struct address *a);

#endif
