/* Credentials. Known keys are kept in a table, unknown ids in a small one that forgets by itself; user tokens
 * are token.c's.
 *
 * A key that is being fetched while it is forgotten must not come back as it was: a fetch reads what is
 * certainly newer than any change told before it began (mongo_conn_fresh), which is right for the request
 * that asked, and is not kept when something was forgotten meanwhile. */
#include "feed-api/auth.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sign.h"
#include "feed-api/key_store.h"
#include "feed-api/metrics.h"
#include "feed-api/secret_file.h"
#include "feed-api/token.h"
#include "feed-api/token_ends.h"

#define KEEP_MS         60000
#define OFFLINE_KEEP_MS 3600000
#define UNKNOWN_KEEP_MS 1000
#define UNKNOWN_SLOTS   1024
#define CHAINS          1024

struct entry {
    struct entry *next;
    struct api_key key;
    int64_t fetched_ms; /* monotonic */
};

struct unknown {
    char id[KEY_ID_BYTES + 1];
    int64_t since_ms; /* monotonic */
};

struct auth {
    struct metrics *metrics;
    char *admin_key_file;
    pthread_mutex_t tokens_lock;
    struct tokens *tokens;
    struct token_ends *token_ends;

    pthread_mutex_t lock; /* of what follows */
    struct entry *chains[CHAINS];
    size_t n_entries;
    struct unknown unknown[UNKNOWN_SLOTS];
    uint64_t forgotten; /* counts auth_forget_*() */
    bool offline;
};

/* Ids are random hex, so a few of their digits are as good as a hash. */
static unsigned id_hash(const char *id)
{
    return (unsigned)strtoul(id + KEY_ID_BYTES - 7, NULL, 16);
}

int auth_new(struct auth **out, const struct auth_options *o, struct metrics *m, struct err *e)
{
    struct tokens *tokens;
    if (tokens_new(&tokens, o->jwt_keys_file, e) < 0)
        return -1;
    struct auth *a = mem_zero(1, sizeof *a);
    a->metrics = m;
    a->tokens = tokens;
    a->token_ends = token_ends_new();
    a->admin_key_file = mem_strdup(o->admin_key_file);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->tokens_lock, NULL);
    *out = a;
    return 0;
}

/* ---- the table; under the lock ---- */

static struct entry **find_entry(struct auth *a, const char *id)
{
    struct entry **at = &a->chains[id_hash(id) % CHAINS];
    while (*at != NULL && strcmp((*at)->key.id, id) != 0)
        at = &(*at)->next;
    return at;
}

static void drop_entry(struct auth *a, struct entry **at)
{
    struct entry *gone = *at;
    if (gone == NULL)
        return;
    *at = gone->next;
    api_key_done(&gone->key);
    free(gone);
    a->n_entries--;
}

static void drop_all(struct auth *a)
{
    for (size_t i = 0; i < CHAINS; i++) {
        while (a->chains[i] != NULL)
            drop_entry(a, &a->chains[i]);
    }
    memset(a->unknown, 0, sizeof a->unknown);
}

static struct unknown *unknown_slot(struct auth *a, const char *id)
{
    return &a->unknown[id_hash(id) % UNKNOWN_SLOTS];
}

void auth_free(struct auth *a)
{
    if (a == NULL)
        return;
    drop_all(a);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->tokens_lock);
    tokens_free(a->tokens);
    token_ends_free(a->token_ends);
    free(a->admin_key_file);
    free(a);
}

void auth_forget_key(struct auth *a, const char *key_id)
{
    if (strlen(key_id) != KEY_ID_BYTES)
        return;
    pthread_mutex_lock(&a->lock);
    a->forgotten++;
    drop_entry(a, find_entry(a, key_id));
    struct unknown *u = unknown_slot(a, key_id);
    if (strcmp(u->id, key_id) == 0)
        memset(u, 0, sizeof *u);
    pthread_mutex_unlock(&a->lock);
}

void auth_forget_all(struct auth *a)
{
    pthread_mutex_lock(&a->lock);
    a->forgotten++;
    drop_all(a);
    pthread_mutex_unlock(&a->lock);
}

void auth_set_offline(struct auth *a, bool offline)
{
    pthread_mutex_lock(&a->lock);
    a->offline = offline;
    pthread_mutex_unlock(&a->lock);
}

/* ---- checking ---- */

static void copy_identity(const struct identity *from, struct identity *out)
{
    *out = *from;
    out->names = NULL;
    if (from->n_names > 0) {
        out->names = mem_alloc(from->n_names * sizeof *out->names);
        memcpy(out->names, from->names, from->n_names * sizeof *out->names);
    }
}

