/* An item from JSON: one table of members, used for whole items and for what a merge patch makes of one. */
#include "feed-api/item.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/problem.h"
#include "feed-api/json_whole.h"

#define AHEAD_MAX_MS        60000
#define MEDIA_TYPE_MAX      128
#define MEDIA_TEXT_MAX      1024 /* alt and placeholder */
#define MEDIA_NUMBER_MAX    ((INT64_C(1) << 53) - 1)
#define EXTRA_DEPTH_MAX     16
#define EXTERNAL_ID_POINTER "/external_id"
#define PATCH_MEMBERS_FIXED "id,publisher,external_id,published_at,revision,edited_at"

__attribute__((format(printf, 3, 4))) static int wrong(struct item_problem *p, const char *pointer,
                                                       const char *fmt, ...)
{
    va_list ap;
    snprintf(p->pointer, sizeof p->pointer, "%s", pointer);
    va_start(ap, fmt);
    vsnprintf(p->detail, sizeof p->detail, fmt, ap);
    va_end(ap);
    return -1;
}

static int unknown_member(struct item_problem *p, const char *parent, const char *name)
{
    char pointer[sizeof p->pointer];
    problem_pointer(parent, name, pointer, sizeof pointer);
    return wrong(p, pointer, "is not a known member");
}

static int read_text(const json_t *v, const char *pointer, size_t min, size_t max, char **out,
                     struct item_problem *p)
{
    if (!json_is_string(v))
        return wrong(p, pointer, "must be a string");
    size_t n = json_string_length(v);
    if (n < min || n > max)
        return min > 0 ? wrong(p, pointer, "must have %zu to %zu bytes", min, max)
                       : wrong(p, pointer, "must have at most %zu bytes", max);
    free(*out);
    *out = mem_strndup(json_string_value(v), n);
    return 0;
}

/* Only web addresses: clients open them, and "javascript:" would run in their hands. */
static int check_url(const char *url, const char *pointer, struct item_problem *p)
{
    size_t scheme = strncasecmp(url, "https://", 8) == 0 ? 8 : strncasecmp(url, "http://", 7) == 0 ? 7 : 0;
    if (scheme == 0 || url[scheme] == '\0' || url[scheme] == '/')
        return wrong(p, pointer, "must be an http or https URL");
    for (const char *s = url; *s != '\0'; s++)
        if ((unsigned char)*s <= 0x20 || *s == 0x7f)
            return wrong(p, pointer, "must not hold white space or control characters");
    return 0;
}

static int read_url(const json_t *v, const char *pointer, char **out, struct item_problem *p)
{
    if (read_text(v, pointer, 1, ITEM_URL_MAX, out, p) != 0)
        return -1;
    return check_url(*out, pointer, p);
}

static int member_publisher(const json_t *v, struct item *it, struct item_problem *p)
{
    struct err e;
    if (!json_is_string(v))
        return wrong(p, "/publisher", "must be a string");
    if (names_check(json_string_value(v), json_string_length(v), &e) != 0)
        return wrong(p, "/publisher", "%s", e.msg);
    it->publisher = mem_strdup(json_string_value(v));
    return 0;
}

static int member_external_id(const json_t *v, struct item *it, struct item_problem *p)
{
    return read_text(v, EXTERNAL_ID_POINTER, 1, ITEM_EXTERNAL_ID_MAX, &it->external_id, p);
}

static int member_title(const json_t *v, struct item *it, struct item_problem *p)
{
    return read_text(v, "/title", 1, ITEM_TITLE_MAX, &it->title, p);
}

static int member_body(const json_t *v, struct item *it, struct item_problem *p)
{
    return read_text(v, "/body", 0, ITEM_BODY_MAX, &it->body, p);
}

static int member_url(const json_t *v, struct item *it, struct item_problem *p)
{
    return read_url(v, "/url", &it->url, p);
}

/* BCP 47 tags are letters, digits and hyphens; whether the language exists is not ours to say. */
static int member_lang(const json_t *v, struct item *it, struct item_problem *p)
{
    if (read_text(v, "/lang", 1, ITEM_LANG_MAX, &it->lang, p) != 0)
        return -1;
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";
    if (it->lang[strspn(it->lang, allowed)] != '\0' || it->lang[0] == '-')
        return wrong(p, "/lang", "must be a language tag such as \"en\" or \"pt-BR\"");
    return 0;
}

