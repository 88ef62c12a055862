/* driver_ops.c - random writes, made from the model. */
#include "tests/support/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

#define DAY_MS   INT64_C(86400000)
#define BODY_MAX (1 << 20)

/* The words that are muted, and what they look like in texts: any case, and whole. */
static const char *const words[] = {"wolf", "bear", "otter", "lynx", "heron", "vole"};
static const char *const shown[] = {"wolf", "BEAR", "Otter,", "(lynx)", "heron's", "vole."};
static const char *const others[] = {"wolfish", "bearing", "otters", "calynx", "herons", "voles"};
#define WORDS MEM_COUNT(words)

/* ---- texts ---- */

static void write_text(struct driver *d, const char *what, uint32_t set, char *out)
{
    size_t n = (size_t)snprintf(out, MODEL_TEXT_SIZE, "%s %u", what, d->serial);
    for (size_t w = 0; w < WORDS; w++) {
        const char *word = set >> w & 1 ? shown[w] : rng_percent(&d->rng, 10) ? others[w] : NULL;
        if (word)
            n += (size_t)snprintf(out + n, MODEL_TEXT_SIZE - n, " %s", word);
    }
}

static uint32_t some_bits(struct driver *d, unsigned n, unsigned percent)
{
    uint32_t set = 0;
    for (unsigned i = 0; i < n; i++)
        set |= (uint32_t)rng_percent(&d->rng, percent) << i;
    return set;
}

static void new_content(struct driver *d, struct model_item *it)
{
    d->serial++;
    uint32_t in_title = some_bits(d, WORDS, 8), in_body = some_bits(d, WORDS, 8);
    write_text(d, "title", in_title, it->title);
    write_text(d, "body", in_body, it->body);
    it->words = in_title | in_body;
}

/* ---- JSON ---- */

static json_t *topics_json(const struct driver *d, uint32_t set)
{
    json_t *a = json_array();
    for (unsigned t = 0; t < d->topics; t++)
        if (set >> t & 1)
            json_array_append_new(a, json_string(driver_topic(d, t)));
    return a;
}

static json_t *item_json(const struct driver *d, const struct model_item *it, int64_t published_ms,
                         bool with_external)
{
    json_t *o = json_pack("{s:s,s:s,s:s}", "publisher", driver_publisher(d, it->publisher), "title",
                          it->title, "body", it->body);
    if (it->topics)
        json_object_set_new(o, "topics", topics_json(d, it->topics));
    if (it->external[0] && with_external)
        json_object_set_new(o, "external_id", json_string(it->external));
    if (published_ms) {
        char text[CLOCK_RFC3339_SIZE];
        clock_format(published_ms, text);
        json_object_set_new(o, "published_at", json_string(text));
    }
    return o;
}

