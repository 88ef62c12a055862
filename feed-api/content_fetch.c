/* Fetching what the content cache lacks: one query for all of a request's ids, one fetch for equal ids of
 * many requests. */
#include "feed-api/content_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/metrics.h"

#define FETCH_MAX 500

/* One id of one call: found, mine to read (flight made by us, NULL when bypassing), or somebody else's. */
enum want_state { WANT_FOUND, WANT_MINE, WANT_JOINED };

struct want {
    item_id id;
    int32_t least; /* when it was asked for */
    bool again;    /* what was read is missing or too old: once more, as of now */
    enum want_state state;
    struct flight *flight;
    struct content_entry *entry;
};

static void ask(struct content *c, struct want *w, bool bypass)
{
    struct shard *s = content_shard(c, w->id);
    pthread_mutex_lock(&s->lock);
    struct slot *slot = bypass ? content_slot(s, w->id) : content_slot_make(c, s, w->id);
    w->state = WANT_MINE;
    w->least = slot != NULL ? slot->least : 0;
    if (!bypass && slot->entry != NULL) {
        w->state = WANT_FOUND;
        w->entry = content_entry_ref(slot->entry);
        content_slot_hit(c, s, slot);
    } else if (!bypass && slot->flight != NULL) {
        w->state = WANT_JOINED;
        w->flight = slot->flight;
        w->flight->refs++;
    } else if (!bypass) {
        w->flight = slot->flight = mem_zero(1, sizeof *w->flight);
        w->flight->refs = 2; /* the slot's and ours */
    }
    pthread_mutex_unlock(&s->lock);
    metrics_add(c->metrics, M_CONTENT, w->state == WANT_FOUND ? MC_HIT : MC_MISS, 1);
    if (w->state == WANT_JOINED)
        metrics_add(c->metrics, M_CONTENT_JOINED, 0, 1);
}

/* ---- reading ---- */