static bool has_topic(const struct item *it, const char *topic)
{
    for (unsigned i = 0; i < it->n_topics; i++)
        if (strcmp(it->topics[i], topic) == 0)
            return true;
    return false;
}

static int member_topics(const json_t *v, struct item *it, struct item_problem *p)
{
    size_t i;
    json_t *topic;
    struct err e;
    if (!json_is_array(v))
        return wrong(p, "/topics", "must be an array of names");
    if (json_array_size(v) > ITEM_TOPICS_MAX)
        return wrong(p, "/topics", "must have at most %d topics", ITEM_TOPICS_MAX);
    json_array_foreach((json_t *)v, i, topic)
    {
        char pointer[32];
        snprintf(pointer, sizeof pointer, "/topics/%zu", i);
        if (!json_is_string(topic))
            return wrong(p, pointer, "must be a string");
        if (names_check(json_string_value(topic), json_string_length(topic), &e) != 0)
            return wrong(p, pointer, "%s", e.msg);
        if (!has_topic(it, json_string_value(topic)))
            memcpy(it->topics[it->n_topics++], json_string_value(topic), json_string_length(topic) + 1);
    }
    return 0;
}

/* ---- media ---- */

enum media_type { MEDIA_URL, MEDIA_MIME, MEDIA_NUMBER, MEDIA_TEXT };

static const struct media_member {
    const char *name;
    enum media_type type;
    bool required;
} media_members[] = {
    {"url", MEDIA_URL, true},          {"type", MEDIA_MIME, true},
    {"width", MEDIA_NUMBER, false},    {"height", MEDIA_NUMBER, false},
    {"bytes", MEDIA_NUMBER, false},    {"duration_ms", MEDIA_NUMBER, false},
    {"preview_url", MEDIA_URL, false}, {"placeholder", MEDIA_TEXT, false},
    {"alt", MEDIA_TEXT, false},
};

static int check_mime(const char *type, const char *pointer, struct item_problem *p)
{
    const char *slash = strchr(type, '/');
    if (slash == NULL || slash == type || slash[1] == '\0')
        return wrong(p, pointer, "must be a media type such as \"image/jpeg\"");
    for (const char *s = type; *s != '\0'; s++)
        if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f)
            return wrong(p, pointer, "must be printable ASCII without spaces");
    return 0;
}

static int check_media_member(const struct media_member *m, const json_t *v, const char *pointer,
                              struct item_problem *p)
{
    char *text = NULL;
    int64_t number;
    int rc = 0;
    switch (m->type) {
    case MEDIA_URL:
        rc = read_url(v, pointer, &text, p);
        break;
    case MEDIA_MIME:
        rc = read_text(v, pointer, 1, MEDIA_TYPE_MAX, &text, p);
        if (rc == 0)
            rc = check_mime(text, pointer, p);
        break;
    case MEDIA_TEXT:
        rc = read_text(v, pointer, 0, MEDIA_TEXT_MAX, &text, p);
        break;
    case MEDIA_NUMBER:
        if (!json_whole(v, &number) || number < 0 || number > MEDIA_NUMBER_MAX)
            rc = wrong(p, pointer, "must be a whole number from 0 to 2^53-1");
        break;
    }
    free(text);
    return rc;
}

static int check_media_known(const json_t *medium, size_t index, struct item_problem *p)
{
    const char *name;
    json_t *v;
    char parent[32];
    snprintf(parent, sizeof parent, "/media/%zu", index);
    json_object_foreach((json_t *)medium, name, v)
    {
        bool known = false;
        for (size_t i = 0; i < MEM_COUNT(media_members) && !known; i++)
            known = strcmp(media_members[i].name, name) == 0;
        if (!known)
            return unknown_member(p, parent, name);
    }
    return 0;
}

/* Appends the medium to list, its members in the order of the table: equal media give equal text. */
static int add_medium(const json_t *medium, size_t index, json_t *list, struct item_problem *p)
{
    char pointer[48];
    if (!json_is_object(medium)) {
        snprintf(pointer, sizeof pointer, "/media/%zu", index);
        return wrong(p, pointer, "must be an object");
    }
    if (check_media_known(medium, index, p) != 0)
        return -1;
    json_t *out = json_object();
    json_array_append_new(list, out);
    for (size_t i = 0; i < MEM_COUNT(media_members); i++) {
        const struct media_member *m = &media_members[i];
        json_t *v = json_object_get(medium, m->name);
        snprintf(pointer, sizeof pointer, "/media/%zu/%s", index, m->name);
        if (v == NULL || json_is_null(v)) {
            if (m->required)
                return wrong(p, pointer, "is missing");
            continue;
        }
        if (check_media_member(m, v, pointer, p) != 0)
            return -1;
        int64_t number;
        if (json_whole(v, &number))
            json_object_set_new(out, m->name, json_integer(number));
        else
            json_object_set(out, m->name, v);
    }
    return 0;
}

