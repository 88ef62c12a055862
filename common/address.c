#include "common/address.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static bool parse_port(const char *s, uint16_t *out)
{
    size_t n = strlen(s);
    if (n < 1 || n > 5 || strspn(s, "0123456789") != n)
        return false;
    long v = strtol(s, NULL, 10);
    *out = (uint16_t)v;
    return v <= UINT16_MAX;
}

static bool is_ip(const char *host, bool v6)
{
    struct in6_addr a; /* large enough for both */
    return inet_pton(v6 ? AF_INET6 : AF_INET, host, &a) == 1;
}

int address_parse(const char *s, struct address *out, struct err *e)
{
    struct address a = {.port = 0};
    const char *colon = strrchr(s, ':');
    bool v6 = s[0] == '[';
    if (colon == NULL || !parse_port(colon + 1, &a.port))
        return err_set(e, ERR_INVALID, "address \"%.80s\": expected host:port", s);
    const char *host = v6 ? s + 1 : s;
    size_t n = (size_t)(colon - host);
    if (v6 && (n < 1 || host[--n] != ']'))
        return err_set(e, ERR_INVALID, "address \"%.80s\": expected [v6]:port", s);
    if (n < sizeof a.host)
        memcpy(a.host, host, n); /* else it stays empty, which is no address */
    if (strcmp(a.host, "localhost") == 0)
        strcpy(a.host, "127.0.0.1");
    if (!is_ip(a.host, v6))
        return err_set(e, ERR_INVALID, "address \"%.80s\": the host must be an IP address or localhost", s);
    *out = a;
    return 0;
}

bool address_is_loopback(const struct address *a)
{
    return strncmp(a->host, "127.", 4) == 0 || strcmp(a->host, "::1") == 0;
}
