// Retention: what is known of the items of runs that ended long ago is erased, in batches. What exactly, and
// of which runs, is known by ledger/retention.hpp.
#pragma once

#include "ledger/retention.hpp"

namespace portage::run {

/// Erases what ended before that time, of one pipeline or of all, in a procedure that may commit. With
/// `steps`, no further run is begun after so many transactions: false if more is left.
bool purge(std::optional<int64_t> pipeline_id, TimestampTz ended_before, ledger::Erased&,
           std::optional<int> steps = std::nullopt);

/// What "retain" says in the definitions of the pipelines of the current user (an administrator: of all), at
/// a moment (seconds since 1970 UTC): a portion of it, once an hour when nothing is left.
void purge_by_definition(int64_t now);

}  // namespace portage::run