static int member_media(const json_t *v, struct item *it, struct item_problem *p)
{
    size_t i;
    json_t *medium;
    int rc = 0;
    if (!json_is_array(v))
        return wrong(p, "/media", "must be an array");
    if (json_array_size(v) > ITEM_MEDIA_MAX)
        return wrong(p, "/media", "must have at most %d media", ITEM_MEDIA_MAX);
    json_t *list = json_array();
    json_array_foreach((json_t *)v, i, medium)
    {
        rc = add_medium(medium, i, list, p);
        if (rc != 0)
            break;
    }
    if (rc == 0 && json_array_size(list) > 0)
        it->media = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return rc;
}

/* ---- extra, published_at ---- */

static int json_depth(const json_t *v, int left)
{
    const char *name;
    json_t *child;
    size_t i;
    if (left == 0)
        return -1;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, name, child) if (json_depth(child, left - 1) != 0) return -1;
    } else if (json_is_array(v)) {
        json_array_foreach((json_t *)v, i, child) if (json_depth(child, left - 1) != 0) return -1;
    }
    return 0;
}

/* Keys sorted, so that equal objects give equal text. Seventeen digits hold any number, but most are the same
 * with fifteen and look better: 1.1 instead of 1.1000000000000001. */
static char *canonical(const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(15));
    json_t *back = json_loads(text, 0, NULL);
    if (!json_equal(back, v)) {
        free(text);
        text = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS);
    }
    json_decref(back);
    return text;
}

static int member_extra(const json_t *v, struct item *it, struct item_problem *p)
{
    if (!json_is_object(v))
        return wrong(p, "/extra", "must be an object");
    if (json_depth(v, EXTRA_DEPTH_MAX) != 0)
        return wrong(p, "/extra", "must not be nested deeper than %d", EXTRA_DEPTH_MAX);
    if (json_object_size(v) == 0)
        return 0;
    char *text = canonical(v);
    if (strlen(text) > ITEM_EXTRA_MAX) {
        free(text);
        return wrong(p, "/extra", "must have at most %d bytes", ITEM_EXTRA_MAX);
    }
    it->extra = text;
    return 0;
}

int item_extra_from_json(const json_t *v, char **out, struct item_problem *p)
{
    struct item it = {0};
    if (v != NULL && !json_is_null(v) && member_extra(v, &it, p) != 0)
        return -1;
    *out = it.extra;
    return 0;
}

int item_url_from_json(const json_t *v, const char *pointer, char **out, struct item_problem *p)
{
    char *url = NULL;
    if (v != NULL && !json_is_null(v) && read_url(v, pointer, &url, p) != 0) {
        free(url);
        return -1;
    }
    *out = url;
    return 0;
}

