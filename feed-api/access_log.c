#include "feed-api/access_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/names.h"
#include "feed-api/metrics.h"

#define WAITING_MAX     (1024 * 1024)
#define WAKE_AT         (64 * 1024) /* bytes that wake the writer before its time */
#define WRITE_MS        200
#define LOOK_MS         1000 /* between looks at where the file is */
#define LINE_MAX_BYTES  2048
#define PATH_MAX_BYTES  512
#define AGENT_MAX_BYTES 200

struct access_log {
    char *file; /* NULL: stdout */
    uint64_t every;
    struct metrics *metrics;
    pthread_t thread;
    int fd; /* the thread's */
    bool failing;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t more;
    struct buf waiting;
    uint64_t chance;
    bool stopping;
};

/* ---- a line ---- */

static void add_text(struct buf *out, const char *name, const char *s, size_t most)
{
    char text[PATH_MAX_BYTES + 1];
    buf_add_str(out, name);
    if (s == NULL) {
        buf_add_str(out, "null");
        return;
    }
    size_t n = strnlen(s, most);
    memcpy(text, s, n);
    text[n] = '\0';
    for (size_t i = 0; !utf8_valid(text, n) && i < n; i++) {
        if ((unsigned char)text[i] >= 0x80)
            text[i] = '?';
    }
    buf_add_json_n(out, text, n);
}

void access_line_write(const struct access_line *l, struct buf *out)
{
    char at[CLOCK_RFC3339_SIZE];
    clock_format(l->at_ms, at);
    add_text(out, "{\"at\":", at, sizeof at);
    add_text(out, ",\"id\":", l->id, PATH_MAX_BYTES);
    add_text(out, ",\"client\":", l->client, PATH_MAX_BYTES);
    add_text(out, ",\"who\":", l->who, PATH_MAX_BYTES);
    add_text(out, ",\"method\":", l->method, PATH_MAX_BYTES);
    add_text(out, ",\"path\":", l->path, PATH_MAX_BYTES);
    add_text(out, ",\"op\":", l->op, PATH_MAX_BYTES);
    buf_add_str(out, ",\"status\":");
    buf_add_i64(out, l->status);
    buf_add_str(out, ",\"bytes\":");
    buf_add_i64(out, l->bytes);
    buf_add_str(out, ",\"us\":");
    buf_add_i64(out, l->us);
    add_text(out, ",\"agent\":", l->agent, AGENT_MAX_BYTES);
    buf_add_str(out, "}\n");
}

/* ---- on the writer's thread ---- */

static int open_file(const char *file)
{
    return open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

/* A file that was moved away goes on under its new name until we look. */
static void follow_name(struct access_log *l)
{
    struct stat named, open_one;
    if (l->file == NULL)
        return;
    if (l->fd >= 0 && stat(l->file, &named) == 0 && fstat(l->fd, &open_one) == 0 &&
        named.st_ino == open_one.st_ino && named.st_dev == open_one.st_dev)
        return;
    int fd = open_file(l->file);
    if (fd < 0)
        return; /* goes on with the one it has */
    if (l->fd >= 0)
        close(l->fd);
    l->fd = fd;
}

static void write_all(struct access_log *l, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(l->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            if (!l->failing)
                log_event(LOG_ERROR, "access_log_failed", LOG_S("error", strerror(errno)));
            l->failing = true;
            metrics_add(l->metrics, M_ACCESS_LOG_DROPPED, 0, 1);
            return;
        }
        p += done;
        n -= (size_t)done;
    }
    l->failing = false;
}

static void *write_lines(void *arg)
{
    struct access_log *l = arg;
    struct buf mine;
    int64_t looked = clock_mono_ms();
    bool stopping = false;
    buf_init(&mine, WAITING_MAX);
    while (!stopping) {
        struct timespec until = clock_deadline_in(WRITE_MS);
        pthread_mutex_lock(&l->lock);
        while (!l->stopping && l->waiting.len < WAKE_AT &&
               pthread_cond_timedwait(&l->more, &l->lock, &until) != ETIMEDOUT)
            ;
        struct buf full = l->waiting;
        l->waiting = mine;
        mine = full;
        stopping = l->stopping;
        pthread_mutex_unlock(&l->lock);
        if (clock_mono_ms() - looked >= LOOK_MS) {
            follow_name(l);
            looked = clock_mono_ms();
        }
        write_all(l, mine.data, mine.len);
        buf_reset(&mine);
    }
    buf_done(&mine);
    return NULL;
}

/* ---- any thread ---- */

/* xorshift64: which lines are written only has to be fair. */
static bool is_chosen(struct access_log *l, int status)
{
    l->chance ^= l->chance << 13;
    l->chance ^= l->chance >> 7;
    l->chance ^= l->chance << 17;
    return status >= 500 || l->chance % l->every == 0;
}

void access_log_add(struct access_log *l, const struct access_line *line)
{
    pthread_mutex_lock(&l->lock);
    bool wake = false, dropped = false;
    if (is_chosen(l, line->status)) {
        dropped = l->waiting.len + LINE_MAX_BYTES > WAITING_MAX;
        if (!dropped)
            access_line_write(line, &l->waiting);
        wake = l->waiting.len >= WAKE_AT;
    }
    pthread_mutex_unlock(&l->lock);
    if (wake)
        pthread_cond_signal(&l->more);
    if (dropped)
        metrics_add(l->metrics, M_ACCESS_LOG_DROPPED, 0, 1);
}

static void log_free(struct access_log *l)
{
    if (l->file != NULL && l->fd >= 0)
        close(l->fd);
    buf_done(&l->waiting);
    pthread_cond_destroy(&l->more);
    pthread_mutex_destroy(&l->lock);
    free(l->file);
    free(l);
}

static void init_cond(pthread_cond_t *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

int access_log_start(struct access_log **out, const char *file, int64_t every, struct metrics *m,
                     struct err *e)
{
    assert(every >= 1);
    struct access_log *l = mem_zero(1, sizeof *l);
    bool is_stdout = strcmp(file, "-") == 0;
    l->file = is_stdout ? NULL : mem_strdup(file);
    l->every = (uint64_t)every;
    l->metrics = m;
    l->chance = (uint64_t)clock_mono_us() | 1;
    pthread_mutex_init(&l->lock, NULL);
    init_cond(&l->more);
    buf_init(&l->waiting, WAITING_MAX);
    l->fd = is_stdout ? STDOUT_FILENO : open_file(file);
    int rc = 0;
    if (l->fd < 0) {
        rc = err_set(e, ERR_UNAVAILABLE, "can't open %.200s: %s", file, strerror(errno));
    } else {
        int why = pthread_create(&l->thread, NULL, write_lines, l);
        if (why != 0)
            rc = err_set(e, ERR_UNAVAILABLE, "a thread for the access log: %s", strerror(why));
    }
    if (rc < 0) {
        log_free(l);
        return -1;
    }
    *out = l;
    return 0;
}

void access_log_stop(struct access_log *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    log_free(l);
}
