#include "feed-api/pulled.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/target_ids.h"
#include "feed-api/metrics.h"

#define CHAINS 4096
#define LEFT   32 /* remembered of a target */

/* What the log told of an item: it came in, it went to other topics, it was deleted. */
enum told { TOLD_IN, TOLD_OUT, TOLD_DELETED };

/* What the log told while a target was being read. */
struct event {
    item_id id;
    enum told what;
    ts_t t;
};

/* An item that went to other topics at t. Timelines that are older than t may lack it: as one of these topics
 * it may be pushed, and that has not been done in them yet. So for them it is still here. */
struct left {
    item_id id;
    ts_t t;
};

struct target {
    struct target *chain;
    TAILQ_ENTRY(target) used; /* the least recently met first */
    uint32_t hash;
    bool loading, gone; /* gone: forgotten while it was loading; its loader frees it */
    struct event *events;
    size_t n_events, events_cap;
    item_id floor; /* at or below it there may be more; 0: these are all */
    item_id *ids;  /* ascending, above the floor; keep + 1 places */
    size_t n;
    ts_t read_at;   /* what was read is not newer than this */
    ts_t left_from; /* of what went later all is remembered, once the log was told up to read_at */
    struct left *left;
    size_t n_left;
    char name[TARGET_TEXT_SIZE];
};

TAILQ_HEAD(targets, target);

struct pulled {
    size_t keep, max;
    struct metrics *metrics;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t loaded;
    struct target *chains[CHAINS];
    struct targets used;
    size_t n;
    ts_t seen; /* the log was taken in up to here, and is told from here on */
};

/* ---- targets ---- */

struct pulled *pulled_new(size_t keep, size_t max_targets, struct metrics *metrics)
{
    assert(keep >= 1 && keep < TARGET_IDS_MAX && max_targets >= 1);
    struct pulled *p = mem_zero(1, sizeof *p);
    p->keep = keep;
    p->max = max_targets;
    p->metrics = metrics;
    TAILQ_INIT(&p->used);
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->loaded, &attr);
    pthread_condattr_destroy(&attr);
    return p;
}

static uint32_t hash_of(const char *s, size_t len)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 16777619u;
    return h;
}

static struct target **place(struct pulled *p, const char *name, size_t len)
{
    uint32_t hash = hash_of(name, len);
    struct target **at = &p->chains[hash % CHAINS];
    while (*at && ((*at)->hash != hash || strncmp((*at)->name, name, len) != 0 || (*at)->name[len] != '\0'))
        at = &(*at)->chain;
    return at;
}

static struct target *find(struct pulled *p, const char *name, size_t len)
{
    return *place(p, name, len);
}

static void free_target(struct target *t)
{
    free(t->ids);
    free(t->events);
    free(t->left);
    free(t);
}

static void forget(struct pulled *p, struct target *t)
{
    struct target **at = &p->chains[t->hash % CHAINS];
    while (*at != t)
        at = &(*at)->chain;
    *at = t->chain;
    TAILQ_REMOVE(&p->used, t, used);
    p->n--;
    if (t->loading)
        t->gone = true;
    else
        free_target(t);
}

static void forget_some(struct pulled *p, const char *prefix)
{
    struct target *t, *next;
    for (t = TAILQ_FIRST(&p->used); t; t = next) {
        next = TAILQ_NEXT(t, used);
        if (strncmp(t->name, prefix, strlen(prefix)) == 0)
            forget(p, t);
    }
}

static void tell_size(struct pulled *p)
{
    metrics_set(p->metrics, M_PULLED_TARGETS, 0, (int64_t)p->n);
}

void pulled_drop_all(struct pulled *p, ts_t from)
{
    pthread_mutex_lock(&p->lock);
    forget_some(p, "");
    p->seen = from;
    tell_size(p);
    pthread_mutex_unlock(&p->lock);
}

