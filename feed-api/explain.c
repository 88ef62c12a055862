#include "feed-api/explain.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/mutes.h"

#define SUMMARY_MAX  16384
#define SUMMARY_MOST 4 /* mutes that the sentence names; the rest is counted */

/* ---- why ---- */

static void add_follow(struct explain *x, const struct follow_set *follows, enum target_kind kind,
                       const char *name)
{
    char target[TARGET_TEXT_SIZE];
    if (x->n_follows == EXPLAIN_FOLLOWS_MAX || strlen(name) > NAME_MAX_BYTES)
        return;
    target_format(kind, name, target);
    if (follow_set_has(follows, target))
        memcpy(x->follows[x->n_follows++], target, sizeof target);
}

/* Each mute is asked by itself, so that what hides an item here is what hides it on a page. */
static void add_mutes(struct explain *x, const char *mutes, struct content_entry *item)
{
    for (const char *line = mutes ? mutes : ""; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char *one = mem_strndup(line, strcspn(line, "\n"));
        struct mutes m;
        mutes_parse(one, &m);
        bool hides = mutes_hide(&m, item);
        mutes_done(&m);
        if (!hides) {
            free(one);
            continue;
        }
        x->mutes = mem_grow(x->mutes, x->n_mutes + 1, sizeof *x->mutes);
        x->mutes[x->n_mutes++] = one;
    }
}

void explain_decide(const struct follow_set *follows, const char *mutes, struct content_entry *item,
                    struct explain *out)
{
    memset(out, 0, sizeof *out);
    out->id = item->id;
    out->deleted = item->deleted;
    add_follow(out, follows, TARGET_PUBLISHER, item->publisher);
    for (unsigned i = 0; i < item->n_topics; i++)
        add_follow(out, follows, TARGET_TOPIC, item->topics[i]);
    add_mutes(out, mutes, item);
    out->in_feed = !out->deleted && out->n_follows > 0 && out->n_mutes == 0;
}

void explain_done(struct explain *x)
{
    for (size_t i = 0; i < x->n_mutes; i++)
        free(x->mutes[i]);
    free(x->mutes);
    memset(x, 0, sizeof *x);
}

/* ---- how ---- */

enum explain_state explain_state_of(const struct timeline *t, const struct timeline_question *q)
{
    if (!t)
        return EXPLAIN_UNKNOWN;
    if (!t->exists)
        return EXPLAIN_ABSENT;
    if (!t->ready)
        return EXPLAIN_BUILDING;
    return timeline_decide(t, q) == TIMELINE_USABLE ? EXPLAIN_READY : EXPLAIN_OUTDATED;
}

/* The pull list has a newline before and behind each of its targets. */
static bool is_pulled(const char *pulls, const char *target)
{
    char line[TARGET_TEXT_SIZE + 2];
    snprintf(line, sizeof line, "\n%s\n", target);
    return pulls && strstr(pulls, line);
}

enum explain_delivery explain_delivery_of(const struct explain *x, const struct timeline *t,
                                          enum explain_state state, bool *holds)
{
    *holds = t && t->n > 0 && t->ids[0] == x->id;
    if (state != EXPLAIN_READY || x->id <= t->floor)
        return EXPLAIN_STORE;
    for (unsigned i = 0; i < x->n_follows && !*holds; i++)
        if (is_pulled(t->pulls, x->follows[i]))
            return EXPLAIN_PULL;
    return EXPLAIN_PUSH;
}

/* ---- the answer ---- */

static void add_target(const char *target, struct buf *out)
{
    enum target_kind kind;
    const char *name;
    if (target_split(target, &kind, &name, NULL) != 0)
        return;
    buf_printf(out, "{\"kind\":\"%s\",\"name\":", target_kind_name(kind));
    buf_add_json(out, name);
    buf_add_char(out, '}');
}

static void write_hidden_by(const struct explain *x, struct buf *out)
{
    const char *comma = "";
    buf_add_str(out, ",\"hidden_by\":[");
    if (x->deleted) {
        buf_add_str(out, "{\"kind\":\"deleted\"}");
        comma = ",";
    }
    if (x->n_follows == 0) {
        buf_printf(out, "%s{\"kind\":\"not_followed\"}", comma);
        comma = ",";
    }
    for (size_t i = 0; i < x->n_mutes; i++) {
        buf_printf(out, "%s{\"kind\":\"mute\",\"target\":", comma);
        add_target(x->mutes[i], out);
        buf_add_char(out, '}');
        comma = ",";
    }
    buf_add_char(out, ']');
}

