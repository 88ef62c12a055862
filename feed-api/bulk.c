/* Acting on the lines of a bulk request, a turn at a time: look up, insert, update. */
#include "feed-api/bulk.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/metrics.h"

#define INSERT_ROUNDS 512 /* ids for the same line; the deadline ends it earlier */
#define SAMPLE        16  /* lines that are looked up to guess whether the others are new */

/* The lines of one turn, no two of which name the same item. */
struct turn {
    struct items *s;
    struct bulk *b;
    size_t n;
    struct bulk_line *lines[BULK_LINES_MAX]; /* posts first sorted by name */
    struct item known[BULK_LINES_MAX];       /* what is stored under the line's name; id 0: nothing */
    bool settled;                            /* something was done or found out: the store answers */
};

static void done(struct turn *t, struct bulk_line *line, const struct item *now, enum items_result r)
{
    line->state = BULK_DONE;
    line->written = (struct items_written){now->id, now->revision, r, mongo_conn_time(t->s->conn)};
    items_counted(t->s, r);
    t->settled = true;
}

static void fail(struct bulk_line *line, const struct err *e)
{
    enum problem_code code = problem_of_err(e->code);
    const char *detail = e->msg;
    if (problem_status(code) >= 500) /* what the driver says is not for the client */
        detail =
            e->code == ERR_BUSY ? "others keep changing this item" : "it is not known whether this was done";
    bulk_refuse(line, code, detail);
}

/* ---- what is known ---- */

static int compare_publisher(const void *a, const void *b)
{
    const struct bulk_line *x = *(const struct bulk_line *const *)a, *y = *(const struct bulk_line *const *)b;
    int d = strcmp(x->item.publisher, y->item.publisher);
    if (d == 0 && x->item.external_id != NULL && y->item.external_id != NULL)
        d = strcmp(x->item.external_id, y->item.external_id);
    else if (d == 0)
        d = (x->item.external_id != NULL) - (y->item.external_id != NULL);
    return d != 0 ? d : (x > y) - (x < y);
}

