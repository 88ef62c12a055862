#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

struct options {
    char *uri;
    char *name;
    int64_t threads;
    int64_t cache;
    int64_t deadline;
    double weight;
    bool verbose;
};

static const struct config_row rows[] = {
    {"mongodb-uri", CONFIG_STRING, offsetof(struct options, uri), "mongodb://localhost", 1, 100,
     "where MongoDB is"},
    {"name", CONFIG_STRING, offsetof(struct options, name), "", 0, 0, "what it calls itself"},
    {"threads", CONFIG_INT, offsetof(struct options, threads), "2", -1, 64, "how many threads"},
    {"cache", CONFIG_BYTES, offsetof(struct options, cache), "64k", 0, 1099511627776.0,
     "memory of the cache"},
    {"request-deadline", CONFIG_MS, offsetof(struct options, deadline), "2s", 1, 3600000,
     "time for a request"},
    {"weight", CONFIG_DOUBLE, offsetof(struct options, weight), "0.5", -1, 1, "of the new"},
    {"verbose", CONFIG_BOOL, offsetof(struct options, verbose), "no", 0, 0, "say more"},
};

static struct options options;
static struct err error;
static char path[64];

/* Loads with up to six arguments behind the program's name. */
static int load_rows(const struct config_row *r, size_t n, enum config_result *result, char **args)
{
    char *argv[8] = {"feed-api"};
    int argc = 1;
    for (; args[argc - 1] != NULL; argc++)
        argv[argc] = args[argc - 1];
    error = (struct err){ERR_NONE, ""};
    memset(&options, 0, sizeof options);
    return config_load("feed-api", "serves feeds over HTTP", r, n, argc, argv, &options, result, &error);
}

/* The NULL that ends the arguments is that of the array's last elements. */
#define LOAD(...) load_rows(rows, COUNT(rows), &(enum config_result){CONFIG_RUN}, (char *[7]){__VA_ARGS__})

