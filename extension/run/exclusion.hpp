// What keeps runs apart: one at a time for a pipeline and scope, and for a target that a pipeline wants for
// itself. Always by try, never by waiting. Knows nothing of what a run does once it may.
#pragma once

#include "run/job.hpp"

namespace portage::run {

/// Whose runs must not be active at the same time: the scope's or, where scopes share their ids, everybody's.
std::optional<std::string> excluded_scope(const Job&);
/// Takes the lock on pipeline and scope until the transaction ends. PZ007 if another session has it; 40001 if
/// the transaction's snapshot is older than what others have done there.
void exclude_others(const Job&);
/// Raises what stands in the way of the run (preflight.hpp).
void check_blockers(const Job&);
/// PZ007 for a run into the same target where one of the two pipelines wants it for itself.
void refuse_rivals(const Job&);

}  // namespace portage::run
