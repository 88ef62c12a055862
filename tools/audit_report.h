/* audit_report.h - what the audit tells: findings on stdout, as text or as JSON lines, progress on stderr.
 *
 * Main thread only.
 */
#ifndef FEEDMILL_TOOLS_AUDIT_REPORT_H
#define FEEDMILL_TOOLS_AUDIT_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include "common/audit.h"
#include "common/audit_counts.h"

struct audit_totals {
    uint64_t timelines[AUDIT_VERDICTS]; /* by verdict, before repairs */
    uint64_t kinds[AUDIT_KINDS];
    uint64_t repaired, not_repaired; /* timelines and counts */
    struct audit_counter_result counts;
    bool with_counts, stopped;
    int64_t began_ms;
};

struct audit_printer {
    bool json, terminal;
    struct audit_totals *totals;
    int64_t shown_ms; /* of the last line of progress */
    bool line_open;   /* it stands on the terminal */
};

void audit_printer_init(struct audit_printer *p, bool json, struct audit_totals *t);

/* Findings of one timeline, or why it is unjudged; nothing for one that is right. */
void audit_print_report(struct audit_printer *p, const struct audit_report *r);
void audit_print_count(struct audit_printer *p, const struct audit_count *c);

/* What became of a repair. after: the verdict of the check made then. */
void audit_print_repair(struct audit_printer *p, const char *user, bool dropped, enum audit_verdict after);
void audit_print_count_repair(struct audit_printer *p, const char *target, bool right);

/* audit_print_progress() shows how far it is, if the last time is long enough ago. done of about total (0:
 * not known) `what`. */
void audit_print_progress(struct audit_printer *p, const char *what, uint64_t done, uint64_t total);

/* audit_print_totals() ends the report. */
void audit_print_totals(struct audit_printer *p);

#endif
