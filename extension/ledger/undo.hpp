// Reading the ledger backwards: which items of a run are to be taken back, what was there before them, and
// the record that they were taken back.
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

/// An item that landed, or was found unchanged, and has not been taken back. Texts live in the arena given.
struct LandedItem {
  int64_t ordinal;
  int32_t revision;
  Outcome outcome;             ///< inserted, updated, or unchanged (then only its mapping may be the run's)
  std::string_view legacy_id;  ///< data() == nullptr: none
  std::string_view target_key;
  Mapping mapping;  ///< as it is now
  bool concerned;   ///< the run did something: false for an unchanged item whose mapping another run wrote
  bool has_undo;
  std::vector<std::string> columns;  ///< of the before-image
  std::vector<std::optional<std::string>> before;
  std::optional<int64_t> before_hash;
  bool row_taken = false;  ///< for write_rollback: its row was there and has been taken back
};

/// The next `limit` of them below an ordinal, highest first.
std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace&, int64_t below, int64_t limit,
                                     formats::Arena&);

/// Items that were taken back: new revisions, their mappings as before, and the batch row.
void write_rollback(int64_t run_id, const MappingSpace&, const std::vector<LandedItem*>& items,
                    const std::string& started_at);

}  // namespace portage::ledger
