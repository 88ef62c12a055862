#include "common/audit_counts.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

#define LOOKS       12   /* at both numbers, all the same, before they count */
#define LOOK_MS     1000 /* between two of them, at most, where counting is fast */
#define LOOK_MIN_MS 20
#define SLOW_FACTOR 25 /* feed-api spends at most a twentieth of its time on one slow target */
#define BEGINNINGS  4  /* after which what moves all the time is left */

/* ---- reading ---- */

static int count_edges(struct mongo_conn *c, const char *target, int64_t *out, struct err *e)
{
    bson_t *query = BCON_NEW("t", BCON_UTF8(target));
    bson_t cmd = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    bson_iter_t it;
    int rc = 0;
    /* The count command only walks the keys of the index. */
    BSON_APPEND_UTF8(&cmd, "count", mongo_collection_name(COLL_FOLLOWS));
    BSON_APPEND_DOCUMENT(&cmd, "query", query);
    mongo_read_opts(c, &opts);
    if (!mongoc_collection_read_command_with_opts(mongo_coll(c, COLL_FOLLOWS), &cmd, NULL, &opts, &reply,
                                                  &be))
        rc = mongo_err(e, &be, &reply, "counting");
    else if (bson_iter_init_find(&it, &reply, "n"))
        *out = bson_iter_as_int64(&it);
    else
        rc = err_set(e, ERR_INTERNAL, "MongoDB: a count without a number");
    bson_destroy(query);
    bson_destroy(&cmd);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static mongoc_cursor_t *find_targets(struct mongo_conn *c, const char *op, const char *target, int64_t limit)
{
    bson_t *filter = BCON_NEW("_id", "{", op, BCON_UTF8(target), "}");
    bson_t *opts =
        BCON_NEW("projection", "{", "followers", BCON_INT32(1), "}", "sort", "{", "_id", BCON_INT32(1), "}",
                 "limit", BCON_INT64(limit), "batchSize", BCON_INT32((int32_t)limit + 1));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cur;
}

static int end(mongoc_cursor_t *cur, struct err *e)
{
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "reading targets") : 0;
    mongoc_cursor_destroy(cur);
    return rc;
}

int audit_count_read(struct mongo_conn *c, const char *target, struct audit_count *out, struct err *e)
{
    struct audit_count now = {.stored = -1};
    if (strlen(target) >= sizeof now.target)
        return err_set(e, ERR_INVALID, "a target's name is too long");
    strcpy(now.target, target);
    mongoc_cursor_t *cur = find_targets(c, "$eq", target, 1);
    const bson_t *doc;
    if (mongoc_cursor_next(cur, &doc) && !mongo_get_i64(doc, "followers", &now.stored))
        now.stored = 0;
    if (end(cur, e) != 0 || count_edges(c, target, &now.counted, e) != 0)
        return -1;
    *out = now;
    return 0;
}

int audit_count_targets(struct mongo_conn *c, const char *after, char (*out)[TARGET_TEXT_SIZE], size_t max,
                        size_t *n, struct err *e)
{
    mongoc_cursor_t *cur = find_targets(c, "$gt", after, (int64_t)max);
    const bson_t *doc;
    size_t k = 0, len;
    while (k < max && mongoc_cursor_next(cur, &doc)) {
        const char *target = mongo_get_str(doc, "_id", &len);
        if (target && len < TARGET_TEXT_SIZE && strlen(target) == len)
            strcpy(out[k++], target);
    }
    if (end(cur, e) != 0)
        return -1;
    *n = k;
    return 0;
}

/* ---- repairing ---- */

static bson_t *store_filter(const struct audit_count *wrong)
{
    if (wrong->stored < 0)
        return BCON_NEW("_id", BCON_UTF8(wrong->target));
    return BCON_NEW("_id", BCON_UTF8(wrong->target), "followers", BCON_INT64(wrong->stored));
}

