// Parts that bring the bytes which an earlier run has read, and whose items are still as that run left them,
// are passed over whole: decided once, before anything is read. Knows nothing of items.
#pragma once

#include "run/job.hpp"

namespace portage::run {

/// Smaller parts are read: to find out takes as long, and a run says more of items that it has read.
inline constexpr int64_t least_passed_over = 64 << 10;

/// Marks them in the ledger and in `parts`, and tells of them; how many bytes they have. Where the run
/// commits, so does this: digesting a large file takes several transactions.
int64_t pass_over_unchanged(Job&, std::vector<ledger::Part>& parts);

}  // namespace portage::run
