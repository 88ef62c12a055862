#include "common/admission.h"

#define MEMORY 16 /* jobs */
#define TIMES  2  /* as long as usual is what one may take, for they differ */

int64_t admission_run(int64_t run_us, int64_t us)
{
    if (us < 1)
        us = 1;
    return run_us == 0 ? us : run_us + (us - run_us) / MEMORY;
}

/* Jobs that have to end before this one begins. */
static int64_t jobs_before(const struct admission *a)
{
    int64_t n = (int64_t)a->queued + a->busy - a->threads + 1;
    return n > 0 ? n : 0;
}

int64_t admission_wait_us(const struct admission *a)
{
    return jobs_before(a) * a->run_us / a->threads;
}

bool admission_takes(const struct admission *a, int64_t left_us, int64_t target_us, int64_t now_us)
{
    if (jobs_before(a) == 0 || a->run_us == 0)
        return true;
    int64_t wait = admission_wait_us(a);
    if (wait + TIMES * a->run_us > left_us)
        return false;
    bool stands = a->since_us != 0 && now_us - a->since_us >= ADMISSION_STANDING_US;
    return target_us == 0 || !stands || wait <= target_us;
}
