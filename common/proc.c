#include "common/proc.h"

#include <event2/thread.h>
#include <locale.h>
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sign.h"

#define HOST_MAX 40 /* bytes of the host's name within the instance */

struct proc_signals {
    struct event *events[2];
    proc_drain_fn drain;
    void *arg;
    bool draining;
};

/* ---- start and end ---- */

static void mongoc_log_line(mongoc_log_level_t level, const char *domain, const char *message, void *arg)
{
    (void)arg;
    enum log_level l = level <= MONGOC_LOG_LEVEL_CRITICAL  ? LOG_ERROR
                       : level == MONGOC_LOG_LEVEL_WARNING ? LOG_WARN
                       : level <= MONGOC_LOG_LEVEL_INFO    ? LOG_INFO
                                                           : LOG_DEBUG;
    log_event(l, "libmongoc", LOG_S("domain", domain), LOG_S("text", message));
}

static void libevent_log_line(int severity, const char *message)
{
    enum log_level l = severity == EVENT_LOG_ERR    ? LOG_ERROR
                       : severity == EVENT_LOG_WARN ? LOG_WARN
                       : severity == EVENT_LOG_MSG  ? LOG_INFO
                                                    : LOG_DEBUG;
    log_event(l, "libevent", LOG_S("text", message));
}

/* One connection is one file, and the soft limit of most systems is 1024. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == r.rlim_max)
        return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r); /* else the old limit holds; proc_file_limit() tells */
}

int64_t proc_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return 1024;
    return r.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)r.rlim_cur;
}

void proc_init(const char *name)
{
    mem_hook_libraries(); /* before the libraries allocate anything */
    log_init(name, LOG_INFO);
    setlocale(LC_ALL, "C"); /* numbers are written with a point, whatever the environment says */
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    event_set_log_callback(libevent_log_line);
    if (evthread_use_pthreads() != 0) {
        fputs("feedmill: libevent has no threads\n", stderr);
        abort();
    }
    mongoc_log_set_handler(mongoc_log_line, NULL);
    mongoc_init();
}

void proc_done(void)
{
    mongoc_cleanup();
    libevent_global_shutdown();
}

/* ---- instance ---- */

static char instance[PROC_INSTANCE_SIZE];
static pthread_once_t instance_once = PTHREAD_ONCE_INIT;

static void make_instance(void)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-";
    char host[HOST_MAX + 1];
    uint32_t bits;
    if (gethostname(host, sizeof host) != 0 || host[0] == '\0')
        strcpy(host, "host");
    host[HOST_MAX] = '\0'; /* a longer name comes without one */
    for (char *p = host + strspn(host, plain); *p != '\0'; p += strspn(p, plain))
        *p = '-';
    sign_random(&bits, sizeof bits);
    snprintf(instance, sizeof instance, "%s-%ld-%08x", host, (long)getpid(), bits);
}

const char *proc_instance(void)
{
    pthread_once(&instance_once, make_instance);
    return instance;
}

/* ---- signals ---- */

static void on_signal(evutil_socket_t signum, short what, void *arg)
{
    (void)what;
    struct proc_signals *s = arg;
    const char *name = signum == SIGTERM ? "SIGTERM" : "SIGINT";
    if (s->draining) {
        log_event(LOG_WARN, "exit_at_once", LOG_S("signal", name));
        _exit(1);
    }
    s->draining = true;
    log_event(LOG_INFO, "drain", LOG_S("signal", name));
    s->drain((int)signum, s->arg);
}

int proc_signals_new(struct proc_signals **out, struct event_base *base, proc_drain_fn drain, void *arg,
                     struct err *e)
{
    static const int signums[] = {SIGTERM, SIGINT};
    struct proc_signals *s = mem_zero(1, sizeof *s);
    s->drain = drain;
    s->arg = arg;
    for (size_t i = 0; i < MEM_COUNT(signums); i++) {
        s->events[i] = evsignal_new(base, signums[i], on_signal, s);
        if (s->events[i] == NULL || event_add(s->events[i], NULL) != 0) {
            proc_signals_free(s);
            return err_set(e, ERR_INTERNAL, "can't handle signal %d", signums[i]);
        }
    }
    *out = s;
    return 0;
}

void proc_signals_free(struct proc_signals *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < MEM_COUNT(s->events); i++) {
        if (s->events[i] != NULL)
            event_free(s->events[i]);
    }
    free(s);
}
