/* handlers_items.c - single items: publish, read, patch, delete.
 *
 * Reads are answered from the content cache on the loop when the tail is alive; else, or when something is
 * not cached, by a worker. Writes check their input on the loop and are done by a worker.
 */
#include "feed-api/handlers_items.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/health.h"
#include "feed-api/router.h"

#define ITEM_REQUEST_MAX (128 * 1024)
#define ITEMS_LIST_MAX   100

struct items handlers_items_store(struct worker *w)
{
    return (struct items){.conn = w->mongo,
                          .ids = w->app->item_ids,
                          .content = w->app->content,
                          .counts = w->app->counts,
                          .metrics = w->app->metrics,
                          .now_ms = clock_wall_ms()};
}

void handlers_items_result(const struct items_written *written, struct buf *out)
{
    char id[ITEM_ID_TEXT_SIZE], position[TS_TEXT_SIZE];
    ids_format(written->id, id);
    ts_format(written->position, position);
    buf_printf(out, "\"id\":\"%s\",\"revision\":%d,\"result\":\"%s\",\"position\":\"%s\"", id,
               written->revision, items_result_name(written->result), position);
}

static void answer_written(struct call *c, const struct items_written *written)
{
    buf_add_char(&c->out, '{');
    handlers_items_result(written, &c->out);
    buf_add_char(&c->out, '}');
    c->position = written->position;
}

static int check_publisher(struct call *c, const char *publisher)
{
    if (identity_publishes(&c->who, publisher))
        return 0;
    return call_fail(c, PROBLEM_FORBIDDEN, "this key may not publish as this publisher");
}

int handlers_items_held_back(struct call *c)
{
    int64_t retry_after_ms;
    enum pressure_reason why = pressure_refuses(c->app->pressure, &retry_after_ms);
    if (why == PRESSURE_NONE)
        return 0;
    metrics_add(c->app->metrics, M_PUBLISH_REFUSED, why == PRESSURE_LAG ? MRF_LAG : MRF_BACKLOG, 1);
    call_fail(c, PROBLEM_OVERLOADED,
              "timelines are too far behind: nothing is published until they caught up");
    call_retry_after(c, retry_after_ms);
    return -1;
}

/* ---- POST /v1/items ---- */

static void post_free(void *data)
{
    item_done(data);
    free(data);
}

