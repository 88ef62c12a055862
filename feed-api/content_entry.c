/* One item, serialised once: one block of memory for the entry and all its strings. */
#include "feed-api/content_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/publishers.h"

#define JSON_MAX (1024 * 1024) /* above what the caps of item.h allow, escapes included */

static size_t topics_size(const struct item *it)
{
    size_t n = it->n_topics * sizeof(char *);
    for (unsigned i = 0; i < it->n_topics; i++)
        n += strlen(it->topics[i]) + 1;
    return n;
}

static char *place(char **at, const char *s, size_t n)
{
    char *to = *at;
    if (n > 0)
        memcpy(to, s, n);
    to[n] = '\0';
    *at += n + 1;
    return to;
}

static void fill(struct content_entry *e, const struct item *it, const struct buf *full,
                 const struct buf *summary)
{
    char *at = (char *)(e + 1);
    if (it->n_topics > 0) {
        const char **topics = (const char **)at;
        at += it->n_topics * sizeof *topics;
        for (unsigned i = 0; i < it->n_topics; i++)
            topics[i] = place(&at, it->topics[i], strlen(it->topics[i]));
        e->topics = topics;
    }
    e->n_topics = it->n_topics;
    e->publisher = place(&at, it->publisher, strlen(it->publisher));
    e->publisher_hash = publishers_hash(it->publisher);
    e->full = place(&at, full->data, full->len);
    e->full_len = full->len;
    e->summary = place(&at, summary->data, summary->len);
    e->summary_len = summary->len;
}

struct content_entry *content_entry_new(const struct item *it)
{
    struct buf full, summary;
    buf_init(&full, JSON_MAX);
    buf_init(&summary, JSON_MAX);
    if (it->live) {
        item_write_json(it, ITEM_FULL, &full);
        item_write_json(it, ITEM_SUMMARY, &summary);
    }
    size_t size =
        sizeof(struct content_entry) + topics_size(it) + strlen(it->publisher) + full.len + summary.len + 3;
    struct content_entry *e = mem_zero(1, size);
    e->id = it->id;
    e->revision = it->revision;
    e->deleted = !it->live;
    e->refs = 1;
    fill(e, it, &full, &summary);
    buf_done(&full);
    buf_done(&summary);
    return e;
}

struct content_entry *content_entry_missing(item_id id)
{
    struct content_entry *e = mem_zero(1, sizeof *e);
    e->id = id;
    e->missing = true;
    e->publisher = e->full = e->summary = "";
    e->refs = 1;
    return e;
}

struct content_entry *content_entry_ref(struct content_entry *entry)
{
    __atomic_add_fetch(&entry->refs, 1, __ATOMIC_RELAXED);
    return entry;
}

void content_unref(struct content_entry *entry)
{
    if (entry == NULL || __atomic_sub_fetch(&entry->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (entry->words != NULL)
        word_set_done(entry->words);
    free(entry->words);
    free(entry->gzip[false]);
    free(entry->gzip[true]);
    free(entry);
}

/* Words are made by who needs them first and counted by a guess from the start: a word of text and its hash
 * take about the same. */
size_t content_entry_bytes(const struct content_entry *entry)
{
    size_t n = sizeof *entry + entry->full_len + entry->summary_len + strlen(entry->publisher) + 64;
    for (unsigned i = 0; i < entry->n_topics; i++)
        n += strlen(entry->topics[i]) + 1 + sizeof(char *);
    for (int i = 0; i < 2; i++)
        n += gzip_block_bytes(__atomic_load_n(&entry->gzip[i], __ATOMIC_ACQUIRE));
    return n + entry->full_len;
}

static struct word_set *make_words(const struct content_entry *entry)
{
    struct word_set *words = mem_zero(1, sizeof *words);
    json_t *o = entry->full_len > 0 ? json_loadb(entry->full, entry->full_len, 0, NULL) : NULL;
    const char *title = json_string_value(json_object_get(o, "title"));
    const char *body = json_string_value(json_object_get(o, "body"));
    if (title != NULL && body != NULL) {
        char *text = mem_printf("%s\n%s", title, body);
        text_words(text, strlen(text), words);
        free(text);
    }
    json_decref(o);
    return words;
}

const struct word_set *content_words(struct content_entry *entry)
{
    struct word_set *words = __atomic_load_n(&entry->words, __ATOMIC_ACQUIRE);
    if (words != NULL)
        return words;
    struct word_set *mine = make_words(entry);
    if (__atomic_compare_exchange_n(&entry->words, &words, mine, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return mine;
    word_set_done(mine); /* somebody else was faster */
    free(mine);
    return words;
}

const struct gzip_block *content_gzip(struct content *c, struct content_entry *entry, bool summary, bool make)
{
    struct gzip_block *block = __atomic_load_n(&entry->gzip[summary], __ATOMIC_ACQUIRE);
    if (block != NULL || !make)
        return block;
    struct gzip_block *mine = gzip_block_new(summary ? entry->summary : entry->full,
                                             summary ? entry->summary_len : entry->full_len);
    if (!__atomic_compare_exchange_n(&entry->gzip[summary], &block, mine, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        free(mine); /* somebody else was faster */
        return block;
    }
    content_recount(c, entry);
    return mine;
}
