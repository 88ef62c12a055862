#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <string.h>
#include "fanout/status.h"

static const struct room_view no_limit = {.used = -1, .by_redis = -1};

static json_t *render_with(const struct engine_status *st, const struct room_view *room, bool draining,
                           int64_t now_ms)
{
    struct buf b;
    buf_init(&b, 65536);
    buf_add_str(&b, "{\"process\":\"fanout\"");
    status_render(st, room, "fan \"out\"-1", draining, now_ms, &b);
    buf_add_char(&b, '}');
    json_t *j = json_loads(b.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    buf_done(&b);
    return j;
}

static json_t *render(const struct engine_status *st, bool draining, int64_t now_ms)
{
    return render_with(st, &no_limit, draining, now_ms);
}

static void the_status_is_json_and_names_shares_lag_and_servers(void **state)
{
    (void)state;
    struct engine_status st = {.ready = true, .redis_ok = true, .members = 2, .fair = 8, .buckets = 32};
    st.share[3].owned = st.share[15].owned = true;
    st.share[3].epoch = 7;
    st.share[3].progress = st.progress = ts_make(5, 1);
    st.heartbeat_at_ms = 1000;
    json_t *j = render(&st, false, 1250);
    assert_string_equal(json_string_value(json_object_get(j, "name")), "fan \"out\"-1");
    assert_true(json_is_true(json_object_get(j, "ready")));
    assert_string_equal(json_string_value(json_object_get(j, "redis")), "ok");
    assert_string_equal(json_string_value(json_object_get(j, "mongodb")), "lost");
    assert_int_equal(json_integer_value(json_object_get(j, "lag_ms")), 250);
    assert_string_equal(json_string_value(json_object_get(j, "progress")), "0000000500000001");
    json_t *shares = json_object_get(j, "shares");
    assert_int_equal(json_array_size(shares), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(shares, 0), "epoch")), 7);
    json_decref(j);
}

static void a_draining_process_is_not_ready_and_an_unknown_lag_is_null(void **state)
{
    (void)state;
    struct engine_status st = {.ready = true};
    json_t *j = render(&st, true, 1250);
    assert_true(json_is_false(json_object_get(j, "ready")));
    assert_true(json_is_true(json_object_get(j, "draining")));
    assert_true(json_is_null(json_object_get(j, "lag_ms")));
    assert_int_equal(json_array_size(json_object_get(j, "shares")), 0);
    json_decref(j);
}

static void a_lag_is_never_negative(void **state)
{
    (void)state;
    struct engine_status st = {.heartbeat_at_ms = 1000};
    assert_int_equal(engine_lag_ms(&st, 900), 0);
    assert_int_equal(engine_lag_ms(&st, 1100), 100);
    st.heartbeat_at_ms = 0;
    assert_int_equal(engine_lag_ms(&st, 900), -1);
}

static void it_tells_the_backlog_and_the_memory_of_redis(void **state)
{
    (void)state;
    struct engine_status st = {.ready = true, .backlog = 12};
    struct room_view room = {.known = true, .used = 900, .max = 1000, .policy = "noeviction", .by_redis = 2};
    room.evicted = 3;
    room.tight = true;
    json_t *j = render_with(&st, &room, false, 1250);
    json_t *m = json_object_get(j, "redis_memory");
    assert_int_equal(json_integer_value(json_object_get(j, "backlog")), 12);
    assert_int_equal(json_integer_value(json_object_get(m, "used_bytes")), 900);
    assert_int_equal(json_integer_value(json_object_get(m, "max_bytes")), 1000);
    assert_int_equal(json_integer_value(json_object_get(m, "evicted_keys")), 2);
    assert_int_equal(json_integer_value(json_object_get(m, "evicted_timelines")), 3);
    assert_string_equal(json_string_value(json_object_get(m, "policy")), "noeviction");
    assert_true(json_is_true(json_object_get(m, "tight")));
    json_decref(j);
    j = render(&st, false, 1250); /* Redis has told nothing yet */
    m = json_object_get(j, "redis_memory");
    assert_true(json_is_null(json_object_get(m, "used_bytes")) && json_is_null(json_object_get(m, "policy")));
    assert_true(json_is_null(json_object_get(m, "max_bytes")));
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_status_is_json_and_names_shares_lag_and_servers),
        cmocka_unit_test(a_draining_process_is_not_ready_and_an_unknown_lag_is_null),
        cmocka_unit_test(a_lag_is_never_negative),
        cmocka_unit_test(it_tells_the_backlog_and_the_memory_of_redis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