static void post_work(struct worker *w, struct call *c)
{
    struct items s = handlers_items_store(w);
    struct items_written written;
    struct err e;
    if (items_post(&s, c->data, &written, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    answer_written(c, &written);
    if (written.result != ITEMS_CREATED)
        return;
    char id[ITEM_ID_TEXT_SIZE];
    ids_format(written.id, id);
    c->status = 201;
    snprintf(c->location, sizeof c->location, "/v1/items/%s", id);
}

/* The header stands in for an external_id that is not in the body. */
static int take_idempotency_key(struct call *c, struct item *it)
{
    const char *key = http_request_header(c->http, "Idempotency-Key");
    if (key == NULL)
        return 0;
    size_t n = strlen(key);
    if (http_request_header_count(c->http, "Idempotency-Key") > 1 || n < 1 || n > ITEM_EXTERNAL_ID_MAX ||
        !utf8_valid(key, n))
        return call_invalid(c, "Idempotency-Key", "must be given once, 1 to %d bytes of UTF-8",
                            ITEM_EXTERNAL_ID_MAX);
    if (it->external_id != NULL)
        return 0;
    it->external_id = mem_strdup(key);
    return 0;
}

static int post_read(struct call *c, struct item *it)
{
    struct item_problem p = {0};
    json_t *o = call_json(c);
    if (o == NULL)
        return -1;
    int rc = item_from_json(o, clock_wall_ms(), it, &p);
    json_decref(o);
    if (rc != 0)
        return call_invalid(c, p.pointer, "%s", p.detail);
    if (check_publisher(c, it->publisher) != 0)
        return -1;
    return take_idempotency_key(c, it);
}

static void post_item(struct call *c)
{
    c->data = mem_zero(1, sizeof(struct item));
    c->data_free = post_free;
    if (post_read(c, c->data) != 0 || handlers_items_held_back(c) != 0)
        call_finish(c);
    else
        call_work(c, post_work);
}

/* ---- GET /v1/items/{id}, GET /v1/items?ids= ---- */

struct reading {
    bool list; /* {items: [...]} */
    size_t n;
    item_id ids[ITEMS_LIST_MAX];
    struct content_entry *entries[ITEMS_LIST_MAX]; /* counted, NULL until found */
};

static void reading_free(void *data)
{
    struct reading *r = data;
    for (size_t i = 0; i < r->n; i++)
        content_unref(r->entries[i]);
    free(r);
}

static void answer_one(struct call *c, const struct content_entry *entry)
{
    if (entry->missing)
        call_fail(c, PROBLEM_NOT_FOUND, "there is no such item");
    else if (entry->deleted)
        call_fail(c, PROBLEM_GONE, "this item was deleted");
    else
        buf_add(&c->out, entry->full, entry->full_len);
}

static void answer_list(struct call *c, const struct reading *r)
{
    bool first = true;
    buf_add_str(&c->out, "{\"items\":[");
    for (size_t i = 0; i < r->n; i++) {
        const struct content_entry *entry = r->entries[i];
        if (entry->missing || entry->deleted)
            continue;
        if (!first)
            buf_add_char(&c->out, ',');
        buf_add(&c->out, entry->full, entry->full_len);
        first = false;
    }
    buf_add_str(&c->out, "]}");
}

static void answer_reading(struct call *c)
{
    struct reading *r = c->data;
    if (r->list)
        answer_list(c, r);
    else
        answer_one(c, r->entries[0]);
}

/* All or nothing. */
static bool find_all(struct app *app, struct reading *r)
{
    bool all = true;
    for (size_t i = 0; i < r->n && all; i++) {
        r->entries[i] = content_find(app->content, r->ids[i]);
        all = r->entries[i] != NULL;
    }
    for (size_t i = 0; i < r->n && !all; i++) {
        content_unref(r->entries[i]);
        r->entries[i] = NULL;
    }
    return all;
}

/* Without MongoDB what is cached is shown, as pages do (P10). */
static void read_failed(struct call *c, const struct err *e)
{
    if ((e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT) && find_all(c->app, c->data))
        answer_reading(c);
    else
        call_fail_err(c, e);
}

static void read_work(struct worker *w, struct call *c)
{
    struct reading *r = c->data;
    struct err e;
    struct content_entry *entries[ITEMS_LIST_MAX];
    bool bypass = !tail_alive(c->app->tail);
    if ((bypass && mongo_conn_fresh(w->mongo, NULL, &e) != 0) ||
        content_fetch(c->app->content, w->mongo, r->ids, r->n, bypass, entries, &e) != 0) {
        read_failed(c, &e);
        return;
    }
    memcpy(r->entries, entries, r->n * sizeof *entries);
    answer_reading(c);
}

static void read_items(struct call *c)
{
    bool trusted = tail_alive(c->app->tail) || health_is_down(c->app->health, HEALTH_MONGODB);
    if (!trusted || !find_all(c->app, c->data)) {
        call_work(c, read_work);
        return;
    }
    answer_reading(c);
    call_finish(c);
}

static struct reading *reading_new(struct call *c)
{
    c->data = mem_zero(1, sizeof(struct reading));
    c->data_free = reading_free;
    return c->data;
}

static void get_item(struct call *c)
{
    struct reading *r = reading_new(c);
    struct err e;
    if (ids_parse(c->params[0], &r->ids[0], &e) != 0) {
        call_fail(c, PROBLEM_NOT_FOUND, "there is no such item");
        call_finish(c);
        return;
    }
    r->n = 1;
    read_items(c);
}

static bool has_id(const struct reading *r, item_id id)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->ids[i] == id)
            return true;
    return false;
}

static int take_ids(struct call *c, struct reading *r)
{
    const char *text = call_query(c, "ids");
    struct err e;
    item_id id;
    if (text == NULL)
        return call_invalid(c, "?ids", "is missing");
    size_t given = 0;
    for (const char *s = text;; s++) {
        char one[ITEM_ID_TEXT_SIZE + 1];
        size_t n = strcspn(s, ",");
        snprintf(one, sizeof one, "%.*s", n < sizeof one ? (int)n : (int)sizeof one, s);
        if (ids_parse(one, &id, &e) != 0)
            return call_invalid(c, "?ids", "must be item ids by commas");
        if (++given > ITEMS_LIST_MAX)
            return call_invalid(c, "?ids", "must be at most %d ids", ITEMS_LIST_MAX);
        if (!has_id(r, id))
            r->ids[r->n++] = id;
        s += n;
        if (*s == '\0')
            return 0;
    }
}

static void get_items(struct call *c)
{
    struct reading *r = reading_new(c);
    r->list = true;
    if (take_ids(c, r) != 0)
        call_finish(c);
    else
        read_items(c);
}

/* ---- PATCH and DELETE ---- */

struct change {
    json_t *patch;    /* NULL: delete */
    int32_t if_match; /* 0: any */
};

static void change_free(void *data)
{
    struct change *change = data;
    json_decref(change->patch);
    free(change);
}

