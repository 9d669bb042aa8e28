// plan(): what a run would meet, as JSON: blockers with their remedies, the writer and why, the parts, and an
// estimate with its basis.
#pragma once

#include "ledger/runs.hpp"

namespace portage::run {

/// JSON object: can_proceed, blockers, writer, data_breakdown, estimated_*, recommendations.
std::string plan_of(const ledger::Run&);

struct Duration {
  double seconds;
  std::string text;   ///< an interval's
  std::string basis;  ///< how it is known, in words
  bool by_history;    ///< by the pipeline's completed runs; else it is a guess
};
/// How long so many items will take.
Duration estimated_duration(int64_t pipeline_id, int64_t items);
/// So many seconds, rounded, as an interval's text.
std::string interval_text(double seconds);

/// The same for validate(): everything is read, and what would become of it is counted. JSON as in the
/// reference. Writes nothing that stays.
std::string validation_of(const ledger::Run&);

}  // namespace portage::run
