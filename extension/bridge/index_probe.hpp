// Many rows of a table by the keys of one unique index: as a join would find them, without a plan. Who may
// look is the caller's affair.
#pragma once

#include "bridge/scope.hpp"

namespace portage::bridge {

/// The values of a table's columns that are looked for, by attnum - 1.
struct Sought {
  const Datum* values;
  const bool* nulls;
};

/// A unique b-tree index, and the columns that it is of. `ordered`: none of them is ever null.
struct ProbedIndex {
  Oid oid;
  std::vector<int> attnums;
  bool ordered;
};

/// Calls `found` with the position in `sought` and the row, for each of `positions` (whose keys have no null)
/// that there is under a new snapshot. The slot is good until `found` returns. False, without a call, where
/// the index cannot be used under that snapshot.
bool find_by_index(Relation table, const ProbedIndex&, const std::vector<Sought>& sought,
                   std::vector<size_t> positions, const std::function<void(size_t, TupleTableSlot*)>& found);

/// Raw code: whether the index knows nothing of rows that the active snapshot may still see.
bool is_too_young(Relation index);

}  // namespace portage::bridge
