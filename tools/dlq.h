/* dlq.h - the dead letters of a running feed-api, from a terminal: list, show, replay.
 *
 * Talks HTTP to one feed-api with an admin's key and waits for each answer. Text goes to stdout, with json
 * one JSON object a line; progress and complaints go to stderr. One thread.
 */
#ifndef FEEDMILL_TOOLS_DLQ_H
#define FEEDMILL_TOOLS_DLQ_H

#include <stdbool.h>
#include "common/err.h"

struct dlq;

struct dlq_options {
    const char *api;      /* "http://127.0.0.1:8080" or "host:port" */
    const char *key_file; /* its first line is the key */
    bool json;
};

/* dlq_open() reads the key and makes a client; ERR_INVALID: an address or file that is none. It does not
 * connect. */
int dlq_open(struct dlq **out, const struct dlq_options *o, struct err *e) MUST_USE;
void dlq_close(struct dlq *d); /* NULL is fine */

/* dlq_list() prints up to most letters (0: all), the newest first; only_open: only those not replayed. */
int dlq_list(struct dlq *d, unsigned most, bool only_open, struct err *e) MUST_USE;

int dlq_show(struct dlq *d, const char *id, struct err *e) MUST_USE;
int dlq_replay(struct dlq *d, const char *id, struct err *e) MUST_USE;

/* dlq_replay_all() replays all that are open; goes on after one that fails, and fails at the end then. */
int dlq_replay_all(struct dlq *d, struct err *e) MUST_USE;

#endif
