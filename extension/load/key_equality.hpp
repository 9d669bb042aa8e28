// When two keys are the same one: as the operators of their types say, under the collations of their columns.
// 1.0 is 1.00 and, in citext, Anna is ANNA, though their bytes differ. Knows nothing of items.
#pragma once

#include "bridge/index_probe.hpp"
#include "pipeline/hash.hpp"
#include "pipeline/target.hpp"

namespace portage::load {

class KeyEquality {
 public:
  KeyEquality(const Target&, const std::vector<int>& attnums);

  /// Equal keys are the same bytes.
  bool by_bytes() const { return by_bytes_; }
  /// Of these keys, by attnum - 1: equal ones have the same hash, among those of one call at least. What a
  /// key with a null has means nothing.
  std::vector<uint64_t> hashes(const std::vector<bridge::Sought>&) const;
  /// Whether two keys without nulls are equal.
  bool same(const Datum* one, const Datum* other) const;

 private:
  struct Column {
    int index;
    Oid type, collation;
    FmgrInfo* equal;
    FmgrInfo* hash;     // nullptr: the type has none; then there is an order
    FmgrInfo* compare;  // where there is no hash
    bool by_value;
    int16_t length;
  };
  void add_ranks(const Column&, const std::vector<bridge::Sought>&, std::vector<uint64_t>& hashes) const;

  bridge::Memory memory_;
  std::vector<Column> columns_;
  std::vector<int> attnums_;
  RowHasher hasher_;
  bool by_bytes_ = true;
};

}  // namespace portage::load
