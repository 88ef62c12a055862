/* metrics.h - counters, gauges and histograms, declared once as table rows, in Prometheus' text format.
 *
 * Each process has one table and an enum of its rows. Updates are relaxed atomics: any thread, no lock. Names
 * have base units (seconds, bytes) and counters end in _total. A row may have one label whose values are a
 * fixed list; never a user or an id.
 *
 *   enum { M_REQUESTS, M_LATENCY, M_N };
 *   static const struct metric_row rows[] = {
 *       [M_REQUESTS] = {"feedmill_http_requests_total", METRIC_COUNTER, "Requests answered.", "class",
 * "1xx,2xx,3xx,4xx,5xx"}, [M_LATENCY] = {"feedmill_http_request_seconds", METRIC_HISTOGRAM, "Time to
 * answer.", NULL, NULL},
 *   };
 */
#ifndef FEEDMILL_METRICS_H
#define FEEDMILL_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_row {
    const char *name;
    enum metric_type type;
    const char *help;
    const char *label;  /* NULL: none */
    const char *values; /* by commas; in the order of the index given on update */
};

struct metrics;

/* metrics_new() reads the table (not copied; must live as long). Histograms count microseconds and are
 * printed in seconds, with bounds 0.0005 to 10 (1-2.5-5 steps). */
struct metrics *metrics_new(const struct metric_row *rows, size_t n);
void metrics_free(struct metrics *m);

/* All take m = NULL as "not counted". value is the index in the row's list, 0 for rows without a label; an
 * index beyond the list is counted at the last one. */
void metrics_add(struct metrics *m, size_t row, size_t value, int64_t n);
void metrics_set(struct metrics *m, size_t row, size_t value, int64_t v);
void metrics_observe_us(struct metrics *m, size_t row, size_t value, int64_t us);
int64_t metrics_get(const struct metrics *m, size_t row, size_t value); /* histograms: the count */

/* metrics_render() appends the exposition: rows, then process_resident_memory_bytes, process_open_fds,
 * process_start_time_seconds, feedmill_build_info{version=...}. */
void metrics_render(const struct metrics *m, struct buf *out);

#endif
