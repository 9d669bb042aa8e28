// Whether anybody has written mappings where there were none: for a run that begins with an empty space and
// knows its own.
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

/// The last batch that there is by now, if the space has no mappings; whoever asks holds the lock on it
/// (run/access.hpp).
std::optional<int64_t> empty_since(const MappingSpace&);
/// Whether no run of the pipeline but this one has finished a batch after that one.
bool untouched_since(const MappingSpace&, int64_t run_id, int64_t batch);

}  // namespace portage::ledger
