#include "feed-api/stream_log.h"
#include "feed-api/stream_posts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define FIRST_CAP  64
#define NAMES_MAX  ((1 + 2 * CHANGE_TOPICS_MAX) * (NAME_MAX_BYTES + 1))
#define BLOCK_MORE 16 /* what an allocation costs besides */

struct stream_log {
    struct stream_entry *ring;
    size_t cap, head, n; /* cap is a power of two */
    uint64_t first;      /* the sequence of ring[head] */
    ts_t begin;
    struct stream_pos last; /* of the newest entry ever added */
    size_t bytes, max_bytes;
    uint32_t keep_s;
    struct stream_posts *posts;
};

/* ---- positions ---- */

void stream_pos_format(struct stream_pos p, char out[STREAM_POS_SIZE])
{
    char t[TS_TEXT_SIZE];
    ts_format(p.t, t);
    snprintf(out, STREAM_POS_SIZE, "%s-%u", t, p.k);
}

int stream_pos_parse(const char *s, struct stream_pos *out, struct err *e)
{
    char t[TS_TEXT_SIZE];
    struct stream_pos p = {0};
    uint64_t k = 0;
    size_t n = strlen(s);
    if (n < TS_TEXT_SIZE + 1 || n > TS_TEXT_SIZE + 10 || s[TS_TEXT_SIZE - 1] != '-')
        return err_set(e, ERR_INVALID, "is no id of an event");
    memcpy(t, s, TS_TEXT_SIZE - 1);
    t[TS_TEXT_SIZE - 1] = '\0';
    const char *digits = s + TS_TEXT_SIZE;
    bool good = ts_parse(t, &p.t, NULL) == 0 && !(digits[0] == '0' && digits[1] != '\0');
    for (; *digits != '\0' && good; digits++) {
        good = *digits >= '0' && *digits <= '9';
        k = k * 10 + (uint64_t)(*digits - '0');
    }
    if (!good || k > UINT32_MAX || p.t == 0)
        return err_set(e, ERR_INVALID, "is no id of an event");
    p.k = (uint32_t)k;
    *out = p;
    return 0;
}

/* ---- names ---- */

void stream_entry_names(const struct stream_entry *e, struct stream_names *out)
{
    const char *p = e->names;
    *out = (struct stream_names){.publisher = "", .n_topics = e->n_topics, .n_before = e->n_before};
    if (p == NULL) {
        assert(e->n_topics == 0 && e->n_before == 0);
        return;
    }
    out->publisher = p;
    p += strlen(p) + 1;
    for (size_t i = 0; i < e->n_topics; i++, p += strlen(p) + 1)
        out->topics[i] = p;
    for (size_t i = 0; i < e->n_before; i++, p += strlen(p) + 1)
        out->before[i] = p;
}

struct packer {
    char text[NAMES_MAX];
    size_t len;
};

static void pack(struct packer *p, const char *name)
{
    size_t n = strnlen(name, NAME_MAX_BYTES) + 1;
    memcpy(p->text + p->len, name, n - 1);
    p->text[p->len + n - 1] = '\0';
    p->len += n;
}

static void keep_names(struct stream_entry *e, const struct packer *p)
{
    free(e->names);
    e->names = mem_alloc(p->len);
    memcpy(e->names, p->text, p->len);
    e->names_len = (uint16_t)p->len;
}

/* ---- who is named where ---- */

typedef void (*post_fn)(struct stream_posts *p, enum target_kind kind, const char *name, uint64_t seq);

static void post(struct stream_log *l, const struct stream_entry *e, uint64_t seq, post_fn fn)
{
    struct stream_names names;
    if (!e->resolved) {
        fn(l->posts, TARGET_ITEM, "", seq);
        return;
    }
    stream_entry_names(e, &names);
    fn(l->posts, TARGET_PUBLISHER, names.publisher, seq);
    for (size_t i = 0; i < names.n_topics; i++)
        fn(l->posts, TARGET_TOPIC, names.topics[i], seq);
    for (size_t i = 0; i < names.n_before; i++)
        fn(l->posts, TARGET_TOPIC, names.before[i], seq);
}

