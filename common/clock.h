/* clock.h - wall and monotonic time, RFC 3339. Order of events is never decided by these (see ts.h); they
 * measure durations and stamp what people read. Any thread.
 */
#ifndef FEEDMILL_CLOCK_H
#define FEEDMILL_CLOCK_H

#include <stdint.h>
#include <time.h>
#include "common/err.h"

int64_t clock_wall_ms(void); /* ms since 1970-01-01 UTC */
int64_t clock_mono_ms(void); /* ms of a clock that never jumps; comparable within one boot of the machine */
int64_t clock_mono_us(void);

/* clock_deadline_in() is the time ms (0 or more) from now, for a pthread_cond_timedwait() on CLOCK_MONOTONIC.
 */
struct timespec clock_deadline_in(int64_t ms);

#define CLOCK_RFC3339_SIZE 32

/* clock_format() writes ms (0 to year 9999) as "2026-01-02T03:04:05.678Z" into out[CLOCK_RFC3339_SIZE]. */
void clock_format(int64_t ms, char *out);

/* clock_parse() reads an RFC 3339 date-time (T or t, offset or Z, 0 to 9 fraction digits of which three
 * count, leap second 60 read as 59.999) into ms; negative before 1970. ERR_INVALID. */
int clock_parse(const char *s, int64_t *ms, struct err *e) MUST_USE;

#endif
