// What the closing stage of a run with several workers asks of the ledger: which items met, unseen by the
// workers, or stand in the way of one that is still to be judged. Knows items as they are recorded, not what
// they bring.
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

/// Items that share their legacy id, or the row that they landed in or met, with an item before them, at
/// least one of the two having landed; highest first, at most `limit`. Only what workers did side by side
/// counts, not what has been settled since. Reads the run's items.
std::vector<int64_t> hidden_collisions(int64_t run_id, int64_t limit);

/// Of these target keys, the items whose rows they are: what the run has inserted and nobody has settled
/// since. Reads the run's items.
std::unordered_map<std::string, int64_t> standing_ordinals(int64_t run_id,
                                                           const std::vector<std::string>& keys);

/// An item that is about to be judged: what it is known by, and a row that it will meet.
struct Claim {
  int64_t ordinal;
  std::string legacy_id, target_key;  ///< "" if none
};
/// Items behind one of these that landed, or were kept out, under its legacy id or in its row; highest first.
/// Reads the run's items.
std::vector<int64_t> in_the_way(int64_t run_id, const std::vector<Claim>&);

}  // namespace portage::ledger