const uint64_t *stream_log_naming(const struct stream_log *l, enum target_kind kind, const char *name,
                                  uint64_t seq, size_t *n)
{
    return stream_posts_from(l->posts, kind, name, seq, n);
}

/* ---- the ring ---- */

static size_t entry_bytes(const struct stream_entry *e)
{
    return sizeof *e + e->names_len + BLOCK_MORE;
}

static struct stream_entry *place(const struct stream_log *l, uint64_t seq)
{
    return &l->ring[(l->head + (size_t)(seq - l->first)) & (l->cap - 1)];
}

static void make_room(struct stream_log *l, size_t n)
{
    size_t cap = l->cap;
    while (cap < n)
        cap *= 2;
    if (cap == l->cap)
        return;
    struct stream_entry *ring = mem_alloc(cap * sizeof *ring);
    for (size_t i = 0; i < l->n; i++)
        ring[i] = *place(l, l->first + i);
    free(l->ring);
    l->ring = ring;
    l->cap = cap;
    l->head = 0;
}

/* What is at its time may be there only in part from now on. */
static void forget_first(struct stream_log *l)
{
    struct stream_entry *e = place(l, l->first);
    l->begin = ts_max(l->begin, e->pos.t + 1);
    l->bytes -= entry_bytes(e);
    post(l, e, l->first, stream_posts_drop);
    free(e->names);
    l->head = (l->head + 1) & (l->cap - 1);
    l->first++;
    l->n--;
}

struct stream_log *stream_log_new(size_t max_bytes, uint32_t keep_s)
{
    struct stream_log *l = mem_zero(1, sizeof *l);
    l->max_bytes = max_bytes;
    l->keep_s = keep_s;
    l->begin = UINT64_MAX;
    l->first = UINT64_C(1) << 48; /* older ones can be put in front */
    l->cap = FIRST_CAP;
    l->ring = mem_alloc(l->cap * sizeof *l->ring);
    l->posts = stream_posts_new();
    return l;
}

static void forget_all(struct stream_log *l)
{
    while (l->n > 0)
        forget_first(l);
}

void stream_log_free(struct stream_log *l)
{
    if (l == NULL)
        return;
    forget_all(l);
    stream_posts_free(l->posts);
    free(l->ring);
    free(l);
}

void stream_log_begin(struct stream_log *l, ts_t from)
{
    forget_all(l);
    l->begin = from;
    l->last = (struct stream_pos){0};
}

void stream_log_expire(struct stream_log *l, ts_t t)
{
    while (l->n > 0 && ts_seconds(place(l, l->first)->pos.t) + l->keep_s < ts_seconds(t))
        forget_first(l);
}

/* ---- adding ---- */

static bool is_known(const struct stream_log *l, const struct change *c)
{
    if (c->t < l->last.t)
        return true;
    for (size_t i = l->n; i > 0; i--) {
        const struct stream_entry *e = place(l, l->first + i - 1);
        if (e->pos.t != c->t)
            return false;
        if (e->id == c->item && e->revision == c->revision)
            return true;
    }
    return false;
}

static void take_names(struct stream_entry *e, const struct change *c)
{
    struct packer p = {.len = 0};
    bool told = c->inserted ? c->item_told : c->topics_told;
    e->topics_known = told || c->deleted;
    e->resolved = c->inserted && c->item_told;
    e->topics_changed = c->topics_changed && !c->inserted;
    e->n_topics = told && !c->deleted ? (uint8_t)c->n_topics : 0;
    e->n_before = e->topics_changed ? (uint8_t)c->n_topics_before : 0;
    pack(&p, e->resolved ? c->publisher : "");
    for (unsigned i = 0; i < e->n_topics; i++)
        pack(&p, c->topics[i]);
    for (unsigned i = 0; i < e->n_before; i++)
        pack(&p, c->topics_before[i]);
    keep_names(e, &p);
}