static enum auth_answer check_known(const struct api_key *k, const unsigned char *hash, struct identity *out)
{
    if (!sign_equal(hash, k->hash, sizeof k->hash))
        return AUTH_BAD;
    if (k->expires_ms != 0 && clock_wall_ms() >= k->expires_ms)
        return AUTH_BAD;
    copy_identity(&k->who, out);
    return AUTH_OK;
}

static enum auth_answer check_key(struct auth *a, const char *text, struct identity *out)
{
    char id[KEY_ID_BYTES + 1];
    unsigned char hash[SIGN_MAC_SIZE];
    if (key_text_read(text, id, hash) < 0)
        return AUTH_BAD;
    int64_t now = clock_mono_ms();
    enum auth_answer answer = AUTH_ASK;
    pthread_mutex_lock(&a->lock);
    const struct entry *entry = *find_entry(a, id);
    const struct unknown *u = unknown_slot(a, id);
    if (entry != NULL && now - entry->fetched_ms < (a->offline ? OFFLINE_KEEP_MS : KEEP_MS))
        answer = check_known(&entry->key, hash, out);
    else if (strcmp(u->id, id) == 0 && now - u->since_ms < UNKNOWN_KEEP_MS)
        answer = AUTH_BAD;
    pthread_mutex_unlock(&a->lock);
    metrics_add(a->metrics, M_AUTH_KEY_CACHE, answer == AUTH_ASK ? MC_MISS : MC_HIT, 1);
    return answer;
}

static enum auth_answer check_token(struct auth *a, const char *text, struct identity *out)
{
    struct err e;
    struct identity who = {.role = ROLE_USER};
    pthread_mutex_lock(&a->tokens_lock);
    tokens_refresh(a->tokens, clock_mono_ms());
    int64_t issued_ms;
    int rc = tokens_open(a->tokens, text, clock_wall_ms() / 1000, who.id, &issued_ms, &e);
    pthread_mutex_unlock(&a->tokens_lock);
    if (rc == 0 && token_ends_refuses(a->token_ends, who.id, issued_ms))
        rc = err_set(&e, ERR_INVALID, "the user's tokens were ended since it was issued");
    if (rc < 0) {
        log_event(LOG_DEBUG, "token_refused", LOG_ERR(&e));
        return AUTH_BAD;
    }
    *out = who;
    return AUTH_OK;
}

/* Answers what follows "Bearer ", or NULL when it is another scheme. */
static const char *bearer(const char *authorization)
{
    static const char scheme[] = "Bearer";
    size_t n = strlen(scheme);
    if (strncasecmp(authorization, scheme, n) != 0 || authorization[n] != ' ')
        return NULL;
    return authorization + n + strspn(authorization + n, " ");
}

enum auth_answer auth_check(struct auth *a, const char *authorization, struct identity *out)
{
    if (authorization == NULL || authorization[0] == '\0')
        return AUTH_NONE;
    const char *text = bearer(authorization);
    if (text == NULL)
        return AUTH_BAD;
    return strncmp(text, "fm_", 3) == 0 ? check_key(a, text, out) : check_token(a, text, out);
}

/* ---- fetching ---- */

static uint64_t forgotten_now(struct auth *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t n = a->forgotten;
    pthread_mutex_unlock(&a->lock);
    return n;
}

/* Takes over the key (NULL: there is none with this id), unless something was forgotten since `forgotten` was
 * read: then it is freed. */
static void keep(struct auth *a, const char *id, struct api_key *key, uint64_t forgotten)
{
    pthread_mutex_lock(&a->lock);
    if (a->forgotten != forgotten) {
        if (key != NULL)
            api_key_done(key);
    } else if (key != NULL) {
        if (a->n_entries >= KEYS_MAX)
            drop_all(a);
        drop_entry(a, find_entry(a, id));
        struct entry *entry = mem_zero(1, sizeof *entry);
        entry->key = *key;
        entry->fetched_ms = clock_mono_ms();
        *find_entry(a, id) = entry;
        a->n_entries++;
    } else {
        drop_entry(a, find_entry(a, id));
        struct unknown *u = unknown_slot(a, id);
        memcpy(u->id, id, sizeof u->id);
        u->since_ms = clock_mono_ms();
    }
    pthread_mutex_unlock(&a->lock);
}

