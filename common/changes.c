/* changes.c - the tail of the log.
 *
 * The cursor is driven by hand (aggregate, getMore) and not by libmongoc's change stream, because two things
 * must be known that it hides: when a batch is used up, which is the moment to write a heartbeat instead of
 * waiting, and the token after the last batch, from which to go on. A batch is always handed out entirely
 * before the next one is asked for, so that this token is the only place to remember.
 */
#include "common/changes.h"

#include "common/changes_internal.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_DEFAULT_MS 100
#define WAIT_MAX_MS     1000
#define OPEN_MS         4500 /* a long way through the log without a change of ours; below the socket's time-out */
#define BATCH           1000 /* changes a getMore */
#define OWN_BEAT_MS     5    /* at most one heartbeat of the tail's own in this time */
#define SHORT_POLL_MS                                                                                        \
    2 /* under load the next change completes the newest one sooner than a heartbeat would */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   1000

struct changes {
    struct mongo_conn *conn;
    char *instance;
    bool tell_items;
    int64_t wait_ms;
    ts_t start;   /* where to begin while there is no token */
    ts_t skip_to; /* changes up to this time are not told: they were there before the tail */
    bson_t *pipeline;

    int64_t cursor_id; /* 0: no cursor */
    uint32_t server_id;
    bson_t *token;     /* NULL before the first answer */
    bson_t *reply;     /* the batch being handed out; NULL for none */
    bson_iter_t batch; /* the last element of it that was read */
    bool held;         /* batch stands at an element that could not be told yet */

    ts_t newest_change; /* the time of the newest change that says more than that time passes */
    ts_t complete;
    bool polled_short;
    int64_t beat_ms; /* monotonic: the last heartbeat of our own */

    unsigned failures;
    int64_t next_try_ms;
    bool lost;
};

/* ---- opening and going on ---- */

static bson_t *build_open(const struct changes *c)
{
    bson_t *cmd = bson_new();
    bson_t pipeline, stage, options, cursor, rest;
    BSON_APPEND_INT32(cmd, "aggregate", 1);
    BSON_APPEND_ARRAY_BEGIN(cmd, "pipeline", &pipeline);
    BSON_APPEND_DOCUMENT_BEGIN(&pipeline, "0", &stage);
    BSON_APPEND_DOCUMENT_BEGIN(&stage, "$changeStream", &options);
    if (c->token != NULL)
        BSON_APPEND_DOCUMENT(&options, "resumeAfter", c->token);
    else
        BSON_APPEND_TIMESTAMP(&options, "startAtOperationTime", ts_seconds(c->start), ts_increment(c->start));
    bson_append_document_end(&stage, &options);
    bson_append_document_end(&pipeline, &stage);
    bson_iter_t it;
    bool ok = bson_iter_init(&it, c->pipeline);
    for (int i = 1; ok && bson_iter_next(&it); i++) {
        char key[12];
        const uint8_t *data;
        uint32_t n;
        bson_iter_document(&it, &n, &data);
        ok = bson_init_static(&rest, data, n);
        snprintf(key, sizeof key, "%d", i);
        BSON_APPEND_DOCUMENT(&pipeline, key, &rest);
    }
    assert(ok);
    bson_append_array_end(cmd, &pipeline);
    BSON_APPEND_DOCUMENT_BEGIN(cmd, "cursor", &cursor);
    BSON_APPEND_INT32(&cursor, "batchSize", 1); /* 0 would not look at the log, nor see that it is lost */
    bson_append_document_end(cmd, &cursor);
    return cmd;
}

static void drop_batch(struct changes *c)
{
    if (c->reply != NULL)
        bson_destroy(c->reply);
    c->reply = NULL;
    c->held = false;
}

/* Takes over an answer of aggregate or getMore: the cursor's id, the token, and the batch. */
static int take_reply(struct changes *c, bson_t *reply, const char *batch_name, struct err *e)
{
    bson_iter_t it, id, token, batch;
    char path[32];
    snprintf(path, sizeof path, "cursor.%s", batch_name);
    if (!bson_iter_init(&it, reply) || !bson_iter_find_descendant(&it, "cursor.id", &id) ||
        !bson_iter_init(&it, reply) || !bson_iter_find_descendant(&it, path, &batch) ||
        !BSON_ITER_HOLDS_ARRAY(&batch))
        return err_set(e, ERR_INTERNAL, "the log: an answer without a cursor");
    if (bson_iter_init(&it, reply) && bson_iter_find_descendant(&it, "cursor.postBatchResumeToken", &token) &&
        BSON_ITER_HOLDS_DOCUMENT(&token)) {
        const uint8_t *data;
        uint32_t n;
        bson_iter_document(&token, &n, &data);
        if (c->token != NULL)
            bson_destroy(c->token);
        c->token = bson_new_from_data(data, n);
    }
    c->cursor_id = bson_iter_as_int64(&id);
    drop_batch(c);
    c->reply = bson_copy(reply);
    bool ok = bson_iter_init(&it, c->reply) && bson_iter_find_descendant(&it, path, &batch) &&
              bson_iter_recurse(&batch, &c->batch);
    assert(ok);
    return 0;
}

