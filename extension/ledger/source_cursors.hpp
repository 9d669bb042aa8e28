// source_cursors: up to where the runs of a pipeline have read its source. A row per run, moved by the
// batches themselves; what positions mean is not known here.
#pragma once

#include "ledger/parts.hpp"
#include "ledger/runs.hpp"

namespace portage::ledger {

/// The position that was reached last in this source (the part's query and cursor column); nothing: none.
std::optional<std::string> source_position(const Run&, const Part&);
/// The run has read the source up to the row of this key, whose first column is the cursor; in this
/// transaction, which also wrote a batch.
void set_source_position(const Run&, const Part&, const std::string& key);
/// The run is taken back: what it, and whoever ran since, has read is to be read again. `shared`: ids are
/// shared by all scopes.
void forget_source_positions(const Run&, bool shared);

}  // namespace portage::ledger
