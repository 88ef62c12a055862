/* audit_scan.h - which timelines are looked at: all of them, or some by chance. Main thread only.
 */
#ifndef FEEDMILL_TOOLS_AUDIT_SCAN_H
#define FEEDMILL_TOOLS_AUDIT_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/names.h"
#include "common/redis.h"

struct audit_scan;

/* audit_scan_new(): sample 0: all; else so many different ones by chance, or all if there are not as many. r
 * is borrowed. */
struct audit_scan *audit_scan_new(struct redis *r, size_t sample);
void audit_scan_free(struct audit_scan *s);

/* audit_scan_next() answers 1 with the next user, 0 at the end, -1 on an error (and may be called again). Of
 * all, a few may come twice, when Redis moves its table meanwhile. */
int audit_scan_next(struct audit_scan *s, char user[NAME_MAX_BYTES + 1], struct err *e) MUST_USE;

/* audit_scan_total() guesses how many there will be in all, when done were answered; 0: no idea yet. */
uint64_t audit_scan_total(const struct audit_scan *s, uint64_t done);

#endif