static int open_cursor(struct changes *c, struct err *e)
{
    bson_error_t be;
    mongoc_client_t *client = mongo_client(c->conn);
    mongoc_server_description_t *sd = mongoc_client_select_server(client, true, NULL, &be);
    if (sd == NULL)
        return mongo_err(e, &be, NULL, "the log");
    c->server_id = mongoc_server_description_id(sd);
    mongoc_server_description_destroy(sd);

    bson_t *cmd = build_open(c);
    bson_t opts = BSON_INITIALIZER, reply;
    mongo_conn_deadline(c->conn, OPEN_MS);
    mongo_read_opts(c->conn, &opts);
    BSON_APPEND_INT32(&opts, "serverId", (int32_t)c->server_id);
    int rc;
    if (mongoc_client_read_command_with_opts(client, mongo_conn_database(c->conn), cmd, NULL, &opts, &reply,
                                             &be))
        rc = take_reply(c, &reply, "firstBatch", e);
    else
        rc = mongo_err(e, &be, &reply, "opening the log");
    bson_destroy(cmd);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int get_more(struct changes *c, int64_t wait_ms, struct err *e)
{
    bson_error_t be;
    bson_t cmd = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    BSON_APPEND_INT64(&cmd, "getMore", c->cursor_id);
    BSON_APPEND_UTF8(&cmd, "collection", "$cmd.aggregate");
    BSON_APPEND_INT32(&cmd, "batchSize", BATCH);
    BSON_APPEND_INT64(&cmd, "maxTimeMS", wait_ms);
    mongo_write_opts(c->conn, &opts);
    BSON_APPEND_INT32(&opts, "serverId", (int32_t)c->server_id);
    int rc;
    if (mongoc_client_command_with_opts(mongo_client(c->conn), mongo_conn_database(c->conn), &cmd, NULL,
                                        &opts, &reply, &be))
        rc = take_reply(c, &reply, "nextBatch", e);
    else
        rc = mongo_err(e, &be, &reply, "reading the log");
    bson_destroy(&cmd);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static void kill_cursor(struct changes *c)
{
    if (c->cursor_id == 0)
        return;
    bson_t cmd = BSON_INITIALIZER, ids, opts = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&cmd, "killCursors", "$cmd.aggregate");
    BSON_APPEND_ARRAY_BEGIN(&cmd, "cursors", &ids);
    BSON_APPEND_INT64(&ids, "0", c->cursor_id);
    bson_append_array_end(&cmd, &ids);
    mongo_write_opts(c->conn, &opts);
    BSON_APPEND_INT32(&opts, "serverId", (int32_t)c->server_id);
    mongoc_client_command_with_opts(mongo_client(c->conn), mongo_conn_database(c->conn), &cmd, NULL, &opts,
                                    NULL, NULL); /* an idle cursor goes by itself */
    bson_destroy(&cmd);
    bson_destroy(&opts);
    c->cursor_id = 0;
}

/* Where to begin, in a time that the server knows: one from the future would wait without a word. */
static int settle_start(struct changes *c, ts_t start, struct err *e)
{
    ts_t now;
    if (mongo_conn_fresh(c->conn, &now, e) < 0)
        return -1;
    if (start > now)
        return err_set(e, ERR_UNAVAILABLE, "the log: the start is later than the server's time");
    c->start = start ? start : now;
    c->skip_to = start ? start - 1 : now;
    c->complete = c->skip_to;
    return 0;
}

/* A bson_iter_t wants more alignment than malloc gives. */
static struct changes *changes_alloc(void)
{
    struct changes *c = aligned_alloc(_Alignof(struct changes), sizeof *c);
    if (c == NULL)
        abort();
    memset(c, 0, sizeof *c);
    return c;
}

int changes_open(struct changes **out, const struct changes_options *o, struct err *e)
{
    assert(o->wait_ms >= 0 && o->wait_ms <= WAIT_MAX_MS);
    struct mongo_conn *conn = NULL;
    if (mongo_conn_get(o->mongo, &conn, e) < 0)
        return -1;
    struct changes *c = changes_alloc();
    c->conn = conn;
    c->instance = mem_strdup(o->instance);
    c->tell_items = o->tell_items;
    c->wait_ms = o->wait_ms ? o->wait_ms : WAIT_DEFAULT_MS;
    c->pipeline = changes_pipeline(o->kinds, o->tell_items);
    c->beat_ms = clock_mono_ms() - OWN_BEAT_MS;
    if (settle_start(c, o->start, e) < 0 || open_cursor(c, e) < 0) {
        changes_close(c);
        return -1;
    }
    *out = c;
    return 0;
}

void changes_close(struct changes *c)
{
    if (c == NULL)
        return;
    kill_cursor(c);
    drop_batch(c);
    if (c->token != NULL)
        bson_destroy(c->token);
    bson_destroy(c->pipeline);
    mongo_conn_put(c->conn);
    free(c->instance);
    free(c);
}

/* ---- handing out ---- */

static void note_time(struct changes *c, const struct change *ch)
{
    /* The log is in order, so what lies before t was handed out. What shares t is of the same transaction,
     * and a heartbeat is in none: with it, t itself is complete. */
    if (ch->t != 0)
        c->complete = ts_max(c->complete, ch->kind == CHANGE_HEARTBEAT ? ch->t : ch->t - 1);
    if (ch->kind != CHANGE_HEARTBEAT && ch->kind != CHANGE_OTHER)
        c->newest_change = ts_max(c->newest_change, ch->t);
    c->polled_short = false;
}

/* 1: *out is filled, 0: the batch is used up. */
static int from_batch(struct changes *c, struct change *out, struct err *e)
{
    while (c->reply != NULL && (c->held || bson_iter_next(&c->batch))) {
        const uint8_t *data;
        uint32_t n;
        bson_t event;
        c->held = false;
        bson_iter_document(&c->batch, &n, &data);
        if (data == NULL || !bson_init_static(&event, data, n))
            return err_set(e, ERR_CORRUPT, "the log: a change that is no document");
        switch (changes_decode(&event, c->tell_items, out)) {
        case DECODED_LOST:
            c->lost = true;
            return err_set(e, ERR_LOG_LOST, "the log: the database or one of its collections was dropped");
        case DECODED_SLICED:
            if (changes_read_topics_before(c->conn, out, e) < 0) {
                c->held = true;
                return -1;
            }
            break;
        case DECODED:
            break;
        }
        note_time(c, out);
        if (out->t > c->skip_to)
            return 1;
    }
    drop_batch(c);
    return 0;
}

static int failed(struct changes *c, const struct err *why, struct err *e)
{
    if (why->code == ERR_LOG_LOST)
        c->lost = true;
    c->cursor_id = 0;
    int64_t step = BACKOFF_FIRST_MS << (c->failures < 5 ? c->failures : 5);
    if (step > BACKOFF_MAX_MS)
        step = BACKOFF_MAX_MS;
    if (c->failures++ == 0)
        step = 0; /* a fail-over or an idle cursor: at once */
    c->next_try_ms = clock_mono_ms() + step / 2 + (int64_t)(ids_random_bits() % (uint32_t)(step / 2 + 1));
    if (e != NULL)
        *e = *why;
    return -1;
}

static int reopen(struct changes *c, struct err *e)
{
    int64_t ms = c->next_try_ms - clock_mono_ms();
    if (ms > 0) {
        struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
        nanosleep(&ts, NULL);
    }
    struct err why = {0};
    if (open_cursor(c, &why) < 0)
        return failed(c, &why, e);
    return 0;
}

/* How long the next getMore may wait. When the newest change is not complete a heartbeat is written before a
 * long wait, but not for a heartbeat's own sake: that would never end. */
static int64_t next_wait(struct changes *c, int64_t left_ms)
{
    if (c->newest_change <= c->complete)
        return left_ms;
    if (!c->polled_short) {
        c->polled_short = true;
        return left_ms < SHORT_POLL_MS ? left_ms : SHORT_POLL_MS;
    }
    int64_t since = clock_mono_ms() - c->beat_ms;
    if (since < OWN_BEAT_MS)
        return left_ms < OWN_BEAT_MS - since ? left_ms : OWN_BEAT_MS - since;
    c->beat_ms = clock_mono_ms();
    struct err ignored; /* the getMore that follows tells about a server that is gone */
    if (heartbeat_send(c->conn, c->instance, &ignored) < 0)
        return left_ms;
    return left_ms;
}

int changes_next(struct changes *c, struct change *out, struct err *e)
{
    int64_t end = clock_mono_ms() + c->wait_ms;
    for (;;) {
        if (c->lost)
            return err_set(e, ERR_LOG_LOST, "the log no longer reaches back to where this tail stood");
        int rc = from_batch(c, out, e);
        if (rc != 0)
            return rc;
        int64_t left = end - clock_mono_ms();
        if (left <= 0)
            return 0;
        if (c->cursor_id == 0) {
            if (reopen(c, e) < 0)
                return -1;
            continue; /* it brought a batch */
        }
        struct err why = {0};
        if (get_more(c, next_wait(c, left), &why) < 0)
            return failed(c, &why, e);
        c->failures = 0;
    }
}

ts_t changes_complete(const struct changes *c)
{
    return c->complete;
}
