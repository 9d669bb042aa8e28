// Many rows of a table by their keys, through one scan of a unique index: as a join would find them, without
// a plan. Knows nothing of items; who may look is the caller's affair.
#pragma once

#include "bridge/scope.hpp"
#include "pipeline/target.hpp"

namespace portage::load {

/// The values of the columns that are looked for, by attnum - 1.
struct Sought {
  const Datum* values;
  const bool* nulls;
};

class KeyLookup {
 public:
  /// A look-up by these columns; nothing where no unique index serves it.
  static std::optional<KeyLookup> make(const Target&, const std::vector<int>& columns);

  /// Calls `found` with the position in `sought` and the row, for each that there is under a new snapshot.
  /// The slot is good until `found` returns. False, without a call, where the index cannot be used now.
  bool find(Relation table, const std::vector<Sought>& sought,
            const std::function<void(size_t, TupleTableSlot*)>& found) const;

 private:
  Oid index_ = InvalidOid;
  std::vector<int> attnums_;  // of the index's columns
  bool ordered_ = false;      // none of them is ever null
  struct Compared {
    int attnum;
    Oid function, collation;
  };
  std::vector<Compared> rest_;  // columns that are looked for and not in the index
};

}  // namespace portage::load
