#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/names.h"

static const char cut_mark[] = " cut=1\n";
#define LINE_ROOM (LOG_LINE_MAX - (sizeof cut_mark - 1))

/* A line being written; room is kept for the mark, and while a quoted value is open for its quote. */
struct line {
    char text[LOG_LINE_MAX];
    size_t len;
    size_t room;
    bool cut;
};

static const char *_Atomic log_process = "feedmill";
static atomic_int log_lowest = LOG_INFO;
static const char *const level_names[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
#define LEVELS (sizeof level_names / sizeof *level_names)

void log_init(const char *process, enum log_level lowest)
{
    atomic_store(&log_process, process);
    atomic_store(&log_lowest, (int)lowest);
}

int log_level_parse(const char *s, enum log_level *out)
{
    for (size_t i = 0; i < LEVELS; i++) {
        if (strcmp(s, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

/* Adds all of the bytes or none; after the first that did not fit nothing is added any more. */
static void line_add(struct line *l, const char *s, size_t n)
{
    if (l->cut || n > l->room - l->len) {
        l->cut = true;
        return;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void line_printf(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line_printf(struct line *l, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0)
        line_add(l, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static bool needs_quotes(const char *s, size_t n, bool utf8)
{
    if (n == 0 || !utf8)
        return true;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
            return true;
        if (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0) /* U+0080 to U+009F: control characters */
            return true;
    }
    return false;
}

/* Adds the character at s, escaped where it has to be; answers how many bytes it was. */
static size_t line_add_char(struct line *l, const char *s, bool utf8)
{
    unsigned char c = (unsigned char)s[0];
    if (c == '"' || c == '\\')
        line_printf(l, "\\%c", c);
    else if (c == '\n')
        line_add(l, "\\n", 2);
    else if (c == '\t')
        line_add(l, "\\t", 2);
    else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
        line_printf(l, "\\x%02x", c);
    else if (c == 0xc2 && (unsigned char)s[1] < 0xa0) {
        line_printf(l, "\\u%04x", (unsigned char)s[1]);
        return 2;
    } else {
        size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        line_add(l, s, n);
        return n;
    }
    return 1;
}

static void line_add_value(struct line *l, const char *s)
{
    if (s == NULL)
        s = "";
    size_t n = strlen(s);
    bool utf8 = utf8_valid(s, n);
    bool quotes = needs_quotes(s, n, utf8);
    if (quotes) {
        line_add(l, "\"", 1);
        if (l->cut)
            return;
        l->room--;
    }
    for (size_t i = 0; i < n && !l->cut;)
        i += line_add_char(l, s + i, utf8);
    if (quotes) { /* also where the value was cut: the line stays readable by machines */
        l->room++;
        l->text[l->len++] = '"';
    }
}

static void line_add_field(struct line *l, const struct log_field *f)
{
    size_t before = l->len;
    line_printf(l, " %s=", f->key);
    size_t value = l->len;
    switch (f->type) {
    case LOG_FIELD_STR:
        line_add_value(l, f->v.s);
        break;
    case LOG_FIELD_INT:
        line_printf(l, "%lld", (long long)f->v.i);
        break;
    case LOG_FIELD_UINT:
        line_printf(l, "%llu", (unsigned long long)f->v.u);
        break;
    case LOG_FIELD_DOUBLE:
        line_printf(l, "%.6g", f->v.d);
        break;
    case LOG_FIELD_HEX:
        line_printf(l, "%016llx", (unsigned long long)f->v.u);
        break;
    }
    if (l->cut && l->len == value) /* a key without any of its value says nothing */
        l->len = before;
}

void log_fields(enum log_level level, const char *event, const struct log_field *f, size_t n)
{
    if ((int)level < atomic_load_explicit(&log_lowest, memory_order_relaxed) || (size_t)level >= LEVELS)
        return;
    int saved = errno; /* a log line between a call and the test of its errno does no harm */
    struct line l;
    l.len = 0;
    l.room = LINE_ROOM;
    l.cut = false;
    char now[CLOCK_RFC3339_SIZE];
    clock_format(clock_wall_ms(), now);
    line_printf(&l, "%s %s %.64s[%ld] event=", now, level_names[level], atomic_load(&log_process),
                (long)getpid());
    line_add_value(&l, event);
    for (size_t i = 0; i < n && !l.cut; i++)
        line_add_field(&l, &f[i]);
    const char *end = l.cut ? cut_mark : "\n";
    memcpy(l.text + l.len, end, strlen(end));
    l.len += strlen(end);
    /* One write a line, so that lines of several processes on one pipe do not mix. Nobody could be told of
     * a failure. */
    while (write(STDERR_FILENO, l.text, l.len) < 0 && errno == EINTR)
        continue;
    errno = saved;
}
