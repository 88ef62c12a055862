/* audit.h - compares what is derived with MongoDB: timelines in Redis, and followers of targets.
 *
 * What build/release/bin/audit does: takes all timelines, one user's, or a sample, checks each by
 * common/audit.h, and the counts by common/audit_counts.h; writes what it finds to stdout, progress to
 * stderr. Memory does not grow with the number of timelines. Main thread only.
 */
#ifndef FEEDMILL_TOOLS_AUDIT_H
#define FEEDMILL_TOOLS_AUDIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/config.h"
#include "common/err.h"

struct auditor_options {
    char *data, *mongodb_uri, *redis, *user;
    int64_t sample, rate, deadline_ms, count_lag_ms;
    bool all, counts, repair, json;
};

extern const struct config_row auditor_rows[];
extern const size_t auditor_rows_count;

enum auditor_result { AUDITOR_NONE = 0, AUDITOR_FOUND = 1, AUDITOR_FAILED = 2 };

/* auditor_run() does it all; it ends early when *stop becomes true, with what it has. AUDITOR_FOUND: there
 * are findings that are not repaired; AUDITOR_FAILED: *e says why, and what was checked until then is
 * reported. */
enum auditor_result auditor_run(const struct auditor_options *o, const atomic_bool *stop, struct err *e);

#endif
