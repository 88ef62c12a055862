#include "tools/servers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tools/servers_private.h"

#define POLL_MS     10  /* between two looks at a child or two probes */
#define LAST_LINE   160 /* bytes of a log's last line that go into an error */
#define EXEC_FAILED 127

struct server *server_new(const char *name, const char *log_path, const char *const *argv)
{
    size_t n = 0;
    while (argv[n]) {
        n++;
    }
    struct server *s = mem_zero(1, sizeof *s);
    s->name = mem_strdup(name);
    s->log_path = mem_strdup(log_path);
    s->argv = mem_zero(n + 1, sizeof *s->argv);
    for (size_t i = 0; i < n; i++) {
        s->argv[i] = mem_strdup(argv[i]);
    }
    return s;
}

void server_free(struct server *s)
{
    if (!s) {
        return;
    }
    server_kill(s);
    for (char **a = s->argv; *a; a++) {
        free(*a);
    }
    free(s->argv);
    free(s->name);
    free(s->log_path);
    free(s->path);
    free(s);
}

const char *server_name(const struct server *s)
{
    return s->name;
}

const char *server_log_path(const struct server *s)
{
    return s->log_path;
}

pid_t server_pid(const struct server *s)
{
    return s->pid;
}

int server_status(const struct server *s)
{
    return s->status;
}

void server_status_text(const struct server *s, char *out, size_t size)
{
    if (WIFSIGNALED(s->status)) {
        snprintf(out, size, "signal %d (%s)", WTERMSIG(s->status), strsignal(WTERMSIG(s->status)));
    } else {
        snprintf(out, size, "exit code %d", WEXITSTATUS(s->status));
    }
}

/* Runs in the child between fork and exec: only async-signal-safe calls, because the parent may have threads.
 */
static void child_exec(char **argv, int log_fd, int null_fd, int report_fd, pid_t parent)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++) {
        sigaction(sig, &dfl, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXEC_FAILED); /* the parent ended before the line above */
    }
    if (dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0 || dup2(report_fd, 3) < 0) {
        _exit(EXEC_FAILED);
    }
    fcntl(3, F_SETFD, FD_CLOEXEC);
    close_range(4, ~0U, 0);
    execv(argv[0], argv);
    int why = errno;
    if (write(3, &why, sizeof why) < 0) {
        _exit(EXEC_FAILED);
    }
    _exit(EXEC_FAILED);
}

/* Opens the three descriptors of a child; all above 3, so that dup2 onto 0 to 3 loses none. */
static int open_above(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -1;
    }
    int up = fcntl(fd, F_DUPFD_CLOEXEC, 4);
    close(fd);
    return up;
}

static int pipe_above(int *out)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0) {
        return -1;
    }
    out[0] = fcntl(p[0], F_DUPFD_CLOEXEC, 4);
    out[1] = fcntl(p[1], F_DUPFD_CLOEXEC, 4);
    close(p[0]);
    close(p[1]);
    return out[0] < 0 || out[1] < 0 ? -1 : 0;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* Waits for the exec: end of file when it succeeded, an errno when it did not. */
static int exec_result(int fd)
{
    int why = 0;
    ssize_t n;
    do {
        n = read(fd, &why, sizeof why);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof why ? why : 0;
}

int server_start(struct server *s, struct err *e)
{
    if (server_running(s)) {
        return err_set(e, ERR_CONFLICT, "%s already runs as process %d", s->name, (int)s->pid);
    }
    int rc = -1, report[2] = {-1, -1};
    int null_fd = open_above("/dev/null", O_RDONLY);
    int log_fd = s->log_path ? open_above(s->log_path, O_WRONLY | O_CREAT | O_APPEND)
                             : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 4);
    if (log_fd < 0) {
        err_set(e, ERR_UNAVAILABLE, "can't write the log of %s, %s: %s", s->name,
                s->log_path ? s->log_path : "stdout", strerror(errno));
        goto out;
    }
    if (null_fd < 0 || pipe_above(report) < 0) {
        err_set(e, ERR_UNAVAILABLE, "can't start %s: %s", s->name, strerror(errno));
        goto out;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        child_exec(s->argv, log_fd, null_fd, report[1], parent);
    }
    if (pid < 0) {
        err_set(e, ERR_UNAVAILABLE, "can't start %s: %s", s->name, strerror(errno));
        goto out;
    }
    close(report[1]);
    report[1] = -1;
    int why = exec_result(report[0]);
    s->pid = pid;
    if (why) {
        server_kill(s);
        err_set(e, ERR_UNAVAILABLE, "can't execute %s: %s", s->argv[0], strerror(why));
        goto out;
    }
    rc = 0;
out:
    close_fd(null_fd);
    close_fd(log_fd);
    close_fd(report[0]);
    close_fd(report[1]);
    return rc;
}

