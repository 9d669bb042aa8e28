// Pipelines of the ledger, compiled against their targets: also where an initial load has taken away the key
// by which a target is described. Knows what is written down of it, not why it was done.
#pragma once

#include "ledger/runs.hpp"
#include "pipeline/plan.hpp"

namespace portage::ledger {

/// Plan::compile. A target whose key is away is described with the key that it will have again, for the run
/// that took it away; PZ002 for all others, and names that run.
std::unique_ptr<Plan> compile(const StoredPipeline&, int64_t run_id = 0);
/// The same of a run's pipeline, as the run's role, in the run's time zone.
std::unique_ptr<Plan> compile(const Run&, Oid role);

}  // namespace portage::ledger
