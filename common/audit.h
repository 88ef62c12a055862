/* audit.h - whether what lies in Redis of a reader is what MongoDB says.
 *
 * A check reads a timeline with its bucket's record in one transaction, then the truth. The two are of
 * different moments, so a difference is only a candidate: it is a finding when, after the bucket's progress
 * has passed the time at which the truth was read, a second look at both shows it again, with the item's
 * revision, the reader's follows and the timeline's R unchanged in between. So an intact world has no
 * findings, however busy it is. What can't be settled within the deadline (fanout stands still, the timeline
 * is rebuilt again and again) is unjudged. An absent timeline is right at any time.
 *
 * Used by fanout's sampler and by tools/audit. It reads MongoDB by itself and not by the code that makes
 * timelines, so that a fault there is not repeated here. Blocking; a struct audit is for one thread.
 */
#ifndef FEEDMILL_AUDIT_H
#define FEEDMILL_AUDIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/mongo.h"
#include "common/names.h"
#include "common/redis.h"

enum audit_kind {
    AUDIT_MISSING,     /* an item above the floor belongs to the feed, and no pull list brings it */
    AUDIT_EXTRA,       /* a live item above the floor, or a pulled target, that nothing followed asks for */
    AUDIT_WRONG_SCORE, /* a member that does not stand at -id */
    AUDIT_FLOOR_TOO_HIGH,  /* fewer entries above the floor than whatever raises it leaves there */
    AUDIT_LOST_PULL_ENTRY, /* a followed target is pulled, and not on the pull list */
    AUDIT_WRONG_R,     /* R that no script can have written: later than its bucket's stamp or now, no time */
    AUDIT_WRONG_COUNT, /* a target's followers are not as many as its edges */
    AUDIT_FOREIGN_ID,  /* a member that is no id, or of no item that ever was */
    AUDIT_WRONG_MUTES, /* another list of mutes than the reader's */
    AUDIT_KINDS
};
/* The same in words, in order: for a metric's label. */
#define AUDIT_KIND_NAMES                                                                                     \
    "missing,extra,wrong_score,floor_too_high,lost_pull_entry,wrong_r,wrong_count,foreign_id,wrong_mutes"
const char *audit_kind_name(enum audit_kind k); /* "missing"; static */

enum audit_verdict { AUDIT_INTACT, AUDIT_WRONG, AUDIT_ABSENT, AUDIT_UNJUDGED, AUDIT_VERDICTS };
#define AUDIT_VERDICT_NAMES "intact,wrong,absent,unjudged"
const char *audit_verdict_name(enum audit_verdict v); /* static */

#define AUDIT_WHAT_SIZE    (TARGET_TEXT_SIZE + 1)
#define AUDIT_DETAIL_SIZE  160
#define AUDIT_FINDINGS_MAX 64 /* of one timeline; more are counted only */
#define AUDIT_R_SIZE       40

struct audit_finding {
    enum audit_kind kind;
    char what[AUDIT_WHAT_SIZE];     /* the id, the target or the member, as text */
    char detail[AUDIT_DETAIL_SIZE]; /* for people */
    int64_t evidence;               /* private: has to be the same at both looks */
    bool sure;                      /* private: no script leaves this at any moment */
};

struct audit_report {
    char user[NAME_MAX_BYTES + 1];
    enum audit_verdict verdict;
    size_t n; /* of findings; only with AUDIT_WRONG */
    struct audit_finding findings[AUDIT_FINDINGS_MAX];
    bool more;            /* there were more than these */
    char why[200];        /* AUDIT_UNJUDGED */
    char r[AUDIT_R_SIZE]; /* R of what was judged, as it stands in Redis: for audit_repair() */
};

struct audit_options {
    struct mongo *mongo; /* borrowed; one client of it is taken while there is something to do */
    struct redis_address redis;
    int64_t redis_timeout_ms; /* 0: 1,000 */
    int64_t deadline_ms;      /* of one check, 100 to 600,000 */
    const atomic_bool *stop;  /* may be NULL; once true, checks end soon, unjudged */
};

struct audit;

struct audit *audit_new(const struct audit_options *o); /* connects with the first check */
void audit_free(struct audit *a);                       /* NULL is fine */

/* audit_timeline() checks the timeline of user (a name as names_check() wants it) and fills *out.
 * ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_BUSY of a server: nothing is known then. */
int audit_timeline(struct audit *a, const char *user, struct audit_report *out, struct err *e) MUST_USE;

/* audit_repair() drops the timeline that a report found wrong, unless it was rebuilt since (then *dropped is
 * false, and it is right): the next read rebuilds it. */
int audit_repair(struct audit *a, const struct audit_report *r, bool *dropped, struct err *e) MUST_USE;

/* audit_redis() and audit_conn() are the check's own connections, for looking for timelines and targets
 * between checks. audit_conn() answers a client with the deadline of one check from now; ERR_UNAVAILABLE,
 * ERR_BUSY. */
struct redis *audit_redis(struct audit *a);
int audit_conn(struct audit *a, struct mongo_conn **out, struct err *e) MUST_USE;

#endif
