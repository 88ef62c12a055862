#include "common/ids.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define RANDOM_MASK ((UINT32_C(1) << ITEM_ID_RANDOM_BITS) - 1)
#define TIME_MASK   ((UINT64_C(1) << 42) - 1)

item_id ids_make(int64_t ms, uint32_t bits)
{
    item_id id = ((uint64_t)ms & TIME_MASK) << ITEM_ID_RANDOM_BITS | (bits & RANDOM_MASK);
    return id != 0 ? id : 1;
}

static uint64_t ids_system_seed(void)
{
    uint64_t seed;
    ssize_t n;
    do {
        n = getrandom(&seed, sizeof seed, 0);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof seed) {
        /* Without it two processes would try the same ids; kernels since 3.17 have it. */
        perror("feedmill: getrandom");
        abort();
    }
    return seed;
}

/* SplitMix64 (Steele, Lea, Flood 2014): the unique _id decides about ids, so these bits need not be secret.
 */
uint32_t ids_random_bits(void)
{
    static _Thread_local uint64_t state;
    static _Thread_local bool seeded;
    if (!seeded) {
        state = ids_system_seed();
        seeded = true;
    }
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

void ids_format(item_id id, char out[ITEM_ID_TEXT_SIZE])
{
    char digits[20];
    int n = 0;
    id &= ITEM_ID_MAX; /* keeps a wrong id within out */
    do {
        digits[n++] = (char)('0' + id % 10);
        id /= 10;
    } while (id != 0);
    for (int i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    out[n] = '\0';
}

int ids_parse(const char *s, item_id *out, struct err *e)
{
    item_id id = 0;
    int n = 0;
    while (n < ITEM_ID_TEXT_SIZE - 1 && s[n] >= '0' && s[n] <= '9')
        id = id * 10 + (item_id)(s[n++] - '0');
    if (n == 0 || s[n] != '\0' || s[0] == '0' || id > ITEM_ID_MAX)
        return err_set(e, ERR_INVALID, "an item id is a number from 1 to %llu",
                       (unsigned long long)ITEM_ID_MAX);
    *out = id;
    return 0;
}
