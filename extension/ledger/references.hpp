// Legacy ids of one pipeline as another one's values: through the mappings of the pipeline that is referred
// to, of the same scope. Who owns the referring pipeline must be able to read about the other.
#pragma once

#include "ledger/items.hpp"
#include "ledger/roles.hpp"
#include "pipeline/plan.hpp"

namespace portage::ledger {

/// How a run of `pipeline` for a scope translates references. The plan, and the arena to which the keys are
/// copied, must outlive it. Raises PZ004 where a pipeline is gone, or may not be seen by this one's owner any
/// more.
Translate translator(const Plan&, const std::string& scope, formats::Arena&);

/// Checks what a definition refers to, for the pipeline's owner: that it is there, has a key of one column,
/// and that this fits the referring column; and the pipelines that it comes after. PZ001 with the place of
/// the fault. Returns the ids of all that it names; 0 for the pipeline itself.
std::map<std::string, int64_t> check_references(const Plan&, const StoredPipeline& own);

/// The pipelines whose current definition refers to one, itself included; and their runs of a scope (of any,
/// without one) that have parked items, oldest first.
std::vector<int64_t> runs_waiting_for(int64_t pipeline_id, const std::optional<std::string>& scope);

/// Runs with parked items, with their roles, for which a pipeline that they refer to has completed a run
/// since they were last tried.
struct RunWithNews {
  int64_t id;
  Role role, session_role;
};
std::vector<RunWithNews> runs_with_news();
/// A moment before which nothing was done that cannot be seen now.
std::string moment_of_all_seen();
/// They have been tried, with all that was migrated up to then.
void note_references_tried(int64_t run_id, const std::string& moment);

}  // namespace portage::ledger
