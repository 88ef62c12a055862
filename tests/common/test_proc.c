#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/names.h"
#include "common/proc.h"

static void the_instance_is_host_pid_and_eight_digits(void **state)
{
    (void)state;
    char middle[32];
    snprintf(middle, sizeof middle, "-%ld-", (long)getpid());
    const char *name = proc_instance();
    const char *p = strstr(name, middle);
    assert_non_null(p);
    assert_true(p > name);
    p += strlen(middle);
    assert_int_equal(strlen(p), 8);
    assert_int_equal(strspn(p, "0123456789abcdef"), 8);
    assert_true(strlen(name) < PROC_INSTANCE_SIZE);
    assert_int_equal(names_check(name, strlen(name), NULL), 0);
}

static void *get_instance(void *out)
{
    strcpy(out, proc_instance());
    return NULL;
}

static void the_instance_stays_the_same_in_every_thread(void **state)
{
    (void)state;
    char other[PROC_INSTANCE_SIZE];
    pthread_t t;
    pthread_create(&t, NULL, get_instance, other);
    pthread_join(t, NULL);
    assert_string_equal(other, proc_instance());
}

static void files_may_be_opened_up_to_the_hard_limit(void **state)
{
    (void)state;
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
    assert_true(r.rlim_cur == r.rlim_max);
    assert_true(proc_file_limit() > 0);
    assert_true(r.rlim_cur > INT64_MAX || (uint64_t)proc_file_limit() == r.rlim_cur);
}

static void a_closed_pipe_is_an_error_and_not_the_end(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1);
    close(fds[1]);
}

static void numbers_have_a_point_in_every_locale(void **state)
{
    (void)state;
    assert_string_equal(setlocale(LC_ALL, NULL), "C");
}

/* ---- signals, each in a child of its own ---- */

struct drained {
    struct event_base *base;
    int count;
    int signum;
    bool stop; /* end the loop on the first */
};

static void on_drain(int signum, void *arg)
{
    struct drained *d = arg;
    d->count++;
    d->signum = signum;
    if (d->stop)
        event_base_loopbreak(d->base);
}

static void *raise_in_thread(void *signum)
{
    kill(getpid(), *(int *)signum);
    return NULL;
}

/* Exit status of a child that sends itself one or two signals (second 0: none): 0 when it drained once on the
 * first and left its loop. */
static int status_of_child(int first, int second)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(20); /* no child outlives a failed test */
        struct drained d = {event_base_new(), 0, 0, second == 0};
        struct proc_signals *s = NULL;
        if (proc_signals_new(&s, d.base, on_drain, &d, NULL) != 0)
            _exit(50);
        pthread_t t;
        pthread_create(&t, NULL, raise_in_thread, &first);
        pthread_join(t, NULL);
        while (d.count == 0)
            event_base_loop(d.base, EVLOOP_ONCE);
        if (second != 0) {
            kill(getpid(), second);
            event_base_dispatch(d.base);
        }
        proc_signals_free(s);
        event_base_free(d.base);
        _exit(d.count == 1 && d.signum == first ? 0 : 51);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void the_first_signal_drains(void **state)
{
    (void)state;
    assert_int_equal(status_of_child(SIGTERM, 0), 0);
    assert_int_equal(status_of_child(SIGINT, 0), 0);
}

static void a_second_signal_of_either_kind_ends_the_process_at_once(void **state)
{
    (void)state;
    assert_int_equal(status_of_child(SIGTERM, SIGTERM), 1);
    assert_int_equal(status_of_child(SIGTERM, SIGINT), 1);
    assert_int_equal(status_of_child(SIGINT, SIGINT), 1);
}

static void freed_signals_kill_again(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct drained d = {event_base_new(), 0, 0, true};
        struct proc_signals *s;
        if (proc_signals_new(&s, d.base, on_drain, &d, NULL) != 0)
            _exit(50);
        proc_signals_free(s);
        raise(SIGTERM);
        _exit(51);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
    proc_signals_free(NULL);
}

int main(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_max > 256) { /* something to be raised */
        r.rlim_cur = 256;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    proc_init("test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_instance_is_host_pid_and_eight_digits),
        cmocka_unit_test(the_instance_stays_the_same_in_every_thread),
        cmocka_unit_test(files_may_be_opened_up_to_the_hard_limit),
        cmocka_unit_test(a_closed_pipe_is_an_error_and_not_the_end),
        cmocka_unit_test(numbers_have_a_point_in_every_locale),
        cmocka_unit_test(the_first_signal_drains),
        cmocka_unit_test(a_second_signal_of_either_kind_ends_the_process_at_once),
        cmocka_unit_test(freed_signals_kill_again),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    proc_done();
    return failed;
}
