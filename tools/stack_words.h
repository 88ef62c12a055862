/* stack_words.h - what a running stack tells the person at the terminal, apart from single events. */
#ifndef FEEDMILL_TOOLS_STACK_WORDS_H
#define FEEDMILL_TOOLS_STACK_WORDS_H

#include <stdbool.h>
#include <stdint.h>
#include "tools/servers.h"
#include "tools/stack_data.h"

/* stack_words_say() prints "feedmill: <text>" and a newline on stdout, at once. */
void stack_words_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* stack_words_ready() prints the address, where logs and the admin key are, and after how long. */
void stack_words_ready(const struct stack_data *d, int port, int64_t after_ms);

/* stack_words_demo() prints three curl lines that read a demo reader's pages, if <data>/demo.reader names a
 * reader whose page has items; false if there is none yet. */
bool stack_words_demo(const struct stack_data *d, int port);

/* stack_words_empty() prints three curl lines that publish, follow and read. */
void stack_words_empty(const struct stack_data *d, int port);

/* stack_words_why() prints the lines of the log's end that tell of an error, at most five, or its last lines.
 */
void stack_words_why(const struct server *s);

#endif
