/* The supervisor behind `make run`: its parts, and the whole of it with the built processes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/fixture.h"
#include "tools/servers.h"
#include "tools/stack_data.h"
#include "tools/stack_member.h"

#define WAIT_MS 30000

/* ---- back-off ---- */

static void back_off_doubles_up_to_ten_seconds(void **state)
{
    (void)state;
    int64_t want[] = {200, 400, 800, 1600, 3200, 6400, 10000, 10000}, before = 0;
    for (size_t i = 0; i < MEM_COUNT(want); i++) {
        before = stack_backoff_next(before, 0);
        assert_int_equal(before, want[i]);
    }
}

static void back_off_starts_anew_after_half_a_minute_of_service(void **state)
{
    (void)state;
    assert_int_equal(stack_backoff_next(6400, STACK_STEADY_MS - 1), 10000);
    assert_int_equal(stack_backoff_next(6400, STACK_STEADY_MS), 200);
}

static struct server *shell(struct fixture *f, const char *script)
{
    char *log = mem_printf("%s/child.log", fixture_dir(f));
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct server *s = server_new("child", log, argv);
    free(log);
    return s;
}

struct member_wait {
    struct stack_member *m;
    int64_t now;
    enum stack_member_event want;
};

static bool event_came(void *arg)
{
    struct member_wait *w = arg;
    return stack_member_tick(w->m, w->now) == w->want;
}

static void a_member_that_ends_is_started_again_when_its_time_comes(void **state)
{
    struct stack_member m;
    stack_member_init(&m, shell(*state, "exec sleep 600"));
    assert_int_equal(stack_member_tick(&m, 1000), STACK_MEMBER_NOTHING);
    assert_int_equal(server_pid(m.server), 0); /* nobody wants it yet */
    stack_member_want(&m);
    struct member_wait w = {&m, 1000, STACK_MEMBER_READY};
    assert_true(fixture_until(event_came, &w, WAIT_MS));
    pid_t first = server_pid(m.server);
    kill(first, SIGKILL);
    w = (struct member_wait){&m, clock_mono_ms(), STACK_MEMBER_ENDED};
    assert_true(fixture_until(event_came, &w, WAIT_MS));
    assert_int_equal(m.backoff_ms, STACK_BACKOFF_FIRST_MS);
    assert_non_null(strstr(m.why.msg, "signal 9"));
    assert_int_equal(stack_member_tick(&m, m.retry_at - 1), STACK_MEMBER_NOTHING);
    assert_int_equal(server_pid(m.server), 0);
    w = (struct member_wait){&m, m.retry_at, STACK_MEMBER_READY};
    assert_true(fixture_until(event_came, &w, WAIT_MS));
    assert_int_not_equal(server_pid(m.server), first);
    stack_member_done(&m);
}

static void a_member_that_can_not_be_started_waits_longer_each_time(void **state)
{
    struct fixture *f = *state;
    char *log = mem_printf("%s/none.log", fixture_dir(f));
    const char *argv[] = {"/nonexistent/program", NULL};
    struct stack_member m;
    stack_member_init(&m, server_new("none", log, argv));
    stack_member_want(&m);
    int64_t now = 1;
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(stack_member_tick(&m, now), STACK_MEMBER_ENDED);
        assert_int_equal(m.ends, i);
        assert_false(m.was_up);
        assert_int_equal(m.retry_at, now + (100 << i));
        now = m.retry_at;
    }
    stack_member_done(&m);
    free(log);
}

/* ---- the directory ---- */

