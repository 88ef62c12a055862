/* names.h - the callers' own names: users, publishers, topics; and what can be followed or muted.
 *
 * A name is UTF-8, 1 to 64 bytes, without white space (Unicode's), control characters, '/', '{', '}'.
 * A target is a kind letter, a colon and a name, as stored: "p:daily-news", "t:sports"; mutes also know
 * "i:<item id>" and "w:<word>" (a word follows the rule of names).
 */
#ifndef FEEDMILL_NAMES_H
#define FEEDMILL_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include "common/err.h"

#define NAME_MAX_BYTES   64
#define TARGET_TEXT_SIZE (NAME_MAX_BYTES + 3) /* kind, colon, name, NUL */

enum target_kind { TARGET_PUBLISHER, TARGET_TOPIC, TARGET_ITEM, TARGET_WORD };

/* names_check() answers ERR_INVALID with the reason, e.g. "must not hold white space". n is in bytes. */
int names_check(const char *s, size_t n, struct err *e) MUST_USE;

/* utf8_valid() says whether n bytes are well-formed UTF-8 (no surrogates, no overlong forms, no U+0000). */
bool utf8_valid(const char *s, size_t n);

const char *target_kind_name(enum target_kind k); /* "publisher", "topic", "item", "word" */
int target_kind_parse(const char *s, enum target_kind *out) MUST_USE; /* -1: none of the four */
char target_kind_letter(enum target_kind k);                          /* 'p', 't', 'i', 'w' */

/* target_format() writes "p:name"; name has passed names_check(). */
void target_format(enum target_kind k, const char *name, char out[TARGET_TEXT_SIZE]);

/* target_split() reads "p:name" back; *name points into s. ERR_CORRUPT. */
int target_split(const char *s, enum target_kind *k, const char **name, struct err *e) MUST_USE;

#endif
