/* config_value.h - one value of one option: text to field, and what the row takes in words. Used by config.c
 * only; pure but for the memory of strings, any thread.
 */
#ifndef FEEDMILL_CONFIG_VALUE_H
#define FEEDMILL_CONFIG_VALUE_H

#include "common/config.h"

#define CONFIG_STRING_MAX 4096 /* bytes, for rows that name no range */

/* config_value_store() writes text into the row's field of the struct at cfg, in place of an older value;
 * false, with the field untouched, when it does not fit the row. */
bool config_value_store(const struct config_row *row, char *cfg, const char *text);

/* config_value_range() says what the row takes, e.g. "ms (or s, m, h, d) from 1ms to 1h", in at most size
 * bytes. */
void config_value_range(const struct config_row *row, char *out, size_t size);

#endif