/* If-Match: "3". A list, a weak tag or anything else can't be a revision of ours. */
static int take_if_match(struct call *c, int32_t *out)
{
    const char *text = http_request_header(c->http, "If-Match");
    *out = 0;
    if (text == NULL || strcmp(text, "*") == 0)
        return 0;
    char *end;
    long revision = text[0] == '"' && text[1] >= '1' && text[1] <= '9' ? strtol(text + 1, &end, 10) : 0;
    if (revision < 1 || revision > INT32_MAX || strcmp(end, "\"") != 0 ||
        http_request_header_count(c->http, "If-Match") > 1)
        return call_invalid(c, "If-Match", "must be one revision in quotes, such as \"3\"");
    *out = (int32_t)revision;
    return 0;
}

static void do_change(struct items *s, struct call *c, struct item *it)
{
    const struct change *change = c->data;
    struct items_written written;
    struct item_problem p = {0};
    struct err e;
    if (check_publisher(c, it->publisher) != 0)
        return;
    int rc = change->patch != NULL ? items_patch(s, it, change->patch, change->if_match, &written, &p, &e)
                                   : items_delete(s, it, change->if_match, &written, &e);
    if (rc != 0 && p.detail[0] != '\0' && e.code == ERR_INVALID)
        call_invalid(c, p.pointer, "%s", p.detail);
    else if (rc != 0)
        call_fail_err(c, &e);
    else if (change->patch != NULL)
        answer_written(c, &written);
    if (rc == 0 && change->patch == NULL) {
        c->status = 204;
        c->position = written.position;
    }
}

static void change_work(struct worker *w, struct call *c)
{
    struct items s = handlers_items_store(w);
    struct item it;
    struct err e;
    item_id id;
    int rc = c->route->path[strlen("/v1/")] == 'p' /* /v1/publishers/{p}/items/by-external/{x} */
                 ? items_get_external(&s, c->params[0], c->params[1], &it, &e)
                 : (ids_parse(c->params[0], &id, &e) != 0 || items_get(&s, id, &it, &e) != 0);
    if (rc != 0) {
        call_fail_err(c, &e);
        return;
    }
    do_change(&s, c, &it);
    item_done(&it);
}

static struct change *change_new(struct call *c)
{
    c->data = mem_zero(1, sizeof(struct change));
    c->data_free = change_free;
    return c->data;
}

/* Only other topics cost fan-out. */
static bool moves_item(const json_t *patch)
{
    return json_object_get(patch, "topics") != NULL;
}

static void patch_item(struct call *c)
{
    struct change *change = change_new(c);
    if (take_if_match(c, &change->if_match) == 0)
        change->patch = call_json(c);
    if (change->patch == NULL || (moves_item(change->patch) && handlers_items_held_back(c) != 0))
        call_finish(c);
    else
        call_work(c, change_work);
}

static void delete_item(struct call *c)
{
    struct change *change = change_new(c);
    if (take_if_match(c, &change->if_match) != 0)
        call_finish(c);
    else
        call_work(c, change_work);
}

/* ---- GET /v1/publishers/{p}/items/by-external/{x} ---- */

static void get_external_work(struct worker *w, struct call *c)
{
    struct items s = handlers_items_store(w);
    struct item it;
    struct err e;
    if (items_get_external(&s, c->params[0], c->params[1], &it, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    if (it.live)
        item_write_json(&it, ITEM_FULL, &c->out);
    else
        call_fail(c, PROBLEM_GONE, "this item was deleted");
    item_done(&it);
}

static void get_external(struct call *c)
{
    call_work(c, get_external_work);
}

#define BY_EXTERNAL "/v1/publishers/{p}/items/by-external/{x}"

const struct route routes_items[] = {
    {"POST", "/v1/items", post_item, ACCESS_PUBLISHER, NULL, "application/json", ITEM_REQUEST_MAX,
     "publishItem"},
    {"GET", "/v1/items", get_items, ACCESS_ANY, "ids", NULL, 0, "listItems"},
    {"GET", "/v1/items/{id}", get_item, ACCESS_ANY, NULL, NULL, 0, "getItem"},
    {"PATCH", "/v1/items/{id}", patch_item, ACCESS_PUBLISHER, NULL,
     "application/merge-patch+json,application/json", ITEM_REQUEST_MAX, "patchItem"},
    {"DELETE", "/v1/items/{id}", delete_item, ACCESS_PUBLISHER, NULL, NULL, 0, "deleteItem"},
    {"GET", BY_EXTERNAL, get_external, ACCESS_ANY, NULL, NULL, 0, "getItemByExternalId"},
    {"DELETE", BY_EXTERNAL, delete_item, ACCESS_PUBLISHER, NULL, NULL, 0, "deleteItemByExternalId"},
    {0},
};
