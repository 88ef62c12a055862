/* leases.h - the documents of `shares` and `members`: what is asked of MongoDB about them, one call each.
 *
 * Expiry is judged by MongoDB's clock ($$NOW), so that the clocks of the machines don't matter. No state, no
 * decisions: those are in shares.c, which also sees to it that one thread at a time is here. Each call
 * blocks, until the conn's deadline at most. ERR_UNAVAILABLE, ERR_TIMEOUT.
 */
#ifndef FEEDMILL_FANOUT_LEASES_H
#define FEEDMILL_FANOUT_LEASES_H

#include "common/member_state.h"
#include "common/mongo.h"
#include "fanout/buckets.h"

struct leases {
    struct mongo_conn *conn; /* borrowed */
    const char *name;        /* of this fanout; borrowed */
    int64_t lease_ms;
};

/* What MongoDB says about one share. */
struct lease {
    bool there, expired, mine;
    int64_t epoch;
};

int leases_ensure(const struct leases *l, struct err *e) MUST_USE; /* makes the documents that are missing */

/* leases_sign_on() says that this fanout is alive, and how it is (NULL: nothing of that); leases_sign_off()
 * that it is not alive any more. */
int leases_sign_on(const struct leases *l, const struct member_state *state, struct err *e) MUST_USE;
int leases_sign_off(const struct leases *l, struct err *e) MUST_USE;

/* leases_count_members() counts those alive, at least 1, and how many of them come before this one by name.
 */
int leases_count_members(const struct leases *l, unsigned *members, unsigned *rank, struct err *e) MUST_USE;

int leases_read(const struct leases *l, struct lease out[SHARES], struct err *e) MUST_USE;

/* leases_renew() renews the leases with an epoch other than 0, each only if it is still held under that
 * epoch: leases_read() tells which. */
int leases_renew(const struct leases *l, const int64_t epochs[SHARES], struct err *e) MUST_USE;

/* leases_take() takes a share that is expired, or stands under this name, and had this epoch when it was
 * read. leases_retake() takes one that is held under epoch again, above `least`. Both: 1 with the new epoch
 * in *out, 0 when somebody else was faster. */
int leases_take(const struct leases *l, unsigned share, int64_t epoch, int64_t *out, struct err *e) MUST_USE;
int leases_retake(const struct leases *l, unsigned share, int64_t epoch, int64_t least, int64_t *out,
                  struct err *e) MUST_USE;

int leases_release(const struct leases *l, unsigned share, int64_t epoch, struct err *e) MUST_USE;

#endif
