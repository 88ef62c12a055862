/* proc.h - the skeleton that the three processes share: what is done once at start and once at the end.
 *
 *   main: proc_init("fanout"); config_load(...); log_init(...); base = event_base_new();
 *         signals = proc_signals_new(base, drain, app); ... event_base_dispatch(base); ...
 *         proc_signals_free(signals); event_base_free(base); proc_done();
 */
#ifndef FEEDMILL_PROC_H
#define FEEDMILL_PROC_H

#include <event2/event.h>
#include <stdint.h>
#include "common/err.h"

/* proc_init() is the first call of main(), on its thread, before any other thread: names the log (info and
 * above, until log_init() says otherwise), gives the allocator to jansson and libevent, makes libevent safe
 * for threads, sets the C locale, ignores SIGPIPE, raises the limit of open files to what the system allows,
 * starts libmongoc, and sends what the libraries have to say to the log. name is static. Aborts when libevent
 * has no threads. */
void proc_init(const char *name);

/* proc_done() is the last call of main(), when all other threads have ended and all clients of MongoDB are
 * freed. */
void proc_done(void);

/* proc_file_limit() is how many files this process may have open (RLIMIT_NOFILE). Any thread. */
int64_t proc_file_limit(void);

#define PROC_INSTANCE_SIZE 64

/* proc_instance() is "<host>-<pid>-<8 random hex digits>", one text as long as the process lives: no other
 * process, also not the next one with this pid, has it. It follows the rule of names (names.h). Any thread;
 * static. */
const char *proc_instance(void);

/* Runs on the thread of the event base, once: stop taking work, finish what was begun, then end the loop. */
typedef void (*proc_drain_fn)(int signum, void *arg);

struct proc_signals;

/* proc_signals_new() makes SIGTERM and SIGINT call drain through base, whichever thread they arrive at. The
 * first one calls it; a second one, of either kind, ends the process at once with status 1: whoever sends it
 * has lost patience with the first. While there is one, no other event base may handle signals. ERR_INTERNAL.
 */
int proc_signals_new(struct proc_signals **out, struct event_base *base, proc_drain_fn drain, void *arg,
                     struct err *e) MUST_USE;

/* proc_signals_free() is called on the thread of the base, before the base is freed; then the signals kill
 * again. NULL is fine. Pending events do not keep event_base_dispatch() running: end the loop yourself. */
void proc_signals_free(struct proc_signals *s);

#endif
