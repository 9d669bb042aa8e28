// The definition's own checks: queries over the imported data that give one value. Code of the pipeline's
// owner, hence evaluated like its expressions, and never able to write. Knows nothing of runs but their
// number and scope.
#pragma once

#include "pipeline/plan.hpp"

namespace portage {

/// What a check gave.
struct CheckValue {
  std::optional<std::string> expected, actual;  ///< as text; nothing: null
  bool passed = false;
  std::string error, sqlstate;  ///< what it raised, if it did; sqlstate "" otherwise
};

/// Parses and analyses the checks as the pipeline's owner: single SELECTs of one column whose type can be
/// compared with what is expected. Throws with the JSON path of the fault in the detail.
void try_checks(const Plan&);

/// Evaluates one; $1 is the run (bigint), $2 its scope (text). The current user must be the run's role. What
/// the check raises is its result, except cancels, deadlocks and lack of resources.
CheckValue evaluate_check(const Plan&, const DataCheck&, int64_t run_id, const std::string& scope);

/// Errors that say nothing about what was looked at: a cancel, a broken deadlock, memory or disk full.
bool ends_verification(int sqlerrcode);

/// False where the definition's expressions may give other values another time, from the same source:
/// volatile functions, the time, functions that look things up.
bool is_repeatable(const Plan&);

}  // namespace portage
