// Runs of the past whose items wait for what they refer to, taken up again once that has been migrated.
#pragma once

#include "run/background.hpp"
#include "run/reopened.hpp"

namespace portage::run {

struct ParkedCounts {
  int64_t settled = 0, still_parked = 0;
};

class Parked : Reopened {
 public:
  Parked(const ledger::Run& run, Commits commits);
  /// `give_up`: what is still missing becomes invalid. With Commits::yes a transaction per page.
  ParkedCounts work(bool give_up);
};

/// Runs with parked items that refer to a pipeline, of a scope (of any, without one): settles those that can
/// be. What stands in the way of one (another session has it, its role is not the caller's) leaves it for
/// tick().
void settle_waiting_runs(int64_t pipeline_id, const std::optional<std::string>& scope, Commits);
/// What follows the completion of a run, where that was broken off: the same again. False if nothing is left
/// to be done.
bool settle_waiting_runs_after(const ledger::Run&);
/// The same for all runs that the current user may settle, and whose references have been migrated meanwhile.
void settle_waiting_runs_of_user(Heartbeat);

}  // namespace portage::run
