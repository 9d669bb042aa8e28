// The hash of a row that source_hash, row_hash and portage.row_hash() share: exact to the byte, and the same
// whatever the settings, over dump, restore and major versions. Knows types, not tables or items.
#pragma once

#include "bridge/guard.hpp"

namespace portage {

struct TypeHasher;

/// A row to be hashed, by attnum - 1, and where its hash goes.
struct HashedRow {
  const Datum* values;
  const bool* nulls;
  uint64_t* hash;
};

/// Hashes chosen columns of rows of one shape. A plain structure in the memory context given; trivially
/// copyable.
class RowHasher {
 public:
  RowHasher() = default;
  /// Raw code. `attnums` in the order of hashing (ascending); must stay valid only during the call.
  static RowHasher make_raw(TupleDesc shape, const int* attnums, int count, MemoryContext context);
  /// The same from C++.
  static RowHasher make(TupleDesc shape, const std::vector<int>& attnums, MemoryContext context);

  /// Raw code: may raise, only when a value cannot be read. `values` and `nulls` by attnum - 1.
  uint64_t operator()(const Datum* values, const bool* nulls) const;
  /// The same for many rows, in less time for each.
  void operator()(const HashedRow* rows, size_t count) const;

  /// The same without pinning settings, continuing `hash`: for rows within rows. Raw code.
  uint64_t chain(uint64_t hash, const Datum* values, const bool* nulls) const;

 private:
  struct Column {
    int index;
    TypeHasher* type;
  };
  int pin_settings() const;

  Column* columns_ = nullptr;
  int count_ = 0;
  bool needs_encoding_ =
      false;  // some type's bytes may depend on client_encoding, which is pinned per row then
  bool needs_output_ = false;  // some type's text is hashed, under pinned settings
};

/// Columns that a row hash covers by default: neither dropped nor generated. Raw code; returns their number,
/// fills `attnums` (room for shape->natts).
int hashable_columns(TupleDesc shape, int* attnums);

}  // namespace portage
