// The operator's control over a run: what cancel() and retry() do, for whoever has to do it by a rule.
#pragma once

#include <cstdint>

namespace portage::run {

/// Ends a run: at once if nobody works on it, else after the batch in hand. PZ006 if it cannot be cancelled;
/// 42501 if the current user may not change it.
void cancel(int64_t id);

/// Has a background worker go on with a run that is paused or interrupted. PZ006 and the rest likewise.
void resume(int64_t id);

/// Has a background worker go on with a failed run. PZ006 for another; 42501 likewise, and what
/// send_worker() raises.
void retry(int64_t id);

}  // namespace portage::run
