#include "feed-api/rate_limit.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

#define PARTS       16
#define BUCKETS_MAX (1u << 24)
#define NS_A_SECOND 1000000000LL
#define NS_A_MS     1000000

/* What is looked at for every request stands together: hashes and times are two cache lines. */
struct set {
    uint32_t hash[RATE_WAYS];
    int64_t full_ns[RATE_WAYS]; /* 0: never used */
    char id[RATE_WAYS][RATE_ID_MAX + 1];
};

struct part {
    pthread_mutex_t lock;
    struct set *sets;
};

struct rate_limit {
    size_t n_sets; /* of a part; a power of two */
    uint64_t seed[2];
    struct part parts[PARTS];
};

int64_t rate_rule_burst(const struct rate_rule *r)
{
    return r->burst != 0 ? r->burst : 2 * r->per_second;
}

static int64_t ms_up(int64_t ns)
{
    return ns <= 0 ? 0 : (ns + NS_A_MS - 1) / NS_A_MS;
}

void rate_bucket_take(int64_t *full_ns, const struct rate_rule *r, int64_t now_ns, struct rate_verdict *out)
{
    assert(r->per_second > 0);
    int64_t token = NS_A_SECOND / r->per_second;
    int64_t whole = token * rate_rule_burst(r);
    int64_t full = *full_ns > now_ns ? *full_ns : now_ns;
    bool ok = full + token - now_ns <= whole;
    if (ok)
        full += token;
    *out = (struct rate_verdict){
        .ok = ok,
        .remaining = (whole - (full - now_ns)) / token,
        .reset_ms = ms_up(full - now_ns),
        .retry_ms = ok ? 0 : ms_up(full + token - now_ns - whole),
    };
    *full_ns = full;
}

/* ---- the table ---- */

struct rate_limit *rate_limit_new(size_t buckets)
{
    assert(buckets >= 1 && buckets <= BUCKETS_MAX);
    struct rate_limit *l = mem_zero(1, sizeof *l);
    l->n_sets = 1;
    while (l->n_sets * PARTS * RATE_WAYS < buckets)
        l->n_sets *= 2;
    if (getrandom(l->seed, sizeof l->seed, 0) != sizeof l->seed)
        l->seed[0] = (uint64_t)clock_mono_us() ^ (uint64_t)getpid() << 40;
    for (size_t i = 0; i < PARTS; i++) {
        pthread_mutex_init(&l->parts[i].lock, NULL);
        l->parts[i].sets = mem_zero(l->n_sets, sizeof *l->parts[i].sets);
    }
    return l;
}

void rate_limit_free(struct rate_limit *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < PARTS; i++) {
        pthread_mutex_destroy(&l->parts[i].lock);
        free(l->parts[i].sets);
    }
    free(l);
}

/* Seeded, so that nobody can choose names that fall into one set. It decides about places only: the names
 * themselves are compared. */
static uint64_t hash_id(const struct rate_limit *l, const char *id, size_t n)
{
    uint64_t h = l->seed[0] ^ n;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, id + i, n - i < 8 ? n - i : 8);
        h = (h ^ word) * UINT64_C(0xbf58476d1ce4e5b9);
        h ^= h >> 29;
    }
    h = (h ^ l->seed[1]) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 32;
}

/* The bucket's place in its set; a new one takes the place of the fullest, which is full itself. */
static size_t find_place(struct set *s, uint32_t hash, const char *id, size_t n)
{
    size_t fullest = 0;
    for (size_t i = 0; i < RATE_WAYS; i++) {
        if (s->hash[i] == hash && strncmp(s->id[i], id, n) == 0 && s->id[i][n] == '\0')
            return i;
        if (s->full_ns[i] < s->full_ns[fullest])
            fullest = i;
    }
    s->hash[fullest] = hash;
    s->full_ns[fullest] = 0;
    memcpy(s->id[fullest], id, n);
    s->id[fullest][n] = '\0';
    return fullest;
}

void rate_limit_take(struct rate_limit *l, const struct rate_rule *r, const char *id, int64_t now_ns,
                     struct rate_verdict *out)
{
    if (r->per_second == 0) {
        *out = (struct rate_verdict){.ok = true};
        return;
    }
    size_t n = strnlen(id, RATE_ID_MAX);
    uint64_t h = hash_id(l, id, n);
    struct part *p = &l->parts[h % PARTS];
    struct set *s = &p->sets[h / PARTS & (l->n_sets - 1)];
    pthread_mutex_lock(&p->lock);
    size_t i = find_place(s, (uint32_t)(h >> 32), id, n);
    rate_bucket_take(&s->full_ns[i], r, now_ns, out);
    pthread_mutex_unlock(&p->lock);
}