/* Appends {_id: {$in: [...]}} of those to be read; answers their number. */
static size_t build_filter(const struct want *w, size_t n, bool again_only, bson_t *filter)
{
    bson_t id, in;
    uint32_t count = 0;
    BSON_APPEND_DOCUMENT_BEGIN(filter, "_id", &id);
    BSON_APPEND_ARRAY_BEGIN(&id, "$in", &in);
    for (size_t i = 0; i < n; i++) {
        if (w[i].state != WANT_MINE || (again_only && !w[i].again))
            continue;
        char text[16];
        const char *index;
        bson_uint32_to_string(count++, &index, text, sizeof text);
        BSON_APPEND_INT64(&in, index, (int64_t)w[i].id);
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(filter, &id);
    return count;
}

/* An id may be asked for twice in one call. */
static void take(struct want *w, size_t n, const bson_t *doc, struct content *c)
{
    struct item it;
    /* One damaged document must not fail the others; it is as if it were missing. */
    if (item_from_bson(doc, &it, NULL) != 0)
        return;
    struct content_entry *entry = content_entry_new(&it);
    for (size_t i = 0; i < n; i++) {
        if (w[i].id != it.id || w[i].state != WANT_MINE)
            continue;
        if (it.revision < w[i].least) {
            metrics_add(c->metrics, M_CONTENT_STALE, 0, 1);
            continue;
        }
        content_unref(w[i].entry);
        w[i].entry = content_entry_ref(entry);
    }
    content_unref(entry);
    item_done(&it);
}

static int read_wanted(struct content *c, struct mongo_conn *conn, struct want *w, size_t n, bool again_only,
                       struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    size_t count = build_filter(w, n, again_only, &filter);
    int rc = 0;
    if (count > 0) {
        BSON_APPEND_INT32(&opts, "batchSize", (int32_t)count + 1);
        mongo_read_opts(conn, &opts);
        mongoc_cursor_t *cursor =
            mongoc_collection_find_with_opts(mongo_coll(conn, COLL_ITEMS), &filter, &opts, NULL);
        const bson_t *doc, *reply;
        bson_error_t be;
        while (mongoc_cursor_next(cursor, &doc))
            take(w, n, doc, c);
        if (mongoc_cursor_error_document(cursor, &be, &reply))
            rc = mongo_err(e, &be, reply, "reading items");
        mongoc_cursor_destroy(cursor);
    }
    bson_destroy(&filter);
    bson_destroy(&opts);
    return rc;
}

/* A majority read may be a little in the past. What it did not find, or found older than what is known, is
 * read once more as of now; only then an item is missing. */
static int read_mine(struct content *c, struct mongo_conn *conn, struct want *w, size_t n, struct err *e)
{
    size_t again = 0;
    mongo_conn_after(conn, atomic_load(&c->seen));
    if (read_wanted(c, conn, w, n, false, e) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        w[i].again = w[i].state == WANT_MINE && w[i].entry == NULL;
        again += w[i].again;
    }
    if (again > 0 && (mongo_conn_fresh(conn, NULL, e) != 0 || read_wanted(c, conn, w, n, true, e) != 0))
        return -1;
    for (size_t i = 0; i < n; i++)
        if (w[i].state == WANT_MINE && w[i].entry == NULL)
            w[i].entry = content_entry_missing(w[i].id);
    return 0;
}

/* ---- landing ---- */

/* What a flight brought is kept while the flight is still the slot's: no change was told meanwhile. What was
 * read past the cache is not kept, as nothing would have told it of a change. Missing items are not either:
 * they may be published any moment, and only the log would tell. */
static void keep(struct content *c, struct shard *s, struct want *w)
{
    struct slot *slot = content_slot(s, w->id);
    if (w->flight == NULL || slot == NULL || slot->flight != w->flight)
        return;
    content_flight_unref(slot->flight);
    slot->flight = NULL;
    if (w->entry == NULL || w->entry->missing)
        return;
    if (w->entry->revision < slot->least)
        metrics_add(c->metrics, M_CONTENT_STALE, 0, 1);
    else if (slot->entry == NULL || slot->entry->revision < w->entry->revision)
        content_slot_keep(c, s, slot, w->entry);
}

static void land(struct content *c, struct want *w)
{
    struct shard *s = content_shard(c, w->id);
    pthread_mutex_lock(&s->lock);
    keep(c, s, w);
    if (w->flight != NULL) {
        w->flight->done = true;
        w->flight->failed = w->entry == NULL;
        w->flight->entry = w->entry != NULL ? content_entry_ref(w->entry) : NULL;
        content_flight_unref(w->flight);
        w->flight = NULL;
        pthread_cond_broadcast(&s->landed);
    }
    content_trim(c, s);
    pthread_mutex_unlock(&s->lock);
}

/* Answers false when the deadline passed first. A flight that failed leaves w->entry NULL. */
static bool join(struct content *c, struct want *w, int64_t until_ms)
{
    struct shard *s = content_shard(c, w->id);
    struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (!w->flight->done && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&s->landed, &s->lock, &until);
    bool done = w->flight->done;
    if (done && !w->flight->failed)
        w->entry = content_entry_ref(w->flight->entry);
    content_flight_unref(w->flight);
    w->flight = NULL;
    pthread_mutex_unlock(&s->lock);
    return done;
}

/* First our own land, then we wait for others': so two calls never wait for each other. */
static int fetch(struct content *c, struct mongo_conn *conn, struct want *w, size_t n, bool bypass,
                 struct err *e)
{
    int64_t until = clock_mono_ms() + mongo_conn_left_ms(conn);
    for (size_t i = 0; i < n; i++)
        ask(c, &w[i], bypass);
    int rc = read_mine(c, conn, w, n, e);
    for (size_t i = 0; i < n; i++) {
        if (w[i].state != WANT_MINE)
            continue;
        if (rc != 0) { /* all or nothing: those who joined try for themselves */
            content_unref(w[i].entry);
            w[i].entry = NULL;
        }
        land(c, &w[i]);
    }
    bool late = false, orphaned = false;
    for (size_t i = 0; i < n; i++) {
        if (w[i].state != WANT_JOINED)
            continue;
        late |= !join(c, &w[i], until);
        orphaned |= w[i].entry == NULL;
    }
    if (rc != 0)
        return -1;
    if (late)
        return err_set(e, ERR_TIMEOUT, "an item was not read in time");
    return orphaned;
}

/* Whoever's fetch we joined has failed, perhaps for reasons of its own: we read what is left ourselves. */
static int fetch_orphans(struct content *c, struct mongo_conn *conn, struct want *w, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (w[i].entry == NULL)
            ask(c, &w[i], true);
        else
            w[i].state = WANT_FOUND;
    }
    if (read_mine(c, conn, w, n, e) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (w[i].state == WANT_MINE)
            land(c, &w[i]);
    return 0;
}

int content_fetch(struct content *c, struct mongo_conn *conn, const item_id *ids, size_t n, bool bypass,
                  struct content_entry **out, struct err *e)
{
    struct want *w = mem_zero(n, sizeof *w);
    int rc = n <= FETCH_MAX ? 0 : err_set(e, ERR_TOO_LARGE, "more than %d items at once", FETCH_MAX);
    for (size_t i = 0; i < n; i++)
        w[i].id = ids[i];
    if (rc == 0)
        rc = fetch(c, conn, w, n, bypass, e);
    if (rc > 0)
        rc = fetch_orphans(c, conn, w, n, e);
    for (size_t i = 0; i < n; i++) {
        if (rc == 0)
            out[i] = w[i].entry;
        else
            content_unref(w[i].entry);
    }
    free(w);
    return rc;
}
