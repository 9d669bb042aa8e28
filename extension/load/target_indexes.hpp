// The target's indexes, taken away and made again exactly as they were: by the statements that anybody would
// use, as the current user. Knows what PostgreSQL can put back, not when that is done (run/initial_load.hpp).
#pragma once

#include "ledger/deferred_indexes.hpp"
#include "pipeline/target.hpp"

namespace portage::load {

/// All of them, in the order in which they were made. `stays` says what cannot be put back exactly, or would
/// be missed meanwhile.
std::vector<ledger::DeferredIndex> indexes_of(const Target&);

/// Whether these columns take, from their defaults, values that are another for each row: of a sequence that
/// does not begin again, or random UUIDs.
bool draws_apart(const Target&, const std::vector<int>& attnums);

/// Takes the index away, with the constraint that it serves.
void drop_index(const Target&, const ledger::DeferredIndex&);
/// Makes it again, unless it is there. 23505 where rows are equal.
void create_index(const Target&, const ledger::DeferredIndex&);

}  // namespace portage::load
