#include "tools/dlq.h"

#include <ctype.h>
#include <event2/event.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "common/buf.h"
#include "common/http_client.h"
#include "common/mem.h"
#include "common/query.h"

#define TIMEOUT_MS   10000
#define PAGE         100
#define LETTERS_MAX  20000 /* twice as many as there can be */
#define LINE_MAX_LEN 1024
#define PROGRESS     100

struct dlq {
    struct event_base *base;
    struct http_client *client;
    char *headers;
    bool json;

    /* the request under way */
    int status;
    json_t *body; /* NULL: none that is JSON */
    struct err failed;
};

/* ---- opening ---- */

static int read_key(const char *path, char **headers, struct err *e)
{
    char line[LINE_MAX_LEN] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ERR_INVALID, "the key file %s can't be read: %m", path);
    bool any = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    line[strcspn(line, "\r\n")] = '\0';
    if (!any || line[0] == '\0' || strlen(line) + 1 >= sizeof line)
        return err_set(e, ERR_INVALID, "there is no key in %s", path);
    for (const char *s = line; *s; s++) {
        if (!isgraph((unsigned char)*s))
            return err_set(e, ERR_INVALID, "what is in %s is not a key", path);
    }
    *headers = mem_printf("Authorization: Bearer %s\r\n", line);
    return 0;
}

static int connect_to(struct dlq *d, const char *api, struct err *e)
{
    static const char scheme[] = "http://";
    struct address at;
    if (strncmp(api, scheme, strlen(scheme)) == 0)
        api += strlen(scheme);
    char *text = mem_strndup(api, strcspn(api, "/"));
    int rc = address_parse(text, &at, e);
    free(text);
    if (rc != 0)
        return err_prefix(e, "--api");
    struct http_client_options o = {.host = at.host, .port = at.port, .max_connections = 1};
    d->base = event_base_new();
    d->client = http_client_new(d->base, &o, e);
    return d->client ? 0 : -1;
}

int dlq_open(struct dlq **out, const struct dlq_options *o, struct err *e)
{
    struct dlq *d = mem_zero(1, sizeof *d);
    d->json = o->json;
    if (read_key(o->key_file, &d->headers, e) != 0 || connect_to(d, o->api, e) != 0) {
        dlq_close(d);
        return -1;
    }
    *out = d;
    return 0;
}

void dlq_close(struct dlq *d)
{
    if (!d)
        return;
    http_client_free(d->client);
    if (d->base)
        event_base_free(d->base);
    json_decref(d->body);
    free(d->headers);
    free(d);
}

/* ---- one request ---- */

static void answered(const struct http_response *r, const struct err *e, void *arg)
{
    struct dlq *d = arg;
    if (r) {
        d->status = r->status;
        d->body = json_loadb(r->body, r->len, 0, NULL);
    } else {
        d->failed = *e;
    }
    event_base_loopbreak(d->base);
}

static const char *text(const json_t *o, const char *member)
{
    const char *s = json_string_value(json_object_get(o, member));
    return s ? s : "-";
}

static enum err_code code_of(int status)
{
    return status == 404 ? ERR_NOT_FOUND : status == 503 ? ERR_UNAVAILABLE : ERR_INVALID;
}

/* On success d->body is an object. */
static int ask(struct dlq *d, const char *method, const char *path, struct err *e)
{
    json_decref(d->body);
    d->body = NULL;
    d->status = 0;
    if (http_client_request(d->client, method, path, d->headers, NULL, 0, TIMEOUT_MS, answered, d, e) != 0)
        return -1;
    event_base_dispatch(d->base);
    if (d->status == 0) {
        *e = d->failed;
        return err_prefix(e, "feed-api");
    }
    if (d->status == 200 && json_is_object(d->body))
        return 0;
    if (json_is_object(d->body))
        return err_set(e, code_of(d->status), "feed-api says %d: %s", d->status, text(d->body, "detail"));
    return err_set(e, ERR_INVALID, "what answers there (%d) is not feed-api", d->status);
}

/* ---- letters ---- */

static int ask_about(struct dlq *d, const char *method, const char *id, const char *what, struct err *e)
{
    char *encoded = mem_zero(3 * strlen(id) + 1, 1);
    percent_encode(id, encoded);
    char *path = mem_printf("/v1/dead-letters/%s%s", encoded, what);
    int rc = ask(d, method, path, e);
    free(path);
    free(encoded);
    return rc;
}

static void print_json(const json_t *o)
{
    char *line = json_dumps(o, JSON_COMPACT);
    puts(line);
    free(line);
}

static void print_head(const struct dlq *d)
{
    if (!d->json)
        printf("%-9s %-8s %-16s %-20s %-24s %s\n%11s\n", "STATE", "KIND", "ITEM", "USER", "AT", "ID",
               "REASON");
}

