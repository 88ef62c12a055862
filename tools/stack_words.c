#include "tools/stack_words.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"

#define NAME_MAX_BYTES 256
#define PAGE_BYTES     65536
#define PAGE_MS        3000
#define LOG_END        16384
#define LOG_LINES      5
#define LOG_LINE       400

void stack_words_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("feedmill: ");
    vprintf(fmt, ap);
    printf("\n");
    fflush(stdout);
    va_end(ap);
}

void stack_words_ready(const struct stack_data *d, int port, int64_t after_ms)
{
    printf("\nfeedmill: ready on http://127.0.0.1:%d after %lld.%lld s\n"
           "  logs       %s/logs\n"
           "  admin key  %s/admin.key\n"
           "  stop       Ctrl-C\n",
           port, (long long)(after_ms / 1000), (long long)(after_ms % 1000 / 100), d->dir, d->dir);
    fflush(stdout);
}

/* Reads the first line of a small file in the directory into out; "" when there is none. */
static void read_line(const struct stack_data *d, const char *name, char *out, int size)
{
    char *path = stack_data_path(d, name);
    FILE *f = fopen(path, "re");
    if (!f || !fgets(out, size, f)) {
        out[0] = '\0';
    }
    if (f) {
        fclose(f);
    }
    free(path);
    out[strcspn(out, "\r\n")] = '\0';
}

/* Percent-encodes all but RFC 3986's unreserved characters. */
static void encode(const char *name, struct buf *out)
{
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        if (isalnum(*p) || strchr("-._~", *p)) {
            buf_add_char(out, (char)*p);
        } else {
            buf_printf(out, "%%%02X", *p);
        }
    }
}

static bool page_has_items(const struct stack_data *d, int port, const char *path)
{
    char key[512];
    read_line(d, "admin.key", key, sizeof key);
    char *body = mem_zero(PAGE_BYTES, 1);
    struct err e;
    int status = server_http_get(port, path, key, PAGE_MS, body, PAGE_BYTES, &e);
    bool has = status == 200 && strstr(body, "\"items\":[{");
    free(body);
    return has;
}

static void print_curl(const struct stack_data *d, int port, const char *what, const char *path)
{
    printf("  # %s\n  curl -s -H \"Authorization: Bearer $(cat '%s/admin.key')\" 'http://127.0.0.1:%d%s'; "
           "echo\n",
           what, d->dir, port, path);
}

bool stack_words_demo(const struct stack_data *d, int port)
{
    char reader[NAME_MAX_BYTES];
    read_line(d, "demo.reader", reader, sizeof reader);
    if (!reader[0]) {
        return false;
    }
    struct buf name;
    buf_init(&name, 3 * sizeof reader + 1);
    encode(reader, &name);
    char *path = mem_printf("/v1/users/%s/feed?limit=1&fields=ids", name.data);
    bool has = page_has_items(d, port, path);
    free(path);
    if (has) {
        printf("\nfeedmill: pages to read (paste a line into another terminal):\n");
        path = mem_printf("/v1/users/%s/feed?limit=3", name.data);
        print_curl(d, port, "the newest items for a reader who follows what one package depends on", path);
        free(path);
        path = mem_printf("/v1/users/%s/feed?order=ranked&limit=5&fields=summary", name.data);
        print_curl(d, port, "the same feed, ranked, without the texts", path);
        free(path);
        path = mem_printf("/v1/users/%s/feed?limit=100&fields=ids", name.data);
        print_curl(d, port, "a hundred ids, and the cursor of the next page", path);
        free(path);
        printf("\n");
        fflush(stdout);
    }
    buf_done(&name);
    return has;
}

void stack_words_empty(const struct stack_data *d, int port)
{
    const char *key = "-H \"Authorization: Bearer $(cat '";
    printf("\nfeedmill: first steps (paste the lines into another terminal):\n"
           "  curl -s %s%s/admin.key')\" -H 'Content-Type: application/json' -d '{\"publisher\":\"daily\","
           "\"title\":\"Hello\",\"body\":\"The first item\"}' http://127.0.0.1:%d/v1/items; echo\n"
           "  curl -s -X PUT %s%s/admin.key')\" http://127.0.0.1:%d/v1/users/alice/follows/publisher/daily\n"
           "  curl -s %s%s/admin.key')\" http://127.0.0.1:%d/v1/users/alice/feed; echo\n\n",
           key, d->dir, port, key, d->dir, port, key, d->dir, port);
    fflush(stdout);
}

static bool tells_error(const char *line)
{
    /* mongod's structured log, our own, Redis' warnings. */
    return strstr(line, "\"s\":\"E\"") || strstr(line, "\"s\":\"F\"") || strstr(line, " error ") ||
           strstr(line, " # ");
}

void stack_words_why(const struct server *s)
{
    FILE *f = server_log_path(s) ? fopen(server_log_path(s), "re") : NULL;
    if (!f) {
        return;
    }
    char *text = mem_zero(LOG_END + 1, 1);
    if (fseek(f, -LOG_END, SEEK_END) != 0) {
        rewind(f);
    }
    size_t n = fread(text, 1, LOG_END, f);
    fclose(f);
    text[n] = '\0';
    const char *errors[LOG_LINES], *last[LOG_LINES];
    size_t n_errors = 0, n_last = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        last[n_last++ % LOG_LINES] = line;
        if (tells_error(line)) {
            errors[n_errors++ % LOG_LINES] = line;
        }
    }
    const char **show = n_errors ? errors : last;
    size_t count = n_errors ? n_errors : n_last;
    for (size_t i = count > LOG_LINES ? count - LOG_LINES : 0; i < count; i++) {
        printf("  %s: %.*s\n", server_name(s), LOG_LINE, show[i % LOG_LINES]);
    }
    fflush(stdout);
    free(text);
}
