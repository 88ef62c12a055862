#include "feed-api/item.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

void item_done(struct item *it)
{
    free(it->publisher);
    free(it->external_id);
    free(it->title);
    free(it->body);
    free(it->url);
    free(it->lang);
    free(it->media);
    free(it->extra);
    *it = (struct item){0};
}

static bool same_text(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return strcmp(a, b) == 0;
}

static bool has_topic(const struct item *it, const char *topic)
{
    for (unsigned i = 0; i < it->n_topics; i++)
        if (strcmp(it->topics[i], topic) == 0)
            return true;
    return false;
}

/* Neither list repeats a topic, so equal counts and one inclusion are equality. */
bool item_same_topics(const struct item *a, const struct item *b)
{
    if (a->n_topics != b->n_topics)
        return false;
    for (unsigned i = 0; i < a->n_topics; i++)
        if (!has_topic(b, a->topics[i]))
            return false;
    return true;
}

bool item_same_content(const struct item *a, const struct item *b)
{
    return same_text(a->title, b->title) && same_text(a->body, b->body) && same_text(a->url, b->url) &&
           same_text(a->media, b->media) && same_text(a->lang, b->lang) && same_text(a->extra, b->extra) &&
           item_same_topics(a, b);
}

static void replace(char **to, const char *from)
{
    free(*to);
    *to = mem_strdup(from);
}

void item_copy_content(struct item *to, const struct item *from)
{
    replace(&to->title, from->title);
    replace(&to->body, from->body);
    replace(&to->url, from->url);
    replace(&to->media, from->media);
    replace(&to->lang, from->lang);
    replace(&to->extra, from->extra);
    to->n_topics = from->n_topics;
    memcpy(to->topics, from->topics, sizeof to->topics);
}

static void write_member(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_json(out, text);
}

static void write_time(struct buf *out, const char *name, int64_t ms)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format(ms, text);
    write_member(out, name, text);
}

static void write_topics(struct buf *out, const struct item *it)
{
    buf_add_str(out, ",\"topics\":[");
    for (unsigned i = 0; i < it->n_topics; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_add_json(out, it->topics[i]);
    }
    buf_add_char(out, ']');
}

void item_write_json(const struct item *it, enum item_parts parts, struct buf *out)
{
    char id[ITEM_ID_TEXT_SIZE];
    ids_format(it->id, id);
    buf_printf(out, "{\"id\":\"%s\"", id);
    write_member(out, "publisher", it->publisher);
    write_member(out, "external_id", it->external_id);
    buf_printf(out, ",\"revision\":%d", it->revision);
    write_member(out, "title", it->title);
    if (parts == ITEM_FULL)
        write_member(out, "body", it->body);
    write_member(out, "url", it->url);
    buf_add_str(out, ",\"media\":");
    buf_add_str(out, it->media != NULL ? it->media : "[]");
    write_topics(out, it);
    write_member(out, "lang", it->lang);
    write_time(out, "published_at", it->published_ms);
    if (it->edited_ms != 0)
        write_time(out, "edited_at", it->edited_ms);
    else
        buf_add_str(out, ",\"edited_at\":null");
    if (parts == ITEM_FULL) {
        buf_add_str(out, ",\"extra\":");
        buf_add_str(out, it->extra != NULL ? it->extra : "{}");
    }
    buf_add_char(out, '}');
}
