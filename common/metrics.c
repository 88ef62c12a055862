#include "common/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"

static const struct {
    int64_t us;
    const char *text;
} bounds[] = {
    {500, "0.0005"},  {1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},
    {25000, "0.025"}, {50000, "0.05"},  {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},
    {1000000, "1"},   {2500000, "2.5"}, {5000000, "5"},   {10000000, "10"},
};
#define BOUNDS MEM_COUNT(bounds)
#define SUM    (BOUNDS + 1) /* the cell after the buckets and the one beyond the last bound */

/* A counter or gauge has one cell a value, a histogram BOUNDS + 2: buckets that are not cumulative (one
 * update each), and the sum. */
struct series {
    size_t first; /* cell */
    size_t width; /* cells a value */
    size_t count; /* values */
    char **values;
};

struct metrics {
    const struct metric_row *rows;
    size_t n;
    struct series *series;
    _Atomic int64_t *cells;
    double started; /* seconds since 1970 */
};

static double process_started(void)
{
    double now = (double)clock_wall_ms() / 1000;
    FILE *f = fopen("/proc/self/stat", "re");
    if (f == NULL)
        return now;
    char line[1024];
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    /* Field 22, counted from behind the name, which may hold anything. */
    const char *p = strrchr(line, ')');
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    struct timespec up;
    if (p == NULL || clock_gettime(CLOCK_BOOTTIME, &up) != 0)
        return now;
    double age = (double)up.tv_sec - strtod(p, NULL) / (double)sysconf(_SC_CLK_TCK);
    return age > 0 ? now - age : now;
}

static void series_init(struct series *s, const struct metric_row *row, size_t *cells)
{
    s->width = row->type == METRIC_HISTOGRAM ? BOUNDS + 2 : 1;
    s->first = *cells;
    if (row->label == NULL) {
        s->count = 1;
    } else {
        assert(row->values != NULL);
        for (const char *p = row->values;; p++) {
            size_t n = strcspn(p, ",");
            s->values = mem_grow(s->values, s->count + 1, sizeof *s->values);
            s->values[s->count++] = mem_strndup(p, n);
            p += n;
            if (*p == '\0')
                break;
        }
    }
    *cells += s->width * s->count;
}

struct metrics *metrics_new(const struct metric_row *rows, size_t n)
{
    struct metrics *m = mem_zero(1, sizeof *m);
    m->rows = rows;
    m->n = n;
    m->series = mem_zero(n, sizeof *m->series);
    m->started = process_started();
    size_t cells = 0;
    for (size_t i = 0; i < n; i++) {
        assert(rows[i].name != NULL && rows[i].help != NULL);
        series_init(&m->series[i], &rows[i], &cells);
    }
    m->cells = mem_zero(cells, sizeof *m->cells);
    return m;
}

void metrics_free(struct metrics *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++) {
        for (size_t v = 0; m->series[i].values != NULL && v < m->series[i].count; v++)
            free(m->series[i].values[v]);
        free(m->series[i].values);
    }
    free(m->series);
    free(m->cells);
    free(m);
}

/* The first cell of a value. */
static _Atomic int64_t *metrics_cells(const struct metrics *m, size_t row, size_t value)
{
    assert(row < m->n);
    const struct series *s = &m->series[row];
    if (value >= s->count)
        value = s->count - 1;
    return &m->cells[s->first + value * s->width];
}

static void cell_add(_Atomic int64_t *cell, int64_t n)
{
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
}

