#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/names.h"

/* Standard error goes to a file while a test logs. */
struct capture {
    FILE *file;
    int saved;
    char text[256 * 1024];
};

static struct capture capture;

static void capture_start(void)
{
    capture.file = tmpfile();
    assert_non_null(capture.file);
    fflush(stderr);
    capture.saved = dup(STDERR_FILENO);
    dup2(fileno(capture.file), STDERR_FILENO);
    /* O_APPEND, so that writes of several threads each go to the end */
    fcntl(STDERR_FILENO, F_SETFL, O_APPEND);
}

static const char *capture_end(void)
{
    dup2(capture.saved, STDERR_FILENO);
    close(capture.saved);
    rewind(capture.file);
    size_t n = fread(capture.text, 1, sizeof capture.text - 1, capture.file);
    capture.text[n] = '\0';
    fclose(capture.file);
    return capture.text;
}

/* What stands behind "event=" on the only line. */
static const char *fields_of(const char *text)
{
    const char *p = strstr(text, " event=");
    assert_non_null(p);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    return p + 7;
}

static void a_line_has_time_level_process_event_and_fields(void **state)
{
    (void)state;
    log_init("fanout", LOG_INFO);
    capture_start();
    log_event(LOG_WARN, "share_taken", LOG_I("share", 4), LOG_U("epoch", 17), LOG_S("why", "lease ran out"),
              LOG_D("load", 0.25), LOG_X("at", 255));
    const char *text = capture_end();
    char want[200];
    snprintf(want, sizeof want,
             "Z warn fanout[%ld] event=share_taken share=4 epoch=17 why=\"lease ran out\" load=0.25 "
             "at=00000000000000ff\n",
             (long)getpid());
    assert_int_equal(text[10], 'T');
    assert_string_equal(text + 23, want);
}

static void fields_may_be_left_out(void **state)
{
    (void)state;
    log_init("fanout", LOG_INFO);
    capture_start();
    log_event(LOG_INFO, "started");
    assert_string_equal(fields_of(capture_end()), "started\n");
}

static void an_error_is_logged_with_code_and_text(void **state)
{
    (void)state;
    struct err e;
    (void)err_set(&e, ERR_TIMEOUT, "no answer in %d ms", 20);
    capture_start();
    log_event(LOG_ERROR, "read_failed", LOG_ERR(&e), LOG_I("share", 1));
    assert_string_equal(fields_of(capture_end()),
                        "read_failed code=timeout error=\"no answer in 20 ms\" share=1\n");
}

static void the_ends_of_numbers_are_written(void **state)
{
    (void)state;
    capture_start();
    log_event(LOG_INFO, "n", LOG_I("i", INT64_MIN), LOG_U("u", UINT64_MAX), LOG_X("x", UINT64_MAX));
    assert_string_equal(fields_of(capture_end()),
                        "n i=-9223372036854775808 u=18446744073709551615 x=ffffffffffffffff\n");
}

static void lines_below_the_lowest_level_are_not_written(void **state)
{
    (void)state;
    log_init("x", LOG_WARN);
    capture_start();
    log_event(LOG_DEBUG, "a");
    log_event(LOG_INFO, "b");
    assert_string_equal(capture_end(), "");
    log_init("x", LOG_DEBUG);
    capture_start();
    log_event(LOG_DEBUG, "a");
    assert_string_equal(fields_of(capture_end()), "a\n");
}

static void levels_are_read_by_name(void **state)
{
    (void)state;
    enum log_level l;
    assert_int_equal(log_level_parse("debug", &l), 0);
    assert_int_equal(l, LOG_DEBUG);
    assert_int_equal(log_level_parse("error", &l), 0);
    assert_int_equal(l, LOG_ERROR);
    assert_int_equal(log_level_parse("loud", &l), -1);
    assert_int_equal(log_level_parse("", &l), -1);
    assert_int_equal(l, LOG_ERROR);
}

static void logs_as(const char *value, const char *want)
{
    char line[300];
    snprintf(line, sizeof line, "e v=%s\n", want);
    capture_start();
    log_event(LOG_INFO, "e", LOG_S("v", value));
    assert_string_equal(fields_of(capture_end()), line);
}

static void values_are_quoted_only_where_they_have_to_be(void **state)
{
    (void)state;
    logs_as("plain-1.2/3:x", "plain-1.2/3:x");
    logs_as("\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9");
    logs_as("a b", "\"a b\"");
    logs_as("", "\"\"");
    logs_as(NULL, "\"\"");
    logs_as("a=b", "\"a=b\"");
    logs_as("say \"hi\"", "\"say \\\"hi\\\"\"");
    logs_as("back\\slash", "\"back\\\\slash\"");
}

