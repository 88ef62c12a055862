#include "feed-api/timeline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void timeline_read_init(struct timeline_read *r, const char *user, item_id before, unsigned n)
{
    unsigned bucket = keys_bucket(user);
    keys_bucket_record(r->record, bucket);
    keys_timeline_meta(r->meta, bucket, user);
    keys_timeline(r->ids, bucket, user);
    snprintf(r->from, sizeof r->from, "(-%" PRIu64, before);
    snprintf(r->count, sizeof r->count, "%u", n);
    r->before = before;
    r->n = n;
    r->commands[0] = (struct redis_command){4, {"HMGET", r->record, "progress", "born"}};
    r->commands[1] = (struct redis_command){7, {"HMGET", r->meta, "r", "st", "m", "x", "p"}};
    r->commands[2] = (struct redis_command){3, {"ZSCORE", r->ids, "f"}};
    r->commands[3] =
        (struct redis_command){7, {"ZRANGEBYSCORE", r->ids, r->from, "+inf", "LIMIT", "0", r->count}};
}

static const redisReply *element(const redisReply *a, size_t i)
{
    return a->element[i];
}

static bool is_text(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING;
}

static int check_shape(const redisReply *reply, struct err *e)
{
    static const struct {
        int type;
        size_t elements;
    } want[TIMELINE_COMMANDS] = {
        {REDIS_REPLY_ARRAY, 2}, {REDIS_REPLY_ARRAY, 5}, {REDIS_REPLY_STRING, 0}, {REDIS_REPLY_ARRAY, 0}};
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < TIMELINE_COMMANDS)
        return err_set(e, ERR_CORRUPT, "a timeline's reply has another shape");
    for (size_t i = 0; i < TIMELINE_COMMANDS; i++) {
        const redisReply *r = element(reply, i);
        if (r->type == REDIS_REPLY_ERROR)
            return err_set(e, ERR_UNAVAILABLE, "Redis: %s", r->str);
        bool absent = i == 2 && r->type == REDIS_REPLY_NIL;
        if (!absent && (r->type != want[i].type || (want[i].elements && r->elements != want[i].elements)))
            return err_set(e, ERR_CORRUPT, "reply %zu of a timeline has another shape", i);
    }
    return 0;
}

/* An absent position is fine: present tells. */
static int parse_ts(const redisReply *r, ts_t *out, bool *present, struct err *e)
{
    *present = is_text(r);
    if (*present && ts_parse(r->str, out, NULL))
        return err_set(e, ERR_CORRUPT, "a timeline's time is %.40s", r->str);
    return 0;
}

static int parse_floor(const redisReply *r, item_id *out, struct err *e)
{
    char *end;
    double score = strtod(r->str, &end);
    if (*end || score > 0 || score < -(double)ITEM_ID_MAX)
        return err_set(e, ERR_CORRUPT, "a timeline's floor is %.40s", r->str);
    *out = (item_id)-score;
    return 0;
}

/* Ids come newest first; the floor stands among them at its place, and what follows it does not count. */
static int parse_ids(const redisReply *a, const struct timeline_read *r, struct timeline *t, struct err *e)
{
    t->ids = mem_alloc((a->elements ? a->elements : 1) * sizeof *t->ids);
    t->at_floor = r->before <= t->floor || a->elements < r->n;
    for (size_t i = 0; i < a->elements; i++) {
        const redisReply *m = element(a, i);
        if (!is_text(m))
            return err_set(e, ERR_CORRUPT, "a timeline's member is no string");
        if (m->str[0] == 'f') {
            t->at_floor = true;
            return 0;
        }
        item_id id;
        if (ids_parse(m->str, &id, e))
            return err_set(e, ERR_CORRUPT, "a timeline's member is %.40s", m->str);
        if (id <= t->floor) {
            t->at_floor = true;
            return 0;
        }
        t->ids[t->n++] = id;
    }
    return 0;
}

static int parse_meta(const redisReply *m, struct timeline *t, struct err *e)
{
    bool has_r;
    if (parse_ts(element(m, 0), &t->r, &has_r, e))
        return -1;
    t->exists = has_r;
    t->ready = is_text(element(m, 1)) && strcmp(element(m, 1)->str, "r") == 0;
    if (is_text(element(m, 2)))
        t->mutes = mem_strndup(element(m, 2)->str, element(m, 2)->len);
    if (is_text(element(m, 3)))
        t->expiry_set_s = strtoll(element(m, 3)->str, NULL, 10);
    if (is_text(element(m, 4)) && element(m, 4)->len > 0)
        t->pulls = mem_strndup(element(m, 4)->str, element(m, 4)->len);
    return 0;
}

int timeline_parse(const redisReply *reply, const struct timeline_read *r, struct timeline *out,
                   struct err *e)
{
    struct timeline t = {0};
    bool progress, born;
    if (check_shape(reply, e))
        return -1;
    const redisReply *record = element(reply, 0);
    if (parse_ts(element(record, 0), &t.progress, &progress, e) ||
        parse_ts(element(record, 1), &t.born, &born, e))
        return -1;
    t.has_record = progress && born;
    if (parse_meta(element(reply, 1), &t, e))
        goto bad;
    const redisReply *floor = element(reply, 2);
    t.exists = t.exists && is_text(floor);
    if (t.exists && (parse_floor(floor, &t.floor, e) || parse_ids(element(reply, 3), r, &t, e)))
        goto bad;
    *out = t;
    return 0;
bad:
    timeline_done(&t);
    return -1;
}

void timeline_done(struct timeline *t)
{
    free(t->mutes);
    free(t->pulls);
    free(t->ids);
    memset(t, 0, sizeof *t);
}

ts_t timeline_time(const struct timeline *t)
{
    return ts_max(t->progress, t->r);
}

enum timeline_verdict timeline_decide(const struct timeline *t, const struct timeline_question *q)
{
    if (!t->has_record)
        return TIMELINE_NO_RECORD;
    if (!t->exists || !t->ready)
        return TIMELINE_ABSENT;
    /* Older than the record: what was delivered before the record was made may be missing. */
    if (t->r < t->born)
        return TIMELINE_ABSENT;
    /* Made before the reader's own change: the owner will drop it when it meets the change. */
    if (t->r < q->user_changed)
        return TIMELINE_ABSENT;
    /* A change that this process has forgotten may be newer than R; only the owner's progress says it is not.
     */
    if (timeline_time(t) < q->user_memory)
        return TIMELINE_ABSENT;
    if (timeline_time(t) < q->asked)
        return TIMELINE_BEHIND;
    return TIMELINE_USABLE;
}
