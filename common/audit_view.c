/* audit_view.c - a timeline as it lies in Redis, read leniently: what does not parse is what is looked for.
 */
#include "common/audit_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "common/mem.h"

enum { RECORD_PROGRESS, RECORD_BORN, RECORD_STAMP, RECORD_FIELDS };
enum { META_R, META_STATE, META_MUTES, META_PULLS, META_REMOVED, META_FIELDS };

#define COMMANDS 3

struct key_texts {
    char record[KEY_SIZE], meta[KEY_SIZE], ids[KEY_SIZE];
};

static void make_keys(struct key_texts *k, const char *user)
{
    unsigned bucket = keys_bucket(user);
    keys_bucket_record(k->record, bucket);
    keys_timeline_meta(k->meta, bucket, user);
    keys_timeline(k->ids, bucket, user);
}

static int append(struct redis *r, const char *user, struct err *e)
{
    struct key_texts k;
    char last[16];
    make_keys(&k, user);
    snprintf(last, sizeof last, "%d", AUDIT_MEMBERS_MAX);
    const char *multi[] = {"MULTI"}, *exec[] = {"EXEC"};
    const char *record[] = {"HMGET", k.record, "progress", "born", "stamp"};
    const char *meta[] = {"HMGET", k.meta, "r", "st", "m", "p", "d"};
    const char *ids[] = {"ZRANGE", k.ids, "0", last, "WITHSCORES"};
    if (redis_append(r, 1, multi, NULL, e) || redis_append(r, MEM_COUNT(record), record, NULL, e) ||
        redis_append(r, MEM_COUNT(meta), meta, NULL, e) || redis_append(r, MEM_COUNT(ids), ids, NULL, e) ||
        redis_append(r, 1, exec, NULL, e))
        return -1;
    return 0;
}

/* The answer of EXEC; what is queued was answered before it. All are read in any case, so that the connection
 * can be used again. */
static int read_replies(struct redis *r, redisReply **out, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < COMMANDS + 2; i++) {
        redisReply *reply = NULL;
        struct err why;
        if (redis_read(r, &reply, &why) != 0) {
            if (rc == 0)
                *e = why;
            rc = -1;
            if (redis_pending(r) == 0)
                break;
        } else if (i == COMMANDS + 1 && rc == 0) {
            *out = reply;
        } else {
            freeReplyObject(reply);
        }
    }
    return rc;
}

static const char *text_of(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING ? r->str : NULL;
}

static bool parse_ts(const redisReply *r, ts_t *out)
{
    const char *s = text_of(r);
    return s && ts_parse(s, out, NULL) == 0;
}

/* Texts with control characters would break a line of a report. */
static void copy_text(char *out, size_t size, const char *s, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n && k + 1 < size; i++)
        out[k++] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    while (k > 0 && !utf8_valid(out, k))
        out[--k] = '\0'; /* cut within a character, or not text at all: what is text before it */
    out[k] = '\0';
}

static char *owned_text(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING ? mem_strndup(r->str, r->len) : mem_strdup("");
}

static void take_meta(const redisReply *m, struct audit_view *v)
{
    const redisReply *r = m->element[META_R], *state = m->element[META_STATE];
    v->exists = text_of(r) && text_of(state);
    v->ready = text_of(state) && strcmp(state->str, "r") == 0;
    if (text_of(r)) {
        snprintf(v->r_raw, sizeof v->r_raw, "%s", r->str);
        copy_text(v->r_text, sizeof v->r_text, r->str, r->len);
        if (!parse_ts(r, &v->r))
            v->r = 0;
    }
    v->mutes = owned_text(m->element[META_MUTES]);
    v->pulls = owned_text(m->element[META_PULLS]);
    if (text_of(m->element[META_REMOVED]))
        v->removed = strtoll(m->element[META_REMOVED]->str, NULL, 10);
}

static void take_floor(const char *score, struct audit_view *v)
{
    char *end;
    double s = strtod(score, &end);
    copy_text(v->floor_text, sizeof v->floor_text, score, strlen(score));
    v->floor_ok = *end == '\0' && s <= 0 && s >= -(double)ITEM_ID_MAX && s == -(double)(item_id)-s;
    if (v->floor_ok)
        v->floor = (item_id)-s;
}

static void take_members(const redisReply *a, struct audit_view *v)
{
    bool floor = false;
    v->entries = mem_alloc((a->elements / 2 + 1) * sizeof *v->entries);
    v->too_many = a->elements / 2 > AUDIT_MEMBERS_MAX;
    for (size_t i = 0; i + 1 < a->elements; i += 2) {
        const redisReply *m = a->element[i], *score = a->element[i + 1];
        item_id id;
        if (!text_of(m) || !text_of(score))
            continue;
        if (strcmp(m->str, "f") == 0) {
            floor = true;
            take_floor(score->str, v);
        } else if (strlen(m->str) == m->len && ids_parse(m->str, &id, NULL) == 0) {
            v->entries[v->n++] = (struct audit_entry){id, strtod(score->str, NULL)};
        } else if (v->n_foreign < AUDIT_FOREIGN_MAX) {
            copy_text(v->foreign[v->n_foreign++], AUDIT_WHAT_SIZE, m->str, m->len);
        }
    }
    v->exists = v->exists && floor;
}

static bool shape_is_right(const redisReply *x)
{
    return x->type == REDIS_REPLY_ARRAY && x->elements == COMMANDS &&
           x->element[0]->type == REDIS_REPLY_ARRAY && x->element[0]->elements == RECORD_FIELDS &&
           x->element[1]->type == REDIS_REPLY_ARRAY && x->element[1]->elements == META_FIELDS &&
           x->element[2]->type == REDIS_REPLY_ARRAY;
}

int audit_view_read(struct redis *r, const char *user, struct audit_view *out, struct err *e)
{
    redisReply *x = NULL;
    struct audit_view v = {.has_record = false};
    if (append(r, user, e) != 0 || read_replies(r, &x, e) != 0)
        return -1;
    if (!shape_is_right(x)) {
        /* One of the keys is of another type, say: then it is no timeline. */
        freeReplyObject(x);
        return err_set(e, ERR_CORRUPT, "the keys of %s's timeline are of other types", user);
    }
    const redisReply *record = x->element[0];
    v.has_record = parse_ts(record->element[RECORD_PROGRESS], &v.progress) &&
                   parse_ts(record->element[RECORD_BORN], &v.born) &&
                   parse_ts(record->element[RECORD_STAMP], &v.stamp);
    take_meta(x->element[1], &v);
    take_members(x->element[2], &v);
    freeReplyObject(x);
    *out = v;
    return 0;
}

void audit_view_done(struct audit_view *v)
{
    free(v->mutes);
    free(v->pulls);
    free(v->entries);
    memset(v, 0, sizeof *v);
}

/* An R that is no time is judged, not passed over. */
bool audit_view_counts(const struct audit_view *v)
{
    return v->has_record && v->exists && v->ready &&
           (v->r == 0 || v->r >= v->born || audit_r_wrong(v, 0, NULL, 0));
}

int audit_progress(struct redis *r, const char *user, ts_t *out, struct err *e)
{
    char record[KEY_SIZE];
    redisReply *reply;
    keys_bucket_record(record, keys_bucket(user));
    if (redis_commandf(r, &reply, e, "HGET", record, "progress", NULL) != 0)
        return -1;
    if (!parse_ts(reply, out))
        *out = 0;
    freeReplyObject(reply);
    return 0;
}
