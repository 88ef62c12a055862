/* audit_judge.c - where a timeline and the truth differ. Pure.
 *
 * What scripts can leave behind, and is no fault: entries at or below the floor (late items, ignored), ids of
 * deleted items (hydration refuses them), items that came or went between the two reads (seen by looking
 * again). A floor above 0 is set where at least `cap` entries stand above it, by SCRIPT_FINISH and by
 * trimming; after that entries only leave by SCRIPT_REMOVE, which counts them.
 */
#include "common/audit_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* No cluster has given out a time before change streams could be read by it: 2018-06-26. */
#define LEAST_SECONDS 1530000000u

const char *audit_kind_name(enum audit_kind k)
{
    static const char *const names[AUDIT_KINDS] = {
        [AUDIT_MISSING] = "missing",
        [AUDIT_EXTRA] = "extra",
        [AUDIT_WRONG_SCORE] = "wrong_score",
        [AUDIT_FLOOR_TOO_HIGH] = "floor_too_high",
        [AUDIT_LOST_PULL_ENTRY] = "lost_pull_entry",
        [AUDIT_WRONG_R] = "wrong_r",
        [AUDIT_WRONG_COUNT] = "wrong_count",
        [AUDIT_FOREIGN_ID] = "foreign_id",
        [AUDIT_WRONG_MUTES] = "wrong_mutes",
    };
    return k < AUDIT_KINDS ? names[k] : "unknown";
}

const char *audit_verdict_name(enum audit_verdict v)
{
    static const char *const names[AUDIT_VERDICTS] = {"intact", "wrong", "absent", "unjudged"};
    return v < AUDIT_VERDICTS ? names[v] : "unknown";
}

bool audit_listed(const char *pulls, const char *target)
{
    size_t n = strlen(target);
    for (const char *p = pulls; (p = strstr(p, target)); p++) {
        if (p > pulls && p[-1] == '\n' && p[n] == '\n')
            return true;
    }
    return false;
}

static struct audit_finding *add(struct audit_list *l, enum audit_kind kind, const char *what,
                                 int64_t evidence)
{
    static _Thread_local struct audit_finding beyond;
    struct audit_finding *f = &beyond;
    if (l->n < AUDIT_CANDIDATES_MAX)
        f = &l->at[l->n++];
    else
        l->more = true;
    memset(f, 0, sizeof *f);
    f->kind = kind;
    snprintf(f->what, sizeof f->what, "%s", what);
    f->evidence = evidence;
    return f;
}

static struct audit_finding *add_id(struct audit_list *l, enum audit_kind kind, item_id id, int64_t evidence)
{
    char text[ITEM_ID_TEXT_SIZE];
    ids_format(id, text);
    return add(l, kind, text, evidence);
}

static void tell(struct audit_finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void tell(struct audit_finding *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->detail, sizeof f->detail, fmt, ap);
    va_end(ap);
}

bool audit_r_wrong(const struct audit_view *v, ts_t now, char *why, size_t size)
{
    const char *text = NULL;
    if (v->r == 0)
        text = "it is no time of MongoDB";
    else if (ts_seconds(v->r) < LEAST_SECONDS)
        text = "it is earlier than any time of MongoDB";
    else if (v->r > v->stamp)
        text = "it is later than the stamp of its bucket, the latest R there";
    else if (now != 0 && v->r > now)
        text = "it is later than MongoDB's present time";
    if (text && size)
        snprintf(why, size, "%s", text);
    return text != NULL;
}

static void judge_r(const struct audit_view *v, const struct audit_truth *t, struct audit_list *l)
{
    char why[100];
    if (!audit_r_wrong(v, t->now, why, sizeof why))
        return;
    struct audit_finding *f = add(l, AUDIT_WRONG_R, v->r_text, 0);
    f->sure = true;
    tell(f, "%s", why);
}

static void judge_members(const struct audit_view *v, struct audit_list *l)
{
    for (size_t i = 0; i < v->n_foreign; i++) {
        struct audit_finding *f = add(l, AUDIT_FOREIGN_ID, v->foreign[i], 0);
        f->sure = true;
        tell(f, "this member is no id");
    }
    for (size_t i = 0; i < v->n; i++) {
        const struct audit_entry *x = &v->entries[i];
        /* Below the floor it does not count, as long as it stands there. */
        if (x->score == -(double)x->id || (x->id <= v->floor && x->score >= -(double)v->floor))
            continue;
        struct audit_finding *f = add_id(l, AUDIT_WRONG_SCORE, x->id, 0);
        f->sure = true;
        tell(f, "it stands at %.17g", x->score);
    }
}

