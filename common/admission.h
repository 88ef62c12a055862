/* admission.h - whether work is taken in, or refused while that still costs nothing. Pure; any thread.
 *
 * What waits has to be done within its deadline, so taking in what can't be wastes the time of those who
 * could have been served. How long a job would wait follows from how many are before it and how long one
 * takes. And a queue that stands (somebody has always been waiting for ADMISSION_STANDING_US) is no burst
 * that goes by: there is more work than can be done, and a long queue only makes all of it late. Then jobs
 * are taken in only as far as they wait no longer than `target`. (Controlled delay: "Fail at Scale", ACM
 * Queue 13-8, 2015, after CoDel, RFC 8289.)
 */
#ifndef FEEDMILL_ADMISSION_H
#define FEEDMILL_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#define ADMISSION_STANDING_US 100000

struct admission {
    unsigned threads; /* at least 1 */
    unsigned busy;    /* of them */
    unsigned queued;  /* jobs that wait already */
    int64_t run_us;   /* a job takes, see admission_run(); 0: not known yet */
    int64_t since_us; /* on clock_mono_us(): since when somebody has been waiting; 0: nobody waits */
};

/* admission_run() is the new run_us after a job took us: a mean of about the last 16. */
int64_t admission_run(int64_t run_us, int64_t us);

/* admission_wait_us() is how long a job would wait for a thread. */
int64_t admission_wait_us(const struct admission *a);

/* admission_takes() decides about a job that has to be done within left_us. target_us 0: a standing queue is
 * as good as any. Whoever finds an idle thread is always taken. */
bool admission_takes(const struct admission *a, int64_t left_us, int64_t target_us, int64_t now_us);

#endif
