// Mappings out of results: what reading and writing for a rollback share (undo.cpp, undo_write.cpp,
// missing*.cpp).
#pragma once

#include "ledger/arrays.hpp"
#include "ledger/items.hpp"

namespace portage::ledger {

/// Seven columns of a result, from `first` on, as a mapping.
inline Mapping mapping_of(const bridge::Result& rows, size_t row, int first, formats::Arena& arena) {
  if (rows.is_null(row, first)) return {};
  bool has_image = !rows.is_null(row, first + 6);
  return {true,
          arena.copy(rows.text(row, first)),
          rows.text(row, first + 1)[0],
          rows.bigint(row, first + 2),
          rows.bigint(row, first + 3),
          rows.bigint(row, first + 4),
          rows.bigint(row, first + 5),
          {},
          -1,
          has_image,
          has_image ? arena.copy(rows.text(row, first + 6)) : std::string_view()};
}

/// The key under which a row of missing_rows, called d, was deleted: that of its mapping is another one by
/// the time that the run which had given the row this key is taken back.
constexpr const char* key_when_deleted =
    "coalesce((SELECT v.from_key FROM portage.row_moves v WHERE v.run_id = d.run_id AND v.ordinal = -d.seq "
    "AND v.batch_id = d.batch_id), d.target_key)";

}  // namespace portage::ledger