static void judge_entry(item_id id, const struct audit_truth *t, struct audit_list *l)
{
    const struct audit_item *it = audit_truth_item(t, id);
    if (!it || (it->exists && (it->belongs || !it->live)))
        return;
    if (!it->exists)
        tell(add_id(l, AUDIT_FOREIGN_ID, id, 0), "there is no such item");
    else
        tell(add_id(l, AUDIT_EXTRA, id, it->revision),
             "the reader follows neither its publisher nor a topic of it");
}

/* Answers how many are missing. */
static size_t judge_newest(const struct audit_truth *t, struct audit_list *l)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_newest; i++) {
        const struct audit_item *it = audit_truth_item(t, t->newest[i]);
        if (!it || !it->live || !it->owed) /* it is there, or it left meanwhile */
            continue;
        tell(add_id(l, AUDIT_MISSING, it->id, it->revision),
             "it belongs to the feed, and is above the floor");
        n++;
    }
    return n;
}

static void judge_floor(const struct audit_view *v, size_t above, int64_t cap, struct audit_list *l)
{
    struct audit_finding *f = NULL;
    if (!v->floor_ok) {
        f = add(l, v->floor_text[0] == '-' ? AUDIT_FLOOR_TOO_HIGH : AUDIT_WRONG_SCORE, "f", 0);
        tell(f, "the floor's score is %s, minus an id or 0 is expected", v->floor_text);
    } else if (v->floor > 0 && (int64_t)above + v->removed < cap) {
        f = add_id(l, AUDIT_FLOOR_TOO_HIGH, v->floor, 0);
        tell(f, "%zu entries above it and %" PRId64 " removed; nothing raises it with fewer than %" PRId64,
             above, v->removed, cap);
    }
    if (f)
        f->sure = true;
}

static void judge_pulls(const struct audit_view *v, const struct audit_truth *t, struct audit_list *l)
{
    char target[AUDIT_WHAT_SIZE];
    for (size_t i = 0; i < t->n_follows; i++) {
        const struct audit_follow *f = &t->follows[i];
        if (f->pulled && !f->listed)
            tell(add(l, AUDIT_LOST_PULL_ENTRY, f->target, f->rev), "it is pulled, and not on the pull list");
    }
    for (const char *p = v->pulls; *p != '\0';) {
        size_t n = strcspn(p, "\n");
        if (n > 0 && n < sizeof target) {
            memcpy(target, p, n);
            target[n] = '\0';
            if (!audit_truth_follow(t, target))
                tell(add(l, AUDIT_EXTRA, target, t->user_rev),
                     "it is on the pull list, and the reader does not follow it");
        }
        p += n + (p[n] == '\n');
    }
}

void audit_compare(const struct audit_view *v, const struct audit_truth *t, int64_t cap,
                   struct audit_list *out)
{
    size_t above = 0;
    out->n = 0;
    out->more = false;
    judge_r(v, t, out);
    judge_members(v, out);
    for (size_t i = 0; i < v->n; i++) {
        if (v->entries[i].id <= v->floor)
            continue;
        above++;
        judge_entry(v->entries[i].id, t, out);
    }
    above += judge_newest(t, out);
    judge_floor(v, above, cap, out);
    judge_pulls(v, t, out);
    if (strcmp(v->mutes, t->mutes) != 0)
        tell(add(out, AUDIT_WRONG_MUTES, "", t->user_rev),
             "%zu bytes of mutes beside the timeline, %zu in MongoDB", strlen(v->mutes), strlen(t->mutes));
}

static bool same(const struct audit_finding *a, const struct audit_finding *b)
{
    return a->kind == b->kind && a->evidence == b->evidence && strcmp(a->what, b->what) == 0;
}

void audit_agree(const struct audit_list *before, struct audit_list *now)
{
    size_t kept = 0;
    for (size_t i = 0; i < now->n; i++) {
        bool found = false;
        for (size_t k = 0; k < before->n && !found; k++)
            found = same(&before->at[k], &now->at[i]);
        if (found)
            now->at[kept++] = now->at[i];
    }
    now->n = kept;
}