static struct bulk_line **find_line(struct turn *t, struct item *it)
{
    struct bulk_line key = {.item = *it}, *p = &key;
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct bulk_line *at = t->lines[mid];
        int d = strcmp(at->item.publisher, p->item.publisher);
        if (d == 0)
            d = at->item.external_id != NULL ? strcmp(at->item.external_id, p->item.external_id) : -1;
        if (d == 0)
            return &t->lines[mid];
        if (d < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static bool is_asked_for(const struct turn *t, size_t i, size_t step)
{
    const struct bulk_line *line = t->lines[i];
    return i % step == 0 && line->item.external_id != NULL && line->state == BULK_WAITING;
}

/* {$or: [{publisher: p, external_id: {$in: [...]}}, ...]}: one index range set a publisher. Of every step-th
 * line. */
static size_t names_filter(struct turn *t, size_t step, bson_t *filter)
{
    bson_t any, one, id, in;
    char text[16];
    const char *index;
    uint32_t groups = 0;
    size_t names = 0;
    BSON_APPEND_ARRAY_BEGIN(filter, "$or", &any);
    for (size_t i = 0; i < t->n;) {
        const char *publisher = t->lines[i]->item.publisher;
        size_t end = i;
        uint32_t count = 0;
        if (!is_asked_for(t, i, step)) {
            i++;
            continue;
        }
        bson_uint32_to_string(groups, &index, text, sizeof text);
        BSON_APPEND_DOCUMENT_BEGIN(&any, index, &one);
        BSON_APPEND_UTF8(&one, "publisher", publisher);
        BSON_APPEND_DOCUMENT_BEGIN(&one, "external_id", &id);
        BSON_APPEND_ARRAY_BEGIN(&id, "$in", &in);
        for (; end < t->n && strcmp(t->lines[end]->item.publisher, publisher) == 0; end++) {
            if (!is_asked_for(t, end, step))
                continue;
            bson_uint32_to_string(count++, &index, text, sizeof text);
            BSON_APPEND_UTF8(&in, index, t->lines[end]->item.external_id);
        }
        bson_append_array_end(&id, &in);
        /* the partial index is only used by who says that it is a string */
        BSON_APPEND_UTF8(&id, "$type", "string");
        bson_append_document_end(&one, &id);
        bson_append_document_end(&any, &one);
        groups++;
        names += count;
        i = end;
    }
    bson_append_array_end(filter, &any);
    return names;
}

static bool take_known(struct turn *t, const bson_t *doc)
{
    struct item it;
    if (item_from_bson(doc, &it, NULL) != 0)
        return false;
    struct bulk_line **line = it.external_id != NULL ? find_line(t, &it) : NULL;
    if (line == NULL) {
        item_done(&it);
        return false;
    }
    item_done(&t->known[line - t->lines]);
    t->known[line - t->lines] = it;
    return true;
}

/* Looks up every step-th line; *found is how many of them are known. */
static int look_up_some(struct turn *t, size_t step, size_t *found, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    int rc = 0;
    *found = 0;
    if (names_filter(t, step, &filter) > 0) {
        BSON_APPEND_INT32(&opts, "batchSize", BULK_LINES_MAX + 1);
        mongo_read_opts(t->s->conn, &opts);
        mongoc_cursor_t *cursor =
            mongoc_collection_find_with_opts(mongo_coll(t->s->conn, COLL_ITEMS), &filter, &opts, NULL);
        const bson_t *doc, *reply;
        bson_error_t be;
        while (mongoc_cursor_next(cursor, &doc))
            *found += take_known(t, doc);
        if (mongoc_cursor_error_document(cursor, &be, &reply))
            rc = mongo_err(e, &be, reply, "looking up items");
        mongoc_cursor_destroy(cursor);
    }
    bson_destroy(&filter);
    bson_destroy(&opts);
    return rc;
}

static int look_up(struct turn *t, struct err *e)
{
    size_t found;
    return look_up_some(t, 1, &found, e);
}

/* A query for a thousand names of as many publishers takes the server as long as inserting them. So when many
 * lines want to be new, a few are asked about, and if none of them is known the others are tried without
 * asking: the unique index says which were known after all. */
static int look_up_unless_new(struct turn *t, struct err *e)
{
    size_t found = 0;
    bool posts = t->n >= 4 * SAMPLE;
    for (size_t i = 0; i < t->n && posts; i++)
        posts = t->lines[i]->op == BULK_POST;
    if (posts && look_up_some(t, t->n / SAMPLE, &found, e) != 0)
        return -1;
    return posts && found == 0 ? 0 : look_up(t, e);
}

/* ---- new items ---- */

struct batch {
    size_t n;
    size_t places[BULK_LINES_MAX]; /* in turn.lines */
    bool refused[BULK_LINES_MAX];
};

static bool is_new(const struct turn *t, size_t i)
{
    return t->lines[i]->state == BULK_WAITING && t->lines[i]->op == BULK_POST && t->known[i].id == 0;
}

static void prepare(struct items *s, struct item *it)
{
    it->live = true;
    it->revision = 1;
    it->created_ms = s->now_ms;
    if (it->published_ms < 0)
        it->published_ms = s->now_ms;
    it->id = item_ids_next(s->ids, it->published_ms);
}

/* What the server said about single documents. Answers false when an error was about something else than a
 * duplicate. */
static bool read_refusals(struct turn *t, struct batch *batch, const bson_t *reply)
{
    bson_iter_t it, errors;
    if (!bson_iter_init_find(&it, reply, "writeErrors") || !bson_iter_recurse(&it, &errors))
        return true;
    bool known = true;
    while (bson_iter_next(&errors)) {
        uint32_t len;
        const uint8_t *data;
        bson_t doc;
        int64_t index;
        if (!BSON_ITER_HOLDS_DOCUMENT(&errors))
            continue;
        bson_iter_document(&errors, &len, &data);
        if (!bson_init_static(&doc, data, len) || !mongo_get_i64(&doc, "index", &index) || index < 0 ||
            (size_t)index >= batch->n)
            continue;
        struct item *it_line = &t->lines[batch->places[index]]->item;
        enum items_duplicate duplicate = items_duplicate_of(&doc);
        batch->refused[index] = true;
        known &= duplicate != ITEMS_DUPLICATE_NONE;
        if (duplicate == ITEMS_DUPLICATE_ID) {
            item_ids_result(t->s->ids, it_line->published_ms, it_line->id, false);
            metrics_add(t->s->metrics, M_ITEM_ID_RETRIES, 0, 1);
        } else if (duplicate == ITEMS_DUPLICATE_EXTERNAL) {
            item_ids_unused(t->s->ids, it_line->published_ms, it_line->id);
            t->known[batch->places[index]].id = ITEM_ID_MAX; /* somebody was faster: to be looked up */
        }
    }
    return known;
}

static void inserted(struct turn *t, const struct batch *batch)
{
    for (size_t i = 0; i < batch->n; i++) {
        struct bulk_line *line = t->lines[batch->places[i]];
        if (batch->refused[i])
            continue;
        item_ids_result(t->s->ids, line->item.published_ms, line->item.id, true);
        items_noted(t->s, &line->item, NULL, false);
        done(t, line, &line->item, ITEMS_CREATED);
    }
}

/* A failure of the write concern, or of single documents for other reasons, leaves it open what is stored. */
static bool has_other_failure(const bson_t *reply, const bson_error_t *be)
{
    bson_iter_t it, list;
    if (bson_iter_init_find(&it, reply, "writeConcernErrors") && bson_iter_recurse(&it, &list) &&
        bson_iter_next(&list))
        return true;
    return !bson_iter_init_find(&it, reply, "writeErrors") || !bson_iter_recurse(&it, &list) ||
           !bson_iter_next(&list) || be->domain == MONGOC_ERROR_STREAM;
}

static int insert_batch(struct turn *t, struct batch *batch, struct err *e)
{
    bson_t **docs = mem_zero(batch->n, sizeof *docs);
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be = {0};
    for (size_t i = 0; i < batch->n; i++) {
        struct item *it = &t->lines[batch->places[i]]->item;
        prepare(t->s, it);
        docs[i] = bson_new();
        item_to_bson(it, docs[i]);
    }
    BSON_APPEND_BOOL(&opts, "ordered", false);
    mongo_write_opts(t->s->conn, &opts);
    bool ok = mongoc_collection_insert_many(mongo_coll(t->s->conn, COLL_ITEMS), (const bson_t **)docs,
                                            batch->n, &opts, &reply, &be);
    int rc = 0;
    if (!ok && (has_other_failure(&reply, &be) || !read_refusals(t, batch, &reply)))
        rc = mongo_err(e, &be, &reply, "publishing items");
    else
        inserted(t, batch);
    for (size_t i = 0; i < batch->n; i++)
        bson_destroy(docs[i]);
    free(docs);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int check_time(struct items *s, struct err *e)
{
    return mongo_conn_left_ms(s->conn) > 1 ? 0 : err_set(e, ERR_TIMEOUT, "no time left");
}

/* In the order of the request, so that the log tells of the items in that order. */
static int compare_place(const void *a, const void *b, void *lines)
{
    const struct bulk_line *const *at = lines, *x = at[*(const size_t *)a], *y = at[*(const size_t *)b];
    return (x > y) - (x < y);
}

/* Lines whose id was taken go round again with another; those whose name was taken meanwhile leave. */
static int insert_new(struct turn *t, bool *raced, struct err *e)
{
    for (int round = 0; round < INSERT_ROUNDS; round++) {
        struct batch batch = {0};
        for (size_t i = 0; i < t->n; i++)
            if (is_new(t, i))
                batch.places[batch.n++] = i;
        if (batch.n == 0)
            break;
        qsort_r(batch.places, batch.n, sizeof batch.places[0], compare_place, t->lines);
        if (check_time(t->s, e) != 0 || insert_batch(t, &batch, e) != 0)
            return -1;
    }
    *raced = false;
    for (size_t i = 0; i < t->n; i++) {
        if (t->known[i].id == ITEM_ID_MAX && t->known[i].publisher == NULL) {
            t->known[i].id = 0;
            *raced = true;
        } else if (is_new(t, i)) {
            return err_set(e, ERR_BUSY, "all ids near the time of these items are taken");
        }
    }
    return 0;
}

/* ---- known items ---- */

/* Settles a line that needs no write; answers whether it needs one. */
static bool needs_write(struct turn *t, size_t i)
{
    struct bulk_line *line = t->lines[i];
    const struct item *known = &t->known[i];
    if (line->state != BULK_WAITING || (line->op == BULK_POST && known->id == 0))
        return false;
    if (line->op == BULK_DELETE && known->id == 0) {
        bulk_refuse(line, PROBLEM_NOT_FOUND, "there is no such item");
        t->settled = true;
    } else if (line->op == BULK_DELETE && !known->live) {
        done(t, line, known, ITEMS_DELETED);
    } else if (line->op == BULK_POST && !known->live) {
        bulk_refuse(line, PROBLEM_GONE, "this item was deleted");
        t->settled = true;
    } else if (line->op == BULK_POST && item_same_content(known, &line->item)) {
        done(t, line, known, ITEMS_UNCHANGED);
    } else {
        return true;
    }
    return false;
}

static bool append_update(mongoc_bulk_operation_t *op, struct turn *t, size_t i, bson_error_t *be)
{
    bson_t filter = BSON_INITIALIZER, update = BSON_INITIALIZER;
    if (t->lines[i]->op == BULK_POST)
        items_revision(&t->known[i], &t->lines[i]->item, t->s->now_ms, &filter, &update);
    else
        items_tombstone(&t->known[i], t->s->now_ms, &filter, &update);
    bool ok = mongoc_bulk_operation_update_one_with_opts(op, &filter, &update, NULL, be);
    bson_destroy(&filter);
    bson_destroy(&update);
    return ok;
}

/* Answers 1 when all were set, 0 when some were not (which ones is not said), -1 on errors. */
static int update_together(struct turn *t, const struct batch *batch, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int64_t matched = 0;
    BSON_APPEND_BOOL(&opts, "ordered", false);
    mongo_write_opts(t->s->conn, &opts);
    mongoc_bulk_operation_t *op =
        mongoc_collection_create_bulk_operation_with_opts(mongo_coll(t->s->conn, COLL_ITEMS), &opts);
    bool ok = true;
    for (size_t i = 0; i < batch->n && ok; i++)
        ok = append_update(op, t, batch->places[i], &be);
    bson_init(&reply);
    if (ok) {
        bson_destroy(&reply);
        ok = mongoc_bulk_operation_execute(op, &reply, &be) != 0;
    }
    int rc = ok ? mongo_get_i64(&reply, "nMatched", &matched) && (size_t)matched == batch->n
                : mongo_err(e, &be, &reply, "changing items");
    mongoc_bulk_operation_destroy(op);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static void updated(struct turn *t, size_t i)
{
    struct bulk_line *line = t->lines[i];
    struct item *now = &t->known[i], before = *now;
    if (line->op == BULK_DELETE) {
        items_bury(now);
    } else {
        item_copy_content(now, &line->item);
        now->revision++;
        now->edited_ms = t->s->now_ms;
    }
    items_noted(t->s, now, &before, false);
    done(t, line, now, line->op == BULK_DELETE ? ITEMS_DELETED : ITEMS_REVISED);
}

/* Some updates of a bulk met another revision: each line settles its own. One that was set by the bulk is
 * found one revision on, with what was sent. */
static void update_singly(struct turn *t, size_t i)
{
    struct bulk_line *line = t->lines[i];
    struct item *known = &t->known[i];
    int32_t base = known->revision;
    struct item now;
    struct err e;
    if (check_time(t->s, &e) != 0 || items_get(t->s, known->id, &now, &e) != 0) {
        fail(line, &e);
        return;
    }
    bool ours = now.revision == base + 1 &&
                (line->op == BULK_DELETE ? !now.live : now.live && item_same_content(&now, &line->item));
    if (ours)
        items_noted(t->s, &now, known, false);
    item_done(known);
    *known = now;
    if (ours) {
        done(t, line, known, line->op == BULK_DELETE ? ITEMS_DELETED : ITEMS_REVISED);
        return;
    }
    int rc = line->op == BULK_DELETE ? items_delete(t->s, known, 0, &line->written, &e)
                                     : items_revise(t->s, known, &line->item, &line->written, &e);
    if (rc != 0) {
        fail(line, &e);
        return;
    }
    line->state = BULK_DONE;
    t->settled = true;
}

static int update_known(struct turn *t, struct err *e)
{
    struct batch batch = {0};
    for (size_t i = 0; i < t->n; i++)
        if (needs_write(t, i))
            batch.places[batch.n++] = i;
    if (batch.n == 0)
        return 0;
    int rc = check_time(t->s, e) == 0 ? update_together(t, &batch, e) : -1;
    for (size_t i = 0; i < batch.n && rc >= 0; i++) {
        if (rc > 0)
            updated(t, batch.places[i]);
        else
            update_singly(t, batch.places[i]);
    }
    return rc < 0 ? -1 : 0;
}

/* ---- turns ---- */

static void begin_turn(struct turn *t, unsigned number)
{
    for (size_t i = 0; i < t->n; i++)
        item_done(&t->known[i]);
    t->n = 0;
    for (size_t i = 0; i < t->b->n; i++)
        if (t->b->lines[i].state == BULK_WAITING && t->b->lines[i].turn == number)
            t->lines[t->n++] = &t->b->lines[i];
    qsort(t->lines, t->n, sizeof(struct bulk_line *), compare_publisher);
}

/* A name that was taken between look-up and insert, or not looked up, is known now: the second pass finds it,
 * there is no third.
 */
static int run_turn(struct turn *t, struct err *e)
{
    bool raced = false;
    if (look_up_unless_new(t, e) != 0 || insert_new(t, &raced, e) != 0)
        return -1;
    if (raced && look_up(t, e) != 0)
        return -1;
    return update_known(t, e);
}

static void fail_waiting(struct bulk *b, const struct err *e)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->lines[i].state == BULK_WAITING)
            fail(&b->lines[i], e);
}

int bulk_run(struct items *s, struct bulk *b, struct err *e)
{
    struct turn *t = mem_zero(1, sizeof *t);
    struct err why = {ERR_BUSY, "others keep changing this item"};
    bool refused = false;
    t->s = s;
    t->b = b;
    for (size_t i = 0; i < b->n; i++)
        refused |= b->lines[i].state == BULK_FAILED;
    /* What was acknowledged elsewhere may be newer than this conn, and has to be found. */
    int rc = mongo_conn_fresh(s->conn, NULL, &why);
    for (unsigned number = 0; number < b->turns && rc == 0; number++) {
        begin_turn(t, number);
        rc = t->n > 0 ? run_turn(t, &why) : 0;
    }
    fail_waiting(b, &why);
    bool nothing = rc != 0 && !t->settled && !refused;
    for (size_t i = 0; i < t->n; i++)
        item_done(&t->known[i]);
    free(t);
    if (nothing && e != NULL)
        *e = why;
    return nothing ? -1 : 0;
}