void pulled_free(struct pulled *p)
{
    if (!p)
        return;
    pulled_drop_all(p, 0);
    pthread_cond_destroy(&p->loaded);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- items ---- */

/* The first of the ascending ids that is not below id. */
static size_t lower(const struct target *t, item_id id)
{
    size_t from = 0, to = t->n;
    if (to && t->ids[to - 1] < id) /* new items are the newest, nearly always */
        return to;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (t->ids[mid] < id)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static void remove_id(struct target *t, item_id id)
{
    size_t at = lower(t, id);
    if (at == t->n || t->ids[at] != id)
        return;
    memmove(t->ids + at, t->ids + at + 1, (t->n - at - 1) * sizeof *t->ids);
    t->n--;
}

static void add_id(struct target *t, item_id id, size_t keep)
{
    size_t at = lower(t, id);
    if (id <= t->floor || (at < t->n && t->ids[at] == id))
        return;
    memmove(t->ids + at + 1, t->ids + at, (t->n - at) * sizeof *t->ids);
    t->ids[at] = id;
    if (++t->n <= keep)
        return;
    t->floor = t->ids[0];
    memmove(t->ids, t->ids + 1, --t->n * sizeof *t->ids);
}

static void note_left(struct target *t, item_id id, ts_t when)
{
    if (!t->left)
        t->left = mem_alloc(LEFT * sizeof *t->left);
    if (t->n_left == LEFT) {
        t->left_from = t->left[0].t;
        memmove(t->left, t->left + 1, --t->n_left * sizeof *t->left);
    }
    t->left[t->n_left++] = (struct left){id, when};
}

static void apply_event(struct pulled *p, struct target *t, const struct event *x)
{
    if (!t->loading) {
        if (x->what == TOLD_IN)
            add_id(t, x->id, p->keep);
        else
            remove_id(t, x->id);
        if (x->what == TOLD_OUT)
            note_left(t, x->id, x->t);
        return;
    }
    if (t->n_events == p->keep) { /* too much happens while it is read: it is read again */
        forget(p, t);
        return;
    }
    if (t->n_events == t->events_cap) {
        t->events_cap = t->events_cap ? t->events_cap * 2 : 16;
        t->events = mem_grow(t->events, t->events_cap, sizeof *t->events);
    }
    t->events[t->n_events++] = *x;
}

static void tell(struct pulled *p, char letter, const char *name, const struct change *c, enum told what)
{
    char target[TARGET_TEXT_SIZE];
    size_t len = strlen(name);
    target[0] = letter;
    target[1] = ':';
    memcpy(target + 2, name, len + 1);
    struct target *t = find(p, target, len + 2);
    if (t)
        apply_event(p, t, &(struct event){c->item, what, c->t});
}

static bool has_topic(const struct change *c, const char *topic)
{
    for (unsigned i = 0; i < c->n_topics; i++) {
        if (strcmp(c->topics[i], topic) == 0)
            return true;
    }
    return false;
}

static void take_item(struct pulled *p, const struct change *c)
{
    if (c->item_told)
        tell(p, 'p', c->publisher, c, TOLD_IN);
    for (unsigned i = 0; i < c->n_topics && (c->item_told || c->topics_told); i++)
        tell(p, 't', c->topics[i], c, TOLD_IN);
    for (unsigned i = 0; i < c->n_topics_before; i++) {
        if (!has_topic(c, c->topics_before[i]))
            tell(p, 't', c->topics_before[i], c, c->deleted ? TOLD_DELETED : TOLD_OUT);
    }
    if (c->topics_changed && !c->topics_told && !c->deleted)
        forget_some(p, "t:"); /* it may be in any of them now */
}

void pulled_take(struct pulled *p, const struct change *c)
{
    if (c->kind != CHANGE_ITEM)
        return;
    pthread_mutex_lock(&p->lock);
    if (p->n > 0)
        take_item(p, c);
    p->seen = ts_max(p->seen, c->t);
    pthread_mutex_unlock(&p->lock);
}

/* ---- merging ---- */

/* The targets of a pull list ("\n" and each with a "\n" behind it): answers the next one and its length. */
static const char *next_name(const char **list, size_t *len)
{
    const char *name = *list + (**list == '\n');
    const char *end = strchr(name, '\n');
    if (!end || end == name)
        return NULL;
    *len = (size_t)(end - name);
    *list = end;
    return name;
}

/* out: the newest max of the descending a[na] and of t's between floor and before, each once. */
static size_t merge(const item_id *a, size_t na, const struct target *t, item_id floor, item_id before,
                    item_id *out, size_t max)
{
    size_t i = 0, j = lower(t, before), n = 0;
    while (n < max) {
        bool more = j > 0 && t->ids[j - 1] > floor;
        if (i < na && (!more || a[i] >= t->ids[j - 1])) {
            if (more && a[i] == t->ids[j - 1])
                j--;
            out[n++] = a[i++];
        } else if (more) {
            out[n++] = t->ids[--j];
        } else {
            break;
        }
    }
    return n;
}

/* Adds what left t after `time` to the k descending ids of a[max]. */
static size_t merge_left(const struct target *t, ts_t time, item_id floor, item_id before, item_id *a,
                         size_t k, size_t max)
{
    for (size_t i = 0; i < t->n_left; i++) {
        item_id id = t->left[i].id;
        size_t at = 0;
        if (t->left[i].t <= time || id <= floor || id >= before)
            continue;
        while (at < k && a[at] > id)
            at++;
        if (at == max || (at < k && a[at] == id))
            continue;
        k -= k == max;
        memmove(a + at + 1, a + at, (k - at) * sizeof *a);
        a[at] = id;
        k++;
    }
    return k;
}

static bool is_whole(const struct pulled *p, const struct target *t, ts_t time)
{
    return time >= t->left_from && (time >= t->read_at || p->seen >= t->read_at);
}

/* False when something is not held, or not for a timeline of that time. */
static bool largest_floor(struct pulled *p, const char *list, ts_t time, item_id *floor)
{
    const char *name;
    size_t len;
    while ((name = next_name(&list, &len))) {
        struct target *t = find(p, name, len);
        if (!t || t->loading || !is_whole(p, t, time))
            return false;
        if (t->floor > *floor)
            *floor = t->floor;
        TAILQ_REMOVE(&p->used, t, used);
        TAILQ_INSERT_TAIL(&p->used, t, used);
    }
    return true;
}

/* One more than n is looked for: it says that the ids do not reach down to the floor. */
static void merge_all(struct pulled *p, item_id floor, item_id before, size_t n, struct timeline *t)
{
    item_id *a = mem_alloc((n + 1) * sizeof *a), *b = mem_alloc((n + 1) * sizeof *b);
    const char *name, *list = t->pulls;
    size_t len, k = 0;
    while (k < t->n && k <= n && t->ids[k] > floor) {
        a[k] = t->ids[k];
        k++;
    }
    bool reached = t->at_floor || k < t->n || before <= floor;
    while ((name = next_name(&list, &len))) {
        const struct target *x = find(p, name, len);
        k = merge(a, k, x, floor, before, b, n + 1);
        k = merge_left(x, timeline_time(t), floor, before, b, k, n + 1);
        item_id *swap = a;
        a = b;
        b = swap;
    }
    free(b);
    free(t->ids);
    t->ids = a;
    t->at_floor = reached && k <= n;
    t->n = k < n ? k : n;
    t->floor = floor;
}

bool pulled_merge(struct pulled *p, item_id before, size_t n, struct timeline *t)
{
    item_id floor = t->floor;
    pthread_mutex_lock(&p->lock);
    bool held = largest_floor(p, t->pulls, timeline_time(t), &floor);
    if (held)
        merge_all(p, floor, before, n, t);
    pthread_mutex_unlock(&p->lock);
    return held;
}

/* ---- loading ---- */

static struct target *begin_loading(struct pulled *p, const char *name, size_t len)
{
    struct target *t = mem_zero(1, sizeof *t);
    t->hash = hash_of(name, len);
    memcpy(t->name, name, len);
    t->loading = true;
    t->chain = p->chains[t->hash % CHAINS];
    p->chains[t->hash % CHAINS] = t;
    TAILQ_INSERT_TAIL(&p->used, t, used);
    p->n++;
    while (p->n > p->max)
        forget(p, TAILQ_FIRST(&p->used));
    return t;
}

/* ids: what was read, newest first, up to keep + 1 of them. Takes the array over. */
static void end_loading(struct pulled *p, struct target *t, item_id *ids, size_t got)
{
    t->n = got < p->keep ? got : p->keep;
    t->floor = got > p->keep ? ids[p->keep] : 0;
    for (size_t i = 0; i < t->n / 2; i++) {
        item_id swap = ids[i];
        ids[i] = ids[t->n - 1 - i];
        ids[t->n - 1 - i] = swap;
    }
    t->ids = ids;
    t->loading = false;
    for (size_t i = 0; i < t->n_events; i++)
        apply_event(p, t, &t->events[i]);
    free(t->events);
    t->events = NULL;
    t->n_events = t->events_cap = 0;
}

/* With the lock, which is given up meanwhile. What the log tells from here on comes after what is read. */
static int load_one(struct pulled *p, struct mongo_conn *c, const char *name, size_t len, struct err *e)
{
    struct target *t = begin_loading(p, name, len);
    t->left_from = p->seen;
    mongo_conn_after(c, p->seen);
    pthread_mutex_unlock(&p->lock);
    item_id *ids = mem_alloc((p->keep + 1) * sizeof *ids);
    size_t got = 0;
    int rc = target_ids_newest(c, t->name, p->keep + 1, ids, &got, e);
    metrics_add(p->metrics, M_PULLED_LOADS, 0, 1);
    pthread_mutex_lock(&p->lock);
    if (rc == 0 && !t->gone) {
        t->read_at = mongo_conn_time(c);
        end_loading(p, t, ids, got);
    } else {
        free(ids);
        t->loading = false;
        if (t->gone)
            free_target(t);
        else
            forget(p, t);
    }
    pthread_cond_broadcast(&p->loaded);
    return rc;
}

static int wait_for_loader(struct pulled *p, int64_t until_ms, struct err *e)
{
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    if (pthread_cond_timedwait(&p->loaded, &p->lock, &until) == 0)
        return 0;
    return err_set(e, ERR_TIMEOUT, "a pulled target was not read in time");
}

int pulled_load(struct pulled *p, struct mongo_conn *c, const char *list, struct err *e)
{
    int64_t until_ms = clock_mono_ms() + mongo_conn_left_ms(c);
    const char *name;
    size_t len;
    int rc = 0;
    pthread_mutex_lock(&p->lock);
    while (rc == 0 && (name = next_name(&list, &len))) {
        struct target *t = find(p, name, len);
        if (!t && len < TARGET_TEXT_SIZE)
            rc = load_one(p, c, name, len, e);
        while (rc == 0 && t && t->loading) {
            rc = wait_for_loader(p, until_ms, e);
            t = find(p, name, len);
        }
    }
    tell_size(p);
    pthread_mutex_unlock(&p->lock);
    return rc;
}