static void the_directory_is_made_with_all_that_leads_to_it(void **state)
{
    char *dir = mem_printf("%s/a/b/c", fixture_dir(*state));
    struct stack_data d;
    struct err e;
    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    struct stat st;
    char *sub = stack_data_path(&d, "mongod");
    assert_int_equal(stat(sub, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    free(sub);
    stack_data_close(&d);
    free(dir);
}

static void ports_stay_the_same_unless_somebody_took_them(void **state)
{
    char *dir = mem_printf("%s/ports", fixture_dir(*state));
    struct stack_data d;
    struct err e;
    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    int first[STACK_PORTS];
    memcpy(first, d.ports, sizeof first);
    assert_int_not_equal(first[0], first[1]);
    assert_int_not_equal(first[1], first[2]);
    stack_data_close(&d);

    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    assert_memory_equal(first, d.ports, sizeof first);
    stack_data_close(&d);

    struct mongod_options o = {.dir = dir, .log_path = "/dev/null", .port = first[0], .cache_gb = 0.25};
    struct server *thief = mongod_server_new(&o, &e);
    assert_non_null(thief);
    assert_int_equal(server_start(thief, &e), 0);
    assert_int_equal(server_wait(thief, WAIT_MS, &e), 0);
    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    assert_int_not_equal(d.ports[0], first[0]);
    assert_int_equal(d.ports[1], first[1]);
    stack_data_close(&d);
    server_free(thief);
    free(dir);
}

static void a_directory_in_use_is_refused_and_one_left_behind_is_not(void **state)
{
    char *dir = mem_printf("%s/lock", fixture_dir(*state));
    struct stack_data d, second;
    struct err e;
    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    assert_int_equal(stack_data_open(&second, dir, 0, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    char pid[32];
    snprintf(pid, sizeof pid, "process %d", (int)getpid());
    assert_non_null(strstr(e.msg, pid));
    stack_data_close(&second);
    stack_data_close(&d);
    assert_int_equal(stack_data_open(&d, dir, 0, &e), 0);
    stack_data_close(&d);
    free(dir);
}

static void a_path_that_can_not_be_a_directory_is_an_error_that_names_the_step(void **state)
{
    (void)state;
    struct stack_data d;
    struct err e;
    assert_int_equal(stack_data_open(&d, "/etc/passwd/run", 0, &e), -1);
    assert_non_null(strstr(e.msg, "step 'directory'"));
    assert_non_null(strstr(e.msg, "DATA="));
    stack_data_close(&d);
}

static void a_disk_with_too_little_space_is_an_error_that_names_the_step(void **state)
{
    char *dir = mem_printf("%s/disk", fixture_dir(*state));
    struct stack_data d;
    struct err e;
    assert_int_equal(stack_data_open(&d, dir, INT64_MAX, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "step 'disk'"));
    stack_data_close(&d);
    free(dir);
}

/* ---- the whole ---- */

struct whole {
    struct server *stack;
    char *dir;
    int port;
};

static struct whole whole_new(struct fixture *f, const char *name)
{
    struct whole w = {.dir = mem_printf("%s/%s", fixture_dir(f), name), .port = server_free_port()};
    char *bin = fixture_bin("stack");
    char *log = mem_printf("%s/%s.out", fixture_dir(f), name);
    char port[16];
    snprintf(port, sizeof port, "%d", w.port);
    const char *argv[] = {bin, "--port", port, "--data", w.dir, "--mongod-cache-gb", "0.25", NULL};
    w.stack = server_new("stack", log, argv);
    server_set_http_probe(w.stack, w.port, "/readyz");
    free(bin);
    free(log);
    return w;
}

static void whole_start(struct whole *w)
{
    struct err e;
    if (server_start(w->stack, &e) != 0 || server_wait(w->stack, 2 * WAIT_MS * fixture_slowness(), &e) != 0) {
        server_log_tail(w->stack, 8000);
        fail_msg("%s", e.msg);
    }
}

static void whole_done(struct whole *w)
{
    server_free(w->stack);
    free(w->dir);
}

/* Answers whether the command line of a process names the directory (and, if not NULL, the program). */
static bool command_matches(const char *pid, const char *dir, const char *program)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    for (ssize_t i = 0; i < n; i++) {
        text[i] = text[i] ? text[i] : ' ';
    }
    text[n > 0 ? n : 0] = '\0';
    char with_slash[512];
    snprintf(with_slash, sizeof with_slash, "%s/", dir);
    return strstr(text, with_slash) && (!program || strstr(text, program));
}

/* Counts the children of a stack by their command lines; *pid is one of them. */
static int children_of(const char *dir, const char *program, pid_t *pid)
{
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    int n = 0;
    for (struct dirent *d; (d = readdir(proc));) {
        if (isdigit((unsigned char)d->d_name[0]) && command_matches(d->d_name, dir, program)) {
            n++;
            *pid = (pid_t)strtol(d->d_name, NULL, 10);
        }
    }
    closedir(proc);
    return n;
}

static bool no_children(void *arg)
{
    pid_t pid;
    return children_of(arg, NULL, &pid) == 0;
}

static bool output_holds(const struct whole *w, const char *text)
{
    char *all = mem_zero(65536, 1);
    FILE *f = fopen(server_log_path(w->stack), "re");
    assert_non_null(f);
    assert_true(fread(all, 1, 65535, f) > 0);
    fclose(f);
    bool holds = strstr(all, text) != NULL;
    free(all);
    return holds;
}

struct output_wait {
    const struct whole *w;
    const char *text;
};

static bool output_came(void *arg)
{
    struct output_wait *o = arg;
    return output_holds(o->w, o->text);
}

static void assert_says(const struct whole *w, const char *text)
{
    struct output_wait o = {w, text};
    if (!fixture_until(output_came, &o, WAIT_MS)) {
        server_log_tail(w->stack, 8000);
        fail_msg("the stack does not say: %s", text);
    }
}

/* Ends a stack as Ctrl-C or SIGTERM do, and looks that nothing is left. */
static void stop_clean(struct whole *w, int sig)
{
    struct err e;
    int64_t deadline = 10000 * (int64_t)fixture_slowness();
    server_signal(w->stack, sig);
    if (server_stop(w->stack, deadline, &e) != 0) {
        server_log_tail(w->stack, 8000);
        fail_msg("%s", e.msg);
    }
    assert_int_equal(server_status(w->stack), 0);
    assert_true(no_children(w->dir));
    assert_true(server_port_free(w->port));
    char *socket_path = mem_printf("%s/redis/redis.sock", w->dir);
    assert_int_equal(access(socket_path, F_OK), -1);
    free(socket_path);
}

static bool key_is_private(const struct whole *w)
{
    struct stat st;
    char *path = mem_printf("%s/admin.key", w->dir);
    int rc = stat(path, &st);
    free(path);
    return rc == 0 && (st.st_mode & 0777) == 0600;
}

/* Runs the lines that the stack printed for pasting; answers what they print, for the caller to free. */
static char *paste(const struct whole *w)
{
    char *command = mem_printf("grep '^  curl' '%s' | tail -n 3 | sh 2>&1", server_log_path(w->stack));
    FILE *p = popen(command, "re");
    assert_non_null(p);
    char *out = mem_zero(65536, 1);
    assert_true(fread(out, 1, 65535, p) > 0);
    pclose(p);
    free(command);
    return out;
}

static void a_stack_becomes_ready_and_its_lines_work_when_pasted(void **state)
{
    struct whole w = whole_new(*state, "pasted");
    whole_start(&w);
    assert_says(&w, "feedmill: ready on http://127.0.0.1:");
    assert_says(&w, "/feed; echo");
    assert_true(key_is_private(&w));
    char *out = paste(&w);
    assert_non_null(strstr(out, "\"result\":\"created\""));
    assert_non_null(strstr(out, "\"items\":[{"));
    assert_non_null(strstr(out, "The first item"));
    free(out);
    stop_clean(&w, SIGINT);

    whole_start(&w); /* and what was written is still there */
    assert_says(&w, "feedmill: stopped");
    out = paste(&w);
    assert_non_null(strstr(out, "The first item"));
    free(out);
    stop_clean(&w, SIGTERM);
    whole_done(&w);
}

static void whatever_is_killed_comes_back_and_is_said(void **state)
{
    static const char *const programs[] = {"redis", "mongod", "fanout", "ranker", "feed-api"};
    struct whole w = whole_new(*state, "killed");
    whole_start(&w);
    assert_says(&w, "ready on");
    for (size_t i = 0; i < MEM_COUNT(programs); i++) {
        char binary[32], ended[64], back[64];
        snprintf(binary, sizeof binary, strcmp(programs[i], "redis") == 0 ? "redis-server" : "/%s ",
                 programs[i]);
        snprintf(ended, sizeof ended, "%s ended with signal 9", programs[i]);
        snprintf(back, sizeof back, "%s is back", programs[i]);
        pid_t pid = 0;
        assert_int_equal(children_of(w.dir, binary, &pid), 1);
        kill(pid, SIGKILL);
        assert_says(&w, ended);
        assert_says(&w, back);
    }
    struct err e;
    assert_int_equal(server_wait(w.stack, WAIT_MS * fixture_slowness(), &e), 0);
    stop_clean(&w, SIGTERM);
    whole_done(&w);
}

static void a_stack_killed_with_kill_9_leaves_nothing_and_starts_again(void **state)
{
    struct whole w = whole_new(*state, "kill9");
    whole_start(&w);
    assert_says(&w, "/feed; echo");
    char *out = paste(&w);
    assert_non_null(strstr(out, "The first item"));
    free(out);
    server_kill(w.stack);
    assert_true(fixture_until(no_children, w.dir, WAIT_MS));
    whole_start(&w);
    out = paste(&w);
    assert_non_null(strstr(out, "The first item"));
    free(out);
    stop_clean(&w, SIGTERM);
    whole_done(&w);
}

static void two_stacks_live_side_by_side_but_not_on_one_directory_or_port(void **state)
{
    struct whole a = whole_new(*state, "first"), b = whole_new(*state, "second");
    whole_start(&a);
    whole_start(&b);
    struct whole c = whole_new(*state, "first");
    struct err e;
    assert_int_equal(server_start(c.stack, &e), 0);
    assert_int_equal(server_wait(c.stack, WAIT_MS, &e), -1);
    assert_non_null(strstr(e.msg, "exit code 1"));
    assert_true(output_holds(&c, "FAILED at step 'lock'"));
    char port[16];
    snprintf(port, sizeof port, "%d", a.port);
    char *bin = fixture_bin("stack"), *dir = mem_printf("%s/third", fixture_dir(*state));
    char *log = mem_printf("%s/third.out", fixture_dir(*state));
    const char *argv[] = {bin, "--port", port, "--data", dir, NULL};
    struct whole d = {.stack = server_new("third", log, argv), .dir = dir};
    assert_int_equal(server_start(d.stack, &e), 0);
    while (server_running(d.stack)) {
        usleep(5000);
    }
    assert_int_equal(WEXITSTATUS(server_status(d.stack)), 1);
    assert_true(output_holds(&d, "FAILED at step 'port'"));
    stop_clean(&b, SIGTERM);
    stop_clean(&a, SIGTERM);
    whole_done(&a);
    whole_done(&b);
    whole_done(&c);
    whole_done(&d);
    free(bin);
    free(log);
}

static void a_second_signal_kills_what_does_not_want_to_end(void **state)
{
    struct whole w = whole_new(*state, "stubborn");
    whole_start(&w);
    assert_says(&w, "ready on");
    server_signal(w.stack, SIGINT);
    assert_says(&w, "stopping");
    server_signal(w.stack, SIGINT);
    struct err e;
    assert_int_equal(server_stop(w.stack, 10000, &e), 0);
    assert_int_equal(server_status(w.stack), 0);
    assert_true(fixture_until(no_children, w.dir, WAIT_MS));
    whole_done(&w);
}

static int directory_only(void **state)
{
    *state = fixture_new(FIXTURE_DIR);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(back_off_doubles_up_to_ten_seconds),
        cmocka_unit_test(back_off_starts_anew_after_half_a_minute_of_service),
        cmocka_unit_test(a_member_that_ends_is_started_again_when_its_time_comes),
        cmocka_unit_test(a_member_that_can_not_be_started_waits_longer_each_time),
        cmocka_unit_test(the_directory_is_made_with_all_that_leads_to_it),
        cmocka_unit_test(ports_stay_the_same_unless_somebody_took_them),
        cmocka_unit_test(a_directory_in_use_is_refused_and_one_left_behind_is_not),
        cmocka_unit_test(a_path_that_can_not_be_a_directory_is_an_error_that_names_the_step),
        cmocka_unit_test(a_disk_with_too_little_space_is_an_error_that_names_the_step),
        cmocka_unit_test(a_stack_becomes_ready_and_its_lines_work_when_pasted),
        cmocka_unit_test(whatever_is_killed_comes_back_and_is_said),
        cmocka_unit_test(a_stack_killed_with_kill_9_leaves_nothing_and_starts_again),
        cmocka_unit_test(two_stacks_live_side_by_side_but_not_on_one_directory_or_port),
        cmocka_unit_test(a_second_signal_kills_what_does_not_want_to_end),
    };
    return cmocka_run_group_tests_name("stack", tests, directory_only, fixture_group_teardown);
}
