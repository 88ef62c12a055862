/* The whole process as it is run: options, readiness, status, signals, kill -9, and what happens to one that
 * was paused. */
#include "tests/fanout/rig.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 20000

static struct rig rig;
static ts_t wanted;

static int open_rig(void **state)
{
    rig_open(&rig, *state);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

#define UNTIL(check, arg)                                                                                    \
    do {                                                                                                     \
        if (!fixture_until((check), (arg), DEADLINE_MS))                                                     \
            fixture_fail(rig.f, "%s did not come true", #check);                                             \
    } while (0)

static bool all_progressed(void *arg)
{
    (void)arg;
    for (unsigned b = 0; b < BUCKETS; b += 5) {
        if (rig_record_ts(&rig, b, "progress") < wanted)
            return false;
    }
    return true;
}

static void progress_reaches(ts_t t)
{
    wanted = t;
    UNTIL(all_progressed, NULL);
}

struct asked {
    struct server *s;
    const char *path, *holds;
    int status;
};

static bool answers(void *arg)
{
    struct asked *a = arg;
    static char body[16384];
    struct err e = {0};
    int status = server_http_get(fixture_port(rig.f, a->s), a->path, NULL, 2000, body, sizeof body, &e);
    return status == a->status && (!a->holds || strstr(body, a->holds));
}

#define ANSWERS(s, path, status, holds) UNTIL(answers, (&(struct asked){(s), (path), (holds), (status)}))

static void it_is_ready_when_it_owns_its_shares_and_says_so(void **state)
{
    (void)state;
    struct server *s = fixture_start(rig.f, "fanout", "fanout-1", NULL);
    ANSWERS(s, "/healthz", 200, NULL);
    ANSWERS(s, "/readyz", 200, "true");
    ANSWERS(s, "/v1/status", 200, "\"name\":\"fanout-1\"");
    ANSWERS(s, "/v1/status", 200, "\"buckets\":256");
    ANSWERS(s, "/v1/status", 200, "{\"share\":15,\"epoch\":1,\"progress\":\"");
    ANSWERS(s, "/v1/status", 200, "\"redis\":\"ok\",\"mongodb\":\"ok\"");
    ANSWERS(s, "/metrics", 200, "feedmill_fanout_buckets_owned 256");
    ANSWERS(s, "/nothing", 404, NULL);
}

static void sigterm_ends_it_with_status_0_and_its_shares_are_free(void **state)
{
    (void)state;
    struct err e = {0};
    struct server *s = fixture_start(rig.f, "fanout", "fanout-1", NULL);
    ts_t t = rig_publish(&rig, 1, "daily", "");
    if (server_stop(s, 10000 * fixture_slowness(), &e) != 0)
        fail_msg("stop: %s", e.msg);
    assert_true(WIFEXITED(server_status(s)) && WEXITSTATUS(server_status(s)) == 0);
    (void)t;
    struct server *next = fixture_start(rig.f, "fanout", "another-name", "--lease-ms", "60000", NULL);
    ANSWERS(next, "/v1/status", 200, "\"buckets\":256");
    ANSWERS(next, "/v1/status", 200, "{\"share\":0,\"epoch\":2,");
}

static void killed_and_restarted_under_its_name_it_goes_on_at_once(void **state)
{
    (void)state;
    struct server *s = fixture_start(rig.f, "fanout", "fanout-1", "--lease-ms", "60000", NULL);
    rig_edge(&rig, "ann", "p:daily");
    assert_true(rig_timeline(&rig, "ann"));
    item_id id = 0;
    for (int round = 0; round < 10; round++) {
        ts_t t = 0;
        for (int i = 0; i < 5; i++)
            t = rig_publish(&rig, ++id, "daily", "");
        server_kill(s);
        t = rig_publish(&rig, ++id, "daily", "");
        fixture_restart(rig.f, s);
        progress_reaches(t);
        assert_int_equal(rig_count(&rig, "ann"), id + 1);
    }
}

static bool second_owns_all(void *arg)
{
    struct asked a = {arg, "/v1/status", "\"buckets\":256", 200};
    return answers(&a);
}

static void one_paused_while_another_took_over_is_fenced_and_comes_back_politely(void **state)
{
    (void)state;
    struct server *s = fixture_start(rig.f, "fanout", "fanout-1", "--lease-ms", "1000", NULL);
    rig_edges(&rig, "u", 50, "p:daily");
    char user[32];
    for (unsigned i = 0; i < 50; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_true(rig_timeline(&rig, user));
    }
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    server_pause(s);
    struct server *second = fixture_start_only(rig.f, "fanout", "fanout-2", "--lease-ms", "1000", NULL);
    UNTIL(second_owns_all, second);
    rig_publish(&rig, 2, "daily", "sport");
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    server_continue(s);
    ANSWERS(s, "/v1/status", 200, "\"buckets\":128");
    ANSWERS(second, "/v1/status", 200, "\"buckets\":128");
    progress_reaches(rig_publish(&rig, 4, "daily", ""));
    for (unsigned i = 0; i < 50; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_count(&rig, user), 5);
    }
}

static void without_its_servers_it_waits_and_is_not_ready(void **state)
{
    (void)state;
    server_kill(fixture_redis(rig.f));
    struct server *s = fixture_start_only(rig.f, "fanout", "fanout-1", NULL);
    ANSWERS(s, "/healthz", 200, NULL);
    ANSWERS(s, "/readyz", 503, "redis");
    fixture_restart(rig.f, fixture_redis(rig.f));
    ANSWERS(s, "/readyz", 200, NULL);
}

static void it_can_be_stopped_while_its_servers_are_gone(void **state)
{
    (void)state;
    struct err e = {0};
    server_kill(fixture_redis(rig.f));
    server_kill(fixture_mongod(rig.f));
    struct server *s = fixture_start_only(rig.f, "fanout", "fanout-1", NULL);
    ANSWERS(s, "/readyz", 503, NULL);
    int rc = server_stop(s, 15000 * fixture_slowness(), &e);
    fixture_restart(rig.f, fixture_redis(rig.f));
    fixture_restart(rig.f, fixture_mongod(rig.f));
    if (rc != 0)
        fail_msg("stop: %s", e.msg);
    assert_true(WIFEXITED(server_status(s)) && WEXITSTATUS(server_status(s)) == 0);
}

static void a_wrong_option_is_named_and_ends_it(void **state)
{
    (void)state;
    const char *wrong[][2] = {
        {"--timeline-entries", "3"}, {"--log-level", "loud"}, {"--redis", "nowhere"}, {"--no-such", "1"}};
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        struct server *s = fixture_start_only(rig.f, "fanout", "wrong", wrong[i][0], wrong[i][1], NULL);
        while (server_running(s))
            usleep(1000);
        assert_true(WIFEXITED(server_status(s)) && WEXITSTATUS(server_status(s)) != 0);
        fixture_forget(rig.f, s);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        T(it_is_ready_when_it_owns_its_shares_and_says_so),
        T(sigterm_ends_it_with_status_0_and_its_shares_are_free),
        T(killed_and_restarted_under_its_name_it_goes_on_at_once),
        T(one_paused_while_another_took_over_is_fenced_and_comes_back_politely),
        T(without_its_servers_it_waits_and_is_not_ready),
        T(it_can_be_stopped_while_its_servers_are_gone),
        T(a_wrong_option_is_named_and_ends_it),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