static const char *joint(size_t i, size_t n)
{
    return i == 0 ? "" : i + 1 == n ? " and " : ", ";
}

/* "the publisher daily and the topic sport" */
static void say_target(const char *target, struct buf *out)
{
    enum target_kind kind;
    const char *name;
    if (target_split(target, &kind, &name, NULL) == 0)
        buf_printf(out, "the %s %s", target_kind_name(kind), name);
}

static void say_why_not(const struct explain *x, struct buf *out)
{
    size_t named = x->n_mutes > SUMMARY_MOST ? SUMMARY_MOST : x->n_mutes;
    size_t n = (size_t)x->deleted + (x->n_follows == 0) + (x->n_mutes > 0), at = 0;
    buf_add_str(out, "It is not in the feed: ");
    if (x->deleted)
        buf_printf(out, "%sit was deleted", joint(at++, n));
    if (x->n_follows == 0)
        buf_printf(out, "%sneither its publisher nor one of its topics is followed", joint(at++, n));
    if (named == 0)
        return;
    buf_add_str(out, joint(at, n));
    for (size_t i = 0; i < named; i++) {
        buf_add_str(out, joint(i, x->n_mutes == named ? named : named + 1));
        say_target(x->mutes[i], out);
    }
    if (x->n_mutes > named)
        buf_printf(out, " and %zu more", x->n_mutes - named);
    buf_add_str(out, x->n_mutes == 1 ? " is muted" : " are muted");
}

static void say_why(const struct explain *x, enum explain_delivery how, bool holds, struct buf *out)
{
    buf_add_str(out, "It is in the feed because ");
    for (unsigned i = 0; i < x->n_follows; i++) {
        buf_add_str(out, joint(i, x->n_follows));
        say_target(x->follows[i], out);
    }
    buf_add_str(out, x->n_follows == 1 ? " is followed; " : " are followed; ");
    if (how == EXPLAIN_STORE)
        buf_add_str(out, "pages read it from the store");
    else if (how == EXPLAIN_PULL)
        buf_add_str(out, "it has so many readers that pages add it when they are read");
    else
        buf_add_str(out, holds ? "it was pushed into the timeline" : "it is on its way into the timeline");
}

static void write_summary(const struct explain *x, enum explain_delivery how, bool holds, struct buf *out)
{
    struct buf text;
    buf_init(&text, SUMMARY_MAX);
    if (x->in_feed)
        say_why(x, how, holds, &text);
    else
        say_why_not(x, &text);
    buf_add_char(&text, '.');
    buf_add_char(&text, '\0');
    buf_add_str(out, ",\"summary\":");
    buf_add_json(out, text.data);
    buf_done(&text);
}

static void write_timeline(const struct explain_timeline *t, struct buf *out)
{
    static const char *const names[] = {"ready", "building", "outdated", "absent", "unknown"};
    buf_printf(out, ",\"timeline\":{\"state\":\"%s\"", names[t->state]);
    if (t->known) {
        char at[CLOCK_RFC3339_SIZE];
        clock_format((int64_t)ts_seconds(t->r) * 1000, at);
        buf_printf(out, ",\"floor\":\"%llu\",\"built_at\":\"%s\"", (unsigned long long)t->floor, at);
    } else {
        buf_add_str(out, ",\"floor\":null,\"built_at\":null");
    }
    buf_printf(out, ",\"holds\":%s}", t->holds ? "true" : "false");
}

void explain_write(const struct explain *x, enum explain_delivery how, const struct explain_timeline *t,
                   int64_t lag_ms, struct buf *out)
{
    static const char *const ways[] = {"push", "pull", "store"};
    buf_printf(out, "{\"item\":\"%llu\",\"in_feed\":%s,\"because\":[", (unsigned long long)x->id,
               x->in_feed ? "true" : "false");
    for (unsigned i = 0; i < x->n_follows; i++) {
        buf_add_str(out, i ? "," : "");
        add_target(x->follows[i], out);
    }
    buf_add_char(out, ']');
    write_hidden_by(x, out);
    buf_printf(out, ",\"delivery\":\"%s\"", ways[how]);
    write_timeline(t, out);
    buf_printf(out, ",\"lag_ms\":%lld,\"ranking\":null", (long long)lag_ms);
    write_summary(x, how, t->holds, out);
    buf_add_char(out, '}');
}
