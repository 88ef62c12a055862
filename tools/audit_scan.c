#include "tools/audit_scan.h"

#include <stdlib.h>
#include <string.h>

#include "common/audit_pick.h"
#include "common/ids.h"
#include "common/mem.h"

#define STEP      200 /* keys looked at in one SCAN */
#define PER_JUMP  3   /* timelines taken of one place: more would not be by chance any more */
#define SMALL     20  /* a Redis with fewer keys than so many a wanted timeline is walked through */
#define JUMPS_MIN 1000

struct audit_scan {
    struct redis *redis;
    size_t sample; /* 0: all */
    size_t taken;
    uint64_t keys; /* in Redis, at the start */
    bool begun, jumping;
    size_t jumps_left; /* in vain, before it is given up */
    struct audit_pick pick;
    size_t at, end; /* of pick.users */
    unsigned ends;  /* how often the walk came to the end; a sample's begins anywhere, so twice */
    uint64_t *seen; /* hashes of the names taken: open addressing, half full at most */
    size_t slots;
};

struct audit_scan *audit_scan_new(struct redis *r, size_t sample)
{
    struct audit_scan *s = mem_zero(1, sizeof *s);
    s->redis = r;
    s->sample = sample;
    return s;
}

void audit_scan_free(struct audit_scan *s)
{
    if (!s)
        return;
    audit_pick_done(&s->pick);
    free(s->seen);
    free(s);
}

/* ---- names once ---- */

static uint64_t hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
    return h ? h : 1;
}

/* Answers whether it was not there yet. Two names of one hash of 64 bits: one of them is not sampled. */
static bool take_name(struct audit_scan *s, const char *user)
{
    uint64_t h = hash(user);
    size_t i = (size_t)(h ^ h >> 29) & (s->slots - 1);
    for (; s->seen[i]; i = (i + 1) & (s->slots - 1)) {
        if (s->seen[i] == h)
            return false;
    }
    s->seen[i] = h;
    return true;
}

/* ---- steps ---- */

static int begin(struct audit_scan *s, struct err *e)
{
    redisReply *reply;
    if (redis_commandf(s->redis, &reply, e, "DBSIZE", NULL) != 0)
        return -1;
    s->keys = reply->type == REDIS_REPLY_INTEGER ? (uint64_t)reply->integer : 0;
    freeReplyObject(reply);
    s->begun = true;
    if (!s->sample)
        return 0;
    s->jumping = s->keys > SMALL * (uint64_t)s->sample;
    s->jumps_left = JUMPS_MIN + s->sample;
    audit_pick_jump(&s->pick);
    for (s->slots = 64; s->slots < 2 * s->sample;)
        s->slots *= 2;
    s->seen = mem_zero(s->slots, sizeof *s->seen);
    return 0;
}

static void shuffle(struct audit_pick *p)
{
    for (size_t i = p->n; i > 1; i--) {
        size_t k = ids_random_bits() % i;
        char t[NAME_MAX_BYTES + 1];
        memcpy(t, p->users[i - 1], sizeof t);
        memcpy(p->users[i - 1], p->users[k], sizeof t);
        memcpy(p->users[k], t, sizeof t);
    }
}

/* 1: users are there, perhaps none; 0: there are no more. */
static int step(struct audit_scan *s, struct err *e)
{
    if (s->jumping ? s->jumps_left == 0 : s->ends == (s->sample ? 2 : 1))
        return 0;
    if (s->jumping) {
        audit_pick_jump(&s->pick);
        s->jumps_left--;
    }
    if (audit_pick_step(&s->pick, s->redis, STEP, e) != 0)
        return -1;
    s->at = 0;
    s->end = s->pick.n;
    if (s->jumping) {
        shuffle(&s->pick);
        s->end = s->pick.n < PER_JUMP ? s->pick.n : PER_JUMP;
    } else {
        s->ends += s->pick.at_end;
    }
    return 1;
}

int audit_scan_next(struct audit_scan *s, char user[NAME_MAX_BYTES + 1], struct err *e)
{
    if (!s->begun && begin(s, e) != 0)
        return -1;
    if (s->sample && s->taken == s->sample)
        return 0;
    for (;;) {
        while (s->at < s->end) {
            const char *next = s->pick.users[s->at++];
            if (s->sample && !take_name(s, next))
                continue;
            strcpy(user, next);
            s->taken++;
            s->jumps_left = JUMPS_MIN + s->sample;
            return 1;
        }
        int rc = step(s, e);
        if (rc <= 0)
            return rc;
    }
}

/* ---- how far ---- */

/* SCAN counts its cursor up from the highest bit of the table's size on: reversed, it is the place. */
static double place(const struct audit_scan *s)
{
    unsigned bits = 2;
    while (bits < 48 && (UINT64_C(1) << bits) < s->keys)
        bits++;
    while (bits < 63 && s->pick.cursor >> bits)
        bits++;
    uint64_t reversed = 0;
    for (unsigned i = 0; i < bits; i++)
        reversed |= (s->pick.cursor >> i & 1) << (bits - 1 - i);
    return (double)reversed / (double)(UINT64_C(1) << bits);
}

uint64_t audit_scan_total(const struct audit_scan *s, uint64_t done)
{
    uint64_t waiting = s->end - s->at, most = s->keys / 2; /* a timeline is two keys */
    if (s->sample)
        return s->sample < most ? s->sample : most;
    if (s->ends)
        return done + waiting;
    double at = place(s);
    return at > 0.001 ? (uint64_t)((double)(done + waiting) / at) : 0;
}