static void write_file(const char *text, size_t n)
{
    strcpy(path, "/tmp/feedmill-test-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    static const char *const names[] = {"MONGODB_URI",      "NAME",   "THREADS", "CACHE",
                                        "REQUEST_DEADLINE", "WEIGHT", "VERBOSE", "CONFIG"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char name[64];
        snprintf(name, sizeof name, "FEEDMILL_%s", names[i]);
        unsetenv(name);
    }
    path[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    config_free(rows, COUNT(rows), &options);
    if (path[0] != '\0')
        unlink(path);
    return setup(state);
}

static void expect_error(int rc, const char *part, const char *part2)
{
    assert_int_equal(rc, -1);
    assert_int_equal(error.code, ERR_INVALID);
    if (strstr(error.msg, part) == NULL || strstr(error.msg, part2) == NULL)
        fail_msg("\"%s\" does not name \"%s\" and \"%s\"", error.msg, part, part2);
    assert_null(options.uri); /* nothing to free */
    assert_null(options.name);
}

static void without_a_source_the_defaults_hold(void **state)
{
    (void)state;
    assert_int_equal(LOAD(NULL), 0);
    assert_string_equal(options.uri, "mongodb://localhost");
    assert_string_equal(options.name, "");
    assert_int_equal(options.threads, 2);
    assert_int_equal(options.cache, 65536);
    assert_int_equal(options.deadline, 2000);
    assert_true(options.weight == 0.5);
    assert_false(options.verbose);
}

static void both_forms_of_a_flag_are_read(void **state)
{
    (void)state;
    assert_int_equal(LOAD("--threads", "7", "--mongodb-uri=mongodb://a/?b=c", "--name="), 0);
    assert_int_equal(options.threads, 7);
    assert_string_equal(options.uri, "mongodb://a/?b=c");
    assert_string_equal(options.name, "");
}

static void a_negative_number_is_a_value_and_not_a_flag(void **state)
{
    (void)state;
    assert_int_equal(LOAD("--threads", "-1", "--weight", "-0.25"), 0);
    assert_int_equal(options.threads, -1);
    assert_true(options.weight == -0.25);
}

static void the_last_of_two_equal_flags_counts(void **state)
{
    (void)state;
    assert_int_equal(LOAD("--name=a", "--name=b"), 0);
    assert_string_equal(options.name, "b");
}

static void a_bool_flag_alone_means_yes(void **state)
{
    (void)state;
    assert_int_equal(LOAD("--verbose", "--threads", "3"), 0);
    assert_true(options.verbose);
    assert_int_equal(options.threads, 3);
    config_free(rows, COUNT(rows), &options);
    assert_int_equal(LOAD("--threads", "3", "--verbose"), 0);
    assert_true(options.verbose);
}

static void a_bool_takes_the_usual_words(void **state)
{
    (void)state;
    static const char *const yes[] = {"yes", "true", "1", "on", "YES"};
    static const char *const no[] = {"no", "false", "0", "off", "Off"};
    for (size_t i = 0; i < COUNT(yes); i++) {
        assert_int_equal(LOAD("--verbose", (char *)(intptr_t)yes[i]), 0);
        assert_true(options.verbose);
        config_free(rows, COUNT(rows), &options);
        setenv("FEEDMILL_VERBOSE", "yes", 1);
        assert_int_equal(LOAD("--verbose", (char *)(intptr_t)no[i]), 0);
        assert_false(options.verbose);
        config_free(rows, COUNT(rows), &options);
    }
    expect_error(LOAD("--verbose=maybe"), "--verbose", "yes or no");
}

static void flags_win_over_the_environment_that_over_the_file_that_over_the_default(void **state)
{
    (void)state;
    static const char file[] = "threads = 3\ncache = 3\nweight = 0.3\nname = file\n";
    write_file(file, sizeof file - 1);
    setenv("FEEDMILL_CACHE", "4", 1);
    setenv("FEEDMILL_WEIGHT", "0.4", 1);
    setenv("FEEDMILL_NAME", "environment", 1);
    assert_int_equal(LOAD("--config", path, "--weight", "0.6", "--name=flag"), 0);
    assert_int_equal(options.deadline, 2000);
    assert_int_equal(options.threads, 3);
    assert_int_equal(options.cache, 4);
    assert_true(options.weight == 0.6);
    assert_string_equal(options.name, "flag");
}

static void the_file_may_be_named_by_the_environment_and_the_flag_wins(void **state)
{
    (void)state;
    static const char file[] = "threads=5\n";
    write_file(file, sizeof file - 1);
    setenv("FEEDMILL_CONFIG", path, 1);
    assert_int_equal(LOAD(NULL), 0);
    assert_int_equal(options.threads, 5);
    config_free(rows, COUNT(rows), &options);
    expect_error(LOAD("--config=/nonexistent/x.conf"), "/nonexistent/x.conf", "No such file");
}

static void the_file_has_comments_blank_lines_and_loose_spaces(void **state)
{
    (void)state;
    static const char file[] =
        "# a comment\n\n   # another = one\r\n  threads=9\r\n\tname =  a # b = c  \nverbose = on";
    write_file(file, sizeof file - 1);
    assert_int_equal(LOAD("--config", path), 0);
    assert_int_equal(options.threads, 9);
    assert_string_equal(options.name, "a # b = c");
    assert_true(options.verbose);
}

static void a_wrong_line_is_named_by_its_number(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"threads = 3\nthreds = 4\n", ":2: unknown option \"threds\""},
        {"\n\nthreads\n", ":3: not of the form"},
        {"threads = x\n", ":1: threads: must be"},
        {"threads = 3\n#\nthreads = 4\n", ":3: threads is there already, on line 1"},
        {"config = x\n", ":1: unknown option"},
        {"= 3\n", ":1: unknown option"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_file(cases[i].text, strlen(cases[i].text));
        expect_error(LOAD("--config", path), cases[i].part, path);
        unlink(path);
    }
    expect_error(LOAD("--config=/"), "config file /", "directory");
}

static void lines_too_long_or_with_zero_bytes_and_endless_files_are_refused(void **state)
{
    (void)state;
    write_file("threads\0=3\n", 11);
    expect_error(LOAD("--config", path), ":1:", "not text");
    unlink(path);
    char line[6000];
    memset(line, 'x', sizeof line);
    write_file(line, sizeof line);
    expect_error(LOAD("--config", path), ":1:", "too long");
    unlink(path);
    memset(line, '\n', sizeof line);
    write_file(line, sizeof line);
    expect_error(LOAD("--config", path), "more than", "lines");
}