static void a_value_can_not_forge_a_line(void **state)
{
    (void)state;
    logs_as("a\nb", "\"a\\nb\"");
    logs_as("a\rb\tc", "\"a\\x0db\\tc\"");
    logs_as("\x1b[31m\x7f", "\"\\x1b[31m\\x7f\"");
    logs_as("a\xc2\x85"
            "b",
            "\"a\\u0085b\"");
    logs_as("bad\xff\xc3", "\"bad\\xff\\xc3\"");
}

static void a_long_line_is_cut_and_says_so(void **state)
{
    (void)state;
    char *value = malloc(2 * LOG_LINE_MAX);
    assert_non_null(value);
    memset(value, 'y', 2 * LOG_LINE_MAX - 1);
    value[2 * LOG_LINE_MAX - 1] = '\0';
    value[0] = ' '; /* quoted */
    capture_start();
    log_event(LOG_INFO, "e", LOG_S("v", value), LOG_S("after", "x"));
    const char *text = capture_end();
    size_t n = strlen(text);
    assert_int_equal(n, LOG_LINE_MAX);
    assert_string_equal(text + n - 11, "yyy\" cut=1\n");
    assert_null(strstr(text, "after"));
    free(value);
}

static void a_cut_never_parts_a_character_or_an_escape(void **state)
{
    (void)state;
    char value[2 * LOG_LINE_MAX];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(value, 'a', shift);
        for (size_t i = shift; i + 4 < sizeof value; i += 4)
            memcpy(value + i, "\xf0\x9f\x98\x80", 5);
        capture_start();
        log_event(LOG_INFO, "e", LOG_S("v", value));
        const char *text = capture_end();
        assert_true(utf8_valid(text, strlen(text)));
        assert_true(strlen(text) <= LOG_LINE_MAX);
        assert_non_null(strstr(text, "\x80 cut=1\n"));

        memset(value, '\n', sizeof value - 1);
        value[sizeof value - 1] = '\0';
        memset(value, 'a', shift);
        capture_start();
        log_event(LOG_INFO, "e", LOG_S("v", value));
        text = capture_end();
        assert_string_equal(text + strlen(text) - 10, "\\n\" cut=1\n");
    }
}

static void a_line_that_just_fits_is_not_cut(void **state)
{
    (void)state;
    char value[LOG_LINE_MAX];
    size_t longest = 0;
    for (size_t n = LOG_LINE_MAX - 200; n < LOG_LINE_MAX - 1; n++) {
        memset(value, 'z', n);
        value[n] = '\0';
        capture_start();
        log_event(LOG_INFO, "e", LOG_S("v", value));
        const char *text = capture_end();
        assert_true(strlen(text) <= LOG_LINE_MAX);
        bool cut = strstr(text, " cut=1\n") != NULL;
        assert_true(cut == (strstr(text, value) == NULL));
        if (!cut)
            longest = strlen(text);
    }
    assert_int_equal(longest, LOG_LINE_MAX - strlen(" cut=1"));
}

static void logging_keeps_errno(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO); /* the write fails */
    errno = ERANGE;
    log_event(LOG_INFO, "e");
    int after = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(after, ERANGE);
}

static void *log_hundred(void *name)
{
    for (int i = 0; i < 100; i++)
        log_event(LOG_INFO, name, LOG_S("v", "some text that takes a while"), LOG_I("i", i));
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    (void)state;
    log_init("t", LOG_INFO);
    capture_start();
    pthread_t t[4];
    static const char *const names[] = {"one", "two", "three", "four"};
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, log_hundred, (void *)(intptr_t)names[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    int lines = 0;
    capture_end();
    for (char *p = capture.text, *end; (end = strchr(p, '\n')) != NULL; p = end + 1, lines++) {
        char name[8];
        int i;
        *end = '\0';
        assert_int_equal(
            sscanf(strstr(p, "event="), "event=%7s v=\"some text that takes a while\" i=%d", name, &i), 2);
    }
    assert_int_equal(lines, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_process_event_and_fields),
        cmocka_unit_test(fields_may_be_left_out),
        cmocka_unit_test(an_error_is_logged_with_code_and_text),
        cmocka_unit_test(the_ends_of_numbers_are_written),
        cmocka_unit_test(lines_below_the_lowest_level_are_not_written),
        cmocka_unit_test(levels_are_read_by_name),
        cmocka_unit_test(values_are_quoted_only_where_they_have_to_be),
        cmocka_unit_test(a_value_can_not_forge_a_line),
        cmocka_unit_test(a_long_line_is_cut_and_says_so),
        cmocka_unit_test(a_cut_never_parts_a_character_or_an_escape),
        cmocka_unit_test(a_line_that_just_fits_is_not_cut),
        cmocka_unit_test(logging_keeps_errno),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
