/* Which Accept-Encoding means that gzip may be sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/http_accept.h"
#include "common/mem.h"

static void expect(const char *const *fields, size_t n, bool taken)
{
    for (size_t i = 0; i < n; i++) {
        if (http_accepts_gzip(fields[i]) != taken)
            fail_msg("\"%s\" is %staken", fields[i] ? fields[i] : "(none)", taken ? "not " : "");
    }
}

static void gzip_is_sent_to_who_takes_it(void **state)
{
    static const char *const fields[] = {
        "gzip",
        "GZip",
        "x-gzip",
        "deflate, gzip, br, zstd",
        "gzip;q=1.0",
        "gzip ; q=0.5",
        "gzip;Q=0.001",
        " br ,\tgzip",
        ",gzip,,",
        "*",
        "*;q=0.1",
        "br;q=0, *",
        "gzip;q=0.5, identity;q=0.5",
        "identity;q=0, gzip;q=0.1",
        "identity;q=0.2, *;q=0.3",
        "*;q=0, gzip",
    };
    (void)state;
    expect(fields, MEM_COUNT(fields), true);
}

static void gzip_is_not_sent_to_who_refuses_it_or_does_not_name_it(void **state)
{
    static const char *const fields[] = {
        NULL,
        "",
        " ",
        "identity",
        "br, deflate",
        "gzip;q=0",
        "gzip;q=0.0",
        "gzip; q=0.000, *",
        "*;q=0",
        "gzip;q=0.5, identity",
        "gzip;q=0.2, identity;q=0.8",
        "gzippy",
        "gzi",
    };
    (void)state;
    expect(fields, MEM_COUNT(fields), false);
}

static void what_can_not_be_read_means_plain(void **state)
{
    static const char *const fields[] = {
        "gzip;q=1.1", "gzip;q=2",  "gzip;q=-1",   "gzip;q=",         "gzip;q=0.1234", "gzip;q=x",
        "gzip;x=1",   "gzip;",     "gzip gzip",   "gzip;q=1;q=1",    "gzip=1",        "\"gzip\"",
        "gzip/1",     "gzip;q=01", "gzip, br;q=", "gzip, (comment)",
    };
    (void)state;
    expect(fields, MEM_COUNT(fields), false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gzip_is_sent_to_who_takes_it),
        cmocka_unit_test(gzip_is_not_sent_to_who_refuses_it_or_does_not_name_it),
        cmocka_unit_test(what_can_not_be_read_means_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