static void a_wrong_value_in_the_file_is_told_even_when_a_flag_wins(void **state)
{
    (void)state;
    write_file("threads = 999\n", 14);
    expect_error(LOAD("--config", path, "--threads", "3"), ":1: threads", "-1 to 64");
}

static void bytes_know_their_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t v;
    } cases[] = {{"0", 0},
                 {"5", 5},
                 {"3k", 3072},
                 {"3K", 3072},
                 {"2m", 2097152},
                 {"1g", 1073741824},
                 {"1024g", 1099511627776}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(LOAD("--cache", (char *)(intptr_t)cases[i].text), 0);
        assert_int_equal(options.cache, cases[i].v);
        config_free(rows, COUNT(rows), &options);
    }
    static const char *const bad[] = {
        "",     "k",  "1.5k", "1kb", "1 k", "-1", "1025g", "9223372036854775807k", "99999999999999999999",
        "0x10", "+5", " 5",   "1ms", "--"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        char arg[64];
        snprintf(arg, sizeof arg, "--cache=%s", bad[i]);
        expect_error(LOAD(arg), "--cache", "0 to 1024g");
    }
}

static void durations_know_their_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t v;
    } cases[] = {{"1", 1}, {"250ms", 250}, {"3s", 3000}, {"2m", 120000}, {"1h", 3600000}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(LOAD("--request-deadline", (char *)(intptr_t)cases[i].text), 0);
        assert_int_equal(options.deadline, cases[i].v);
        config_free(rows, COUNT(rows), &options);
    }
    static const char *const bad[] = {"0", "2h", "1d", "1k", "1min", "s", "-5s"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        setenv("FEEDMILL_REQUEST_DEADLINE", bad[i], 1);
        expect_error(LOAD(NULL), "FEEDMILL_REQUEST_DEADLINE", "1ms to 1h");
    }
}

static void numbers_out_of_range_or_not_numbers_are_refused_with_range_and_value(void **state)
{
    (void)state;
    expect_error(LOAD("--threads", "65"), "--threads: must be a whole number from -1 to 64", "\"65\"");
    expect_error(LOAD("--threads", "-2"), "-1 to 64", "\"-2\"");
    expect_error(LOAD("--threads=1.0"), "-1 to 64", "\"1.0\"");
    expect_error(LOAD("--threads=5k"), "-1 to 64", "\"5k\"");
    expect_error(LOAD("--weight=1.01"), "--weight: must be a number from -1 to 1", "\"1.01\"");
    static const char *const bad[] = {"--weight=nan", "--weight=inf",   "--weight=0x1", "--weight=",
                                      "--weight= 1",  "--weight=1e999", "--weight=e"};
    for (size_t i = 0; i < COUNT(bad); i++)
        expect_error(LOAD((char *)(intptr_t)bad[i]), "--weight", "-1 to 1");
}

static void a_string_of_a_wrong_length_is_refused_without_being_shown(void **state)
{
    (void)state;
    char arg[200] = "--mongodb-uri=secret";
    memset(arg + 20, 's', sizeof arg - 21);
    expect_error(LOAD(arg), "--mongodb-uri: must be 1 to 100 bytes long", "is 185");
    assert_null(strstr(error.msg, "secret"));
    expect_error(LOAD("--mongodb-uri="), "--mongodb-uri", "1 to 100");
    char *name = malloc(5000);
    memset(name, 'n', 5000);
    memcpy(name, "--name=", 7);
    name[7 + 4096] = '\0';
    assert_int_equal(LOAD(name), 0);
    config_free(rows, COUNT(rows), &options);
    name[7 + 4096] = 'n';
    name[7 + 4097] = '\0';
    expect_error(LOAD(name), "--name", "0 to 4096");
    free(name);
}

static void unknown_flags_and_stray_words_are_refused(void **state)
{
    (void)state;
    expect_error(LOAD("--thread", "3"), "unknown option --thread", "--help");
    expect_error(LOAD("--threads-max=3"), "unknown option --threads-max", "");
    expect_error(LOAD("-t", "3"), "unexpected argument \"-t\"", "");
    expect_error(LOAD("word"), "unexpected argument \"word\"", "");
    expect_error(LOAD("--"), "unexpected argument", "");
    expect_error(LOAD("--threads", "3", "4"), "unexpected argument \"4\"", "");
    expect_error(LOAD("--=3"), "unknown option", "");
}

