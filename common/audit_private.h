/* audit_private.h - what the audit_*.c files share: a timeline as it lies in Redis, what MongoDB says of its
 * reader, and the comparison of the two. Nobody else includes it, but the tests. */
#ifndef FEEDMILL_AUDIT_PRIVATE_H
#define FEEDMILL_AUDIT_PRIVATE_H

#include "common/audit.h"
#include "common/buf.h"
#include "common/ids.h"
#include "common/ts.h"

/* ---- the timeline: audit_view.c ---- */

#define AUDIT_MEMBERS_MAX 20100 /* more than --timeline-entries can ask for; a larger set can't be judged */
#define AUDIT_FOREIGN_MAX 16

struct audit_entry {
    item_id id;
    double score;
};

/* Texts are kept as they are: what does not parse is what is looked for. */
struct audit_view {
    bool has_record; /* progress, born and stamp read as times */
    ts_t progress, born, stamp;
    bool exists; /* both keys, with R, a state and a floor */
    bool ready;
    char r_raw[AUDIT_R_SIZE];  /* as it is, cut */
    char r_text[AUDIT_R_SIZE]; /* for people */
    ts_t r;                    /* 0: r_text is no time */
    char *mutes, *pulls;       /* owned; "" for none */
    int64_t removed;           /* members that left since it was built */
    char floor_text[40];
    bool floor_ok;
    item_id floor;               /* 0 when it does not parse */
    struct audit_entry *entries; /* owned; in the set's order, floor and foreign members left out */
    size_t n;
    char foreign[AUDIT_FOREIGN_MAX][AUDIT_WHAT_SIZE]; /* members that are no id, cut */
    size_t n_foreign;
    bool too_many;
};

int audit_view_read(struct redis *r, const char *user, struct audit_view *out, struct err *e) MUST_USE;
void audit_view_done(struct audit_view *v);

/* Whether feed-api may serve from it: else it is as good as absent. */
bool audit_view_counts(const struct audit_view *v);

/* audit_progress() reads how far the user's bucket is; 0: no record. */
int audit_progress(struct redis *r, const char *user, ts_t *out, struct err *e) MUST_USE;

/* ---- the truth: audit_truth.c ---- */

#define AUDIT_FOLLOWS_MAX 100000 /* ten times what --max-follows allows by default */
#define AUDIT_MUTES_MAX   (1024 * 1024)
#define AUDIT_CHUNK       200 /* values of an $in whose index scans MongoDB still merges */
#define AUDIT_SLACK       64  /* how many more ids are read than the set has */

/* A target that the reader follows. */
struct audit_follow {
    const char *target; /* "p:name" */
    bool pulled;        /* MongoDB says so */
    int64_t rev;        /* of a pulled one's document: it grows with each turn */
    bool listed;        /* on the timeline's pull list */
};

struct audit_item {
    item_id id;
    bool exists, live;
    int64_t revision;
    bool belongs; /* to the feed, by any target */
    bool owed;    /* by one whose items are delivered */
};

struct audit_truth {
    ts_t now;                     /* asked for before anything else was read */
    int64_t user_rev;             /* read before the rest */
    struct audit_follow *follows; /* owned; by target in byte order */
    size_t n_follows;
    bool too_many;
    struct buf names; /* their memory */
    char *mutes;      /* owned */
    item_id *newest;  /* owned; the feed's above the floor as far as delivered, newest first, some */
    size_t n_newest;
    struct audit_item *items; /* owned; by id: of the set those not among newest, and the other way round */
    size_t n_items;
};

/* audit_truth_read() reads what is needed to judge v; c has its deadline. */
int audit_truth_read(struct mongo_conn *c, const char *user, const struct audit_view *v,
                     struct audit_truth *out, struct err *e) MUST_USE;
void audit_truth_done(struct audit_truth *t); /* a zeroed one is fine */

/* audit_items_read() reads the items of it, when the follows are there: audit_items.c. */
int audit_items_read(struct mongo_conn *c, const struct audit_view *v, struct audit_truth *t,
                     struct err *e) MUST_USE;

/* audit_user_rev() reads the number that grows with each change of follows or mutes; 0: there was none. */
int audit_user_rev(struct mongo_conn *c, const char *user, int64_t *out, struct err *e) MUST_USE;

const struct audit_item *audit_truth_item(const struct audit_truth *t, item_id id);
const struct audit_follow *audit_truth_follow(const struct audit_truth *t, const char *target);

/* audit_cap() reads the least number of entries that timelines were ever trimmed to; 0: none was yet. */
int audit_cap(struct mongo_conn *c, int64_t *out, struct err *e) MUST_USE;

/* ---- the comparison: audit_judge.c, pure ---- */

/* More than are reported: what was published between the two reads comes first, and must not crowd out what
 * is wrong. */
#define AUDIT_CANDIDATES_MAX 1024

struct audit_list {
    size_t n;
    struct audit_finding at[AUDIT_CANDIDATES_MAX];
    bool more;
};

/* audit_compare() lists the differences between a view that counts and the truth read for it. cap as
 * audit_cap() has it. */
void audit_compare(const struct audit_view *v, const struct audit_truth *t, int64_t cap,
                   struct audit_list *out);

/* audit_agree() keeps of now what was the same before. */
void audit_agree(const struct audit_list *before, struct audit_list *now);

/* audit_r_wrong() says whether no script can have written this R, and why. now 0: not known. */
bool audit_r_wrong(const struct audit_view *v, ts_t now, char *why, size_t size);

/* pull lists: whether target is on the list, as text "\np:a\nt:b\n". */
bool audit_listed(const char *pulls, const char *target);

#endif
