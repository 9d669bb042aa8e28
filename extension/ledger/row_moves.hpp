// Where rows went that items knew by their keys: a later item may have given a row another key, and so may
// taking one back. A row is what its history says, not the key that was recorded once.
#pragma once

#include "ledger/undo.hpp"

namespace portage::ledger {

/// A row that has another key since, or none: then `to.data()` is nullptr.
struct RowMove {
  int64_t ordinal;
  std::string_view from, to;
};
/// Notes what an item, or taking it back, has done to the keys of rows; `batch_id` as next_batch_id() gives
/// it.
void write_row_moves(int64_t run_id, int64_t batch_id, const std::vector<RowMove>&);

/// Follows the rows of items of a run, by whichever run they were moved: fills in `row_key` and `stays`.
void follow_rows(int64_t run_id, const std::vector<LandedItem*>&, formats::Arena&);

/// Follows the mappings of items that these have and that are not theirs, back to those that they wrote: an
/// unchanged item that had written one is concerned; and fills in `inserted_since`.
void follow_mappings(int64_t run_id, const std::vector<LandedItem*>&, formats::Arena&);

}  // namespace portage::ledger
