/* text.h - the words of a text, in any script, so that muted words can be found in it.
 *
 * A text becomes a sorted set of 64-bit hashes; a muted word becomes one hash; muted is what is in the set.
 * Both are folded in the same way first: NFKC_Casefold (The Unicode Standard, section 5.18), and on top the
 * dotless and dotted i of Turkish are one letter, and Greek letters lose the tonos, which capitals do not
 * carry. Other accents count: "resume" is not "résumé".
 *
 * Words of a text are
 *   - runs of letters, marks and numbers; connectors ("_") and apostrophes belong to a word within it. Of
 * "cat's" there is also "cat", of "l'avion" also "avion";
 *   - what stands between white space, without the punctuation around it, so that "e-mail", "c++" and "#ai"
 * are found;
 *   - each symbol (emoji) alone;
 *   - in scripts that put no spaces between words (Han, kana, Thai, Lao, Khmer, Burmese) every one to four
 * characters behind one another. A muted word of more than four such characters is matched by its first four:
 * it may hide a little more than it says, and never less. Of one whose first four are all of another script
 * only what stands between white space is compared.
 *
 * Pure functions, any thread.
 */
#ifndef FEEDMILL_TEXT_H
#define FEEDMILL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

#define TEXT_BYTES_MAX (128 * 1024) /* of a text; what is behind is not looked at */
#define TEXT_WORDS_MAX 16384        /* hashes of a text, repeated ones counted; likewise */

struct word_set {
    uint64_t *hashes; /* ascending, each once; NULL when there are none */
    size_t n;
    bool cut; /* the text had more than the maxima above */
};

/* text_words() makes *out the words of n bytes at utf8 (not well-formed: none); word_set_done() frees it. */
void text_words(const char *utf8, size_t n, struct word_set *out);
void word_set_done(struct word_set *s);

/* text_word_hash() folds a muted word. -1: there is nothing in it that a text could be asked for (punctuation
 * only, not UTF-8), *out is untouched. */
int text_word_hash(const char *word, uint64_t *out) MUST_USE;

bool word_set_has(const struct word_set *s, uint64_t hash);

#endif
