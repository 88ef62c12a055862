/* handlers_status.h - what those who run it look at: readiness, metrics, status. Loop's thread. */
#ifndef FEEDMILL_HANDLERS_STATUS_H
#define FEEDMILL_HANDLERS_STATUS_H

#include "common/admin.h"

struct app;

/* status_options() fills what admin.h needs to answer for this app. */
void status_options(struct app *app, struct admin_options *out);

#endif