bool stream_log_add(struct stream_log *l, const struct change *c)
{
    /* A replay touches an item without a new revision: nothing that a reader could see. */
    if (c->kind != CHANGE_ITEM || (c->revision == 0 && !c->deleted) || is_known(l, c))
        return false;
    make_room(l, l->n + 1);
    struct stream_entry *e = place(l, l->first + l->n);
    *e = (struct stream_entry){
        .pos = {c->t, c->t == l->last.t ? l->last.k + 1 : 1},
        .id = c->item,
        .revision = c->revision,
        .kind = c->deleted    ? STREAM_DELETE
                : c->inserted ? STREAM_ITEM
                              : STREAM_EDIT,
    };
    take_names(e, c);
    l->last = e->pos;
    post(l, e, l->first + l->n, stream_posts_add);
    l->n++;
    l->bytes += entry_bytes(e);
    stream_log_expire(l, c->t);
    while (stream_log_bytes(l) > l->max_bytes && l->n > 1)
        forget_first(l);
    return true;
}

/* Anew: to put each in front of what is there would be long. */
static void post_all(struct stream_log *l)
{
    stream_posts_free(l->posts);
    l->posts = stream_posts_new();
    for (uint64_t seq = l->first; seq < stream_log_end(l); seq++)
        post(l, place(l, seq), seq, stream_posts_add);
}

bool stream_log_join(struct stream_log *l, struct stream_log *older, ts_t upto)
{
    if (upto < l->begin)
        return false;
    while (older->n > 0 && place(older, older->first + older->n - 1)->pos.t >= l->begin) {
        struct stream_entry *e = place(older, older->first + --older->n);
        post(older, e, older->first + older->n, stream_posts_drop);
        older->bytes -= entry_bytes(e);
        free(e->names);
    }
    while (older->n > 0 && stream_log_bytes(older) + stream_log_bytes(l) > l->max_bytes)
        forget_first(older);
    make_room(l, l->n + older->n);
    l->begin = ts_min(l->begin, older->begin);
    l->bytes += older->bytes;
    l->first -= older->n;
    l->head = (l->head - older->n) & (l->cap - 1);
    for (size_t i = 0; i < older->n; i++)
        l->ring[(l->head + i) & (l->cap - 1)] = *place(older, older->first + i);
    l->n += older->n;
    post_all(l);
    older->n = older->bytes = 0;
    post_all(older);
    return true;
}

/* ---- looking ---- */

uint64_t stream_log_first(const struct stream_log *l)
{
    return l->first;
}

uint64_t stream_log_end(const struct stream_log *l)
{
    return l->first + l->n;
}

ts_t stream_log_begins(const struct stream_log *l)
{
    return l->begin;
}

size_t stream_log_bytes(const struct stream_log *l)
{
    return l->bytes + stream_posts_bytes(l->posts);
}

const struct stream_entry *stream_log_at(const struct stream_log *l, uint64_t seq)
{
    assert(seq >= l->first && seq < stream_log_end(l));
    return place(l, seq);
}

uint64_t stream_log_after(const struct stream_log *l, struct stream_pos p)
{
    uint64_t low = l->first, high = stream_log_end(l);
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (stream_pos_before(p, place(l, mid)->pos))
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

void stream_log_resolve(struct stream_log *l, uint64_t seq, const char *publisher, const char *const *topics,
                        size_t n_topics)
{
    if (seq < l->first || seq >= stream_log_end(l))
        return;
    struct stream_entry *e = place(l, seq);
    if (e->resolved)
        return;
    post(l, e, seq, stream_posts_drop);
    struct stream_names old;
    struct packer p = {.len = 0};
    stream_entry_names(e, &old);
    pack(&p, publisher);
    if (!e->topics_known)
        e->n_topics = (uint8_t)(n_topics < CHANGE_TOPICS_MAX ? n_topics : CHANGE_TOPICS_MAX);
    for (size_t i = 0; i < e->n_topics; i++)
        pack(&p, e->topics_known ? old.topics[i] : topics[i]);
    for (size_t i = 0; i < e->n_before; i++)
        pack(&p, old.before[i]);
    e->topics_known = e->resolved = true;
    l->bytes -= e->names_len;
    keep_names(e, &p);
    l->bytes += e->names_len;
    post(l, e, seq, stream_posts_add);
}
