/* ip.h - IP addresses and networks: who is trusted, and whose request it is behind proxies. Pure; any thread.
 */
#ifndef FEEDMILL_IP_H
#define FEEDMILL_IP_H

#include <stdbool.h>
#include <stddef.h>
#include "common/err.h"

#define IP_TEXT_SIZE 46 /* INET6_ADDRSTRLEN */
#define IP_NETS_MAX  64

struct ip {
    unsigned char b[16]; /* IPv6; an IPv4 address as ::ffff:a.b.c.d */
};

struct ip_net {
    struct ip base;
    unsigned bits; /* of base that count, 0 to 128 */
};

struct ip_nets {
    size_t n;
    struct ip_net nets[IP_NETS_MAX];
};

/* ip_parse() reads n bytes: "192.0.2.1" or "2001:db8::1". Answers whether they are an address. */
bool ip_parse(const char *s, size_t n, struct ip *out);

/* ip_format() writes it into out[IP_TEXT_SIZE]; what is IPv4 as such. */
void ip_format(const struct ip *ip, char *out);

/* ip_client() is what one client may be taken for: an IPv4 address, the /64 of an IPv6 one, because a
 * household has all of that to itself. */
struct ip ip_client(const struct ip *ip);

/* ip_nets_parse() reads networks by commas: "10.0.0.0/8, 192.0.2.7, ::1, 2001:db8::/32" (an address alone is
 * the whole of it); "" is none. ERR_INVALID: what is no network, has bits set behind its prefix, or is one
 * more than IP_NETS_MAX. */
int ip_nets_parse(const char *s, struct ip_nets *out, struct err *e) MUST_USE;
bool ip_nets_have(const struct ip_nets *nets, const struct ip *ip);

/* ip_forwarded() goes on with one X-Forwarded-For field, from its right end: each proxy wrote down whom it
 * heard. *ip is who said so: as long as that is a trusted one, the next address to the left takes its place.
 * Answers whether a field before this one may say more: all of it was trusted. What is no address ends it,
 * for whoever is trusted did not write that. */
bool ip_forwarded(const struct ip_nets *trusted, const char *field, struct ip *ip);

#endif