static bool reap(struct server *s, int flags)
{
    pid_t got;
    int status = 0;
    do {
        got = waitpid(s->pid, &status, flags);
    } while (got < 0 && errno == EINTR);
    if (got == 0) {
        return false;
    }
    s->status = got == s->pid ? status : 0;
    s->pid = 0;
    return true;
}

bool server_running(struct server *s)
{
    return s->pid && !reap(s, WNOHANG);
}

void server_signal(struct server *s, int sig)
{
    if (server_running(s)) {
        kill(s->pid, sig);
    }
}

void server_kill(struct server *s)
{
    if (server_running(s)) {
        kill(s->pid, SIGKILL);
        reap(s, 0);
    }
}

static void nap(void)
{
    struct timespec t = {.tv_nsec = POLL_MS * 1000000L};
    nanosleep(&t, NULL);
}

int server_stop(struct server *s, int64_t deadline_ms, struct err *e)
{
    server_signal(s, SIGTERM);
    server_signal(s, SIGCONT);
    int64_t end = clock_mono_ms() + deadline_ms;
    while (server_running(s)) {
        if (clock_mono_ms() >= end) {
            server_kill(s);
            return err_set(e, ERR_TIMEOUT, "%s did not end within %lld ms and was killed", s->name,
                           (long long)deadline_ms);
        }
        nap();
    }
    return 0;
}

void server_pause(struct server *s)
{
    siginfo_t info;
    server_signal(s, SIGSTOP);
    /* Until its last thread stands still; reaping is left to reap(). */
    while (server_running(s) && waitid(P_PID, (id_t)s->pid, &info, WSTOPPED | WEXITED | WNOWAIT) < 0 &&
           errno == EINTR)
        ;
}

void server_continue(struct server *s)
{
    server_signal(s, SIGCONT);
}

/* Reads the last bytes of a log, at most size - 1, as a string; "" when there is none. */
static size_t tail_read(const char *path, char *out, size_t size)
{
    out[0] = '\0';
    FILE *f = path ? fopen(path, "re") : NULL;
    if (!f) {
        return 0;
    }
    if (fseek(f, -(long)(size - 1), SEEK_END) != 0) {
        rewind(f);
    }
    size_t n = fread(out, 1, size - 1, f);
    fclose(f);
    out[n] = '\0';
    return n;
}

void server_log_tail(const struct server *s, size_t max)
{
    char *text = mem_alloc(max + 1);
    size_t n = tail_read(s->log_path, text, max + 1);
    fprintf(stderr, "---- %s: the last of %s\n", s->name, s->log_path ? s->log_path : "(stdout)");
    fwrite(text, 1, n, stderr);
    fprintf(stderr, "%s---- end of %s\n", n && text[n - 1] != '\n' ? "\n" : "", s->name);
    free(text);
}

static int ended_error(const struct server *s, struct err *e)
{
    char status[64], last[LAST_LINE + 1];
    server_status_text(s, status, sizeof status);
    size_t n = tail_read(s->log_path, last, sizeof last);
    while (n && last[n - 1] == '\n') {
        last[--n] = '\0';
    }
    const char *line = strrchr(last, '\n');
    return err_set(e, ERR_UNAVAILABLE, "%s ended with %s: %s", s->name, status, line ? line + 1 : last);
}

int server_probe(struct server *s, struct err *e)
{
    if (!server_running(s)) {
        return ended_error(s, e);
    }
    return s->probe ? s->probe(s, e) : 0;
}

int server_wait(struct server *s, int64_t deadline_ms, struct err *e)
{
    int64_t end = clock_mono_ms() + deadline_ms;
    struct err last = {ERR_NONE, ""};
    for (;;) {
        if (server_probe(s, &last) == 0) {
            return 0;
        }
        if (!server_running(s)) {
            return ended_error(s, e);
        }
        if (clock_mono_ms() >= end) {
            return err_set(e, ERR_TIMEOUT, "%s is not ready after %lld ms: %s", s->name,
                           (long long)deadline_ms, last.msg);
        }
        nap();
    }
}