static void a_flag_without_its_value_is_refused(void **state)
{
    (void)state;
    expect_error(LOAD("--threads"), "--threads needs a value", "");
    expect_error(LOAD("--threads", "--verbose"), "--threads needs a value", "");
    expect_error(LOAD("--config"), "--config needs a value", "");
    expect_error(LOAD("--config="), "--config needs a value", "");
}

static void an_error_after_strings_were_taken_leaves_nothing_to_free(void **state)
{
    (void)state;
    setenv("FEEDMILL_NAME", "n", 1);
    expect_error(LOAD("--mongodb-uri=x", "--threads=none"), "--threads", "");
}

static void a_string_that_has_no_default_must_be_given(void **state)
{
    (void)state;
    static const struct config_row one[] = {
        {"mongodb-uri", CONFIG_STRING, offsetof(struct options, uri), NULL, 1, 100, "where MongoDB is"}};
    enum config_result r;
    expect_error(load_rows(one, 1, &r, (char *[]){NULL}),
                 "--mongodb-uri (or FEEDMILL_MONGODB_URI) must be given", "");
    assert_int_equal(load_rows(one, 1, &r, (char *[]){"--mongodb-uri=x", NULL}), 0);
    config_free(one, 1, &options);
    assert_null(options.uri);
}

/* What config_load() prints for one argument. */
static const char *printed(char *arg)
{
    static char text[8192];
    FILE *f = tmpfile();
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(f), STDOUT_FILENO);
    enum config_result r = CONFIG_RUN;
    int rc = load_rows(rows, COUNT(rows), &r, (char *[]){"--threads", "999", arg, NULL});
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    assert_int_equal(rc, 0);
    assert_int_equal(r, CONFIG_EXIT_OK);
    return text;
}

static void help_lists_every_option_with_range_and_default(void **state)
{
    (void)state;
    const char *text = printed("--help");
    assert_memory_equal(text, "feed-api serves feeds over HTTP\n", 32);
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_non_null(strstr(text, rows[i].name));
        assert_non_null(strstr(text, rows[i].help));
    }
    assert_non_null(strstr(text, "1ms to 1h; default 2s"));
    assert_non_null(strstr(text, "0 to 1024g; default 64k"));
    assert_non_null(strstr(text, "-1 to 64; default 2"));
    assert_non_null(strstr(text, "default mongodb://localhost"));
    assert_non_null(strstr(text, "--config FILE"));
    assert_string_equal(printed("-h"), text);
}

static void version_is_printed(void **state)
{
    (void)state;
    assert_string_equal(printed("--version"), "feed-api " FEEDMILL_VERSION "\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_a_source_the_defaults_hold),
        TEST(both_forms_of_a_flag_are_read),
        TEST(a_negative_number_is_a_value_and_not_a_flag),
        TEST(the_last_of_two_equal_flags_counts),
        TEST(a_bool_flag_alone_means_yes),
        TEST(a_bool_takes_the_usual_words),
        TEST(flags_win_over_the_environment_that_over_the_file_that_over_the_default),
        TEST(the_file_may_be_named_by_the_environment_and_the_flag_wins),
        TEST(the_file_has_comments_blank_lines_and_loose_spaces),
        TEST(a_wrong_line_is_named_by_its_number),
        TEST(lines_too_long_or_with_zero_bytes_and_endless_files_are_refused),
        TEST(a_wrong_value_in_the_file_is_told_even_when_a_flag_wins),
        TEST(bytes_know_their_suffixes),
        TEST(durations_know_their_suffixes),
        TEST(numbers_out_of_range_or_not_numbers_are_refused_with_range_and_value),
        TEST(a_string_of_a_wrong_length_is_refused_without_being_shown),
        TEST(unknown_flags_and_stray_words_are_refused),
        TEST(a_flag_without_its_value_is_refused),
        TEST(an_error_after_strings_were_taken_leaves_nothing_to_free),
        TEST(a_string_that_has_no_default_must_be_given),
        TEST(help_lists_every_option_with_range_and_default),
        TEST(version_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
