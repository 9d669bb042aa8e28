// Which runs an index of migration_runs has that knows only some of them: the active ones, those with parked
// items. These are few among all that ever were, so they are read from the index itself: a plan that was made
// while the table was small would look through all.
#pragma once

#include <cstdint>
#include <vector>

namespace portage::ledger {

/// The ids of the runs in a partial index of migration_runs, in its order.
std::vector<int64_t> runs_in(const char* index);

}  // namespace portage::ledger
