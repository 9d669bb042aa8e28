// The heartbeat: what has come due on schedules is begun as their owners, retried, or passed over. Knows
// nothing of what a run does.
#pragma once

#include "run/background.hpp"

namespace portage::schedule {

/// Seconds since 1970 UTC. Raises 22008 beyond the year 9999.
int64_t moment_of(TimestampTz);

/// Looks after the schedules as whose owners the current user may act, at a moment, each in a transaction of
/// its own: in a procedure that may commit. What cannot be begun is noted with its schedule and in the log.
void look_after_schedules(int64_t now, run::Heartbeat);

}  // namespace portage::schedule
