// What the ledger keeps of who a pipeline's owner or a run's role is, handed on to another role. Who may do
// that, and when, is decided by the callers (run/transfer.cpp).
#pragma once

#include "ledger/roles.hpp"

namespace portage::ledger {

/// The runs of the run's group, the run among them; the run alone if it is in none. Until the end of the
/// transaction nobody moves the group on.
std::vector<int64_t> lock_run_and_group(int64_t run_id);
/// The role becomes that of the run, and of the group that it is in. Background workers connect as it, too.
/// Who still believes to own the run learns that it does not.
void give_run(int64_t run_id, const Role& to);
/// The role becomes the owner of the pipeline and of the schedules that ran as the former one. Returns that.
Role give_pipeline(int64_t id, const Role& to);

}  // namespace portage::ledger
