/* Cursors from clients: none that was not sealed with the key is opened, and none harms. The first byte says
 * what is done: the rest is opened as it is, or as the fields of a cursor that is sealed, opened, and then
 * opened again with one character changed. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/cursor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[CURSOR_KEY_SIZE] = {0x5f, 0x1c, 0x93, 0x77, 0x2e};

static void open_raw(const uint8_t *data, size_t size)
{
    char *text = mem_strndup((const char *)data, size);
    struct cursor out;
    struct err e;
    assert(cursor_open(key, text, CURSOR_FEED, "reader", &out, &e) != 0);
    free(text);
}

static void seal_and_change(const uint8_t *data, size_t size)
{
    struct cursor c = {.route = CURSOR_FEED}, out;
    memcpy(c.scope, "reader", sizeof "reader");
    size_t n = size < sizeof c.session - 1 ? size : sizeof c.session - 1;
    memcpy(c.session, data, n);
    c.last = (item_id)(size * 7919 + data[0]);
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert(cursor_open(key, text, CURSOR_FEED, "reader", &out, &e) == 0);
    assert(out.last == c.last && strcmp(out.session, c.session) == 0);
    assert(cursor_open(key, text, CURSOR_FEED, "another", &out, &e) != 0);
    size_t at = data[0] % strlen(text);
    /* The last character may hold bits that stand for nothing. */
    if (at + 1 < strlen(text) && text[at] != (char)data[size - 1]) {
        text[at] = (char)data[size - 1];
        assert(cursor_open(key, text, CURSOR_FEED, "reader", &out, &e) != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    if (data[0] & 1) {
        open_raw(data + 1, size - 1);
    } else {
        seal_and_change(data + 1, size - 1);
    }
    return 0;
}