int auth_fetch(struct auth *a, struct mongo_conn *c, const char *authorization, enum auth_answer *answer,
               struct identity *out, struct err *e)
{
    char id[KEY_ID_BYTES + 1];
    unsigned char hash[SIGN_MAC_SIZE];
    const char *text = authorization != NULL ? bearer(authorization) : NULL;
    *answer = AUTH_BAD;
    if (text == NULL || key_text_read(text, id, hash) < 0)
        return 0;
    uint64_t forgotten = forgotten_now(a);
    struct api_key key;
    struct err why;
    if (mongo_conn_fresh(c, NULL, e) < 0)
        return -1;
    int rc = key_store_find(c, id, &key, &why);
    if (rc < 0 && why.code != ERR_NOT_FOUND) {
        if (e != NULL)
            *e = why;
        return -1;
    }
    if (rc == 0)
        *answer = check_known(&key, hash, out);
    keep(a, id, rc == 0 ? &key : NULL, forgotten);
    return 0;
}

/* ---- the admin key ---- */

/* The file is what counts: a key in it is an admin key, also when it was deleted or the database is a new
 * one. */
static int ensure_admin_key(struct mongo_conn *c, struct api_key *key, struct err *e)
{
    struct api_key there;
    struct err why;
    if (key_store_find(c, key->id, &there, &why) < 0) {
        if (why.code != ERR_NOT_FOUND) {
            *e = why;
            return -1;
        }
        return key_store_put(c, key, e);
    }
    bool same = sign_equal(there.hash, key->hash, sizeof key->hash) && there.who.role == ROLE_ADMIN &&
                there.expires_ms == 0;
    api_key_done(&there);
    return same ? 0 : key_store_put(c, key, e);
}

static int read_admin_key(struct auth *a, struct api_key *key, struct err *e)
{
    char *text;
    if (secret_file_read(a->admin_key_file, &text, e) < 0)
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    int rc = key_text_read(text, key->id, key->hash);
    explicit_bzero(text, strlen(text));
    free(text);
    if (rc < 0)
        return err_set(e, ERR_INVALID, "%.150s: holds no API key", a->admin_key_file);
    return 0;
}

static int make_admin_key(struct auth *a, struct err *e)
{
    struct api_key key;
    char text[KEY_TEXT_SIZE + 1];
    key_text_make(&key, text);
    strcat(text, "\n");
    int rc = secret_file_make(a->admin_key_file, text, e);
    explicit_bzero(text, sizeof text);
    if (rc == 0)
        log_event(LOG_INFO, "admin_key_made", LOG_S("file", a->admin_key_file));
    return rc;
}

int auth_bootstrap(struct auth *a, struct mongo_conn *c, struct err *e)
{
    struct err why;
    struct api_key key = {.who.role = ROLE_ADMIN, .created_ms = clock_wall_ms()};
    int rc = read_admin_key(a, &key, &why);
    if (rc < 0 && why.code == ERR_NOT_FOUND) {
        /* A conflict is another process that was faster; its key will do. */
        if (make_admin_key(a, &why) == 0 || why.code == ERR_CONFLICT)
            rc = read_admin_key(a, &key, &why);
    }
    if (rc < 0) {
        *e = why;
        return -1;
    }
    if (ensure_admin_key(c, &key, e) < 0)
        return -1;
    return token_ends_load(a->token_ends, c, e);
}

/* ---- tokens ---- */

int auth_load_token_ends(struct auth *a, struct mongo_conn *c, struct err *e)
{
    return token_ends_load(a->token_ends, c, e);
}

void auth_tokens_ended(struct auth *a, const char *id, int64_t at_ms)
{
    token_ends_take(a->token_ends, id, at_ms);
}

int auth_end_tokens(struct auth *a, struct mongo_conn *c, const char *user, struct err *e)
{
    char id[TOKEN_ENDS_ID_SIZE];
    int64_t now = clock_wall_ms();
    if (token_ends_store(c, user, now, e) < 0)
        return -1;
    token_ends_id(user, id);
    token_ends_take(a->token_ends, id, now);
    return 0;
}

int auth_sign_token(struct auth *a, const char *user, int64_t ttl_s, char **token, int64_t *expires_at,
                    struct err *e)
{
    if (ttl_s < AUTH_TTL_MIN_S || ttl_s > AUTH_TTL_MAX_S)
        return err_set(e, ERR_INVALID, "ttl_s must be %d to %d", AUTH_TTL_MIN_S, AUTH_TTL_MAX_S);
    int64_t now = clock_wall_ms();
    pthread_mutex_lock(&a->tokens_lock);
    tokens_refresh(a->tokens, clock_mono_ms());
    *token = tokens_sign_ms(a->tokens, user, now, ttl_s);
    pthread_mutex_unlock(&a->tokens_lock);
    *expires_at = now / 1000 + ttl_s;
    return 0;
}
