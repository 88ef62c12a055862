#include "feed-api/mutes.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/names.h"
#include "common/text.h"

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_id(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return x < y ? -1 : x > y;
}

static void add(struct mutes *m, enum target_kind kind, const char *name)
{
    switch (kind) {
    case TARGET_PUBLISHER:
        m->publishers[m->n_publishers++] = name;
        return;
    case TARGET_TOPIC:
        m->topics[m->n_topics++] = name;
        return;
    case TARGET_ITEM:
        if (ids_parse(name, &m->items[m->n_items], NULL) == 0)
            m->n_items++;
        return;
    case TARGET_WORD:
        if (text_word_hash(name, &m->words[m->n_words]) == 0)
            m->n_words++;
        return;
    }
}

static size_t count_lines(const char *text)
{
    size_t n = 1;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        n++;
    return n;
}

void mutes_parse(const char *text, struct mutes *out)
{
    memset(out, 0, sizeof *out);
    if (!text || !*text)
        return;
    size_t lines = count_lines(text);
    out->text = mem_strdup(text);
    out->publishers = mem_alloc(lines * sizeof *out->publishers);
    out->topics = mem_alloc(lines * sizeof *out->topics);
    out->items = mem_alloc(lines * sizeof *out->items);
    out->words = mem_alloc(lines * sizeof *out->words);
    char *save, *line = strtok_r(out->text, "\n", &save);
    for (; line; line = strtok_r(NULL, "\n", &save)) {
        enum target_kind kind;
        const char *name;
        if (target_split(line, &kind, &name, NULL) == 0)
            add(out, kind, name);
    }
    qsort(out->publishers, out->n_publishers, sizeof *out->publishers, by_string);
    qsort(out->topics, out->n_topics, sizeof *out->topics, by_string);
    qsort(out->items, out->n_items, sizeof *out->items, by_id);
}

void mutes_done(struct mutes *m)
{
    free(m->text);
    free(m->publishers);
    free(m->topics);
    free(m->items);
    free(m->words);
    memset(m, 0, sizeof *m);
}

bool mutes_any(const struct mutes *m)
{
    return m->n_publishers || m->n_topics || m->n_items || m->n_words;
}

static bool has_string(const char **set, size_t n, const char *s)
{
    return n && bsearch(&s, set, n, sizeof *set, by_string);
}

bool mutes_hide_id(const struct mutes *m, item_id id)
{
    return m->n_items && bsearch(&id, m->items, m->n_items, sizeof *m->items, by_id);
}

bool mutes_hide_words(const struct mutes *m, struct content_entry *item)
{
    if (!m->n_words)
        return false;
    const struct word_set *words = content_words(item);
    for (size_t i = 0; i < m->n_words; i++) {
        if (word_set_has(words, m->words[i]))
            return true;
    }
    return false;
}

bool mutes_hide_named(const struct mutes *m, item_id id, const char *publisher, const char *const *topics,
                      size_t n_topics)
{
    if (mutes_hide_id(m, id) || has_string(m->publishers, m->n_publishers, publisher))
        return true;
    for (size_t i = 0; i < n_topics; i++) {
        if (has_string(m->topics, m->n_topics, topics[i]))
            return true;
    }
    return false;
}

bool mutes_hide(const struct mutes *m, struct content_entry *item)
{
    return mutes_hide_named(m, item->id, item->publisher, item->topics, item->n_topics) ||
           mutes_hide_words(m, item);
}
