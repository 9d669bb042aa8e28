// Rows of the target as the writers hand them out: the columns that are read of a row, its hashes and its
// key's text. Knows nothing of how a row was found or written.
#pragma once

#include "load/writer.hpp"
#include "pipeline/hash.hpp"

namespace portage::load {

class RowReader {
 public:
  /// `hash_columns`: attnums that row_hash covers. The hashers live in `memory`.
  RowReader(Plan&, const std::vector<int>& hash_columns, MemoryContext memory);

  /// Attnums that are read of each row, ascending.
  const std::vector<int>& columns() const { return columns_; }
  const RowHasher& row_hasher() const { return row_hasher_; }

  /// A row copied into the batch's memory; under bridge::PlainText, for the key's text. From columns
  /// first_column.. of a tuple, in the order of columns(); from a slot of the target's own shape.
  Row read(Batch&, HeapTuple, TupleDesc, int first_column) const;
  Row read(Batch&, TupleTableSlot*) const;

 private:
  Row empty_row(Batch&) const;
  void finish(Batch&, Row&) const;

  Plan& plan_;
  std::vector<int> columns_;
  RowHasher row_hasher_;
};

/// A key's values from its text, through the input functions of the key's types, in the batch's memory; under
/// bridge::PlainText.
Datum* key_values(Batch&, const Plan&, std::string_view key);

/// Attnums of the columns for which an item brings values when it is inserted, ascending: mapped ones, and
/// those whose defaults the plan has evaluated already.
std::vector<int> inserted_columns(const Plan&);

}  // namespace portage::load
