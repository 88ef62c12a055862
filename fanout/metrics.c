#include "fanout/metrics.h"

static const struct metric_row rows[M_N] = {
    [M_CHANGES] = {"feedmill_fanout_changes_total", METRIC_COUNTER, "Changes of the log that were handled.",
                   "kind", "item,user,target,api_key,heartbeat,other"},
    [M_APPLY] = {"feedmill_fanout_apply_seconds", METRIC_HISTOGRAM,
                 "Time from reading a change to its last script's answer.", "kind", "item,user"},
    [M_TIMELINES] = {"feedmill_fanout_timelines_total", METRIC_COUNTER,
                     "Timelines named in scripts, absent ones too.", "script", "deliver,remove,drop"},
    [M_SCRIPTS] = {"feedmill_fanout_scripts_total", METRIC_COUNTER, "Script calls sent to Redis.", "script",
                   "deliver,remove,drop,progress,adopt"},
    [M_REFUSED] = {"feedmill_fanout_refused_groups_total", METRIC_COUNTER,
                   "Groups that a record refused: another owner, or Redis lost something.", NULL, NULL},
    [M_AUDIENCE] = {"feedmill_fanout_audience_rows_total", METRIC_COUNTER, "Followers read from MongoDB.",
                    NULL, NULL},
    [M_AUDIENCE_SKIPPED] = {"feedmill_fanout_audience_skipped_total", METRIC_COUNTER,
                            "Followers left out because their document does not read as it should.", NULL,
                            NULL},
    [M_REPLAYS] = {"feedmill_fanout_replays_total", METRIC_COUNTER,
                   "Times the log was read again from an earlier point.", NULL, NULL},
    [M_SHARES] = {"feedmill_fanout_shares_total", METRIC_COUNTER, "What happened to shares.", "what",
                  "taken,lost,given,renewed_epoch"},
    [M_BUCKETS_OWNED] = {"feedmill_fanout_buckets_owned", METRIC_GAUGE,
                         "Buckets that this process applies the log to.", NULL, NULL},
    [M_MEMBERS] = {"feedmill_fanout_members", METRIC_GAUGE, "Fanouts that are alive, this one included.",
                   NULL, NULL},
    [M_LAG] = {"feedmill_fanout_progress_lag_seconds", METRIC_GAUGE,
               "Age of the newest heartbeat that progress has passed.", NULL, NULL},
    [M_LAG_SECONDS] = {"feedmill_fanout_lag_seconds", METRIC_HISTOGRAM,
                       "The same at each writing of progress.", NULL, NULL},
    [M_BACKLOG] = {"feedmill_fanout_backlog", METRIC_GAUGE,
                   "Changes read from the log that are not delivered to everybody yet.", NULL, NULL},
    [M_READERS] = {"feedmill_fanout_readers", METRIC_GAUGE,
                   "Readers known to have a timeline; 0 until that is found out.", NULL, NULL},
    [M_LISTS] = {"feedmill_fanout_lists", METRIC_GAUGE, "Targets whose active followers are in memory.", NULL,
                 NULL},
    [M_LISTS_BYTES] = {"feedmill_fanout_lists_bytes", METRIC_GAUGE, "Memory of these lists.", NULL, NULL},
    [M_LISTS_TOO_LARGE] = {"feedmill_fanout_lists_too_large_total", METRIC_COUNTER,
                           "Lists not kept: read from MongoDB each time (see --audience-cache).", NULL, NULL},
    [M_NEWBORNS] = {"feedmill_fanout_newborns_total", METRIC_COUNTER,
                    "Timelines built or changed meanwhile that were put on the lists.", NULL, NULL},
    [M_ERRORS] = {"feedmill_fanout_errors_total", METRIC_COUNTER, "Errors met, by what they are of.", "of",
                  "mongodb,redis,log_lost,corrupt,other"},
};

struct metrics *fanout_metrics_new(void)
{
    return metrics_new(rows, M_N);
}
