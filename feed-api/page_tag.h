/* page_tag.h - the ETag of a page, from what the page is made of.
 *
 * A tag is 64 bits over numbers and strings, in the order in which they are added, the same in every process
 * and after every restart. It is weak (RFC 9110, 8.8.1): pages with the same tag say the same, but their
 * lag_ms, and the freshness sealed into their cursors, may differ. Pure; no allocation; any thread.
 *
 *   struct page_tag t;
 *   page_tag_init(&t);
 *   page_tag_add(&t, id);
 *   page_tag_write(&t, text);
 *   if (page_tag_matches(http_request_header(r, "If-None-Match"), text)) ... 304
 */
#ifndef FEEDMILL_PAGE_TAG_H
#define FEEDMILL_PAGE_TAG_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_TAG_TEXT_SIZE 21 /* W/"16 hex digits" and the NUL */

struct page_tag {
    uint64_t h;
};

void page_tag_init(struct page_tag *t);
void page_tag_add(struct page_tag *t, uint64_t v);
void page_tag_add_str(struct page_tag *t, const char *s); /* NULL is another one than "" */
void page_tag_write(const struct page_tag *t, char out[PAGE_TAG_TEXT_SIZE]);

/* page_tag_matches() says whether an If-None-Match (NULL: none) names the tag: a list of tags, weak or not,
 * compared weakly (RFC 9110, 13.1.2), or "*". What can't be read as that matches nothing, so that the whole
 * page is answered. */
bool page_tag_matches(const char *if_none_match, const char *tag);

#endif
