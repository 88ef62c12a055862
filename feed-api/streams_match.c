/* Who is sent what of an entry, and the item that it is about. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/streams_private.h"

void pick_init(struct pick *p, uint64_t seq, const struct stream_entry *e)
{
    *p = (struct pick){.seq = seq, .entry = *e};
    p->entry.names = mem_alloc(e->names_len);
    memcpy(p->entry.names, e->names, e->names_len);
    stream_entry_names(&p->entry, &p->names);
    p->fetch = !e->resolved || e->kind != STREAM_DELETE;
}

void pick_done(struct pick *p)
{
    free(p->entry.names);
    content_unref(p->content);
    for (size_t i = 0; i < MEM_COUNT(p->frames); i++)
        frame_unref(p->frames[i]);
}

/* ---- the item ---- */

static int fetch_missing(struct streams *ss, struct pick *p, size_t n, struct err *e)
{
    item_id *ids = mem_alloc(n * sizeof *ids);
    struct content_entry **got = mem_zero(n, sizeof *got);
    struct mongo_conn *conn;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i].fetch && p[i].content == NULL)
            ids[k++] = p[i].entry.id;
    }
    int rc = 0;
    if (k > 0 && health_is_down(ss->app->health, HEALTH_MONGODB))
        rc = err_set(e, ERR_UNAVAILABLE, "MongoDB can't be reached");
    else if (k > 0 && (rc = mongo_conn_get(ss->app->mongo, &conn, e)) == 0) {
        mongo_conn_deadline(conn, STREAM_FETCH_MS);
        rc = content_fetch(ss->app->content, conn, ids, k, false, got, e);
        mongo_conn_put(conn);
    }
    k = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (p[i].fetch && p[i].content == NULL)
            p[i].content = got[k++];
    }
    free(ids);
    free(got);
    return rc;
}

int picks_fetch(struct streams *ss, struct pick *p, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i].fetch && p[i].content == NULL)
            p[i].content = content_find(ss->app->content, p[i].entry.id);
    }
    return fetch_missing(ss, p, n, e);
}

/* An item that is not there at all is nobody's. */
void pick_resolve(struct streams *ss, struct pick *p)
{
    const struct content_entry *x = p->content;
    if (p->entry.resolved || x == NULL)
        return;
    stream_log_resolve(ss->log, p->seq, x->publisher, x->topics, x->n_topics);
    p->names.publisher = x->publisher;
    if (!p->entry.topics_known) {
        p->names.n_topics = x->n_topics < CHANGE_TOPICS_MAX ? x->n_topics : CHANGE_TOPICS_MAX;
        for (size_t i = 0; i < p->names.n_topics; i++)
            p->names.topics[i] = x->topics[i];
    }
    p->entry.resolved = p->entry.topics_known = true;
}

/* ---- who ---- */

unsigned pick_met_publisher(const struct pick *p)
{
    return p->entry.kind == STREAM_ITEM     ? MET_NOW
           : p->entry.kind == STREAM_DELETE ? MET_BEFORE
                                            : MET_NOW | MET_BEFORE;
}

unsigned pick_met_topic(const struct pick *p)
{
    return p->entry.kind == STREAM_EDIT && p->entry.topics_changed ? MET_NOW : pick_met_publisher(p);
}

/* ---- what ---- */

/* By publisher and topics as they were then, and not as they are now: so what follows fits, as each change of
 * topics is told by what was before it. */
static bool is_hidden(const struct pick *p, const struct mutes *m)
{
    return mutes_hide_named(m, p->entry.id, p->names.publisher, p->names.topics, p->names.n_topics);
}

/* By a word is not known: what the former revision said is gone. */
static bool was_hidden(const struct pick *p, const struct mutes *m)
{
    bool former = p->entry.topics_changed || p->entry.kind == STREAM_DELETE;
    return mutes_hide_named(m, p->entry.id, p->names.publisher, former ? p->names.before : p->names.topics,
                            former ? p->names.n_before : p->names.n_topics);
}

/* Answers false when nothing is to be said. Of an item that was deleted since nothing is shown, for that is
 * told in its turn; but only to those whose feed it was in then, so who lost it before has to hear of that.
 */
static bool decide(const struct pick *p, unsigned met, const struct mutes *m, enum stream_kind *out)
{
    bool live = p->content != NULL && !p->content->missing && !p->content->deleted;
    bool now = (met & MET_NOW) && !is_hidden(p, m) && !(live && mutes_hide_words(m, p->content));
    bool before = (met & MET_BEFORE) && !was_hidden(p, m);
    if ((!now && !before) || (now && !live))
        return false;
    *out = !before ? STREAM_ITEM : !now ? STREAM_DELETE : STREAM_EDIT;
    return true;
}

static struct frame *make_frame(struct streams *ss, const struct pick *p, enum stream_kind kind)
{
    static const char *const events[] = {"item", "edit", "delete"};
    if (kind != STREAM_DELETE)
        return frame_new(ss, &p->entry.pos, events[kind], p->content->full, p->content->full_len);
    char *data = mem_printf("{\"id\":\"%llu\"}", (unsigned long long)p->entry.id);
    struct frame *f = frame_new(ss, &p->entry.pos, events[kind], data, strlen(data));
    free(data);
    return f;
}

struct frame *pick_frame(struct streams *ss, struct pick *p, unsigned met, const struct mutes *m)
{
    enum stream_kind kind;
    if (!decide(p, met, m, &kind))
        return NULL;
    if (p->frames[kind] == NULL)
        p->frames[kind] = make_frame(ss, p, kind);
    return p->frames[kind];
}
