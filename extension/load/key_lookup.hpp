// Rows of the target by columns that a unique index serves (bridge/index_probe). Knows nothing of items.
#pragma once

#include "bridge/index_probe.hpp"
#include "pipeline/target.hpp"

namespace portage::load {

/// Whether two rows cannot have the same values of these columns: a unique index stands on some of them.
bool are_unique(const Target&, const std::vector<int>& attnums);

class KeyLookup {
 public:
  /// A look-up by these columns, as long as the target lives; nothing where no unique index serves it.
  static std::optional<KeyLookup> make(const Target&, const std::vector<int>& columns);

  /// As bridge::find_by_index.
  bool find(Relation table, const std::vector<bridge::Sought>& sought,
            const std::function<void(size_t, TupleTableSlot*)>& found) const;

 private:
  const UniqueIndex* index_ = nullptr;  // of the target, whose OID it may change
  bool ordered_ = false;
  struct Compared {
    int attnum;
    Oid function, collation;
  };
  std::vector<Compared> rest_;  // columns that are looked for and not in the index
};

}  // namespace portage::load
