#include "common/audit_pick.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/keys.h"
#include "common/mem.h"

/* The user of "tl:{b}:user", NULL for what is no key of ours. */
static const char *user_of(const redisReply *key)
{
    char own[KEY_SIZE];
    const char *user = key->type == REDIS_REPLY_STRING ? strstr(key->str, "}:") : NULL;
    if (!user || strlen(key->str) != key->len)
        return NULL;
    user += 2;
    if (names_check(user, strlen(user), NULL) != 0)
        return NULL;
    keys_timeline(own, keys_bucket(user), user);
    return strcmp(own, key->str) == 0 ? user : NULL;
}

static void take_users(struct audit_pick *p, const redisReply *keys)
{
    p->n = 0;
    if (keys->elements > p->cap) {
        p->cap = keys->elements;
        p->users = mem_grow(p->users, p->cap, sizeof *p->users);
    }
    for (size_t i = 0; i < keys->elements; i++) {
        const char *user = user_of(keys->element[i]);
        if (user)
            strcpy(p->users[p->n++], user);
    }
}

int audit_pick_step(struct audit_pick *p, struct redis *r, unsigned count, struct err *e)
{
    char cursor[24], n[16];
    redisReply *reply;
    snprintf(cursor, sizeof cursor, "%" PRIu64, p->cursor);
    snprintf(n, sizeof n, "%u", count);
    if (redis_commandf(r, &reply, e, "SCAN", cursor, "MATCH", "tl:{*", "COUNT", n, NULL) != 0)
        return -1;
    int rc = 0;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[1]->type != REDIS_REPLY_ARRAY) {
        rc = err_set(e, ERR_CORRUPT, "Redis: SCAN's answer has another shape");
    } else {
        p->cursor = strtoull(reply->element[0]->str, NULL, 10);
        p->at_end = p->cursor == 0;
        take_users(p, reply->element[1]);
    }
    freeReplyObject(reply);
    return rc;
}

void audit_pick_done(struct audit_pick *p)
{
    free(p->users);
    memset(p, 0, sizeof *p);
}

/* Redis looks at the lower bits only, as many as its table needs: 48 of them are more than enough. */
void audit_pick_jump(struct audit_pick *p)
{
    p->cursor = (uint64_t)ids_random_bits() << 16 ^ ids_random_bits();
}
