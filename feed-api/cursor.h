/* cursor.h - where a page ended, as an opaque string that the client gives back.
 *
 * A cursor is packed bytes and an HMAC-SHA256 over them, in base64url: it can't be made or changed by a
 * client, holds no secret, needs nothing kept on the server, and is valid as long as the key is (which lies
 * in MongoDB, so restarts and other processes don't matter). It is bound to what it was made for: opening it
 * for another route, scope, order or profile is an error of the client. Pure; any thread.
 */
#ifndef FEEDMILL_CURSOR_H
#define FEEDMILL_CURSOR_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/ids.h"
#include "common/names.h"
#include "common/ts.h"

enum cursor_route {
    CURSOR_FEED = 1,        /* scope: the reader */
    CURSOR_PUBLISHER_ITEMS, /* scope: the publisher */
    CURSOR_TOPIC_ITEMS,     /* scope: the topic */
    CURSOR_FOLLOWS,         /* scope: the user */
    CURSOR_MUTES,           /* scope: the user */
    CURSOR_PUBLISHERS,      /* scope: the prefix asked for, "" for all */
    CURSOR_TOPICS,          /* the same */
    CURSOR_NEWEST,          /* not a place to go on from: what `newest` holds (scope: the reader; newest) */
    CURSOR_DEAD_LETTERS,    /* scope: none */
    CURSOR_ROUTE_N
};

enum cursor_order { CURSOR_LATEST, CURSOR_RANKED };

#define CURSOR_KEY_SIZE     32
#define CURSOR_SCOPE_SIZE   257 /* a name or a prefix of one, and the NUL */
#define CURSOR_SESSION_SIZE 65
#define CURSOR_LAST_SIZE    272
#define CURSOR_TEXT_SIZE    1400 /* the longest sealed cursor and the NUL */

/* Strings are NUL-terminated; fields a route has no use for stay zero. Zero the struct before filling it. */
struct cursor {
    enum cursor_route route;
    enum cursor_order order;
    char scope[CURSOR_SCOPE_SIZE];
    char profile[NAME_MAX_BYTES + 1];   /* feed: "" is the default one */
    char session[CURSOR_SESSION_SIZE];  /* ranked: the frozen order */
    char fallback[CURSOR_SESSION_SIZE]; /* feed: asked for ranked, goes on in time order, because of this */
    char chain[CURSOR_SESSION_SIZE]; /* ranked: the first session of this paging, under which what was served
                                        is kept */
    uint32_t served;                 /* ranked: so many were handed out in all sessions of the chain */
    uint32_t place;                  /* ranked: the next place in the session */
    ts_t basis;                      /* ranked: time of the graph that the session was made from */
    item_id last;                    /* pages of items: what follows is older than this */
    char last_key[CURSOR_LAST_SIZE]; /* listings: what follows comes after this; the listing's own business
                                        (binary free) */
    int64_t last_number;  /* listings that are ordered by a number first (followers): that of the last row */
    ts_t freshness;       /* of the first page; acts as `position` later on */
    item_id newest;       /* of the first page */
    item_id after;        /* feed: only what is newer; 0: everything */
    ts_t after_freshness; /* feed: of the page whose `newest` was given as `after` */
};

/* cursor_seal() writes c as text into out (at least CURSOR_TEXT_SIZE bytes); key is CURSOR_KEY_SIZE bytes
 * (app->cursor_key). */
void cursor_seal(const unsigned char key[CURSOR_KEY_SIZE], const struct cursor *c,
                 char out[CURSOR_TEXT_SIZE]);

/* cursor_open() reads text back; ERR_INVALID for anything that cursor_seal() did not make with this key, and
 * for another route or scope than given. Order, profile and session are for the caller to compare. *out is
 * untouched on failure. */
int cursor_open(const unsigned char key[CURSOR_KEY_SIZE], const char *text, enum cursor_route route,
                const char *scope, struct cursor *out, struct err *e) MUST_USE;

#endif
