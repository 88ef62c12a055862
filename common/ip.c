#include "common/ip.h"

#include <arpa/inet.h>
#include <string.h>

#define V4_BITS 96 /* of the prefix ::ffff:0:0/96 */

static const unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_v4(const struct ip *ip)
{
    return memcmp(ip->b, v4_prefix, sizeof v4_prefix) == 0;
}

bool ip_parse(const char *s, size_t n, struct ip *out)
{
    char text[IP_TEXT_SIZE];
    struct ip ip;
    if (n == 0 || n >= sizeof text)
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    memcpy(ip.b, v4_prefix, sizeof v4_prefix);
    if (inet_pton(AF_INET, text, ip.b + sizeof v4_prefix) != 1 && inet_pton(AF_INET6, text, ip.b) != 1)
        return false;
    *out = ip;
    return true;
}

void ip_format(const struct ip *ip, char *out)
{
    if (is_v4(ip))
        inet_ntop(AF_INET, ip->b + sizeof v4_prefix, out, IP_TEXT_SIZE);
    else
        inet_ntop(AF_INET6, ip->b, out, IP_TEXT_SIZE);
}

struct ip ip_client(const struct ip *ip)
{
    struct ip client = *ip;
    if (!is_v4(ip))
        memset(client.b + 8, 0, 8);
    return client;
}

static bool same_prefix(const struct ip *a, const struct ip *b, unsigned bits)
{
    size_t whole = bits / 8;
    unsigned char mask = (unsigned char)(0xff00u >> bits % 8);
    return memcmp(a->b, b->b, whole) == 0 && (bits % 8 == 0 || ((a->b[whole] ^ b->b[whole]) & mask) == 0);
}

static bool has_bits_behind(const struct ip_net *net)
{
    struct ip ip = {{0}};
    memcpy(ip.b, net->base.b, net->bits / 8);
    if (net->bits % 8)
        ip.b[net->bits / 8] = net->base.b[net->bits / 8] & (unsigned char)(0xff00u >> net->bits % 8);
    return memcmp(ip.b, net->base.b, sizeof ip.b) != 0;
}

/* The number behind the slash, up to most. */
static bool parse_bits(const char *s, size_t n, unsigned most, unsigned *out)
{
    unsigned v = 0;
    if (n < 1 || n > 3)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = 10 * v + (unsigned)(s[i] - '0');
    }
    *out = v;
    return v <= most;
}

static bool parse_net(const char *s, size_t n, struct ip_net *out)
{
    const char *slash = memchr(s, '/', n);
    size_t len = slash != NULL ? (size_t)(slash - s) : n;
    struct ip_net net = {.bits = 128};
    if (!ip_parse(s, len, &net.base))
        return false;
    unsigned before = is_v4(&net.base) && memchr(s, ':', len) == NULL ? V4_BITS : 0;
    if (slash != NULL) {
        if (!parse_bits(slash + 1, n - len - 1, 128 - before, &net.bits))
            return false;
        net.bits += before;
    }
    *out = net;
    return !has_bits_behind(&net);
}

int ip_nets_parse(const char *s, struct ip_nets *out, struct err *e)
{
    struct ip_nets nets = {.n = 0};
    while (*(s += strspn(s, " \t")) != '\0') {
        size_t n = strcspn(s, ","), len = n;
        while (len > 0 && strchr(" \t", s[len - 1]) != NULL)
            len--;
        if (nets.n == IP_NETS_MAX)
            return err_set(e, ERR_INVALID, "more than %d networks", IP_NETS_MAX);
        if (!parse_net(s, len, &nets.nets[nets.n++]))
            return err_set(e, ERR_INVALID, "\"%.*s\" is no network (such as 10.0.0.0/8)",
                           (int)(len < 60 ? len : 60), s);
        s += n;
        if (*s == ',' && *(s += 1 + strspn(s + 1, " \t")) == '\0')
            return err_set(e, ERR_INVALID, "nothing follows the last comma");
    }
    *out = nets;
    return 0;
}

bool ip_nets_have(const struct ip_nets *nets, const struct ip *ip)
{
    for (size_t i = 0; i < nets->n; i++) {
        if (same_prefix(&nets->nets[i].base, ip, nets->nets[i].bits))
            return true;
    }
    return false;
}

/* "192.0.2.1", "2001:db8::1"; some proxies add the port: "192.0.2.1:80", "[2001:db8::1]:80". */
static bool parse_hop(const char *s, size_t n, struct ip *out)
{
    if (n > 2 && s[0] == '[') {
        const char *end = memchr(s, ']', n);
        return end != NULL && ip_parse(s + 1, (size_t)(end - s) - 1, out);
    }
    const char *colon = memchr(s, ':', n);
    if (colon != NULL && memchr(colon + 1, ':', n - (size_t)(colon + 1 - s)) == NULL)
        n = (size_t)(colon - s);
    return ip_parse(s, n, out);
}

bool ip_forwarded(const struct ip_nets *trusted, const char *field, struct ip *ip)
{
    size_t end = strlen(field);
    while (ip_nets_have(trusted, ip)) {
        size_t begin = end;
        if (end == 0)
            return true;
        while (begin > 0 && field[begin - 1] != ',')
            begin--;
        size_t first = begin + strspn(field + begin, " \t");
        while (end > first && strchr(" \t", field[end - 1]) != NULL)
            end--;
        /* Empty ones are no elements of a list (RFC 9110, 5.6.1). */
        if (first < end && !parse_hop(field + first, end - first, ip))
            return false;
        end = begin > 0 ? begin - 1 : 0;
    }
    return false;
}