static int64_t cell_get(const _Atomic int64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

void metrics_add(struct metrics *m, size_t row, size_t value, int64_t n)
{
    if (m == NULL)
        return;
    _Atomic int64_t *cell = metrics_cells(m, row, value);
    assert(m->rows[row].type != METRIC_HISTOGRAM);
    cell_add(cell, n);
}

void metrics_set(struct metrics *m, size_t row, size_t value, int64_t v)
{
    if (m == NULL)
        return;
    _Atomic int64_t *cell = metrics_cells(m, row, value);
    assert(m->rows[row].type == METRIC_GAUGE);
    atomic_store_explicit(cell, v, memory_order_relaxed);
}

void metrics_observe_us(struct metrics *m, size_t row, size_t value, int64_t us)
{
    if (m == NULL)
        return;
    _Atomic int64_t *cell = metrics_cells(m, row, value);
    assert(m->rows[row].type == METRIC_HISTOGRAM);
    if (us < 0)
        us = 0;
    size_t i = 0;
    while (i < BOUNDS && us > bounds[i].us)
        i++;
    cell_add(&cell[i], 1);
    cell_add(&cell[SUM], us);
}

int64_t metrics_get(const struct metrics *m, size_t row, size_t value)
{
    if (m == NULL)
        return 0;
    const _Atomic int64_t *cell = metrics_cells(m, row, value);
    if (m->rows[row].type != METRIC_HISTOGRAM)
        return cell_get(cell);
    int64_t count = 0;
    for (size_t i = 0; i <= BOUNDS; i++)
        count += cell_get(&cell[i]);
    return count;
}

/* Escapes as the text format 0.0.4 wants it: quotes only within label values. */
static void add_escaped(struct buf *out, const char *s, bool label)
{
    for (; *s != '\0'; s++) {
        if (*s == '\n')
            buf_add_str(out, "\\n");
        else if (*s == '\\' || (label && *s == '"'))
            buf_printf(out, "\\%c", *s);
        else
            buf_add_char(out, *s);
    }
}

static void add_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s ", name);
    add_escaped(out, help, false);
    buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

/* Adds `name_suffix{label="value",le="bound"} `, with only those labels that there are. */
static void add_name(struct buf *out, const struct metric_row *row, const char *suffix, const char *value,
                     const char *le)
{
    buf_add_str(out, row->name);
    buf_add_str(out, suffix);
    if (value != NULL || le != NULL)
        buf_add_char(out, '{');
    if (value != NULL) {
        buf_printf(out, "%s=\"", row->label);
        add_escaped(out, value, true);
        buf_add_char(out, '"');
    }
    if (le != NULL)
        buf_printf(out, "%sle=\"%s\"", value != NULL ? "," : "", le);
    if (value != NULL || le != NULL)
        buf_add_char(out, '}');
    buf_add_char(out, ' ');
}

static void add_histogram(struct buf *out, const struct metric_row *row, const char *value,
                          const _Atomic int64_t *cell)
{
    int64_t count = 0; /* from the same reads as the buckets, so that they agree */
    for (size_t i = 0; i <= BOUNDS; i++) {
        count += cell_get(&cell[i]);
        add_name(out, row, "_bucket", value, i < BOUNDS ? bounds[i].text : "+Inf");
        buf_printf(out, "%lld\n", (long long)count);
    }
    int64_t sum = cell_get(&cell[SUM]);
    add_name(out, row, "_sum", value, NULL);
    buf_printf(out, "%lld.%06lld\n", (long long)(sum / 1000000), (long long)(sum % 1000000));
    add_name(out, row, "_count", value, NULL);
    buf_printf(out, "%lld\n", (long long)count);
}

static void add_row(struct buf *out, const struct metrics *m, size_t i)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    const struct metric_row *row = &m->rows[i];
    const struct series *s = &m->series[i];
    add_head(out, row->name, types[row->type], row->help);
    for (size_t v = 0; v < s->count; v++) {
        const char *value = s->values != NULL ? s->values[v] : NULL;
        const _Atomic int64_t *cell = metrics_cells(m, i, v);
        if (row->type == METRIC_HISTOGRAM) {
            add_histogram(out, row, value, cell);
        } else {
            add_name(out, row, "", value, NULL);
            buf_printf(out, "%lld\n", (long long)cell_get(cell));
        }
    }
}

static long long resident_bytes(void)
{
    long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL)
        return 0;
    if (fscanf(f, "%*s %lld", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static long long open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        return 0;
    long long n = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* not the one that reads the directory */
}

void metrics_render(const struct metrics *m, struct buf *out)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        add_row(out, m, i);
    add_head(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    buf_printf(out, "process_resident_memory_bytes %lld\n", resident_bytes());
    add_head(out, "process_open_fds", "gauge", "Number of open file descriptors.");
    buf_printf(out, "process_open_fds %lld\n", open_fds());
    add_head(out, "process_start_time_seconds", "gauge",
             "Start time of the process since unix epoch in seconds.");
    buf_printf(out, "process_start_time_seconds %.2f\n", m->started);
    add_head(out, "feedmill_build_info", "gauge", "The version that runs; always 1.");
    buf_printf(out, "feedmill_build_info{version=\"%s\"} 1\n", FEEDMILL_VERSION);
}