/* As feed-api stores counts: a document is made where there was none. */
static int store(struct mongo_conn *c, const struct audit_count *wrong, int64_t counted, struct err *e)
{
    enum target_kind kind;
    const char *name;
    if (target_split(wrong->target, &kind, &name, e) != 0)
        return -1;
    char letter[2] = {target_kind_letter(kind), '\0'};
    bson_t *filter = store_filter(wrong), update = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    if (wrong->stored < 0) /* whoever made it meanwhile has counted later than we */
        BCON_APPEND(&update, "$setOnInsert", "{", "followers", BCON_INT64(counted), "kind", BCON_UTF8(letter),
                    "name", BCON_UTF8(name), "mode", BCON_UTF8("push"), "rev", BCON_INT64(0), "items",
                    BCON_INT64(0), "}");
    else
        BCON_APPEND(&update, "$set", "{", "followers", BCON_INT64(counted), "}");
    BSON_APPEND_BOOL(&opts, "upsert", wrong->stored < 0);
    mongo_write_opts(c, &opts);
    int rc = 0;
    if (!mongoc_collection_update_one(mongo_coll(c, COLL_TARGETS), filter, &update, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "storing a count");
    bson_destroy(filter);
    bson_destroy(&update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

int audit_count_repair(struct mongo_conn *c, const struct audit_count *wrong, bool *repaired, struct err *e)
{
    struct audit_count now;
    if (mongo_conn_fresh(c, NULL, e) != 0 || audit_count_read(c, wrong->target, &now, e) != 0 ||
        store(c, wrong, now.counted, e) != 0 || audit_count_read(c, wrong->target, &now, e) != 0)
        return -1;
    *repaired = now.stored == now.counted;
    return 0;
}

/* ---- waiting for what differs ---- */

struct suspect {
    struct audit_count count;
    int64_t since_ms, next_ms, took_ms;
    unsigned looks, beginnings;
};

struct audit_counter {
    int64_t lag_ms;
    size_t max, n;
    struct suspect *suspects;
    audit_count_fn fn;
    void *arg;
    struct audit_counter_result result;
};

struct audit_counter *audit_counter_new(int64_t lag_ms, size_t max, audit_count_fn fn, void *arg)
{
    struct audit_counter *w = mem_zero(1, sizeof *w);
    w->lag_ms = lag_ms;
    w->max = max;
    w->fn = fn;
    w->arg = arg;
    return w;
}

void audit_counter_free(struct audit_counter *w)
{
    if (!w)
        return;
    free(w->suspects);
    free(w);
}

void audit_counter_result(const struct audit_counter *w, struct audit_counter_result *out)
{
    *out = w->result;
}

size_t audit_counter_open(const struct audit_counter *w)
{
    return w->n;
}

void audit_counter_give_up(struct audit_counter *w)
{
    w->result.unjudged += w->n;
    w->n = 0;
}

static bool differs(const struct audit_count *c)
{
    return (c->stored < 0 ? 0 : c->stored) != c->counted;
}

static void begin(struct suspect *s, const struct audit_count *now, int64_t took_ms)
{
    s->count = *now;
    s->since_ms = clock_mono_ms();
    s->took_ms = took_ms;
    s->looks = 1;
    s->beginnings++;
}

/* A slow count takes at most a third of our time. */
static void plan_next(const struct audit_counter *w, struct suspect *s)
{
    int64_t ms = w->lag_ms / LOOKS;
    ms = ms < LOOK_MIN_MS ? LOOK_MIN_MS : ms > LOOK_MS ? LOOK_MS : ms;
    s->next_ms = clock_mono_ms() + (ms > 2 * s->took_ms ? ms : 2 * s->took_ms);
}

int audit_counter_add(struct audit_counter *w, struct mongo_conn *c, const char *target, struct err *e)
{
    struct audit_count now;
    int64_t start = clock_mono_ms();
    int rc = mongo_conn_fresh(c, NULL, e);
    if (rc == 0)
        rc = audit_count_read(c, target, &now, e);
    if (rc != 0 && e->code != ERR_TIMEOUT)
        return -1;
    w->result.checked++;
    if (rc == 0 && !differs(&now))
        return 0;
    if (rc != 0 || w->n == w->max) {
        w->result.unjudged++;
        return 0;
    }
    if ((w->n & (w->n - 1)) == 0) /* room doubles at powers of two */
        w->suspects = mem_grow(w->suspects, w->n ? w->n * 2 : 1, sizeof *w->suspects);
    struct suspect *s = &w->suspects[w->n++];
    memset(s, 0, sizeof *s);
    begin(s, &now, clock_mono_ms() - start);
    plan_next(w, s);
    return 0;
}

enum state { OPEN, RIGHT, WRONG, MOVING };

static enum state judge(const struct audit_counter *w, struct suspect *s, const struct audit_count *now,
                        int64_t took_ms)
{
    if (!differs(now))
        return RIGHT;
    if (now->stored != s->count.stored || now->counted != s->count.counted) {
        begin(s, now, took_ms);
        return s->beginnings > BEGINNINGS ? MOVING : OPEN;
    }
    if (took_ms > s->took_ms)
        s->took_ms = took_ms;
    s->looks++;
    bool long_enough = clock_mono_ms() - s->since_ms >= w->lag_ms + 2 * SLOW_FACTOR * s->took_ms;
    return s->looks >= LOOKS && long_enough ? WRONG : OPEN;
}

/* Answers whether the suspect stays. */
static int look_again(struct audit_counter *w, struct suspect *s, struct mongo_conn *c, bool *stays,
                      struct err *e)
{
    struct audit_count now;
    int64_t start = clock_mono_ms();
    int rc = mongo_conn_fresh(c, NULL, e);
    if (rc == 0)
        rc = audit_count_read(c, s->count.target, &now, e);
    if (rc != 0 && e->code != ERR_TIMEOUT)
        return -1;
    enum state state = rc == 0 ? judge(w, s, &now, clock_mono_ms() - start) : MOVING;
    if (state == WRONG) {
        w->result.found++;
        w->fn(w->arg, &s->count);
    } else if (state == MOVING) {
        w->result.unjudged++;
    }
    *stays = state == OPEN;
    if (*stays)
        plan_next(w, s);
    return 0;
}

int audit_counter_step(struct audit_counter *w, struct mongo_conn *c, int64_t deadline_ms, int64_t *wait_ms,
                       struct err *e)
{
    int64_t least = LOOK_MS;
    for (size_t i = 0; i < w->n;) {
        struct suspect *s = &w->suspects[i];
        bool stays = true;
        if (s->next_ms <= clock_mono_ms()) {
            mongo_conn_deadline(c, deadline_ms);
            if (look_again(w, s, c, &stays, e) != 0)
                return -1;
        }
        if (!stays) {
            *s = w->suspects[--w->n];
            continue;
        }
        int64_t left = s->next_ms - clock_mono_ms();
        least = left < least ? left : least;
        i++;
    }
    *wait_ms = w->n == 0 ? -1 : least < 0 ? 0 : least;
    return 0;
}
