/* http_chunk.h - decodes a chunked body, strictly (RFC 9112, section 7.1). Inside the HTTP module only; pure.
 *
 * http-parser's own decoder is not used for requests: Debian's build takes bare LF, spaces and bad digits in
 * the framing, and framing that two programs read differently is what request smuggling is made of.
 */
#ifndef FEEDMILL_HTTP_CHUNK_H
#define FEEDMILL_HTTP_CHUNK_H

#include <stddef.h>
#include <stdint.h>

struct http_chunk {
    int state;
    unsigned digits;
    unsigned lines; /* of the trailer section */
    uint64_t left;  /* of the chunk */
    uint32_t spent; /* bytes of this size line or of the trailer section */
};

enum http_chunk_result {
    HTTP_CHUNK_MORE, /* all n bytes were taken */
    HTTP_CHUNK_DATA, /* *data, *len are body bytes; call again with the rest */
    HTTP_CHUNK_DONE, /* the body is complete; what is behind `used` is the next request */
    HTTP_CHUNK_BAD,
    HTTP_CHUNK_TRAILERS, /* the trailer section is too large */
};

void http_chunk_init(struct http_chunk *k);

/* http_chunk_feed() reads up to n bytes, *used says how many; *data points into p. */
enum http_chunk_result http_chunk_feed(struct http_chunk *k, const char *p, size_t n, size_t *used,
                                       const char **data, size_t *len);

#endif
