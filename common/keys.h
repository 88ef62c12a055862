/* keys.h - every key in Redis, and the bucket of a user.
 *
 * The hash tag of a key is its bucket, so that all keys of a bucket lie in one slot of a Redis Cluster.
 *
 * - tl:{b}:user: sorted set, the timeline. Member = item id, score = -id; member "f" = the floor, score =
 *   -floor.
 * - pf:{b}:user: hash, what belongs to the timeline (R, state, token, mutes).
 * - bk:{b}: hash, the record of the bucket (epoch, n, stamp, seen, born, progress, births).
 * - bn:{b}: list, the timelines built last, as R and user.
 * - en:{s}: stream of engagement events, s = bucket % EVENT_STREAMS.
 * - ee:{s}:user/event_id: string, this event was counted.
 * - rk:{b}:user/session: sorted set, a frozen ranked session, score = place from 0; member "m:..." = what it
 *   was made of.
 * - af:{b}:user: hash, affinities of a reader.
 * - ic:{s}:item: hash, decayed counters of an item, s = item id % EVENT_STREAMS.
 * - ih:{s}:item: HyperLogLog, who did what with the item, so that each counts once.
 *
 * A name holds no '/', so what follows one cannot be taken for a part of the name.
 * Functions write into a buffer of KEY_SIZE and answer the length. Any thread.
 */
#ifndef FEEDMILL_KEYS_H
#define FEEDMILL_KEYS_H

#include <stddef.h>
#include <stdint.h>
#include "common/ids.h"

#define BUCKETS       256
#define EVENT_STREAMS 16
#define KEY_SIZE      400 /* the longest: ee with a name of 64 and an event id of 256 bytes */

/* keys_bucket() is crc16(user) % BUCKETS; CRC-16/XMODEM, the one of Redis Cluster's key slots. */
unsigned keys_bucket(const char *user);
uint16_t keys_crc16(const char *s, size_t n);

size_t keys_timeline(char out[KEY_SIZE], unsigned bucket, const char *user);
size_t keys_timeline_meta(char out[KEY_SIZE], unsigned bucket, const char *user);
size_t keys_bucket_record(char out[KEY_SIZE], unsigned bucket);
size_t keys_births(char out[KEY_SIZE], unsigned bucket);
size_t keys_event_stream(char out[KEY_SIZE], unsigned stream);
size_t keys_event_seen(char out[KEY_SIZE], unsigned stream, const char *user, const char *event_id);
size_t keys_session(char out[KEY_SIZE], unsigned bucket, const char *user, const char *session);
size_t keys_affinity(char out[KEY_SIZE], unsigned bucket, const char *user);
size_t keys_item_counters(char out[KEY_SIZE], item_id id);
size_t keys_item_readers(char out[KEY_SIZE], item_id id);

#endif
