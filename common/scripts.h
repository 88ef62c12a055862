/* scripts.h - the Lua scripts that change timelines: the whole protocol between fanout and feed-api lies
 * here.
 *
 * A timeline is tl:{b}:user (sorted set; member = item id, score = -id, and the floor as member "f" with
 * score = -floor) and pf:{b}:user (hash: r = R as 16 hex digits, st = "b" building or "r" ready, tk = token
 * while building, m = mutes, p = the pull list, d = entries removed since,
 * x = wall seconds when its expiry was last set). It exists only if both do.
 * bk:{b} is the record: epoch, n, stamp, seen, born, progress (all but n as 16 hex digits), births (how many
 * timelines were begun); bn:{b} lists the last of these. Ids above the
 * floor are complete; ids at or below it are read from MongoDB. Entries that lie below the floor (late items)
 * are ignored by readers and go with the next trim. The pull list names the targets whose items after R need
 * not be in the set, since whoever reads it adds them by himself: "\n" and then each target with a "\n".
 *
 * Scripts of an owner take groups, one a bucket. ARGV of a group: epoch, n, count; KEYS of a group: the
 * record, then `count` timelines. They answer an array with one integer a group: 1 applied, 0 refused (epoch
 * or n differ: the owner was replaced, or Redis lost something), and then nothing of the group was changed.
 * An applied group has n + 1 in its record. A timeline with a key of another type is left out and named: the
 * group then answers an array with the text "user reason" for each of these (beside what else it would tell).
 */
#ifndef FEEDMILL_SCRIPTS_H
#define FEEDMILL_SCRIPTS_H

#define SCRIPT_NEWBORNS_MAX 256

enum script {
    /* ARGV: T, id, -id, cap, high, tell, then groups. Adds the id where the timeline exists and T > R; when
     * it holds `high` members it is first trimmed to `cap`, and the floor rises to the largest id removed.
     * tell = "1": a group with absent timelines answers the array of their places in it (from 0) instead of
     * 1. */
    SCRIPT_DELIVER,
    /* The same for several items. ARGV: the last T, cap, high, tell, m, then m times (T, id, -id), T never
     * falling, then groups. m is less than cap, high more than cap + 1. A timeline that would hold more than
     * `high` is trimmed before, so that it never does. */
    SCRIPT_DELIVER_MANY,
    /* ARGV: T, id, then groups. Takes the id out where T > R, and counts it in d of pf; a timeline being
       built is dropped instead (its token goes). */
    SCRIPT_REMOVE,
    /* ARGV: T, then groups. Drops each timeline with R < T, or whose R can't be read. A group of which one
     * stays answers 2. */
    SCRIPT_DROP,
    /* A target turned to pull at T. ARGV: T, target ("p:name"), then groups. Puts it on the pull list where
     * T > R; a timeline being built is dropped instead. Twice does no harm. */
    SCRIPT_PULL,
    /* A target turned back to push at T. ARGV: T, target, cap, -floor, n, n ids, then groups. Where T > R and
     * the target is on the pull list: the ids (its newest, read at T or later) are merged in, at most `cap`
     * are kept, the floor rises to `floor` (0 when there are no older ones than these) and to the largest id
     * removed, and the target leaves the list. A timeline being built is dropped instead. */
    SCRIPT_PUSH,
    /* ARGV: T, P, then groups with count 0 and a fourth argument: how many births the owner knows of, or "-"
     * when it does not care. Raises `seen` to T. Sets progress to P if that is later, unless there were
     * births that the owner does not know of: then the group answers an array of the newborn, the last one
     * first, as R (16 hex digits) and the user in one string, and behind them the present number of births.
     * The array holds nothing but that number when they were more than SCRIPT_NEWBORNS_MAX. */
    SCRIPT_PROGRESS,
    /* One bucket. KEYS: bk. ARGV: epoch, now, reset ("1": make a new record in any case). Makes the record if
     * there is none (stamp = seen = born = progress = now), else writes the epoch into it; n = 0. Answers {1
     * taken over | 2 made | 0 refused because a later epoch is there, progress}. */
    SCRIPT_ADOPT,
    /* One timeline. KEYS: tl, pf, bk. ARGV: least R, token, expiry in ms. Answers {1, R}: begun, the caller
     * reads the truth at R and finishes with the token; {2, R}: there is a ready one with at least that R;
     * {0, R}: another one is being built with at least that R; {-1}: the bucket has no record. */
    SCRIPT_BUILD,
    /* One timeline. KEYS: tl, pf. ARGV: token, floor, -floor, cap, expiry in ms, mutes, wall seconds, pull
       list ("" for none), then pairs of -id, id. Answers 1, or 0 when the token is gone. */
    SCRIPT_FINISH,
    /* Engagement of one stream. KEYS: en, then one ee for each event that has an event_id. ARGV: longest
     * stream, expiry of ee in ms, user, then for each event: type, item, at, dwell_ms, "1" when it has an ee.
     * Answers an array: 1 taken, 0 seen before. */
    SCRIPT_EVENTS,
    /* Learns from entries of one stream, each once: an entry that is not pending for the group any more is
     * skipped. KEYS: en, then for each entry af, ic, ih. ARGV: group, now in ms, half-life of affinity and of
     * engagement in ms, fields of af at most, expiry of af and of ic in ms, then for each entry: its id,
     * who:what (counted once an item), weight for affinity, weight for engagement, number of targets,
     * targets. Answers how many were learned. A value is "<sum> <ms when it was that>". */
    SCRIPT_LEARN,
    /* One timeline that was read. KEYS: tl, pf. ARGV: expiry in ms, wall seconds. Sets both its expiry and x,
     * if it is there and ready. Answers 1, or 0 when it is not. */
    SCRIPT_TOUCH,
    /* One timeline that has to make room. KEYS: tl, pf. ARGV: x as it was seen. Drops it, whoever owns the
     * bucket, unless it was read or made since. Answers 1 dropped, 0 not. */
    SCRIPT_EVICT,
    /* One timeline that was found wrong. KEYS: tl, pf. ARGV: its R as it was seen, or the beginning of one
     * that is longer than 16 bytes. Drops it, whoever owns the bucket, unless it was rebuilt since. Answers 1
     * dropped, 0 not. */
    SCRIPT_DISCARD,
    /* A reader who is erased. KEYS: tl, pf, af, bn. ARGV: user. Drops what is kept of him, whoever owns the
     * bucket; in the list of timelines built last his name becomes one that nobody can have. Answers how many
     * keys there were. */
    SCRIPT_ERASE,
    SCRIPT_N
};

const char *script_source(enum script s);
const char *script_name(enum script s);

#endif