static void print_row(const struct dlq *d, const json_t *o)
{
    if (d->json)
        print_json(o);
    else
        printf("%-9s %-8s %-16s %-20s %-24s %s\n     %s\n", text(o, "state"), text(o, "kind"),
               text(o, "item"), text(o, "user"), text(o, "at"), text(o, "id"), text(o, "reason"));
}

static bool is_open(const json_t *o)
{
    return strcmp(text(o, "state"), "dead") == 0;
}

/* Calls fn for each letter, page by page, until it answers false. */
static int each_letter(struct dlq *d, bool (*fn)(void *arg, json_t *o), void *arg, struct err *e)
{
    struct buf path;
    char *next = NULL;
    int rc = 0;
    bool more = true;
    buf_init(&path, 8192);
    while (rc == 0 && more) {
        size_t i;
        json_t *o;
        buf_reset(&path);
        buf_printf(&path, "/v1/dead-letters?limit=%d", PAGE);
        if (next)
            buf_printf(&path, "&cursor=%s", next); /* base64url: nothing to encode */
        rc = ask(d, "GET", path.data, e);
        free(next);
        next = NULL;
        json_array_foreach(rc == 0 ? json_object_get(d->body, "dead_letters") : NULL, i, o)
        {
            more = more && fn(arg, o);
        }
        if (rc == 0 && json_is_string(json_object_get(d->body, "next")))
            next = mem_strdup(text(d->body, "next"));
        more = more && next;
    }
    free(next);
    buf_done(&path);
    return rc;
}

struct listing {
    struct dlq *d;
    unsigned shown, most;
    bool only_open;
};

static bool list_one(void *arg, json_t *o)
{
    struct listing *l = arg;
    if (l->only_open && !is_open(o))
        return true;
    if (l->most && l->shown == l->most)
        return false;
    if (l->shown++ == 0)
        print_head(l->d);
    print_row(l->d, o);
    return true;
}

int dlq_list(struct dlq *d, unsigned most, bool only_open, struct err *e)
{
    struct listing l = {.d = d, .most = most, .only_open = only_open};
    if (each_letter(d, list_one, &l, e) != 0)
        return -1;
    if (l.shown == 0 && !d->json)
        puts(only_open ? "no open dead letters" : "no dead letters");
    return 0;
}

int dlq_show(struct dlq *d, const char *id, struct err *e)
{
    const char *member;
    json_t *value;
    if (ask_about(d, "GET", id, "", e) != 0)
        return -1;
    if (d->json) {
        print_json(d->body);
        return 0;
    }
    json_object_foreach(d->body, member, value)
    {
        if (json_is_integer(value))
            printf("%-10s %" JSON_INTEGER_FORMAT "\n", member, json_integer_value(value));
        else
            printf("%-10s %s\n", member, json_is_string(value) ? json_string_value(value) : "-");
    }
    return 0;
}

int dlq_replay(struct dlq *d, const char *id, struct err *e)
{
    if (ask_about(d, "POST", id, "/replay", e) != 0)
        return -1;
    if (d->json)
        print_json(d->body);
    else
        printf("replayed %s at %s\n", id, text(d->body, "position"));
    return 0;
}

struct ids {
    char *at[LETTERS_MAX];
    unsigned n;
};

static bool note_open(void *arg, json_t *o)
{
    struct ids *ids = arg;
    if (is_open(o))
        ids->at[ids->n++] = mem_strdup(text(o, "id"));
    return ids->n < LETTERS_MAX;
}

static void tell_progress(unsigned done, unsigned all)
{
    if (done == all || done % PROGRESS == 0)
        fprintf(stderr, "dlq: %u of %u\n", done, all);
}

static int replay_each(struct dlq *d, const struct ids *ids, struct err *e)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < ids->n; i++) {
        struct err why;
        if (dlq_replay(d, ids->at[i], &why) != 0) {
            fprintf(stderr, "dlq: %s: %s\n", ids->at[i], why.msg);
            failed++;
        }
        tell_progress(i + 1, ids->n);
    }
    return failed ? err_set(e, ERR_UNAVAILABLE, "%u of %u were not replayed", failed, ids->n) : 0;
}

int dlq_replay_all(struct dlq *d, struct err *e)
{
    struct ids *ids = mem_zero(1, sizeof *ids);
    int rc = each_letter(d, note_open, ids, e);
    if (rc == 0 && ids->n == 0 && !d->json)
        puts("no open dead letters");
    if (rc == 0)
        rc = replay_each(d, ids, e);
    while (ids->n > 0)
        free(ids->at[--ids->n]);
    free(ids);
    return rc;
}
