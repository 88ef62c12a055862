#include "fanout/adopt.h"

#include <assert.h>
#include <string.h>

struct adopter {
    struct redis *redis;
    struct buckets *buckets;
    struct metrics *metrics;
};

static int adopt_send(struct adopter *d, unsigned bucket, const char *epoch, const char *now, bool reset,
                      struct err *e)
{
    char key[KEY_SIZE];
    size_t len = keys_bucket_record(key, bucket);
    const char *argv[] = {key, epoch, now, reset ? "1" : "0"};
    size_t lens[] = {len, strlen(epoch), strlen(now), 1};
    metrics_add(d->metrics, M_SCRIPTS, SCRIPT_ADOPT, 1);
    return redis_script_append(d->redis, SCRIPT_ADOPT, 1, 4, argv, lens, e);
}

struct adopt_answer {
    long long what; /* 0 refused, 1 taken over, 2 made */
    ts_t progress;  /* 0 when it does not read as one */
};

static int adopt_read(struct adopter *d, struct adopt_answer *out, struct err *e)
{
    redisReply *r;
    if (redis_read(d->redis, &r, e) != 0)
        return -1;
    int rc = 0;
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 1 || r->element[0]->type != REDIS_REPLY_INTEGER) {
        rc = err_set(e, ERR_CORRUPT, "script adopt answered something else than an array");
    } else {
        const redisReply *p = r->elements > 1 ? r->element[1] : NULL;
        out->what = r->element[0]->integer;
        if (!p || p->type != REDIS_REPLY_STRING || ts_parse(p->str, &out->progress, NULL) != 0)
            out->progress = 0;
    }
    freeReplyObject(r);
    return rc;
}

/* The epoch that a record holds; 0 when it is gone or does not read as one. */
static int read_epoch(struct adopter *d, unsigned bucket, int64_t *out, struct err *e)
{
    char key[KEY_SIZE];
    redisReply *r;
    ts_t epoch = 0;
    keys_bucket_record(key, bucket);
    if (redis_commandf(d->redis, &r, e, "HGET", key, "epoch", NULL) != 0)
        return -1;
    if (r->type == REDIS_REPLY_STRING && ts_parse(r->str, &epoch, NULL) == 0 && epoch < INT64_MAX)
        *out = (int64_t)epoch;
    else
        *out = 0;
    freeReplyObject(r);
    return 0;
}

static int adopt_one(struct adopter *d, unsigned bucket, int64_t epoch, ts_t now, struct adopt_answer *a,
                     struct adoption *sum, struct err *e)
{
    char epoch_text[TS_TEXT_SIZE], now_text[TS_TEXT_SIZE];
    if (a->what == 0) {
        int64_t there;
        if (read_epoch(d, bucket, &there, e) != 0)
            return -1;
        sum->least_epoch = there > sum->least_epoch ? there : sum->least_epoch;
        if (sum->least_epoch == 0)
            sum->least_epoch = epoch;
        return 0;
    }
    if (a->progress == 0 || a->progress > now) {
        ts_format((uint64_t)epoch, epoch_text);
        ts_format(now, now_text);
        if (adopt_send(d, bucket, epoch_text, now_text, true, e) != 0 || adopt_read(d, a, e) != 0)
            return -1;
    }
    sum->taken += a->what == 1;
    sum->made += a->what == 2;
    sum->least = ts_min(sum->least, a->progress);
    return 0;
}

static int adopt_all(struct adopter *d, unsigned share, int64_t epoch, ts_t now, bool reset,
                     struct adopt_answer *answers, struct err *e)
{
    char epoch_text[TS_TEXT_SIZE], now_text[TS_TEXT_SIZE];
    ts_format((uint64_t)epoch, epoch_text);
    ts_format(now, now_text);
    for (unsigned i = 0; i < SHARE_BUCKETS; i++) {
        if (adopt_send(d, share * SHARE_BUCKETS + i, epoch_text, now_text, reset, e) != 0)
            return -1;
    }
    for (unsigned i = 0; i < SHARE_BUCKETS; i++) {
        if (adopt_read(d, &answers[i], e) != 0)
            return -1;
    }
    return 0;
}

int adopt_share(struct redis *r, struct buckets *b, struct metrics *m, unsigned share, int64_t epoch,
                ts_t now, bool reset, struct adoption *out, struct err *e)
{
    assert(share < SHARES && redis_pending(r) == 0);
    struct adopter d = {r, b, m};
    struct adopt_answer answers[SHARE_BUCKETS];
    struct adoption sum = {.least = now};
    if (adopt_all(&d, share, epoch, now, reset, answers, e) != 0)
        return -1;
    for (unsigned i = 0; i < SHARE_BUCKETS; i++) {
        if (adopt_one(&d, share * SHARE_BUCKETS + i, epoch, now, &answers[i], &sum, e) != 0)
            return -1;
    }
    if (sum.least_epoch == 0) {
        for (unsigned i = 0; i < SHARE_BUCKETS; i++)
            buckets_own(b, share * SHARE_BUCKETS + i, epoch, answers[i].progress);
    }
    *out = sum;
    return 0;
}