static char *dump(json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* ---- items ---- */

/* 0: now. Else long ago, or beside another item: in its very millisecond, or just above or below. */
static int64_t some_time(struct driver *d)
{
    unsigned dice = rng_below(&d->rng, 100);
    if (dice < 45)
        return 0;
    if (dice < 70 || d->model.n == 0)
        return clock_wall_ms() - 1 - (int64_t)(rng_next(&d->rng) % (uint64_t)(30 * DAY_MS));
    int64_t beside = ids_time_ms(d->model.items[rng_below(&d->rng, (unsigned)d->model.n)].id);
    int64_t at = beside + (int64_t)rng_below(&d->rng, 5) - 2, now = clock_wall_ms();
    return at < now ? at : now;
}

static void make_publish(struct driver *d, unsigned flags, struct op *op)
{
    struct model_item *it = &op->after;
    op->kind = OP_PUBLISH;
    op->changes = true;
    it->publisher = rng_below(&d->rng, d->publishers);
    it->revision = 1;
    it->live = true;
    it->topics = some_bits(d, d->topics, 20);
    new_content(d, it);
    if ((flags & DRIVER_NAMED) || rng_percent(&d->rng, 60))
        snprintf(it->external, sizeof it->external, "x%u%s", d->serial,
                 rng_percent(&d->rng, 10) ? " /ü?&" : "");
    op->published_ms = some_time(d);
    bool as_header = it->external[0] && !strchr(it->external, ' ') && rng_percent(&d->rng, 20);
    if (as_header)
        op->extra = mem_printf("Content-Type: application/json\r\nIdempotency-Key: %s\r\n", it->external);
    snprintf(op->method, sizeof op->method, "POST");
    snprintf(op->path, sizeof op->path, "/v1/items");
    op->body = dump(item_json(d, it, op->published_ms, !as_header));
}

/* Any item; with_external: one that has an external_id. NULL when luck has it that there is none. */
static const struct model_item *some_item(struct driver *d, bool with_external, bool live)
{
    for (int i = 0; i < 20 && d->model.n > 0; i++) {
        const struct model_item *it = &d->model.items[rng_below(&d->rng, (unsigned)d->model.n)];
        if ((!with_external || it->external[0]) && (!live || it->live))
            return it;
    }
    return NULL;
}

static bool make_repost(struct driver *d, struct op *op)
{
    const struct model_item *it = some_item(d, true, rng_percent(&d->rng, 90));
    if (!it)
        return false;
    op->kind = OP_REPOST;
    op->after = *it;
    op->gone = !it->live;
    op->changes = !op->gone && rng_percent(&d->rng, 60);
    if (op->changes) {
        new_content(d, &op->after);
        op->after.revision++;
        if (rng_percent(&d->rng, 30))
            op->after.topics = some_bits(d, d->topics, 25);
    }
    /* published_at is fixed by the first acceptance: another one changes nothing */
    int64_t published = rng_percent(&d->rng, 30) ? clock_wall_ms() - DAY_MS : 0;
    snprintf(op->method, sizeof op->method, "POST");
    snprintf(op->path, sizeof op->path, "/v1/items");
    op->body = dump(item_json(d, &op->after, published, true));
    return true;
}

static bool make_patch(struct driver *d, struct op *op)
{
    const struct model_item *it = some_item(d, false, rng_percent(&d->rng, 95));
    if (!it)
        return false;
    op->kind = OP_PATCH;
    op->after = *it;
    op->gone = !it->live;
    json_t *o = json_object();
    if (rng_percent(&d->rng, 65)) {
        op->after.topics = some_bits(d, d->topics, 25);
        json_object_set_new(o, "topics", op->after.topics ? topics_json(d, op->after.topics) : json_null());
    }
    if (rng_percent(&d->rng, 50)) {
        new_content(d, &op->after);
        json_object_set_new(o, "title", json_string(op->after.title));
        json_object_set_new(o, "body", json_string(op->after.body));
    }
    op->changes = it->live && (op->after.topics != it->topics || strcmp(op->after.title, it->title) != 0);
    op->after.revision += op->changes;
    snprintf(op->method, sizeof op->method, "PATCH");
    snprintf(op->path, sizeof op->path, "/v1/items/%llu", (unsigned long long)it->id);
    op->extra = mem_strdup("Content-Type: application/merge-patch+json\r\n");
    op->body = dump(o);
    return true;
}

static void encode(const char *s, char *out)
{
    for (; *s; s++)
        out += sprintf(out, strchr(" /?&\xc3\xbc", *s) ? "%%%02X" : "%c", (unsigned char)*s);
}

static bool make_delete(struct driver *d, struct op *op, bool named)
{
    const struct model_item *it = some_item(d, named, rng_percent(&d->rng, 90));
    if (!it)
        return false;
    op->kind = named ? OP_DELETE_NAMED : OP_DELETE;
    op->after = *it;
    op->changes = it->live;
    op->after.live = false;
    op->after.revision += it->live;
    snprintf(op->method, sizeof op->method, "DELETE");
    if (named) {
        char external[200];
        encode(it->external, external);
        snprintf(op->path, sizeof op->path, "/v1/publishers/%s/items/by-external/%s",
                 driver_publisher(d, it->publisher), external);
    } else {
        snprintf(op->path, sizeof op->path, "/v1/items/%llu", (unsigned long long)it->id);
    }
    return true;
}

/* ---- many items in one request ---- */

static char *line_text(const struct driver *d, const struct op *line)
{
    if (line->kind != OP_DELETE_NAMED)
        return mem_strdup(line->body);
    return dump(json_pack("{s:s,s:s,s:s}", "op", "delete", "publisher",
                          driver_publisher(d, line->after.publisher), "external_id", line->after.external));
}

/* A line may repeat a new item of a line before; else no two lines are about one item, as their order would
 * not be in the model when they are made. */
static void make_line(struct driver *d, unsigned flags, struct op *op, struct op *line)
{
    size_t before = rng_below(&d->rng, (unsigned)op->n_lines + 1);
    memset(line, 0, sizeof *line);
    line->same_as = -1;
    if (before < op->n_lines && op->lines[before].kind == OP_PUBLISH && op->lines[before].after.external[0] &&
        op->lines[before].same_as < 0 && rng_percent(&d->rng, 10)) {
        *line = op->lines[before];
        line->extra = NULL;
        line->body = mem_strdup(line->body);
        line->same_as = (long)before;
        return;
    }
    bool made = false;
    if (rng_percent(&d->rng, 25))
        made = rng_percent(&d->rng, 60) ? make_repost(d, line) : make_delete(d, line, true);
    for (size_t i = 0; made && i < op->n_lines; i++) {
        if (op->lines[i].after.id == line->after.id) {
            op_done(line);
            memset(line, 0, sizeof *line);
            line->same_as = -1;
            made = false;
        }
    }
    if (!made)
        make_publish(d, flags, line);
    if (line->extra && line->kind == OP_PUBLISH) { /* a line has no headers */
        free(line->extra);
        free(line->body);
        line->extra = NULL;
        line->body = dump(item_json(d, &line->after, line->published_ms, true));
    }
}

static void make_items(struct driver *d, unsigned flags, struct op *op, unsigned n)
{
    struct buf b;
    buf_init(&b, BODY_MAX);
    op->kind = OP_ITEMS;
    op->lines = mem_zero(n, sizeof *op->lines);
    for (; op->n_lines < n; op->n_lines++) {
        make_line(d, flags, op, &op->lines[op->n_lines]);
        char *text = line_text(d, &op->lines[op->n_lines]);
        buf_printf(&b, "%s\n", text);
        free(text);
    }
    snprintf(op->method, sizeof op->method, "POST");
    snprintf(op->path, sizeof op->path, "/v1/items/bulk");
    op->extra = mem_strdup("Content-Type: application/x-ndjson\r\n");
    op->body = buf_take(&b);
    buf_done(&b);
}

/* ---- follows and mutes ---- */

const char *driver_word(unsigned i)
{
    return words[i];
}

static const char *const kinds[] = {"publisher", "topic", "publisher", "topic", "word", "item"};

static const char *edge_name(const struct driver *d, const struct model_edge *e)
{
    static char item[24];
    switch (e->kind) {
    case MODEL_FOLLOW_PUBLISHER:
    case MODEL_MUTE_PUBLISHER:
        return driver_publisher(d, e->what);
    case MODEL_FOLLOW_TOPIC:
    case MODEL_MUTE_TOPIC:
        return driver_topic(d, e->what);
    case MODEL_MUTE_WORD:
        return words[e->what];
    case MODEL_MUTE_ITEM:
        break;
    }
    snprintf(item, sizeof item, "%llu", (unsigned long long)e->item);
    return item;
}

/* Follows grow until half of everything is followed; mutes are rare and mostly go again, or nothing would be
 * left. */
static void some_edge(struct driver *d, bool mute, unsigned user, struct model_edge *e)
{
    memset(e, 0, sizeof *e);
    e->user = user;
    unsigned dice = rng_below(&d->rng, 100);
    if (!mute) {
        e->kind = dice < 60 ? MODEL_FOLLOW_PUBLISHER : MODEL_FOLLOW_TOPIC;
    } else {
        e->kind = dice < 20   ? MODEL_MUTE_PUBLISHER
                  : dice < 45 ? MODEL_MUTE_TOPIC
                  : dice < 75 ? MODEL_MUTE_WORD
                              : MODEL_MUTE_ITEM;
    }
    if (e->kind == MODEL_MUTE_ITEM && d->model.n == 0)
        e->kind = MODEL_MUTE_WORD;
    switch (e->kind) {
    case MODEL_FOLLOW_PUBLISHER:
    case MODEL_MUTE_PUBLISHER:
        e->what = rng_below(&d->rng, d->publishers);
        break;
    case MODEL_FOLLOW_TOPIC:
    case MODEL_MUTE_TOPIC:
        e->what = rng_below(&d->rng, d->topics);
        break;
    case MODEL_MUTE_WORD:
        e->what = rng_below(&d->rng, WORDS);
        break;
    case MODEL_MUTE_ITEM:
        e->item = d->model.items[rng_below(&d->rng, (unsigned)d->model.n)].id;
        if (d->model.users[user].n_muted > 0 && rng_percent(&d->rng, 30))
            e->item = d->model.users[user].muted[0];
        break;
    }
    e->remove =
        model_has_edge(&d->model, e) ? rng_percent(&d->rng, mute ? 90 : 70) : rng_percent(&d->rng, 10);
}

static void make_edge(struct driver *d, struct op *op)
{
    bool mute = rng_percent(&d->rng, 40);
    op->kind = OP_EDGE;
    op->n_edges = 1;
    some_edge(d, mute, rng_below(&d->rng, d->users), &op->edges[0]);
    const struct model_edge *e = &op->edges[0];
    snprintf(op->method, sizeof op->method, e->remove ? "DELETE" : "PUT");
    snprintf(op->path, sizeof op->path, "/v1/users/%s/%s/%s/%s", driver_user(d, e->user),
             mute ? "mutes" : "follows", kinds[e->kind], edge_name(d, e));
}

static bool same_edge(const struct model_edge *a, const struct model_edge *b)
{
    return a->user == b->user && a->kind == b->kind && a->what == b->what && a->item == b->item;
}

/* Adds an edge that none of the others is. */
static void add_edge(struct driver *d, struct op *op, bool mute, unsigned user)
{
    struct model_edge e;
    some_edge(d, mute, user, &e);
    for (size_t i = 0; i < op->n_edges; i++)
        if (same_edge(&op->edges[i], &e))
            return;
    op->edges[op->n_edges++] = e;
}

static void make_change(struct driver *d, struct op *op)
{
    bool mute = rng_percent(&d->rng, 40);
    unsigned user = rng_below(&d->rng, d->users);
    op->kind = OP_CHANGE;
    for (unsigned i = 1 + rng_below(&d->rng, mute ? 3 : 6); i > 0; i--)
        add_edge(d, op, mute, user);
    json_t *add = json_array(), *remove = json_array();
    for (size_t i = 0; i < op->n_edges; i++)
        json_array_append_new(
            op->edges[i].remove ? remove : add,
            json_pack("{s:s,s:s}", "kind", kinds[op->edges[i].kind], "name", edge_name(d, &op->edges[i])));
    snprintf(op->method, sizeof op->method, "POST");
    snprintf(op->path, sizeof op->path, "/v1/users/%s/%s", driver_user(d, user), mute ? "mutes" : "follows");
    op->body = dump(json_pack("{s:o,s:o}", "add", add, "remove", remove));
}

static void make_follows(struct driver *d, struct op *op, unsigned n)
{
    struct buf b;
    buf_init(&b, BODY_MAX);
    op->kind = OP_FOLLOWS;
    while (n-- > 0)
        add_edge(d, op, false, rng_below(&d->rng, d->users));
    for (size_t i = 0; i < op->n_edges; i++) {
        op->edges[i].remove = false;
        char *line = dump(json_pack("{s:s,s:s,s:s}", "user", driver_user(d, op->edges[i].user), "kind",
                                    kinds[op->edges[i].kind], "name", edge_name(d, &op->edges[i])));
        buf_printf(&b, "%s\n", line);
        free(line);
    }
    snprintf(op->method, sizeof op->method, "POST");
    snprintf(op->path, sizeof op->path, "/v1/follows/bulk");
    op->extra = mem_strdup("Content-Type: application/x-ndjson\r\n");
    op->body = buf_take(&b);
    buf_done(&b);
}

/* ---- one of them ---- */

void op_make(struct driver *d, unsigned flags, struct op *op)
{
    unsigned dice = rng_below(&d->rng, (flags & DRIVER_GRAPH) ? 100 : 76);
    bool made = true;
    memset(op, 0, sizeof *op);
    op->same_as = -1;
    if (dice < 34)
        make_publish(d, flags, op);
    else if (dice < 43)
        made = make_repost(d, op);
    else if (dice < 60)
        made = make_patch(d, op);
    else if (dice < 70)
        made = make_delete(d, op, rng_percent(&d->rng, 40));
    else if (dice < 76)
        (flags & DRIVER_NO_BULK) ? make_publish(d, flags, op)
                                 : make_items(d, flags, op, 1 + rng_below(&d->rng, 20));
    else if (dice < 92)
        make_edge(d, op);
    else if (dice < 98)
        make_change(d, op);
    else
        make_follows(d, op, 1 + rng_below(&d->rng, 6));
    if (!made)
        make_publish(d, flags, op);
    op->sent_ms = clock_wall_ms();
}

void op_done(struct op *op)
{
    for (size_t i = 0; i < op->n_lines; i++)
        op_done(&op->lines[i]);
    free(op->lines);
    free(op->extra);
    free(op->body);
    memset(op, 0, sizeof *op);
}

static bool same_item(const struct op *a, const struct op *b)
{
    return a->after.title[0] && b->after.title[0] && a->after.id && a->after.id == b->after.id;
}

bool op_conflicts(const struct op *a, const struct op *b)
{
    for (size_t i = 0; i < a->n_lines; i++)
        if (op_conflicts(&a->lines[i], b))
            return true;
    for (size_t i = 0; i < b->n_lines; i++)
        if (op_conflicts(a, &b->lines[i]))
            return true;
    for (size_t i = 0; i < a->n_edges; i++)
        for (size_t k = 0; k < b->n_edges; k++)
            if (a->edges[i].user == b->edges[k].user)
                return true;
    return same_item(a, b);
}

/* ---- the beginning ---- */

static void send_now(struct driver *d, struct op *op)
{
    struct reply r;
    op->sent_ms = clock_wall_ms();
    if (e2e_try(&d->apis[0], op->method, op->path, op->extra, op->body, &r) != 0)
        driver_fail(d, "%s %s: no answer", op->method, op->path);
    op_apply(d, op, &r);
    reply_done(&r);
    op_done(op);
}

/* The first user follows every publisher, so that at least one feed is long; the others half of everything.
 */
void driver_setup(struct driver *d, unsigned items)
{
    struct op op;
    for (unsigned u = 0; u < d->users; u++) {
        memset(&op, 0, sizeof op);
        op.kind = OP_CHANGE;
        json_t *add = json_array();
        for (unsigned i = 0; i < d->publishers + d->topics; i++) {
            bool topic = i >= d->publishers;
            struct model_edge e = {.user = u, .kind = topic ? MODEL_FOLLOW_TOPIC : MODEL_FOLLOW_PUBLISHER};
            e.what = topic ? i - d->publishers : i;
            if (u == 0 ? topic : rng_percent(&d->rng, 50))
                continue;
            op.edges[op.n_edges++] = e;
            json_array_append_new(add,
                                  json_pack("{s:s,s:s}", "kind", kinds[e.kind], "name", edge_name(d, &e)));
        }
        snprintf(op.method, sizeof op.method, "POST");
        snprintf(op.path, sizeof op.path, "/v1/users/%s/follows", driver_user(d, u));
        op.body = dump(json_pack("{s:o}", "add", add));
        if (op.n_edges > 0)
            send_now(d, &op);
        else
            op_done(&op);
    }
    memset(&op, 0, sizeof op);
    op.same_as = -1;
    make_items(d, DRIVER_NAMED, &op, items);
    send_now(d, &op);
}
