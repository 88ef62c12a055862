/* peers.h - how many connections each client address has open, so that one can't take them all.
 *
 * One for all servers of a process that share it. Counted by ip_client(). Who is exempt (proxies, which speak
 * for many) is not counted. Memory: an entry an address with a connection. Any thread.
 */
#ifndef FEEDMILL_PEERS_H
#define FEEDMILL_PEERS_H

#include "common/ip.h"

struct peers;

enum peers_answer {
    PEERS_OK,
    PEERS_REFUSE, /* it has its share: answer that */
    PEERS_CLOSE,  /* and is being answered that some times already: just close */
};

/* peers_new() copies exempt (NULL: nobody). most: connections of one address, at least 1. */
struct peers *peers_new(size_t most, const struct ip_nets *exempt);
void peers_free(struct peers *p); /* when all have left; NULL is a no-op */

/* peers_enter() counts a connection, unless it answers PEERS_CLOSE. peers_leave() when it is gone. */
enum peers_answer peers_enter(struct peers *p, const struct ip *from);
void peers_leave(struct peers *p, const struct ip *from);
size_t peers_addresses(struct peers *p); /* counted now */

#endif
