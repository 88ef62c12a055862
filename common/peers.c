#include "common/peers.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/mem.h"

#define CHAINS      4096
#define REFUSED_MAX 4 /* connections of an address beyond its share that are told so at a time */

struct peer {
    struct peer *next;
    struct ip ip;
    size_t n;
};

struct peers {
    size_t most;
    struct ip_nets exempt;
    uint64_t seed;
    pthread_mutex_t lock; /* of what follows */
    struct peer *chains[CHAINS];
    size_t addresses;
};

struct peers *peers_new(size_t most, const struct ip_nets *exempt)
{
    assert(most >= 1);
    struct peers *p = mem_zero(1, sizeof *p);
    p->most = most;
    if (exempt != NULL)
        p->exempt = *exempt;
    if (getrandom(&p->seed, sizeof p->seed, 0) != sizeof p->seed)
        p->seed = (uintptr_t)p;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void peers_free(struct peers *p)
{
    if (p == NULL)
        return;
    assert(p->addresses == 0);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Seeded, so that nobody can choose addresses that make one long chain. */
static struct peer **find_peer(struct peers *p, const struct ip *ip)
{
    uint64_t half[2];
    memcpy(half, ip->b, sizeof half);
    uint64_t h = (half[0] ^ p->seed) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 31 ^ half[1]) * UINT64_C(0x94d049bb133111eb);
    struct peer **at = &p->chains[(h >> 40) % CHAINS];
    while (*at != NULL && memcmp(&(*at)->ip, ip, sizeof *ip) != 0)
        at = &(*at)->next;
    return at;
}

enum peers_answer peers_enter(struct peers *p, const struct ip *from)
{
    if (ip_nets_have(&p->exempt, from))
        return PEERS_OK;
    struct ip client = ip_client(from);
    enum peers_answer answer = PEERS_OK;
    pthread_mutex_lock(&p->lock);
    struct peer **at = find_peer(p, &client);
    size_t n = *at != NULL ? (*at)->n : 0;
    if (n >= p->most)
        answer = n < p->most + REFUSED_MAX ? PEERS_REFUSE : PEERS_CLOSE;
    if (*at == NULL) {
        *at = mem_zero(1, sizeof **at);
        (*at)->ip = client;
        p->addresses++;
    }
    if (answer != PEERS_CLOSE)
        (*at)->n++;
    pthread_mutex_unlock(&p->lock);
    return answer;
}

void peers_leave(struct peers *p, const struct ip *from)
{
    if (ip_nets_have(&p->exempt, from))
        return;
    struct ip client = ip_client(from);
    pthread_mutex_lock(&p->lock);
    struct peer **at = find_peer(p, &client), *peer = *at;
    assert(peer != NULL);
    if (--peer->n == 0) {
        *at = peer->next;
        p->addresses--;
        free(peer);
    }
    pthread_mutex_unlock(&p->lock);
}

size_t peers_addresses(struct peers *p)
{
    pthread_mutex_lock(&p->lock);
    size_t n = p->addresses;
    pthread_mutex_unlock(&p->lock);
    return n;
}