static int read_published_at(const json_t *o, int64_t now_ms, struct item *it, struct item_problem *p)
{
    const json_t *v = json_object_get(o, "published_at");
    struct err e;
    int64_t ms;
    it->published_ms = -1;
    if (v == NULL || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return wrong(p, "/published_at", "must be an RFC 3339 date-time");
    if (clock_parse(json_string_value(v), &ms, &e) != 0)
        return wrong(p, "/published_at", "must be an RFC 3339 date-time: %s", e.msg);
    if (ms < 0)
        return wrong(p, "/published_at", "must not be before 1970");
    if (ms > now_ms + AHEAD_MAX_MS)
        return wrong(p, "/published_at", "must not be more than %d s ahead", AHEAD_MAX_MS / 1000);
    it->published_ms = ms < now_ms ? ms : now_ms;
    return 0;
}

/* ---- whole items and patches ---- */

static const struct member {
    const char *name;
    int (*read)(const json_t *v, struct item *it, struct item_problem *p); /* NULL: read apart */
    bool required;
    bool content; /* what a patch may change */
} members[] = {
    {"publisher", member_publisher, true, false},
    {"external_id", member_external_id, false, false},
    {"title", member_title, true, true},
    {"body", member_body, true, true},
    {"url", member_url, false, true},
    {"media", member_media, false, true},
    {"topics", member_topics, false, true},
    {"lang", member_lang, false, true},
    {"published_at", NULL, false, false},
    {"extra", member_extra, false, true},
};

static const struct member *find_member(const char *name)
{
    for (size_t i = 0; i < MEM_COUNT(members); i++)
        if (strcmp(members[i].name, name) == 0)
            return &members[i];
    return NULL;
}

static int read_members(const json_t *o, bool content_only, struct item *it, struct item_problem *p)
{
    for (size_t i = 0; i < MEM_COUNT(members); i++) {
        const struct member *m = &members[i];
        if (m->read == NULL || (content_only && !m->content))
            continue;
        const json_t *v = json_object_get(o, m->name);
        if (v != NULL && !json_is_null(v)) {
            if (m->read(v, it, p) != 0)
                return -1;
        } else if (m->required) {
            char pointer[32];
            snprintf(pointer, sizeof pointer, "/%s", m->name);
            return wrong(p, pointer, "is missing");
        }
    }
    return 0;
}

int item_from_json(const json_t *o, int64_t now_ms, struct item *out, struct item_problem *p)
{
    struct item it = {.revision = 1, .live = true};
    const char *name;
    json_t *v;
    if (!json_is_object(o))
        return wrong(p, "", "must be an object");
    json_object_foreach((json_t *)o, name, v) if (find_member(name) == NULL) return unknown_member(p, "",
                                                                                                   name);
    if (read_members(o, false, &it, p) != 0 || read_published_at(o, now_ms, &it, p) != 0) {
        item_done(&it);
        return -1;
    }
    *out = it;
    return 0;
}

static json_t *text_or_null(const char *s)
{
    return s != NULL ? json_string(s) : json_null();
}

static json_t *content_to_json(const struct item *it)
{
    json_t *topics = json_array();
    for (unsigned i = 0; i < it->n_topics; i++)
        json_array_append_new(topics, json_string(it->topics[i]));
    json_t *o = json_object();
    json_object_set_new(o, "title", text_or_null(it->title));
    json_object_set_new(o, "body", text_or_null(it->body));
    json_object_set_new(o, "url", text_or_null(it->url));
    json_object_set_new(o, "lang", text_or_null(it->lang));
    json_object_set_new(o, "topics", topics);
    if (it->media != NULL)
        json_object_set_new(o, "media", json_loads(it->media, 0, NULL));
    if (it->extra != NULL)
        json_object_set_new(o, "extra", json_loads(it->extra, 0, NULL));
    return o;
}

/* RFC 7396, section 2. target is changed in place or replaced; the answer is a new reference. */
static json_t *merge_patch(json_t *target, const json_t *patch)
{
    const char *name;
    json_t *v;
    if (!json_is_object(patch))
        return json_deep_copy(patch);
    json_t *out = json_is_object(target) ? json_incref(target) : json_object();
    json_object_foreach((json_t *)patch, name, v)
    {
        if (json_is_null(v))
            json_object_del(out, name);
        else
            json_object_set_new(out, name, merge_patch(json_object_get(out, name), v));
    }
    return out;
}

static bool in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = list; *s != '\0'; s += strcspn(s, ","), s += *s == ',')
        if (strncmp(s, name, n) == 0 && (s[n] == ',' || s[n] == '\0'))
            return true;
    return false;
}

static int check_patch_members(const json_t *patch, struct item_problem *p)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)patch, name, v)
    {
        const struct member *m = find_member(name);
        if (m != NULL && m->content)
            continue;
        if (!in_list(PATCH_MEMBERS_FIXED, name))
            return unknown_member(p, "", name);
        char pointer[32];
        snprintf(pointer, sizeof pointer, "/%s", name);
        return wrong(p, pointer, "cannot be changed");
    }
    return 0;
}

int item_patch(struct item *it, const json_t *patch, bool *changed, struct item_problem *p)
{
    struct item next = {0};
    if (!json_is_object(patch))
        return wrong(p, "", "must be an object");
    if (json_depth(patch, EXTRA_DEPTH_MAX + 2) != 0)
        return wrong(p, "", "is nested too deeply");
    if (check_patch_members(patch, p) != 0)
        return -1;
    json_t *before = content_to_json(it);
    json_t *after = merge_patch(before, patch);
    int rc = read_members(after, true, &next, p);
    if (rc == 0) {
        *changed = !item_same_content(it, &next);
        if (*changed)
            item_copy_content(it, &next);
    }
    item_done(&next);
    json_decref(after);
    json_decref(before);
    return rc;
}
